from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.cluster.stack.choice import NEEDS, PARTS, PROFILES, Choice, choose_stack
from meshwake.cluster.stack.own_images import GUARD
from meshwake.cluster.stack.pieces import (
    DEMO_NAMESPACE,
    Chart,
    Facts,
    Objects,
    RemoteManifest,
    Stage,
    image_references,
    read_values,
)
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import (
    chart_images,
    images,
    istio_values,
    kind_config,
    merged,
    node_image,
    stages,
)
from meshwake.core.errors import BadInput

from tests.support.paths import CLUSTERS

PINS = read_pins()
FACTS = Facts(pool="172.18.255.204-172.18.255.253")
ALL = {"profile": "full"}
# A step that is there when the part is, and only then. Hubble is a part of Cilium's step.
STEP_OF_PART = {part: part for part in PARTS if part not in {"hubble", "istio"}} | {
    "istio": "istiod"
}


def _choose(**words: Any) -> Choice:
    return choose_stack(PINS, **words)


def _stages(**words: Any) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages(_choose(**words), PINS, FACTS)}


def _objects(some: dict[str, Stage]) -> list[dict[str, Any]]:
    pieces = [piece for stage in some.values() for piece in stage.pieces]
    return [thing for piece in pieces if isinstance(piece, Objects) for thing in piece.objects]


def _charts(some: dict[str, Stage]) -> dict[str, Chart]:
    pieces = [piece for stage in some.values() for piece in stage.pieces]
    return {piece.release: piece for piece in pieces if isinstance(piece, Chart)}


def test_steps_are_in_the_order_in_which_they_must_be_done() -> None:
    """Each needs what is before it: definitions first, no node is ready before Cilium, the
    listener's Secret before the Gateway."""
    assert list(_stages(**ALL)) == [
        "gateway-api",
        "cilium",
        "nodes",
        "metallb",
        "metallb-pool",
        "istio-base",
        "istiod",
        "istio-cni",
        "ztunnel",
        "demo",
        "cert-manager",
        "acme",
        "certificate",
        "waypoint",
        "gateway",
        "observability",
    ]


def test_parts_that_are_off_leave_nothing() -> None:
    """Neither step nor object nor image."""
    bare = _stages(without_parts=PROFILES["core"])
    assert list(bare) == ["gateway-api", "nodes", "demo"]
    choice = _choose(without_parts=PROFILES["core"])
    assert images(choice, PINS) == (PINS.images["echo"],)
    assert kind_config(choice, PINS)["networking"]["disableDefaultCNI"] is False


@given(st.sets(st.sampled_from(PARTS)))
@settings(max_examples=40, deadline=None)
def test_every_part_can_be_on_or_off(parts: set[str]) -> None:
    """Any choice is either refused by name or gives steps that are in order, with nothing of a
    part that is off."""
    off = [part for part in PARTS if part not in parts]
    if any(not parts.issuperset(NEEDS.get(part, ())) for part in parts):
        with pytest.raises(BadInput, match="needs"):
            _stages(profile="full", without_parts=off)
        return
    some = _stages(profile="full", without_parts=off)
    assert [name for name in _stages(**ALL) if name in some] == list(some)
    for part, step in STEP_OF_PART.items():
        assert (step in some) == (part in parts)
    assert _pulled(some) <= set(images(_choose(profile="full", without_parts=off), PINS))


def test_everything_carries_our_label() -> None:
    """In every object of every step; charts label their own."""
    for thing in _objects(_stages(**ALL)):
        assert thing["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshwake"


def test_the_kind_configuration_follows_the_choice() -> None:
    """Name, image with digest, one control plane and as many workers as were requested."""
    choice = _choose(workers=3, kubernetes="1.36", name="two")
    config = kind_config(choice, PINS)
    assert config["name"] == "meshwake-two"
    assert [node["role"] for node in config["nodes"]] == [
        "control-plane",
        "worker",
        "worker",
        "worker",
    ]
    assert {node["image"] for node in config["nodes"]} == {PINS.kubernetes["1.36.4"].node_image}
    assert node_image(choice, PINS) == PINS.kubernetes["1.36.4"].node_image
    assert config["networking"]["apiServerAddress"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("istio", "release"), [("1.22", "v1.1.0"), ("1.29", "v1.4.1"), ("1.31", "v1.6.1")]
)
def test_the_gateway_api_goes_with_the_istio_minor(istio: str, release: str) -> None:
    """istio#59443: with newer definitions an istiod up to 1.29.1 is never ready."""
    (manifest,) = _stages(istio=istio)["gateway-api"].pieces
    assert isinstance(manifest, RemoteManifest)
    assert f"/{release}/standard-install.yaml" in manifest.url


def test_all_of_istio_is_ambient_and_of_one_release() -> None:
    """The profile in all four charts, hub and tag of the choice, from a place that stays."""
    charts = _charts(_stages(istio="1.30.7"))
    for release in ("istio-base", "istiod", "istio-cni", "ztunnel"):
        chart = charts[release]
        assert chart.values["profile"] == "ambient"
        assert (chart.version, chart.repo) == (
            "1.30.7",
            "https://blob.istio.io/istio-release/charts",
        )
    assert charts["istiod"].values["global"] == {"hub": "docker.io/istio", "tag": "1.30.7"}
    assert charts["istio-cni"].values["global"] == {"hub": "docker.io/istio", "tag": "1.30.7"}
    assert (charts["ztunnel"].values["hub"], charts["ztunnel"].values["tag"]) == (
        "docker.io/istio",
        "1.30.7",
    )


def test_certificates_live_as_long_as_was_chosen() -> None:
    """ztunnel's own, and those of waypoint and gateway."""
    choice = _choose(lifetime_s=480)
    assert istio_values("ztunnel", choice, PINS)["env"] == {"SECRET_TTL": "480s"}
    mesh = istio_values("istiod", choice, PINS)["meshConfig"]
    assert mesh["defaultConfig"]["proxyMetadata"] == {"SECRET_TTL": "480s"}


def test_what_the_original_report_got_wrong_is_not_repeated() -> None:
    """No cni values under istiod, no file of our own name for the CNI (clusters/istio/cni.yaml says
    why)."""
    choice = _choose()
    assert "cni" not in istio_values("istiod", choice, PINS)


def test_cilium_leaves_room_for_istio() -> None:
    """The three values without which ambient does not work on Cilium."""
    values = _charts(_stages())["cilium"].values
    assert values["cni"]["exclusive"] is False
    assert values["socketLB"]["hostNamespaceOnly"] is True
    assert values["bpf"]["masquerade"] is False
    assert "hubble" not in values
    assert _charts(_stages(**ALL))["cilium"].values["hubble"]["ui"]["enabled"] is True


def test_the_pool_is_announced() -> None:
    """Pool and L2Advertisement name one another."""
    pool, advertisement = [
        thing for thing in _objects(_stages()) if thing["apiVersion"].startswith("metallb.io/")
    ]
    assert pool["spec"]["addresses"] == [FACTS.pool]
    assert advertisement["spec"]["ipAddressPools"] == [pool["metadata"]["name"]]


def test_https_is_there_when_its_certificate_is_made() -> None:
    """A listener without its Secret would keep the whole Gateway from being programmed."""

    def listeners(**words: Any) -> list[str]:
        (gateway,) = [
            thing
            for thing in _objects(_stages(**words))
            if thing["kind"] == "Gateway" and thing["metadata"]["name"] == "gateway"
        ]
        return [listener["name"] for listener in gateway["spec"]["listeners"]]

    assert listeners() == ["http"]
    assert listeners(**ALL) == ["http", "https"]


def test_the_gateway_takes_the_certificate_that_is_made() -> None:
    """Secret and host of the listener are those of cert-manager's Certificate, in the same
    namespace."""
    things = _objects(_stages(**ALL))
    (certificate,) = [thing for thing in things if thing["kind"] == "Certificate"]
    (listener,) = [
        listener
        for thing in things
        if thing["kind"] == "Gateway"
        for listener in thing["spec"]["listeners"]
        if "tls" in listener
    ]
    assert certificate["metadata"]["namespace"] == DEMO_NAMESPACE
    assert listener["tls"]["certificateRefs"] == [{"name": certificate["spec"]["secretName"]}]
    assert listener["hostname"] in certificate["spec"]["dnsNames"]


def test_services_and_routes_lead_to_pods() -> None:
    """Names and ports across the files of clusters/gateway/ fit."""
    things = _objects(_stages())
    pods = [thing["spec"]["template"] for thing in things if thing["kind"] == "DaemonSet"]
    services = {thing["metadata"]["name"]: thing for thing in things if thing["kind"] == "Service"}
    assert set(services) == {"server", "server-by-waypoint"}
    for service in services.values():
        chosen = [
            pod
            for pod in pods
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ]
        assert len(chosen) == 1
        ports = {
            port["name"]: port["containerPort"]
            for port in chosen[0]["spec"]["containers"][0]["ports"]
        }
        assert [ports[port["targetPort"]] for port in service["spec"]["ports"]] == [8080]
    (route,) = [thing for thing in things if thing["kind"] == "HTTPRoute"]
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert backend["port"] in [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
    assert (
        services["server-by-waypoint"]["metadata"]["labels"]["istio.io/use-waypoint"] == "waypoint"
    )


def test_demo_runs_on_every_node() -> None:
    """DaemonSets that tolerate the control plane."""
    some = _stages()
    for thing in _objects(some):
        if thing["kind"] == "DaemonSet":
            assert {"operator": "Exists", "effect": "NoSchedule"} in thing["spec"]["template"][
                "spec"
            ]["tolerations"]


def test_images_are_all_that_is_pulled() -> None:
    """Those of objects, of charts, and of what istiod starts later; each with registry and tag,
    none twice."""
    choice = _choose(**ALL)
    found = images(choice, PINS)
    assert _pulled(_stages(**ALL)) <= set(found)
    assert set(chart_images(choice, PINS)) <= set(found)
    assert "docker.io/istio/proxyv2:1.30.3-distroless" in found
    assert list(found) == sorted(set(found))
    assert all(
        "." in image.partition("/")[0] and ":" in image.rpartition("/")[2] for image in found
    )


def _pulled(some: dict[str, Stage]) -> set[str]:
    """All images of objects but that of the guard, which no registry has."""
    return set(image_references(_objects(some))) - {GUARD.reference}


def test_no_waypoint_and_no_gateway_need_no_envoy() -> None:
    """proxyv2 is the largest image of all."""
    found = images(_choose(without_parts=["waypoint", "gateway"]), PINS)
    assert not [image for image in found if "proxyv2" in image]


@pytest.mark.parametrize("words", [{}, ALL])
def test_a_mirror_replaces_every_registry(words: dict[str, Any]) -> None:
    """No registry but the mirror is left in values, objects, images or charts; what is in no
    registry stays."""
    choice = _choose(mirror="registry.local:5000/all", **words)
    plain = replace(choice, mirror=None)
    assert [image.split("/all/", 1)[1] for image in images(choice, PINS)] == sorted(
        image.partition("/")[2] for image in images(plain, PINS)
    )
    for stage in stages(choice, PINS, FACTS):
        for piece in stage.pieces:
            if isinstance(piece, Chart):
                assert piece.repo is None and piece.chart.startswith(
                    "oci://registry.local:5000/all/"
                )
                assert not _registries_in(piece.values)
            if isinstance(piece, Objects):
                named = set(image_references(piece.objects)) - {GUARD.reference}
                assert all(image.startswith("registry.local:5000/all/") for image in named)
    assert node_image(choice, PINS).startswith(
        "registry.local:5000/all/kindest/node:v1.34.11@sha256:"
    )


def _registries_in(values: Any) -> list[str]:
    registries = {image.partition("/")[0] for image in images(_choose(**ALL), PINS)}
    if isinstance(values, dict):
        return [found for value in values.values() for found in _registries_in(value)]
    return [values] if isinstance(values, str) and values.partition("/")[0] in registries else []


def test_charts_come_from_where_a_mirror_keeps_them() -> None:
    """The path of the project's own artefact."""
    charts = _charts(
        {stage.name: stage for stage in stages(_choose(mirror="r.local"), PINS, FACTS)}
    )
    assert charts["cilium"].chart == "oci://r.local/cilium/charts/cilium"
    assert charts["istiod"].chart == "oci://r.local/istio/release/charts/istiod"


def test_what_is_rendered_is_nobodys_to_change() -> None:
    """Two renderings share nothing: what one caller changes, another does not see."""
    first = _charts(_stages())["istiod"].values
    first["global"]["hub"] = "changed"
    assert _charts(_stages())["istiod"].values["global"]["hub"] == "docker.io/istio"


def test_merged_lays_tables_into_tables() -> None:
    """As helm does with several values files; neither argument is changed."""
    below: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(below, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert below == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_every_file_of_values_is_used() -> None:
    """A file that is never read would be a value without effect."""
    used = read_values("istio", "base.yaml")
    assert used == istio_values("base", _choose(), PINS)
    assert {path.name for path in (CLUSTERS / "istio").iterdir()} == {
        "base.yaml",
        "istiod.yaml",
        "cni.yaml",
        "ztunnel.yaml",
    }


@pytest.mark.parametrize(
    ("istio", "off", "expected"),
    [
        ("1.26", [], (None, None)),
        ("1.27", [], (True, "05-cilium.conflist")),
        ("1.31", ["cilium"], (True, "10-kindnet.conflist")),
    ],
)
def test_istio_cni_keeps_a_file_of_its_own_where_it_can(
    istio: str, off: list[str], expected: tuple[object, object]
) -> None:
    """A copy of the file that the node's own network writes, which must be named for it."""
    values = istio_values("cni", _choose(istio=istio, without_parts=off), PINS)
    assert (values.get("istioOwnedCNIConfig"), values.get("cniConfFileName")) == expected
