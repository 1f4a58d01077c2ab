"""The objects of the guard: where they are put, which image, and what a user does without one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from meshwake.cluster.guard_deployment.alerts import RULES, alert_objects
from meshwake.cluster.guard_deployment.image import no_image, published_image, way_into_nodes
from meshwake.cluster.guard_deployment.manifest import as_yaml, guard_objects
from meshwake.guard.cluster import Places
from meshwake.guard.names import LABELS, METRICS_PORT, NAME, NAMESPACE, OBJECT_LABELS

from tests.support.paths import CLUSTERS

MANIFEST = CLUSTERS / "fixes" / "wake-guard" / "daemonset.yaml"


def daemon_set(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [thing for thing in objects if thing["kind"] == "DaemonSet"]
    return found


def test_by_default_it_is_the_manifest_unchanged() -> None:
    """Which `kubectl apply -f` takes as well."""
    assert guard_objects(Places()) == list(yaml.safe_load_all(MANIFEST.read_text("utf-8")))
    assert list(yaml.safe_load_all(as_yaml(guard_objects(Places())))) == guard_objects(Places())


def test_names_are_those_that_the_program_knows() -> None:
    """Its Leases, its metrics, and by what it is found again."""
    thing = daemon_set(guard_objects(Places()))
    assert (thing["metadata"]["namespace"], thing["metadata"]["name"]) == (NAMESPACE, NAME)
    assert thing["spec"]["selector"]["matchLabels"] == LABELS
    (container,) = thing["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == METRICS_PORT
    for each in guard_objects(Places(gateways=("web",))):
        assert each["metadata"]["labels"].items() >= OBJECT_LABELS.items()


def test_roles_lie_where_the_guard_looks() -> None:
    """And the arguments say so; each namespace once."""
    objects = guard_objects(Places("zt", "control", ("web", "zt", "web")), "some/image:1")
    roles = {
        (thing["metadata"]["namespace"], thing["metadata"]["name"])
        for thing in objects
        if thing["kind"] == "Role"
    }
    assert roles == {
        ("zt", "wake-guard"),
        ("control", "wake-guard-istiod"),
        ("meshwake-guard", "wake-guard"),
        ("web", "wake-guard"),
    }
    (container,) = daemon_set(objects)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "some/image:1"
    where = [word for word in container["args"] if "namespace" in word]
    assert where == [
        "--ztunnel-namespace=zt",
        "--istiod-namespace=control",
        "--gateway-namespace=web",
    ]


def test_a_change_of_one_rendering_does_not_reach_the_next() -> None:
    daemon_set(guard_objects(Places("zt")))["spec"]["template"]["spec"]["containers"].clear()
    assert guard_objects(Places("zt")) != guard_objects(Places())
    assert daemon_set(guard_objects(Places()))["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"status": {"nodeInfo": {"kubeletVersion": "v1.34.1+k3s1"}}}, "k3s ctr images import"),
        ({"status": {"nodeInfo": {"kubeletVersion": "v1.34.1+k0s.0"}}}, "k0s ctr"),
        ({"status": {"nodeInfo": {"kubeletVersion": "v1.34.1+rke2r1"}}}, "rancher/rke2"),
        ({"spec": {"providerID": "kind://docker/x/y"}}, "kind load docker-image"),
        ({}, "push it to a registry"),
    ],
)
def test_the_way_into_the_nodes_of_a_distribution(node: dict[str, Any], words: str) -> None:
    about = {"metadata": {"name": "n"}, **node}
    assert words in way_into_nodes([about], "some/image")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"name": "docker-desktop"}, "see the images of Docker"),
        ({"name": "m", "labels": {"minikube.k8s.io/name": "m"}}, "minikube image load some/image"),
        ({"name": "m", "labels": {"microk8s.io/cluster": "true"}}, "microk8s images import"),
    ],
)
def test_the_way_into_the_nodes_by_name_or_label(metadata: dict[str, Any], words: str) -> None:
    assert words in way_into_nodes([{"metadata": metadata}], "some/image")


def test_an_image_that_is_not_published_is_not_installed() -> None:
    """The refusal has all that there is to type."""
    assert published_image() is None
    refusal = str(no_image([{"metadata": {"name": "n"}}]))
    assert "docker build -f" in refusal and "meshwake guard install --image localhost/" in refusal


def test_alert_rules_are_those_of_the_rule_file() -> None:
    """With the labels by which a Prometheus chooses them; scraped are the guard's own pods."""
    monitor, rule = alert_objects({"release": "stack"})
    assert rule["spec"]["groups"] == yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    assert monitor["spec"]["selector"]["matchLabels"] == LABELS
    assert rule["metadata"]["labels"] == {**OBJECT_LABELS, "release": "stack"}
    ports = daemon_set(guard_objects(Places()))["spec"]["template"]["spec"]["containers"][0][
        "ports"
    ]
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in {each["name"] for each in ports}
