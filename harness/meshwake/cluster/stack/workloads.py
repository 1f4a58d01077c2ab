"""What a run puts into the cluster for the identities of its plan, and where it is found there.

For each identity, namespace/serviceaccount, a ServiceAccount, a Deployment of one pod pinned to the
machine that the plan names, and a Service (clusters/workloads/identity.yaml). That pod is client
and server at once: it has `curl`, and answers HTTP 200 on `SERVER_PORT`. Its SPIFFE identity is the
plan's, word for word.

Namespaces are made, with the run's label, so that they go with the run. "default" exists in every
cluster and is neither labelled nor deleted: there, and everywhere, it is the pods that carry the
label of ambient. Namespaces of the cluster and of the stack are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwake.cluster.stack.pieces import (
    ACME_NAMESPACE,
    CERT_MANAGER_NAMESPACE,
    CILIUM_NAMESPACE,
    DEMO_NAMESPACE,
    METALLB_NAMESPACE,
    OBSERVABILITY_NAMESPACE,
    labelled,
    read_objects,
)
from meshwake.cluster.stack.pins import Pins, read_pins
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS
from meshwake.ztunnel.names import ISTIO_NAMESPACE

SERVER_PORT = 8080
CONTAINER = "app"
IMAGE = "echo"
IDENTITY_LABEL = "meshwake.dev/identity"
HOSTNAME_LABEL = "kubernetes.io/hostname"
AMBIENT_LABELS: Mapping[str, str] = {"istio.io/dataplane-mode": "ambient"}
# Exists in every cluster: used, and neither made nor labelled nor deleted.
SHARED_NAMESPACE = "default"
NOT_FOR_RUNS = frozenset(
    {
        CILIUM_NAMESPACE,
        "kube-public",
        "kube-node-lease",
        ACME_NAMESPACE,
        CERT_MANAGER_NAMESPACE,
        DEMO_NAMESPACE,
        ISTIO_NAMESPACE,
        METALLB_NAMESPACE,
        OBSERVABILITY_NAMESPACE,
    }
)


def workload_objects(
    plan: Plan, node_names: Mapping[str, str], pins: Pins | None = None
) -> tuple[dict[str, Any], ...]:
    """All objects for the identities of `plan`, namespaces first, also those of its gateways, whose
    other objects gateways.py makes; `node_names`: node of the plan -> value of the
    node's hostname label.

    All carry `OUR_LABELS` and `RUN_LABELS`. Raises BadInput for an identity that cannot be placed.
    """
    image = (pins or read_pins()).images[IMAGE]
    things = [_namespace(name) for name in _namespaces_of(plan)]
    for node in plan.nodes:
        for identity in node.identities:
            check_placed(node.name, node_names)
            things += _objects_of(identity, node_names[node.name], image)

    labels = {**OUR_LABELS, **RUN_LABELS}
    return tuple(labelled(thing, labels) for thing in things)


def _namespaces_of(plan: Plan) -> list[str]:
    """Those that the run makes, by name."""
    identities = [gateway.identity for gateway in plan.gateways]
    for node in plan.nodes:
        identities += node.identities

    namespaces = {namespace_of(identity) for identity in identities}
    # That one is there in every cluster, and stays.
    namespaces.discard(SHARED_NAMESPACE)
    return sorted(namespaces)


def check_placed(node: str, node_names: Mapping[str, str]) -> None:
    """Raises BadInput when `node` of the plan has no machine."""
    if node in node_names:
        return
    known = ", ".join(sorted(node_names)) or "none"
    raise BadInput(f"node {node!r} of the plan has no machine; known: {known}")


def identity_labels(identity: str) -> dict[str, str]:
    """The labels by which the pod of `identity` is found in its namespace."""
    return {IDENTITY_LABEL: split_identity(identity)[1]}


def namespace_of(identity: str) -> str:
    """The namespace in which the pod of `identity` runs."""
    return split_identity(identity)[0]


def server_url(identity: str) -> str:
    """Where the server of `identity` answers, from anywhere in the cluster."""
    namespace, account = split_identity(identity)
    return f"http://{account}.{namespace}.svc.cluster.local:{SERVER_PORT}/"


def workload_images(pins: Pins) -> tuple[str, ...]:
    """Every image that a run starts."""
    return (pins.images[IMAGE],)


def split_identity(identity: str) -> tuple[str, str]:
    """Namespace and service account. Raises BadInput for a namespace that runs must not use."""
    namespace, _, account = identity.partition("/")
    if namespace in NOT_FOR_RUNS:
        raise BadInput(
            f"identity {identity!r}: {namespace!r} belongs to the cluster; use another "
            "namespace, for example "
            f"'{SHARED_NAMESPACE}/{account}'"
        )
    return namespace, account


def _namespace(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict(AMBIENT_LABELS)},
    }


def _objects_of(identity: str, machine: str, image: str) -> list[dict[str, Any]]:
    namespace, name = split_identity(identity)
    account, deployment, service = read_objects("workloads", "identity.yaml")
    for thing in (account, deployment, service):
        thing["metadata"].update(name=name, namespace=namespace)
    labels = identity_labels(identity)
    deployment["spec"]["selector"]["matchLabels"] = labels
    template = deployment["spec"]["template"]
    template["metadata"]["labels"].update(labels)
    template["spec"]["serviceAccountName"] = name
    template["spec"]["nodeSelector"] = {HOSTNAME_LABEL: machine}
    template["spec"]["containers"][0]["image"] = image
    service["spec"]["selector"] = labels
    return [account, deployment, service]
