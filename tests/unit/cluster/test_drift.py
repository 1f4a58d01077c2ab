"""What is not as `up` made it any more is reported and restored."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from meshwake.cluster.drift import WorkloadDrift, drift, read_release, restore_workload

from tests.support.fake_kubernetes import FakeKubernetes
from tests.unit.cluster.world import SimulatedKube, World, machine, release_secret, workload

MADE = workload("istio-system", "ztunnel", "DaemonSet")
KEY = ("DaemonSet", "istio-system", "ztunnel")


def cluster(change: Callable[[dict[str, Any]], None] = lambda thing: None) -> SimulatedKube:
    world = World(machines={"m": machine("m")})
    world.objects[KEY] = deepcopy(MADE)
    change(world.objects[KEY])
    return SimulatedKube(world, Path())


def container(thing: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = thing["spec"]["template"]["spec"]["containers"][0]
    return found


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda t: container(t)["env"][0].update(value="240s"), "SECRET_TTL is 240s, was 600s"),
    (
        lambda t: container(t)["env"].append(
            {"name": "POOL_MAX_STREAMS_PER_CONNECTION", "value": "1"}
        ),
        "POOL_MAX_STREAMS_PER_CONNECTION is 1, was not set",
    ),
    (lambda t: container(t)["env"].clear(), "SECRET_TTL is not set, was 600s"),
    (lambda t: container(t).update(image="another:2"), "image is 'another:2', was 'an/image:1'"),
    (
        lambda t: container(t).update(args=["--log-level", "debug"]),
        "args is ['--log-level', 'debug'], was None",
    ),
    (
        lambda t: t["spec"]["template"].update(
            metadata={"annotations": {"meshwake.dev/restarted": "7"}}
        ),
        "annotation meshwake.dev/restarted is 7, was not set",
    ),
    (
        lambda t: t["spec"]["template"]["spec"].update(nodeSelector={"no-node": "here"}),
        "node selector no-node is here, was not set",
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_what_a_run_or_a_person_changed_is_reported_and_restored(
    change: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    """Environment, image, arguments, annotations, nodes: whichever it was."""
    kubernetes = cluster(change)
    (found,) = drift(kubernetes, [MADE])
    assert str(found) == f"DaemonSet istio-system/ztunnel: {expected}"
    restore_workload(kubernetes, found)
    assert drift(kubernetes, [MADE]) == []
    assert container(kubernetes.objects[KEY]) == container(MADE)


def test_what_only_looks_different_is_not_drift() -> None:
    """The server's defaults, lists that are empty, and the restart that kubectl notes."""

    def defaults(thing: dict[str, Any]) -> None:
        container(thing).update(args=[], terminationMessagePath="/dev/termination-log")
        container(thing)["env"].append(
            {
                "name": "NODE",
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}},
            }
        )
        annotations = {"kubectl.kubernetes.io/restartedAt": "2026-11-30T00:00:00Z"}
        thing["spec"]["template"]["metadata"] = {"annotations": annotations}

    made = deepcopy(MADE)
    container(made)["env"].append(
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    )
    assert drift(cluster(defaults), [made]) == []


def test_a_deployment_that_was_scaled_to_nothing_and_one_that_is_missing() -> None:
    """An outage of istiod that a killed run left; a number that an autoscaler chose is its own."""
    istiod = workload("istio-system", "istiod")
    assert str(drift(cluster(), [istiod])[0]) == "Deployment istio-system/istiod: is missing"
    there = deepcopy(istiod)
    patched: list[Any] = []

    class Scaled(FakeKubernetes):
        def __init__(self) -> None:
            self.objects = {("Deployment", "istio-system", "istiod"): there}

        def patch(self, kind: str, namespace: str, name: str, patch: Any) -> None:
            patched.append((kind, namespace, name, patch["spec"]["replicas"]))

    for replicas, expected in ((5, []), (0, ["replicas is 0, was 1"])):
        there["spec"]["replicas"] = replicas
        assert [each for one in drift(Scaled(), [istiod]) for each in one.differs] == expected
    restore_workload(Scaled(), WorkloadDrift(istiod, ()))
    assert patched == [("Deployment.apps", "istio-system", "istiod", 1)]


def test_the_newest_revision_of_a_release_counts() -> None:
    """Helm keeps the old ones; what has no namespace in a manifest lies in that of the release."""
    newest = workload("istio-system", "ztunnel", "DaemonSet")
    del newest["metadata"]["namespace"]

    class Helm(FakeKubernetes):
        def all(
            self, kind: str, namespace: str | None = None, labels: Any = None
        ) -> list[dict[str, Any]]:
            assert (kind, namespace, labels) == (
                "Secret",
                "istio-system",
                {"owner": "helm", "name": "ztunnel"},
            )
            return [
                release_secret("ztunnel", "superseded", [], 9),
                release_secret("ztunnel", "deployed", [newest], 10),
            ]

    found = read_release(Helm(), "istio-system", "ztunnel")
    assert found is not None and found.status == "deployed"
    assert found.objects == (MADE,)
