"""What a run applies for the gateways of its plan, and how connections are sent through them.

A [[gateway]] is a Gateway of class istio, for which istiod makes a pod with Envoy and pilot-agent.
It has the account of the plan's identity, runs on the node of the plan, and requests certificates of
the plan's lifetime, without the spread that pilot-agent adds to its waits. Its outgoing connections
are HBONE connections of the mesh, with its own certificate: those are what a pair with the gateway
as source is about. The request is made in the pod of the destination, which reaches the gateway
without mTLS, so that nothing but the gateway's own connection depends on a certificate.

Sources: istio pilot/pkg/config/kube/gatewaycommon/deploymentcontroller.go at 1.30.0 (its overlays:
since 1.26.0); pilot/cmd/pilot-agent/options/options.go at 1.24.0 to 1.31.0-rc.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from meshwake.cluster.stack.pieces import read_objects
from meshwake.cluster.stack.workloads import (
    HOSTNAME_LABEL,
    SERVER_PORT,
    check_placed,
    namespace_of,
    split_identity,
)
from meshwake.core.json_types import JsonObject, MutableJsonObject, object_at
from meshwake.core.plan import Plan, PlannedGateway
from meshwake.core.versions import parse_version
from meshwake.ztunnel.environment import SECRET_TTL
from meshwake.ztunnel.names import GATEWAY_LABEL, PROXY_CONTAINER

# The first release whose istiod merges the `deployment` of a Gateway's ConfigMap.
OVERLAYS_SINCE = "1.26.0"
# pilot-agent: by how much of the lifetime a renewal is earlier or later by chance; 0.01 unless set.
SECRET_JITTER = "SECRET_GRACE_PERIOD_RATIO_JITTER"  # noqa: S105  the name of a setting, no secret
# Which destination a request through the gateway is for.
DESTINATION_HEADER = "x-meshwake-destination"


def gateway_refusals(plan: Plan) -> list[str]:
    """What of the plan's gateways a cluster cannot do, one sentence each with the next step."""
    return list(_refusals(plan))


def _refusals(plan: Plan) -> Iterator[str]:
    if not plan.gateways:
        return
    if parse_version(plan.version) < parse_version(OVERLAYS_SINCE):
        yield (
            f"[[gateway]] with Istio {plan.version}: a gateway is placed on its node by settings "
            f"that istiod reads since {OVERLAYS_SINCE}; use a newer release, or --lab model"
        )
    gateways = {gateway.identity for gateway in plan.gateways}
    for source, destination in plan.pairs:
        if destination in gateways:
            yield (
                f"traffic pair {source} -> {destination}: pods connect to a gateway without mTLS, "
                "so no certificate is checked there; make the gateway the source, or use "
                "--lab model"
            )
        elif source in gateways and namespace_of(source) != namespace_of(destination):
            yield (
                f"traffic pair {source} -> {destination}: a gateway routes to its own namespace "
                f"only; give both identities the namespace {namespace_of(destination)!r}"
            )


def gateway_objects(plan: Plan, node_names: Mapping[str, str]) -> list[MutableJsonObject]:
    """The objects of every gateway of `plan`. `node_names`: as for `workload_objects`."""
    things: list[MutableJsonObject] = []
    for gateway in plan.gateways:
        things += _objects_of(plan, gateway, node_names)
    return things


def gateway_url(gateway: PlannedGateway) -> str:
    """Where the gateway listens, from anywhere in the cluster."""
    return f"http://{gateway.name}-istio.{namespace_of(gateway.identity)}.svc.cluster.local/"


def gateway_labels(gateway: PlannedGateway) -> dict[str, str]:
    """The labels by which its pod is found in its namespace."""
    return {GATEWAY_LABEL: gateway.name}


def _objects_of(
    plan: Plan, gateway: PlannedGateway, node_names: Mapping[str, str]
) -> list[MutableJsonObject]:
    check_placed(gateway.node, node_names)
    namespace, account = split_identity(gateway.identity)
    settings, gateway_object, route, rule = read_objects("workloads", "gateway.yaml")
    for thing in (settings, gateway_object, route):
        thing["metadata"].update(name=gateway.name, namespace=namespace)

    settings["data"]["deployment"] = json.dumps(_overlay(gateway, node_names[gateway.node]))
    gateway_object["metadata"]["annotations"]["gateway.istio.io/service-account"] = account
    gateway_object["spec"]["infrastructure"]["parametersRef"]["name"] = gateway.name

    destinations = [destination for source, destination in plan.pairs if source == gateway.identity]
    route["spec"]["parentRefs"] = [{"name": gateway.name}]
    route["spec"]["rules"] = [_route_to(destination) for destination in destinations]
    rules = [_rule_for(rule, gateway, destination) for destination in destinations]

    # Into a route without rules the Gateway API fills in one that matches every request.
    routes = [route] if destinations else []
    return [settings, gateway_object, *routes, *rules]


def _overlay(gateway: PlannedGateway, machine: str) -> MutableJsonObject:
    """Merged into the Deployment that istiod makes: lists of named things are merged by name."""
    # Without jitter a renewal is due at the same moment as in the model.
    environment = {SECRET_TTL: f"{gateway.lifetime_s}s", SECRET_JITTER: "0"}
    container = {
        "name": PROXY_CONTAINER,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }

    # As for the pods of identities (clusters/workloads/identity.yaml): a node that sleeps is not
    # ready for a while, and its gateway must not be moved away from it.
    tolerations = [
        {"operator": "Exists", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    ]
    pod = {
        "nodeSelector": {HOSTNAME_LABEL: machine},
        "tolerations": tolerations,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    return {"spec": {"strategy": {"type": "Recreate"}, "template": {"spec": pod}}}


def _route_to(destination: str) -> MutableJsonObject:
    header = {"name": DESTINATION_HEADER, "type": "Exact", "value": destination}
    backend = {"name": split_identity(destination)[1], "port": SERVER_PORT}
    return {"matches": [{"headers": [header]}], "backendRefs": [backend]}


def _rule_for(template: JsonObject, gateway: PlannedGateway, destination: str) -> MutableJsonObject:
    namespace, account = split_identity(destination)
    host = f"{account}.{namespace}.svc.cluster.local"
    metadata = {"name": f"{gateway.name}-{account}", "namespace": namespace}
    return {**template, "metadata": metadata, "spec": {**object_at(template, "spec"), "host": host}}
