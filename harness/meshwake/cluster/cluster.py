"""Operations on clusters: bring up, find, check, delete; or use an existing one.

Clusters that meshwake creates are named meshwake-SOMETHING, and only those are ever deleted. An
existing cluster is not changed by anything here; what a run applies to it carries our label and is
deleted at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from meshwake.cluster.bring_up_context import BringUpContext, Dependencies, node_names, read_facts
from meshwake.cluster.docker import KIND_CLUSTER_LABEL, LOOK_LABEL, Engine
from meshwake.cluster.failures import collect
from meshwake.cluster.health import HealthFinding, examine
from meshwake.cluster.helper_image import own_image_step
from meshwake.cluster.observe import Running, running_versions
from meshwake.cluster.real_time import SystemTime
from meshwake.cluster.reset import restore_after_kill
from meshwake.cluster.stack.choice import Choice, is_our_name
from meshwake.cluster.stack.own_images import OwnImage
from meshwake.cluster.stack.pins import Pins, read_pins
from meshwake.cluster.stack.render import stages
from meshwake.cluster.stages import stage_drift
from meshwake.cluster.state import ClusterState, known_names
from meshwake.cluster.steps import BringUpStep, Collected, Progress, StepFailed, run_steps
from meshwake.cluster.tools import Tools
from meshwake.cluster.up import steps_of
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.json_types import JsonObject, text_at, texts_at
from meshwake.core.outcome import Verdict
from meshwake.kubernetes.api import Kubernetes
from meshwake.kubernetes.kubeconfig import Access, read_access
from meshwake.kubernetes.through_kr8s import ThroughKr8s, connect

# A personal cluster has fewer nodes.
NODES_AT_MOST = 10
_MANAGED_BY_A_CLOUD = re.compile(
    r"\.eks\.amazonaws\.com$|\.azmk8s\.io$|\.gke\.goog$|\.k8s\.ondigitalocean\.com$|\.ibm\.com$|\.oraclecloud\.com$"
    r"|\.linodelke\.net$|\.scw\.cloud$|\.ovh\.net$|\.openshiftapps\.com$|\.aliyuncs\.com$",
    re.IGNORECASE,
)
_CLOUD_PROVIDERS = (
    "aws",
    "azure",
    "gce",
    "digitalocean",
    "ibm",
    "oci",
    "linode",
    "openstack",
    "scaleway",
)
_SAYS_PRODUCTION = re.compile(r"(^|[^a-z])(prod|production|prd|live)([^a-z]|$)", re.IGNORECASE)
_CLOUD_LOGINS = (
    "aws",
    "aws-iam-authenticator",
    "gke-gcloud-auth-plugin",
    "kubelogin",
    "gcloud",
    "doctl",
    "oci",
)


@dataclass(frozen=True)
class Cluster:
    """A cluster. `ours`: created by meshwake, which may delete it. `choice` None: an existing
    cluster. `nodes`: the names of its Kubernetes nodes, workers first."""

    name: str
    kubeconfig: Path
    context: str | None
    ours: bool
    choice: Choice | None
    nodes: tuple[str, ...]

    @contextmanager
    def opened(self) -> Iterator[Kubernetes]:
        """An API client, closed at the end of the block."""
        opened = connect(self.kubeconfig, self.context)
        try:
            yield opened
        finally:
            opened.close()


def bring_up(
    choice: Choice,
    pins: Pins,
    engine: Engine,
    tools: Tools,
    report: Callable[[Progress], None],
    *,
    folder: Path | None = None,
    dependencies: Dependencies | None = None,
    own_images: Iterable[OwnImage] = (),
    further_images: tuple[str, ...] = (),
    before: tuple[BringUpStep[BringUpContext], ...] = (),
    locked: bool = False,
) -> Cluster:
    """The cluster `choice`, brought up, or kept where it is up already. `folder` has charts/,
    images/ and manifests/ for a machine without a network; `own_images` are built and put in too
    (helper_image.py), `further_images` as far as they are at hand; `before`: steps that are taken
    before anything is made; `locked`: the caller holds the lock of its state. Raises StepFailed
    that names the step, quotes the true reason where one is found, and says where everything was
    collected that may explain it; another call goes on from there."""
    state = ClusterState.of(choice.name)
    # Looked at before the lock makes the directory.
    unknown_before = not state.directory.exists()
    with nullcontext() if locked else state.lock("up"):
        dependencies = dependencies or Dependencies(health=_broken, undo=_undo)
        bringup = BringUpContext(
            choice, pins, engine, tools, state, dependencies, state.remembered_folder(folder)
        )
        try:
            run_steps(
                steps_of(choice, pins, before, own_images, further_images),
                bringup,
                report,
                lambda step, error: collect(bringup, step, error),
                bringup.dependencies.real,
            )
        except StepFailed as error:
            if unknown_before and error.evidence is None:
                _forget_what_never_was(bringup)
            raise
        finally:
            bringup.forget_kube()
    return _ours(state, choice, node_names(choice, pins))


def provide_image(
    cluster: Cluster,
    image: OwnImage,
    engine: Engine,
    tools: Tools,
    report: Callable[[Progress], None],
) -> None:
    """Builds an image of ours and puts it into every node of a cluster of ours, as a run does that
    needs it. Raises StepFailed."""
    assert cluster.choice is not None, "only a cluster of ours has a choice"
    state = ClusterState.of(cluster.name)
    with state.lock(f"the image of {image.what}"):
        bringup = BringUpContext(
            cluster.choice,
            read_pins(),
            engine,
            tools,
            state,
            Dependencies(),
            state.remembered_folder(None),
        )
        run_steps(
            (own_image_step(image),),
            bringup,
            report,
            lambda step, error: collect(bringup, step, error),
            bringup.dependencies.real,
        )


def _forget_what_never_was(bringup: BringUpContext) -> None:
    """Remove the state of an `up` that was refused before any container was created."""
    with suppress(LabUnavailable):
        if not bringup.containers():
            bringup.state.forget()


def _broken(bringup: BringUpContext) -> list[str]:
    """Dependencies.health of a real cluster: UNKNOWN does not fail `up`; `status` shows it."""
    nodes = node_names(bringup.choice, bringup.pins)
    cluster = _ours(bringup.state, bringup.choice, nodes)
    findings = check_health(cluster, bringup.engine)
    return [str(finding) for finding in findings if finding.verdict is Verdict.BROKEN]


def _undo(bringup: BringUpContext) -> list[str]:
    """Dependencies.undo of a real cluster."""
    cluster = _ours(bringup.state, bringup.choice, ())
    with cluster.opened() as kubernetes:
        return restore_after_kill(kubernetes, SystemTime(), bringup.name, "up")


def _ours(state: ClusterState, choice: Choice | None, nodes: tuple[str, ...]) -> Cluster:
    return Cluster(state.name, state.kubeconfig, None, ours=True, choice=choice, nodes=nodes)


def check_health(cluster: Cluster, engine: Engine | None = None) -> list[HealthFinding]:
    """Run the health checks. `engine` is used to inspect nodes of our own clusters; without it what
    only they can report is UNKNOWN."""
    try:
        with cluster.opened() as kubernetes:
            return examine(
                kubernetes, cluster.nodes, cluster.choice, engine if cluster.ours else None
            )
    except HarnessError as error:
        return [HealthFinding("api", Verdict.UNKNOWN, str(error))]


def find_drift(cluster: Cluster) -> list[str]:
    """What has been changed in a cluster of ours since `up`, one sentence each; `up` restores it.
    During a run this includes the run's own changes."""
    if cluster.choice is None:
        return []
    facts = read_facts(ClusterState.of(cluster.name))
    if facts is None:
        return []

    found: list[str] = []
    with cluster.opened() as kubernetes:
        for stage in stages(cluster.choice, read_pins(), facts):
            # A stage that cannot be compared is reported, and does not hide the others.
            try:
                changes = stage_drift(kubernetes, stage)
            except HarnessError as error:
                found.append(f"{stage.name}: {error}")
            else:
                found += [str(changed) for changed in changes]
    return found


def find_versions(cluster: Cluster) -> Running:
    """The versions that the cluster's own programs report."""
    with cluster.opened() as kubernetes:
        return running_versions(kubernetes, cluster.nodes)


def find_cluster(name: str) -> Cluster | None:
    """The cluster `name` that was made here and has been up; None when there is none. Asks neither
    engine nor cluster: `bring_up` with the same choice does, and costs seconds when all is well."""
    state = ClusterState.of(name)
    record = state.read()
    if record is None or record.choice is None:
        return None

    # Half made: an `up` that was killed has no time of its end, or no kubeconfig yet.
    if record.up_wall_s is None:
        return None
    if not state.kubeconfig.is_file():
        return None

    nodes = node_names(record.choice, read_pins())
    return _ours(state, record.choice, nodes)


# Deleting


def take_down(name: str, engine: Engine, report: Callable[[Progress], None]) -> None:
    """Delete the containers and the state of the cluster `name`, as far as they exist: also those
    of one that is half created, or whose state is lost. BadInput for a name that cannot be ours."""
    state = ClusterState.of(name)
    with state.lock("down"):
        steps = _down_steps(name)
        run_steps(
            steps,
            _Ending(state, engine, report),
            report,
            lambda step, error: Collected(None),
            SystemTime(),
        )


@dataclass(frozen=True)
class _Ending:
    state: ClusterState
    engine: Engine
    report: Callable[[Progress], None]


def _down_steps(name: str) -> tuple[BringUpStep[_Ending], ...]:
    return (
        BringUpStep(
            "machines",
            f"containers of {name}",
            300,
            lambda ending, watch: _remove_machines(name, ending.engine),
            (f"remove every container labelled {KIND_CLUSTER_LABEL}={name}, with its volumes",),
            done=lambda ending: (
                None if ending.engine.containers({KIND_CLUSTER_LABEL: name}) else "none is there"
            ),
        ),
        BringUpStep(
            "state",
            "what is remembered of it",
            30,
            lambda ending, watch: ending.state.forget(),
            (f"remove <state>/{name}: kubeconfig, logs, failures",),
        ),
    )


def _remove_machines(name: str, engine: Engine) -> None:
    for machine in engine.containers({KIND_CLUSTER_LABEL: name}):
        engine.remove(machine.id)

    # A machine that could not be removed keeps the state, which the next step would forget.
    left = engine.containers({KIND_CLUSTER_LABEL: name})
    if left:
        raise LabUnavailable(
            f"still there after removing: {', '.join(machine.name for machine in left)}; try again"
        )


def our_clusters(engine: Engine | None) -> tuple[str, ...]:
    """Every cluster of ours: those with a state here, and those with containers in the engine."""
    names = set(known_names())
    # A cluster may be made by another user of the engine, or its state may be lost.
    if engine is not None:
        names |= {
            machine.labels[KIND_CLUSTER_LABEL]
            for machine in engine.containers({KIND_CLUSTER_LABEL: None})
        }
    return tuple(sorted(filter(is_our_name, names)))


def remove_looks(engine: Engine) -> int:
    """Remove probe containers that a killed harness left; returns their number."""
    removed = 0
    for look in engine.containers({LOOK_LABEL: None}):
        # One that runs may belong to a command that is at work now.
        if look.state == "running":
            continue
        engine.remove(look.id)
        removed += 1
    return removed


# Plans


class PrintedStep(TypedDict):
    """A step of `up` or `down` as `--plan` prints it."""

    step: str
    title: str
    within_s: float
    does: list[str]
    awaits: list[str]


def plan_up(choice: Choice, pins: Pins) -> list[PrintedStep]:
    """What `up` would do, one object for each step; queries and changes nothing."""
    steps = steps_of(choice, pins)
    return [_planned(step) for step in steps]


def plan_down(name: str) -> list[PrintedStep]:
    """What `down` would do."""
    steps = _down_steps(name)
    return [_planned(step) for step in steps]


def _planned(step: BringUpStep[Any]) -> PrintedStep:
    return {
        "step": step.name,
        "title": step.title,
        "within_s": step.within_s,
        "does": list(step.plan),
        "awaits": list(step.awaits),
    }


# Existing clusters


def existing_cluster(
    kubeconfig: Path,
    context: str | None,
    *,
    known_as: str | None = None,
    connect: Callable[[Path, str | None], Kubernetes] = ThroughKr8s,
) -> Cluster:
    """The cluster of a context of `kubeconfig` (None: the current context); nothing is changed.

    BadInput when the file has no such context, or when it looks like a cluster that people depend
    on, unless `known_as` is exactly the name of that context. LabUnavailable when it does not
    answer."""
    access = read_access(kubeconfig, context)
    name = access.context
    reasons = [*_signs_in_kubeconfig(access)]
    kube = connect(kubeconfig, name)
    try:
        # Where the name is reason enough, no request is sent.
        nodes = kube.all("Node") if not reasons or known_as == name else []
    finally:
        kube.close()
    reasons += _signs_in_nodes(nodes)

    # By its exact name: --i-know of another context, left in a script, must not let this one pass.
    if reasons and known_as != name:
        raise BadInput(
            f"{kubeconfig}: context {name!r} looks like a cluster that people depend on: "
            f"{'; '.join(reasons)}. "
            f"Runs break connections on purpose. If it is yours to break, say: --i-know {name}"
        )
    return Cluster(name, kubeconfig, name, ours=False, choice=None, nodes=_workers_first(nodes))


def _signs_in_kubeconfig(access: Access) -> Iterator[str]:
    """Why a context looks like production, from its kubeconfig."""
    host = urlsplit(access.server).hostname
    if host is None:
        # Without a scheme it is taken for a path.
        host = access.server
    if _MANAGED_BY_A_CLOUD.search(host):
        yield f"its server {host} belongs to a cloud"

    # A client certificate needs no program.
    if access.login_program is not None:
        command = Path(access.login_program).name
        if command in _CLOUD_LOGINS:
            yield f"one logs in to it with {command}"

    if any(_SAYS_PRODUCTION.search(name) for name in (access.context, host)):
        yield "its name says so"


def _signs_in_nodes(nodes: Sequence[JsonObject]) -> Iterator[str]:
    """Why a cluster looks like production, from its nodes."""
    if len(nodes) > NODES_AT_MOST:
        yield f"it has {len(nodes)} nodes"

    # A cloud's controller writes it: aws:///eu-central-1a/i-0123, gce://PROJECT/ZONE/NAME.
    provider_ids = [text_at(node, "spec", "providerID") for node in nodes]
    providers = {provider_id.partition(":")[0] for provider_id in provider_ids}
    clouds = sorted(providers & set(_CLOUD_PROVIDERS))
    if clouds:
        yield f"its nodes belong to {', '.join(clouds)}"


def _workers_first(nodes: Sequence[JsonObject]) -> tuple[str, ...]:
    def key(node: JsonObject) -> tuple[bool, str]:
        labels = texts_at(node, "metadata", "labels")
        return "node-role.kubernetes.io/control-plane" in labels, text_at(node, "metadata", "name")

    return tuple(text_at(node, "metadata", "name") for node in sorted(nodes, key=key))
