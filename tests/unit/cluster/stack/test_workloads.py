from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.stack.pieces import image_references
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.workloads import (
    CONTAINER,
    HOSTNAME_LABEL,
    NOT_FOR_RUNS,
    SERVER_PORT,
    identity_labels,
    namespace_of,
    server_url,
    workload_images,
    workload_objects,
)
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan, PlannedNode
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS

MACHINES = {"a": "meshwake-x-worker", "b": "meshwake-x-worker2"}


def _plan(**identities: tuple[str, ...]) -> Plan:
    return Plan(
        scenario="some",
        title="some",
        lab="kind",
        version="1.30.3",
        behaviour_class="E",
        seed=0,
        starts_wall_s=0,
        duration_ns=1,
        lifetime_s=600,
        backdate_s=120,
        nodes=tuple(PlannedNode(name=name, identities=some) for name, some in identities.items()),
        authority_node=None,
        pairs=(),
        attempt_every_ns=1,
        faults=(),
    )


def _of(things: tuple[dict[str, Any], ...], kind: str) -> list[dict[str, Any]]:
    return [thing for thing in things if thing["kind"] == kind]


PLAN = _plan(a=("shop/web", "default/client"), b=("shop/db",))
OBJECTS = workload_objects(PLAN, MACHINES)


def test_each_identity_is_one_pod_on_its_machine() -> None:
    """SPIFFE identities are the plan's: the same namespace, the same account."""
    placed = {
        (
            thing["metadata"]["namespace"],
            thing["spec"]["template"]["spec"]["serviceAccountName"],
            thing["spec"]["template"]["spec"]["nodeSelector"][HOSTNAME_LABEL],
        )
        for thing in _of(OBJECTS, "Deployment")
    }
    assert placed == {
        ("shop", "web", "meshwake-x-worker"),
        ("default", "client", "meshwake-x-worker"),
        ("shop", "db", "meshwake-x-worker2"),
    }
    assert all(thing["spec"]["replicas"] == 1 for thing in _of(OBJECTS, "Deployment"))


def test_everything_carries_both_labels_pods_too() -> None:
    """A run is taken away by them."""
    wanted = {**OUR_LABELS, **RUN_LABELS}
    for thing in OBJECTS:
        assert wanted.items() <= thing["metadata"]["labels"].items()
    for thing in _of(OBJECTS, "Deployment"):
        assert wanted.items() <= thing["spec"]["template"]["metadata"]["labels"].items()


def test_namespaces_are_made_but_not_the_shared_one() -> None:
    """default is in every cluster: to put our label on it would be to promise that it goes with the
    run."""
    assert [(thing["kind"], thing["metadata"]["name"]) for thing in OBJECTS[:1]] == [
        ("Namespace", "shop")
    ]
    assert len(_of(OBJECTS, "Namespace")) == 1


def test_pods_are_ambient_wherever_they_are() -> None:
    """In default, whose label is not ours to set, too."""
    for thing in _of(OBJECTS, "Deployment"):
        assert (
            thing["spec"]["template"]["metadata"]["labels"]["istio.io/dataplane-mode"] == "ambient"
        )


def test_a_service_leads_to_the_pod_of_its_identity() -> None:
    """By labels that no other pod of the namespace has, to the port that it listens on."""
    pods = {
        (thing["metadata"]["namespace"], thing["metadata"]["name"]): thing["spec"]["template"]
        for thing in _of(OBJECTS, "Deployment")
    }
    services = _of(OBJECTS, "Service")
    assert len(services) == len(pods)
    for service in services:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        selector = service["spec"]["selector"]
        assert selector == identity_labels(f"{namespace}/{name}")
        chosen = [
            key
            for key, pod in pods.items()
            if key[0] == namespace and selector.items() <= pod["metadata"]["labels"].items()
        ]
        assert chosen == [(namespace, name)]
        assert service["spec"]["ports"][0]["port"] == SERVER_PORT
        (container,) = pods[namespace, name]["spec"]["containers"]
        assert (container["name"], container["ports"][0]["containerPort"]) == (
            CONTAINER,
            SERVER_PORT,
        )
        assert f"--http-port={SERVER_PORT}" in container["args"]


def test_the_image_is_the_pinned_one() -> None:
    """The same that is preloaded."""
    assert set(image_references(OBJECTS)) == set(workload_images(read_pins()))


def test_where_an_identity_is_found() -> None:
    """For those who ask and look."""
    assert namespace_of("shop/web") == "shop"
    assert server_url("shop/web") == "http://web.shop.svc.cluster.local:8080/"


@pytest.mark.parametrize("namespace", sorted(NOT_FOR_RUNS))
def test_namespaces_of_the_cluster_are_refused(namespace: str) -> None:
    """A run takes its namespaces away afterwards."""
    with pytest.raises(
        BadInput, match=f"'{namespace}/x': '{namespace}' belongs to the cluster; .* 'default/x'"
    ):
        workload_objects(_plan(a=(f"{namespace}/x",)), MACHINES)


def test_a_node_without_a_machine_is_refused() -> None:
    """By name, with those that have one."""
    with pytest.raises(BadInput, match="node 'c' of the plan has no machine; known: a, b"):
        workload_objects(_plan(c=("shop/web",)), MACHINES)
