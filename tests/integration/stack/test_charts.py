"""The charts of the pinned releases, or of their minors, rendered by real helm with the very values
that `up` gives.

Charts lie in the cache (docs/stack.md); what is not there is skipped by name.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.observability import prometheus_yml
from meshwake.cluster.stack.pieces import Chart, image_references
from meshwake.cluster.stack.pins import minor_of, read_pins
from meshwake.cluster.stack.render import CNI_FILE_OF_ITS_OWN, chart_images
from meshwake.kubernetes.api import identity_of
from packaging.version import Version

from tests.integration.stack.charts import (
    ISTIO_CHARTS,
    altered,
    chart_or_skip,
    helm_template,
    keys_of,
    our_charts,
    rendered,
    unknown_keys,
)
from tests.integration.stack.keys import KEYS_FILE, lines
from tests.integration.stack.schemas import VERSIONS, check_known

PINS = read_pins()
DEFAULT = PINS.istio.default
OTHER_CHARTS = sorted(set(our_charts(DEFAULT)) - set(ISTIO_CHARTS))
MINORS = list(PINS.istio.minor)
# Not in values.yaml of the chart, and yet no typing error: each of them is seen to have an effect
# in `test_every_key_of_ours_has_an_effect`.
KNOWN_OTHERWISE = {
    "profile": "names a file of the chart, files/profile-NAME.yaml",
    "pilot": "what was below `pilot` up to 1.23 is laid over the top level since "
    "(templates/zzz_profile.yaml)",
    "meshConfig.defaultConfig": "handed on to istiod as it is (istio/api mesh/v1alpha1 "
    "ProxyConfig)",
    "socketLB.hostNamespaceOnly": "is in values.yaml of the chart as a comment: no "
    "default, three states",
}


def things_by_name(things: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


def default_rendered(chart: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What the default choice makes of a chart."""
    return things_by_name(
        rendered(our_charts(DEFAULT)[chart], PINS.istio.minor[DEFAULT].kubernetes)
    )


def test_the_list_of_keys_is_what_is_set() -> None:
    """Rewritten by `python -m tests.integration.stack.keys > tests/integration/stack/keys.txt`."""
    assert KEYS_FILE.read_text(encoding="utf-8").splitlines() == lines()


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("chart", ISTIO_CHARTS)
def test_charts_of_istio_make_valid_objects(chart: str, minor: str) -> None:
    """Of the default minor for every pinned Kubernetes of its own table, of the others for the
    oldest and newest."""
    piece = our_charts(minor)[chart]
    supported = [
        version for version in VERSIONS if minor_of(version) in PINS.istio.minor[minor].supported
    ]
    for version in supported if minor == DEFAULT else {supported[0], supported[-1]}:
        check_all(rendered(piece, version), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("chart", OTHER_CHARTS)
def test_other_charts_make_valid_objects(chart: str, version: str) -> None:
    check_all(rendered(our_charts(DEFAULT)[chart], version), version)


def check_all(things: list[dict[str, Any]], version: str) -> None:
    """All are of Kubernetes' own kinds, and valid."""
    assert things
    for thing in things:
        assert check_known(thing, version), (
            f"{identity_of(thing)} is of a kind that was not checked"
        )


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("chart", ISTIO_CHARTS)
def test_charts_of_istio_know_every_key(chart: str, minor: str) -> None:
    check_keys(our_charts(minor)[chart])


@pytest.mark.parametrize("chart", OTHER_CHARTS)
def test_other_charts_know_every_key(chart: str) -> None:
    check_keys(our_charts(DEFAULT)[chart])


def check_keys(piece: Chart) -> None:
    assert [
        key
        for key in unknown_keys(piece)
        if not any(key == known or key.startswith(f"{known}.") for known in KNOWN_OTHERWISE)
    ] == []


@pytest.mark.parametrize(
    ("chart", "key"),
    [(chart, key) for chart, piece in our_charts(DEFAULT).items() for key in keys_of(piece.values)],
)
def test_every_key_of_ours_has_an_effect(chart: str, key: str) -> None:
    """With another value the chart makes other objects, or refuses it: a key that is ignored would
    do neither."""
    piece, kubernetes = our_charts(DEFAULT)[chart], PINS.istio.minor[DEFAULT].kubernetes
    before = rendered(piece, kubernetes)
    _, after = helm_template(piece, kubernetes, altered(piece.values, key))
    assert after is None or comparable(after) != comparable(before)


def comparable(things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All but Secrets, whose keys some charts draw again each time, and but istiod's copies of what
    it was given."""
    return [
        {**thing, "data": {key: text for key, text in thing["data"].items() if key != "values"}}
        if thing["metadata"]["name"] == "istio-sidecar-injector" and "data" in thing
        else thing
        for thing in things
        if thing["kind"] != "Secret" and thing["metadata"]["name"] != "values"
    ]


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize(
    "reported", [{"chained": True}, {"cniConfFileName": "ZZ-istio-cni.conflist"}]
)
def test_what_the_report_sets_under_istiod_changes_nothing(
    reported: dict[str, Any], minor: str
) -> None:
    """Both are keys of chart cni. So the test above can fail: here is a key that is ignored."""
    piece, kubernetes = our_charts(minor)["istiod"], PINS.istio.minor[minor].kubernetes
    with_it = rendered(piece, kubernetes, {**piece.values, "cni": reported})
    assert comparable(with_it) == comparable(rendered(piece, kubernetes))


@pytest.mark.parametrize("minor", MINORS)
def test_what_the_report_sets_makes_the_cni_wait_for_a_file_that_is_never_written(
    minor: str,
) -> None:
    """Given to the chart that knows it, cniConfFileName becomes the name that the installer waits
    for before it does anything (cni/pkg/install, "CNI config file %s does not exist. Waiting").
    Ours leaves the name to be found; where istio-cni can keep a file of its own, it names the one
    that Cilium writes."""
    piece, kubernetes = our_charts(minor)["cni"], PINS.istio.minor[minor].kubernetes

    def settings(values: dict[str, Any]) -> dict[str, str]:
        things = things_by_name(rendered(piece, kubernetes, values))
        (daemon_set,) = [thing for (kind, _), thing in things.items() if kind == "DaemonSet"]
        (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
        own = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        return {**things["ConfigMap", "istio-cni-config"]["data"], **own}

    reported: dict[str, Any] = {"cniConfFileName": "ZZ-istio-cni.conflist", "chained": True}
    if minor in {"1.22", "1.23"}:
        reported = {"cni": reported}  # the chart of these has them one level down
    assert settings({**piece.values, **reported})["CNI_CONF_NAME"] == "ZZ-istio-cni.conflist"
    ours = settings(piece.values)
    named = "05-cilium.conflist" if Version(minor) >= CNI_FILE_OF_ITS_OWN else ""
    found = (ours.get("CNI_CONF_NAME", ""), ours["CHAINED_CNI_PLUGIN"], ours["AMBIENT_ENABLED"])
    assert found == (named, "true", "true")


@pytest.mark.parametrize("minor", MINORS)
def test_certificates_live_as_long_as_was_chosen(minor: str) -> None:
    """ztunnel gets it by its environment; waypoints and gateways by what istiod configures for
    their pilot-agent."""
    charts, kubernetes = our_charts(minor), PINS.istio.minor[minor].kubernetes
    ztunnel = things_by_name(rendered(charts["ztunnel"], kubernetes))["DaemonSet", "ztunnel"]
    (container,) = ztunnel["spec"]["template"]["spec"]["containers"]
    assert {"name": "SECRET_TTL", "value": "600s"} in container["env"]
    mesh = things_by_name(rendered(charts["istiod"], kubernetes))["ConfigMap", "istio"]["data"][
        "mesh"
    ]
    assert (
        yaml.safe_load(mesh)["defaultConfig"]["proxyMetadata"].items()
        >= {"SECRET_TTL": "600s"}.items()
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_cilium_leaves_room_for_istio(version: str) -> None:
    """In the very ConfigMap that the agent reads, and that `meshwake up` looks at: the words of
    docs/stack.md."""
    things = things_by_name(rendered(our_charts(DEFAULT)["cilium"], version))
    settings = things["ConfigMap", "cilium-config"]["data"]
    assert settings["cni-exclusive"] == "false"
    assert settings["bpf-lb-sock-hostns-only"] == "true"
    assert settings["enable-bpf-masquerade"] == "false"
    assert settings["kube-proxy-replacement"] == "false"


def test_metallb_announces_from_every_node_and_by_layer_2_alone() -> None:
    """No router's container next to the speaker, and the label of a control plane is overlooked."""
    things = things_by_name(rendered(our_charts(DEFAULT)["metallb"], VERSIONS[-1]))
    speaker = things["DaemonSet", "metallb-speaker"]["spec"]["template"]["spec"]
    assert [container["name"] for container in speaker["containers"]] == ["speaker"]
    assert "--ignore-exclude-lb" in speaker["containers"][0]["args"]
    assert not [
        name for kind, name in things if "frr" in name and kind in {"DaemonSet", "Deployment"}
    ]


@pytest.mark.parametrize("minor", MINORS)
def test_prometheus_finds_the_pods_that_charts_make_and_the_port_that_they_export_on(
    minor: str,
) -> None:
    """Namespace, label and port of each job are those of a pod. Waypoints and gateways are istiod's
    to make, from files of its chart; the guard is ours
    (tests/unit/cluster/stack/test_observability.py)."""
    choice = choose_stack(PINS, profile="full", istio=minor)
    pods = [
        pod for piece in our_charts(minor).values() for pod in pods_of(piece, choice.kubernetes)
    ]
    jobs = [
        job
        for job in yaml.safe_load(prometheus_yml(choice))["scrape_configs"]
        if "kubernetes_sd_configs" in job
    ]
    for job in jobs:
        if job["job_name"] in {"proxies", "guard"}:
            continue
        (found_by,) = job["kubernetes_sd_configs"]
        (selector,) = found_by["selectors"]
        name, value = selector["label"].split("=")
        (pod,) = [
            pod
            for namespace, pod in pods
            if namespace in found_by["namespaces"]["names"]
            and pod["metadata"]["labels"].get(name) == value
        ]
        assert port_of(job) in ports_of(pod), job["job_name"]


def pods_of(piece: Chart, kubernetes: str) -> list[tuple[str, dict[str, Any]]]:
    """Namespace and template of all pods that a chart makes for good."""
    return [
        (thing["metadata"].get("namespace", piece.namespace), thing["spec"]["template"])
        for thing in rendered(piece, kubernetes)
        if thing["kind"] in {"DaemonSet", "Deployment"}
    ]


def port_of(job: dict[str, Any]) -> str:
    (address,) = [
        entry for entry in job["relabel_configs"] if entry.get("target_label") == "__address__"
    ]
    return str(address["replacement"]).partition(":")[2]


def ports_of(pod: dict[str, Any]) -> set[str]:
    """Those that it declares, and the one of its annotation."""
    declared = {
        str(port["containerPort"])
        for one in pod["spec"]["containers"]
        for port in one.get("ports", ())
    }
    return declared | {pod["metadata"].get("annotations", {}).get("prometheus.io/port", "")}


@pytest.mark.parametrize("minor", [minor for minor in MINORS if minor not in {"1.22", "1.23"}])
@pytest.mark.parametrize("kind", ["waypoint", "kube-gateway"])
def test_pods_that_istiod_makes_are_found_as_well(kind: str, minor: str) -> None:
    """By the label and on the port that its template gives them."""
    template = (chart_or_skip(our_charts(minor)["istiod"]) / "files" / f"{kind}.yaml").read_text(
        encoding="utf-8"
    )
    (job,) = [
        job
        for job in yaml.safe_load(prometheus_yml(choose_stack(PINS, profile="full")))[
            "scrape_configs"
        ]
        if job["job_name"] == "proxies"
    ]
    assert f'"{job["kubernetes_sd_configs"][0]["selectors"][0]["label"]}"' in template
    assert f"containerPort: {port_of(job)}" in template and job["metrics_path"] in template


@pytest.mark.parametrize("minor", MINORS)
def test_what_is_started_is_what_was_listed(minor: str) -> None:
    """Image by image, so that all can be loaded before."""
    choice = choose_stack(PINS, profile="full", istio=minor)
    started = {
        image
        for piece in our_charts(minor).values()
        for image in image_references(rendered(piece, choice.kubernetes))
    }
    plain = {PINS.images["pebble"], PINS.images["name-server"]}
    # Waypoint and gateway are made by istiod, later.
    listed = {image for image in chart_images(choice, PINS) if "/proxyv2:" not in image} - plain
    assert {_comparable_image(image) for image in started} == {
        _comparable_image(image) for image in listed
    }


@pytest.mark.parametrize("chart", OTHER_CHARTS)
def test_pins_are_the_images_that_the_chart_itself_names(chart: str) -> None:
    """We write images into values, so an old pin renders as well as a right one: here the chart
    names its own."""
    piece, kubernetes = our_charts(DEFAULT)[chart], PINS.istio.minor[DEFAULT].kubernetes
    named = {
        _comparable_image(each)
        for each in image_references(rendered(piece, kubernetes, without_images(piece)))
    }
    pinned = {_comparable_image(each) for each in image_references(rendered(piece, kubernetes))}
    assert pinned == named


def without_images(piece: Chart) -> dict[str, Any]:
    """The values of a chart without every `image` table of ours."""

    def pruned(values: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in values.items() if key != "image"}
        return {
            key: pruned(value) if isinstance(value, dict) else value for key, value in kept.items()
        }

    return pruned(piece.values)


def _comparable_image(image: str) -> str:
    """Images of cert-manager follow the chart, of which the cache may have another release of the
    minor. Ours carry no digest (clusters/stack.toml says why)."""
    image = image.partition("@")[0]
    return image.rpartition(":")[0] if "/jetstack/" in image else image
