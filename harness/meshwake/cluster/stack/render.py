"""From a choice to everything that is installed, in order, and what must be true after each step.

Values and manifests are YAML in clusters/; here only that is filled in which changes from
choice to choice: names, versions, images, addresses, how long certificates live. Nothing here
speaks to a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from packaging.version import Version

from meshwake.cluster.stack.certificates import certificate_images, certificate_stages
from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.config import with_images
from meshwake.cluster.stack.mirror import is_built_here, mirrored_stage, through_mirror
from meshwake.cluster.stack.observability import observability_stages
from meshwake.cluster.stack.pieces import (
    CILIUM_NAMESPACE,
    METALLB_NAMESPACE,
    Chart,
    Facts,
    Objects,
    RemoteManifest,
    Stage,
    image_references,
    labelled_objects,
    read_objects,
    read_values,
)
from meshwake.cluster.stack.pins import Pins, gateway_api_manifest, minor_of, pinned_chart
from meshwake.cluster.stack.workloads import workload_images
from meshwake.core.json_types import JsonObject, object_at
from meshwake.ztunnel.names import ISTIO_NAMESPACE

# Nothing is fetched from it: any range will do to work out what a cluster is made of.
_ANY_FACTS = Facts(pool="192.0.2.1-192.0.2.4")
# Istio's images as its charts name them; profile ambient takes the distroless variant of each, from
# 1.22 on.
ISTIO_IMAGES = ("pilot", "install-cni", "ztunnel", "proxyv2")
ISTIO_VARIANT = "distroless"
# From this minor on istio-cni can keep a file of its own, which a Cilium agent that restarts
# leaves alone.
CNI_FILE_OF_ITS_OWN = Version("1.27")


def kind_config(choice: Choice, pins: Pins) -> dict[str, Any]:
    """What `kind create cluster --config` takes."""
    (config,) = read_objects("kind", "cluster.yaml")
    config["name"] = choice.name

    # Without Cilium kind's own kindnet is the CNI.
    config["networking"]["disableDefaultCNI"] = "cilium" in choice.parts
    control_plane, worker = config["nodes"]
    config["nodes"] = [control_plane, *(deepcopy(worker) for _ in range(choice.workers))]
    for node in config["nodes"]:
        node["image"] = node_image(choice, pins)
    return config


def node_image(choice: Choice, pins: Pins) -> str:
    """The image of which the machines are made; the engine pulls it, not the cluster."""
    return through_mirror(pins.kubernetes[choice.kubernetes].node_image, choice.mirror)


def stages(choice: Choice, pins: Pins, facts: Facts) -> tuple[Stage, ...]:
    """Every step after `kind create cluster`, in the order in which they must be done."""
    parts: list[tuple[bool, Iterable[Stage]]] = [
        (True, [_gateway_api(choice, pins)]),
        ("cilium" in choice.parts, [_cilium(choice, pins)]),
        (True, [_nodes()]),
        ("metallb" in choice.parts, [_metallb(pins), _pool(facts)]),
        ("istio" in choice.parts, _istio(choice, pins)),
        (True, [_demo(choice, pins)]),
        ("cert-manager" in choice.parts, certificate_stages(choice, pins, facts.seed)),
        ("waypoint" in choice.parts, [_waypoint()]),
        ("gateway" in choice.parts, [_gateway(choice)]),
        ("observability" in choice.parts, observability_stages(choice, pins)),
    ]
    chosen = [stage for wanted, some in parts if wanted for stage in some]
    return tuple(mirrored_stage(stage, choice.mirror, pins) for stage in chosen)


def images(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """Every image that the cluster will pull, and a run in it; sorted. The nodes' own is
    `node_image`; what is built here is in own_images.py."""
    found = {*workload_images(pins), *chart_images(choice, pins)}
    for stage in stages(replace(choice, mirror=None), pins, _ANY_FACTS):
        for piece in stage.pieces:
            # Charts are in chart_images: what they start is known only when helm renders them.
            if isinstance(piece, Objects):
                found.update(image_references(piece.objects))

    pulled = [image for image in found if not is_built_here(image)]
    return tuple(sorted(through_mirror(image, choice.mirror) for image in pulled))


def chart_images(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """Every image that charts start, or that istiod starts later; as its project names it."""
    pinned_by_part = {
        "cilium": ("cilium", "cilium-operator"),
        "hubble": ("hubble-relay", "hubble-ui", "hubble-ui-backend"),
        "metallb": ("metallb-controller", "metallb-speaker"),
    }
    found: list[str] = []
    for part, names in pinned_by_part.items():
        if part in choice.parts:
            found += [pins.images[name] for name in names]

    if "istio" in choice.parts:
        found += istio_images(choice, pins)
    if "cert-manager" in choice.parts:
        found += certificate_images(pins)
    return tuple(found)


def istio_images(choice: Choice, pins: Pins) -> list[str]:
    """Istio's images of the chosen release; proxyv2 is that of waypoints and gateways."""
    used = list(ISTIO_IMAGES)
    if choice.parts.isdisjoint({"waypoint", "gateway"}):
        used.remove("proxyv2")

    hub = pins.istio_minor(choice.istio).hub
    tag = f"{choice.istio}-{ISTIO_VARIANT}"
    return [f"{hub}/{image}:{tag}" for image in used]


def _gateway_api(choice: Choice, pins: Pins) -> Stage:
    name = gateway_api_manifest(pins.istio_minor(choice.istio))
    return Stage(
        name="gateway-api",
        title=f"definitions of the Gateway API ({name.rpartition('-')[2]})",
        pieces=(RemoteManifest(name, pins.manifests[name]),),
        others=(("CustomResourceDefinition.apiextensions.k8s.io", None, None),),
    )


def _cilium(choice: Choice, pins: Pins) -> Stage:
    return Stage(
        name="cilium",
        title=f"Cilium {pins.charts['cilium'].version}",
        pieces=(pinned_chart("cilium", CILIUM_NAMESPACE, pins, cilium_values(choice, pins)),),
    )


def cilium_values(choice: Choice, pins: Pins) -> dict[str, Any]:
    """The values of chart cilium: those of values.yaml, and those of the parts that are on."""
    hubble, observed = "hubble" in choice.parts, "observability" in choice.parts
    values = read_values("cilium", "values.yaml")
    values["image"]["override"] = pins.images["cilium"]
    values["operator"]["image"]["override"] = pins.images["cilium-operator"]

    # A file of values for each combination; the last one needs both parts.
    if hubble:
        values = merged(values, read_values("cilium", "hubble.yaml"))
        values["hubble"]["relay"]["image"]["override"] = pins.images["hubble-relay"]
        values["hubble"]["ui"]["frontend"]["image"]["override"] = pins.images["hubble-ui"]
        values["hubble"]["ui"]["backend"]["image"]["override"] = pins.images["hubble-ui-backend"]
    if observed:
        values = merged(values, read_values("cilium", "metrics.yaml"))
    if hubble and observed:
        values = merged(values, read_values("cilium", "hubble-metrics.yaml"))
    return values


def _nodes() -> Stage:
    return Stage(
        name="nodes",
        title="all nodes ready",
        pieces=(),
        others=(("Node", None, None), ("Deployment.apps", "kube-system", "coredns")),
    )


def _metallb(pins: Pins) -> Stage:
    return Stage(
        name="metallb",
        title=f"MetalLB {pins.charts['metallb'].version}",
        pieces=(
            labelled_objects("metallb-namespace", read_objects("metallb", "namespace.yaml")),
            pinned_chart("metallb", METALLB_NAMESPACE, pins, metallb_values(pins)),
        ),
    )


def metallb_values(pins: Pins) -> dict[str, Any]:
    """The values of chart metallb."""
    values = read_values("metallb", "values.yaml")
    for program in ("controller", "speaker"):
        repository, _, tag = pins.images[f"metallb-{program}"].rpartition(":")
        values[program]["image"].update(repository=repository, tag=tag)
    return values


def _pool(facts: Facts) -> Stage:
    pool, advertisement = read_objects("metallb", "pool.yaml")
    pool["spec"]["addresses"] = [facts.pool]
    return Stage(
        name="metallb-pool",
        title="addresses for load balancers",
        # Refused until MetalLB's webhook answers, which is some seconds after its pod is ready.
        pieces=(labelled_objects("metallb-pool", [pool, advertisement]),),
    )


def _istio(choice: Choice, pins: Pins) -> list[Stage]:
    """Base, istiod, CNI, ztunnel: each needs the one before it."""
    charts = ("base", "istiod", "cni", "ztunnel")
    return [_istio_stage(choice, pins, chart) for chart in charts]


def _istio_stage(choice: Choice, pins: Pins, chart: str) -> Stage:
    release = {"base": "istio-base", "cni": "istio-cni"}.get(chart, chart)
    values = istio_values(chart, choice, pins)
    return Stage(
        name=release,
        title=f"Istio {choice.istio}: {chart}",
        pieces=(Chart(release, ISTIO_NAMESPACE, chart, pins.istio.repo, choice.istio, values),),
    )


def istio_values(chart: str, choice: Choice, pins: Pins) -> dict[str, Any]:
    """The values of one of Istio's charts: base, istiod, cni, ztunnel."""
    values = read_values("istio", f"{chart}.yaml")
    place = {"hub": pins.istio_minor(choice.istio).hub, "tag": choice.istio}
    life = f"{choice.lifetime_s}s"
    if chart in {"istiod", "cni"}:
        values["global"].update(place)

    if chart == "cni" and Version(minor_of(choice.istio)) >= CNI_FILE_OF_ITS_OWN:
        values["istioOwnedCNIConfig"] = True
        # The file of the CNI that istio-cni is chained to.
        with_cilium = "cilium" in choice.parts
        values["cniConfFileName"] = "05-cilium.conflist" if with_cilium else "10-kindnet.conflist"
    if chart == "istiod":
        # Of gateways and waypoints; ztunnel has its own.
        values["meshConfig"]["defaultConfig"]["proxyMetadata"]["SECRET_TTL"] = life
    if chart == "ztunnel":
        values.update(place)
        values["env"]["SECRET_TTL"] = life
    return values


def _demo(choice: Choice, pins: Pins) -> Stage:
    namespace, *rest = read_objects("gateway", "demo.yaml")
    return Stage(
        name="demo",
        title="client and server on every node",
        pieces=(labelled_objects("demo", [namespace, *with_images(rest, pins.images)]),),
    )


def _waypoint() -> Stage:
    return Stage(
        name="waypoint",
        title="waypoint",
        pieces=(labelled_objects("waypoint", read_objects("gateway", "waypoint.yaml")),),
    )


def _gateway(choice: Choice) -> Stage:
    gateway, route = read_objects("gateway", "gateway.yaml")
    listeners = gateway["spec"]["listeners"]

    # Without its certificate a listener with TLS would keep the Gateway from being Programmed.
    if "cert-manager" not in choice.parts:
        gateway["spec"]["listeners"] = [listener for listener in listeners if "tls" not in listener]
    return Stage(
        name="gateway",
        title="Gateway, reached through an address of MetalLB",
        pieces=(labelled_objects("gateway", [gateway, route]),),
    )


def merged(below: JsonObject, above: JsonObject) -> dict[str, Any]:
    """`below` with `above` laid over it, tables into tables, as helm merges values files."""
    result = dict(below)
    for key, value in above.items():
        here = result.get(key)
        if isinstance(value, Mapping) and isinstance(here, Mapping):
            result[key] = merged(object_at(here), object_at(value))
        else:
            # A list replaces a list.
            result[key] = value
    return result
