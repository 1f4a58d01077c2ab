"""meshwake guard install | status | uninstall | alerts: the wake guard in a cluster that is to keep it.

Exit codes: 0 every node is guarded, 1 (status) one is not, 3 what was given is wrong, 4 the cluster
cannot be reached or the guard cannot be installed there. Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshwake.cli.options import (
    ClusterNameOption,
    ContextOption,
    JsonOption,
    KubeconfigOption,
    ZtunnelNamespaceOption,
)
from meshwake.cli.output import CommandExit, print_json, print_text, say
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.errors import BadInput, ExitCode, LabUnavailable
from meshwake.core.extras import require
from meshwake.core.json_types import MutableJsonObject

if TYPE_CHECKING:
    from meshwake.cluster.cluster import Cluster
    from meshwake.cluster.guard_deployment.install import Installed
    from meshwake.cluster.guard_deployment.status import NodeStatus
    from meshwake.kubernetes.api import Kubernetes

RUNBOOKS = "docs/runbooks/README.md"
ImageOption = Annotated[
    str | None, typer.Option("--image", metavar="IMAGE", help="One that your nodes can have.")
]
GatewayNamespaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway-namespace",
        metavar="NAME",
        help="Look after the gateways and waypoints there as well; may be repeated.",
    ),
]
PrintOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", "--print", help="Print the manifest, for kubectl apply -f -; ask no cluster."
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="KEY=VALUE", help="A label by which your Prometheus chooses its rules."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Adds `guard` with its commands to `app`."""
    guard = typer.Typer(help="The wake guard in a cluster: install it, look after it, remove it.")
    guard.command("install")(install)
    guard.command("status")(status)
    guard.command("uninstall")(uninstall)
    guard.command("alerts")(alerts)
    app.add_typer(guard, name="guard")


# --- install --------------------------------------------------------------------------------------


def install(
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    name: ClusterNameOption = None,
    namespace: ZtunnelNamespaceOption = None,
    gateway_namespace: GatewayNamespaceOption = None,
    image: ImageOption = None,
    print_manifest: PrintOption = False,
) -> None:
    """Install the wake guard, and wait until it looks on every node."""
    gateways = tuple(dict.fromkeys(gateway_namespace or ()))
    if print_manifest:
        _print_manifest(namespace, gateways, image)
        return
    require("kind")
    from meshwake.cluster.guard_deployment.install import find_places
    from meshwake.cluster.guard_deployment.install import install as install_guard
    from meshwake.cluster.real_time import SystemTime

    # Where it looks is decided before the cluster is held: a typing error should change nothing.
    with _opened(kubeconfig, context, name) as place:
        places = find_places(place.kubernetes, namespace, gateways)
        chosen = image or _image_for(place)
        with place.held("guard install"):
            done = install_guard(place.kubernetes, SystemTime(), places, chosen, _say_once())
    print_text("\n".join(_installed_lines(done)))


def _print_manifest(namespace: str | None, gateways: tuple[str, ...], image: str | None) -> None:
    """As it would be applied where istiod runs in istio-system."""
    from meshwake.cluster.guard_deployment.image import build_command, published_image
    from meshwake.cluster.guard_deployment.manifest import as_yaml, guard_objects
    from meshwake.guard.cluster import Places
    from meshwake.ztunnel.names import ISTIO_NAMESPACE

    if image is None and published_image() is None:
        say(f"note: its image is not published; build it first: {build_command()}")
    places = Places(namespace or ISTIO_NAMESPACE, gateways=gateways)
    print_text(as_yaml(guard_objects(places, image)).rstrip("\n"))


def _image_for(place: _Place) -> str:
    """Ours is built and loaded into the nodes of a cluster of ours, as a run does it; elsewhere it
    is the published one. Raises LabUnavailable where there is none."""
    from meshwake.cluster.guard_deployment.image import no_image, published_image

    if place.ours is not None:
        return _built_and_loaded(place.ours)
    published = published_image()
    if published is None:
        raise no_image(place.kubernetes.all("Node"))
    return published


def _built_and_loaded(cluster: Cluster) -> str:
    from meshwake.cli.cluster import say_progress
    from meshwake.cluster.cluster import provide_image
    from meshwake.cluster.docker import open_engine
    from meshwake.cluster.stack.own_images import GUARD
    from meshwake.cluster.stack.pins import read_pins
    from meshwake.cluster.tools import find_tools

    pins = read_pins()
    tools = find_tools({"kind": pins.tools.kind, "helm": pins.tools.helm})
    engine = open_engine()
    try:
        provide_image(cluster, GUARD, engine, tools, say_progress)
    finally:
        engine.close()
    return GUARD.reference


def _installed_lines(done: Installed) -> Iterator[str]:
    from meshwake.cluster.guard_deployment.alerts import RULES
    from meshwake.guard import names

    yield f"the wake guard looks on {_count(len(done.nodes), 'node')}: {', '.join(done.nodes)}"
    yield f"  image      {done.image}"
    where = ", ".join(done.places.with_gateways)
    yield f"  looks in   {where}; it has no right elsewhere"
    if done.unwatched:
        options = " ".join(f"--gateway-namespace {each}" for each in done.unwatched)
        yield f"  not looked after: the gateways and waypoints in {', '.join(done.unwatched)}"
        yield f"             (meshwake guard install {options})"
    for each in done.removed:
        yield f"  removed    {each}, of an earlier install"
    yield f"  metrics    port {names.METRICS_PORT}, /metrics, of each pod in {names.NAMESPACE}"
    yield f"  alerts     {RULES}"
    yield "             with the Prometheus Operator: meshwake guard alerts | kubectl apply -f -"
    yield f"  runbooks   {RUNBOOKS}, a page for each alert"
    yield "  next       meshwake guard status; to remove it: meshwake guard uninstall"


# --- status ---------------------------------------------------------------------------------------


def status(
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    name: ClusterNameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show for each node what its guard runs and has seen: drift, restarts, what was held back."""
    require("kind")
    from meshwake.cluster.guard_deployment.status import read_status

    now_s = time.time()
    with _opened(kubeconfig, context, name) as place:
        found = read_status(place.kubernetes, now_s)

    # Every node is listed, with or without a pod; none at all means that it was never installed.
    if not any(each.pod for each in found):
        raise LabUnavailable("no wake guard in this cluster; install it: meshwake guard install")
    if as_json:
        print_json({"nodes": [_status_json(each) for each in found]})
    else:
        print_text("\n".join(line for each in found for line in _status_lines(each, now_s)))
    if any(each.problem for each in found):
        raise CommandExit(ExitCode.SURPRISE)


def _status_json(each: NodeStatus) -> MutableJsonObject:
    """Times are RFC 3339 of the node's own wall clock, lengths are seconds."""
    metrics = each.metrics
    return {
        "node": each.node,
        "pod": each.pod or None,
        "image": each.image or None,
        "problem": each.problem or None,
        "last_look": _stamp(metrics.last_look_wall_s),
        "drift_s": dict(metrics.drift_s),
        "restarts": dict(metrics.restarts),
        "held_back": dict(metrics.held_back),
    }


def _status_lines(each: NodeStatus, now_s: float) -> Iterator[str]:
    metrics = each.metrics
    yield f"{each.node}: {each.problem or 'guarded'}"
    if not each.pod:
        return  # the problem says it
    yield f"  image      {each.image}"

    # Its metrics could not be read, or it has not looked yet: `problem` has the reason.
    if metrics.last_look_wall_s is None:
        return
    ago = _length(now_s - metrics.last_look_wall_s)
    yield f"  last look  {ago} ago, {_stamp(metrics.last_look_wall_s)}"
    drifts = [f"{process} {_length(drift_s)}" for process, drift_s in metrics.drift_s.items()]
    yield f"  drift      {', '.join(drifts) or 'no process that serves certificates'}"
    yield f"  restarts   {_counts(metrics.restarts.items())}"
    yield f"  held back  {_counts(metrics.held_back.items())}"


def _counts(counted: Sequence[tuple[str, int]] | Any) -> str:
    return ", ".join(f"{name} {number}" for name, number in counted if number) or "none"


def _stamp(wall_s: float | None) -> str | None:
    if wall_s is None:
        return None
    return datetime.fromtimestamp(int(wall_s), UTC).isoformat().replace("+00:00", "Z")


def _length(length_s: float) -> str:
    return format_duration(round(length_s) * NS_PER_S)


# --- uninstall, alerts ----------------------------------------------------------------------------


def uninstall(
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    name: ClusterNameOption = None,
) -> None:
    """Remove what install made, and nothing else."""
    require("kind")
    from meshwake.cluster.guard_deployment.install import uninstall as uninstall_guard
    from meshwake.cluster.real_time import SystemTime
    from meshwake.guard import names

    with (
        _opened(kubeconfig, context, name) as place,
        place.held("guard uninstall"),
    ):
        done = uninstall_guard(place.kubernetes, SystemTime())
    if not done.removed:
        print_text("nothing of the wake guard was there")
    for each in done.removed:
        print_text(f"removed {each}")
    if done.kept:
        print_text(f"Namespace {names.NAMESPACE} stays: {done.kept} is in it")


def alerts(label: LabelOption = None) -> None:
    """Print the alert rules and the scrape configuration for the Prometheus Operator."""
    from meshwake.cluster.guard_deployment.alerts import alert_objects
    from meshwake.cluster.guard_deployment.manifest import as_yaml

    labels = dict(_label(text) for text in label or ())
    print_text(as_yaml(alert_objects(labels)).rstrip("\n"))


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise BadInput(f"--label {text}: expected KEY=VALUE")
    return key, value


# --- The cluster ----------------------------------------------------------------------------------


class _Place:
    """An open cluster; `ours` None: one that meshwake did not create."""

    def __init__(self, kubernetes: Kubernetes, ours: Cluster | None) -> None:
        self.kubernetes, self.ours = kubernetes, ours

    def held(self, doing: str) -> AbstractContextManager[object]:
        """No run may use a cluster of ours meanwhile. Another cluster gets no Lease of ours: there
        the objects themselves say whether a run is at work."""
        from meshwake.cluster.hold import hold
        from meshwake.cluster.real_time import SystemTime

        if self.ours is None:
            return nullcontext()
        return hold(self.kubernetes, SystemTime(), self.ours.name, doing)


@contextmanager
def _opened(kubeconfig: Path | None, context: str | None, name: str | None) -> Iterator[_Place]:
    """The cluster that was named, or that of the current context. Raises BadInput,
    LabUnavailable."""
    from meshwake.kubernetes.kubeconfig import read_access
    from meshwake.kubernetes.through_kr8s import connect

    # A cluster of ours has its kubeconfig in our state directory, and need not be in the user's.
    if name is not None:
        if kubeconfig is not None or context is not None:
            raise BadInput("--name and --kubeconfig: give one of the two")
        cluster = _ours(name)
        with cluster.opened() as kubernetes:
            yield _Place(kubernetes, cluster)
        return
    kubernetes = connect(read_access(kubeconfig, context))
    try:
        yield _Place(kubernetes, None)
    finally:
        kubernetes.close()


def _ours(name: str) -> Cluster:
    from meshwake.cluster.cluster import find_cluster
    from meshwake.cluster.stack.choice import full_name

    cluster = find_cluster(full_name(name))
    if cluster is None:
        raise BadInput(
            f"--name {name}: no cluster of ours is up under that name; bring it up: meshwake up "
            f"--name {name}, or name another cluster with --kubeconfig"
        )
    return cluster


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _say_once() -> Any:
    """Says each thing that is waited for once, not every two seconds."""
    last = ""

    def report(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            say(f"waiting: {text}")

    return report
