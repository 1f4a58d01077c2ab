from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.config import DIGEST_ANNOTATION
from meshwake.cluster.stack.observability import configuration_maps, observability_stages
from meshwake.cluster.stack.own_images import GUARD
from meshwake.cluster.stack.pieces import Objects, Stage
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stages import awaited_lines
from meshwake.guard.__main__ import read_arguments

from tests.support.paths import CLUSTERS

# A ConfigMap holds at most 1 MiB (k8s.io/api core/v1 MaxSecretSize).
CONFIG_MAP_MAX_BYTES = 1024 * 1024


def chosen(*without: str) -> Choice:
    return choose_stack(read_pins(), profile="full", without_parts=without)


def stage(choice: Choice) -> Stage:
    (only,) = observability_stages(choice, read_pins())
    return only


def every_object(choice: Choice) -> tuple[dict[str, Any], ...]:
    (piece,) = stage(choice).pieces
    assert isinstance(piece, Objects)
    return piece.objects


def objects(choice: Choice) -> dict[tuple[str, str], dict[str, Any]]:
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in every_object(choice)}


def content(choice: Choice, name: str, file: str) -> Any:
    return yaml.safe_load(objects(choice)["ConfigMap", name]["data"][file])


def test_nothing_without_the_part() -> None:
    assert observability_stages(choose_stack(read_pins()), read_pins()) == ()


def test_all_that_runs_is_waited_for() -> None:
    assert list(awaited_lines(stage(chosen()))) == [
        "Deployment meshwake-observability/prometheus: rolled out",
        "Deployment meshwake-observability/alertmanager: rolled out",
        "Deployment meshwake-observability/grafana: rolled out",
        "DaemonSet meshwake-observability/guard: rolled out",
    ]


def test_every_file_that_is_mounted_is_there() -> None:
    """A pod that names a missing ConfigMap would wait for ever."""
    found = objects(chosen())
    pods = [thing for (kind, _), thing in found.items() if kind in {"Deployment", "DaemonSet"}]
    mounted = {
        volume["configMap"]["name"]
        for thing in pods
        for volume in thing["spec"]["template"]["spec"].get("volumes", ())
        if "configMap" in volume
    }
    assert mounted == {thing["metadata"]["name"] for thing in configuration_maps(chosen())}
    assert all(("ConfigMap", name) in found for name in mounted)


def test_config_maps_are_small_enough() -> None:
    for thing in configuration_maps(chosen()):
        assert len(json.dumps(thing).encode()) < CONFIG_MAP_MAX_BYTES // 2


def test_the_guard_only_looks_and_may_do_no_more() -> None:
    """So it is none of the fixes; and its image is the one that is built here and now."""
    found = objects(chosen())
    (container,) = found["DaemonSet", "guard"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == GUARD.reference
    arguments, _ = read_arguments([*container["args"], "--node=n"])
    assert arguments.only_look and arguments.metrics_port == container["ports"][0]["containerPort"]
    assert arguments.gateway_namespace == ["meshwake-demo"]
    roles = [thing for thing in every_object(chosen()) if "guard" in thing["metadata"]["name"]]
    assert not [thing for thing in roles if thing["kind"].startswith("Cluster")]
    rules = {
        thing["metadata"]["namespace"]: {
            name for rule in thing["rules"] for name in rule["resources"]
        }
        for thing in roles
        if thing["kind"] == "Role"
    }
    looks = {"pods", "pods/portforward"}
    assert rules == {"istio-system": looks, "meshwake-demo": looks}


def test_without_istio_nothing_is_put_into_its_namespace() -> None:
    """There is none then."""
    without = chosen("istio", "gateway", "waypoint")
    assert "istio-system" not in {
        thing["metadata"].get("namespace") for thing in every_object(without)
    }


def test_the_rules_are_those_that_are_offered_to_everybody() -> None:
    """Word for word: what replays and docs say of them is said of these."""
    text = (CLUSTERS / "observability" / "alerts" / "mesh.yml").read_text(encoding="utf-8")
    assert objects(chosen())["ConfigMap", "prometheus"]["data"]["mesh.yml"] == text


@pytest.mark.parametrize(
    ("without", "gone", "left"),
    [
        (["hubble"], {"hubble"}, {"cilium"}),
        (["gateway", "waypoint"], {"proxies"}, {"ztunnel"}),
        (["waypoint"], set(), {"proxies"}),
        (["cert-manager"], {"cert-manager"}, {"prometheus"}),
        (
            ["istio", "gateway", "waypoint"],
            {"ztunnel", "istiod", "istio-cni", "proxies"},
            {"guard"},
        ),
        (["cilium", "hubble"], {"cilium", "hubble"}, {"ztunnel"}),
    ],
)
def test_what_is_not_there_is_not_scraped(
    without: list[str], gone: set[str], left: set[str]
) -> None:
    """A target that can never answer is an alert that never ends."""

    def jobs(choice: Choice) -> set[str]:
        return {
            job["job_name"]
            for job in content(choice, "prometheus", "prometheus.yml")["scrape_configs"]
        }

    assert jobs(chosen()) - jobs(chosen(*without)) == gone
    assert left <= jobs(chosen(*without))


def test_dashboards_go_with_what_they_show() -> None:
    def dashboards(choice: Choice) -> set[str]:
        return set(objects(choice)["ConfigMap", "grafana-dashboards"]["data"])

    assert dashboards(chosen()) == {"certificates.json", "istio.json", "hubble.json"}
    assert dashboards(chosen("cilium", "hubble")) == {"certificates.json", "istio.json"}
    assert dashboards(chosen("istio", "gateway", "waypoint")) == {
        "certificates.json",
        "hubble.json",
    }


def test_prometheus_starts_anew_when_its_jobs_have_changed() -> None:
    """And Grafana does not, whose files are the same."""

    def digest(choice: Choice, name: str) -> str:
        template = objects(choice)["Deployment", name]["spec"]["template"]
        return str(template["metadata"]["annotations"][DIGEST_ANNOTATION])

    assert digest(chosen(), "prometheus") != digest(chosen("hubble"), "prometheus")
    assert digest(chosen(), "grafana") == digest(chosen("hubble"), "grafana")


def test_ports_and_places_agree_with_the_objects() -> None:
    """Of the guard, and of Alertmanager: each stands in two files."""
    found = objects(chosen())
    (guard,) = found["DaemonSet", "guard"]["spec"]["template"]["spec"]["containers"]
    config = content(chosen(), "prometheus", "prometheus.yml")
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "guard"]
    (address,) = [
        entry for entry in job["relabel_configs"] if entry.get("target_label") == "__address__"
    ]
    assert address["replacement"] == f"$1:{guard['ports'][0]['containerPort']}"
    service = found["Service", "alertmanager"]
    place = (
        f"alertmanager.{service['metadata']['namespace']}.svc:{service['spec']['ports'][0]['port']}"
    )
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == [place]
