"""What a run applies for the gateways of its plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from meshwake.cluster.stack.gateways import (
    DESTINATION_HEADER,
    gateway_labels,
    gateway_objects,
    gateway_refusals,
    gateway_url,
)
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan, PlannedGateway

from tests.unit.cluster.simulated import strategic_merge
from tests.unit.labs.kind.runs import CLIENT, SERVER, TWO_NODES, plan

MACHINES = {"east": "meshwake-x-worker", "west": "meshwake-x-worker2"}
GATEWAY = "default/ingress-account"
# The part of istiod's template (manifests/charts/istio-control/istio-discovery/files/
# kube-gateway.yaml) with which the overlay is merged.
MADE_BY_ISTIOD: dict[str, Any] = {
    "spec": {
        "template": {
            "spec": {
                "serviceAccountName": "ingress-account",
                "containers": [
                    {
                        "name": "istio-proxy",
                        "image": "proxyv2",
                        "env": [
                            {"name": "SECRET_TTL", "value": "600s"},
                            {"name": "ISTIO_META_ENABLE_HBONE", "value": "true"},
                        ],
                    }
                ],
            }
        }
    }
}


def with_gateway(*pairs: tuple[str, str], version: str = "1.30.3", identity: str = GATEWAY) -> Plan:
    gateway = PlannedGateway(name="ingress", node="west", identity=identity, lifetime_s=86_400)
    return plan(nodes=TWO_NODES).model_copy(
        update={"gateways": (gateway,), "pairs": pairs, "version": version}
    )


def of_kind(things: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [thing for thing in things if thing["kind"] == kind]


def test_the_account_of_a_gateway_is_that_of_its_identity() -> None:
    """Else its certificate would have another identity than the plan says."""
    (gateway,) = of_kind(gateway_objects(with_gateway((GATEWAY, SERVER)), MACHINES), "Gateway")
    annotations = gateway["metadata"]["annotations"]
    assert annotations["gateway.istio.io/service-account"] == "ingress-account"
    assert (gateway["metadata"]["namespace"], gateway["metadata"]["name"]) == ("default", "ingress")


def test_its_pod_is_on_its_node_with_certificates_of_the_plan_and_without_spread() -> None:
    """Merged into what istiod makes as the API server merges: by name, and nothing else changes."""
    objects = gateway_objects(with_gateway((GATEWAY, SERVER)), MACHINES)
    (settings,) = of_kind(objects, "ConfigMap")
    (gateway,) = of_kind(objects, "Gateway")
    assert (
        gateway["spec"]["infrastructure"]["parametersRef"]["name"] == settings["metadata"]["name"]
    )
    overlay = json.loads(settings["data"]["deployment"])
    merged = strategic_merge(MADE_BY_ISTIOD, overlay)["spec"]["template"]["spec"]
    assert merged["nodeSelector"] == {"kubernetes.io/hostname": "meshwake-x-worker2"}
    assert merged["serviceAccountName"] == "ingress-account"
    (container,) = merged["containers"]
    assert container["image"] == "proxyv2"
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "SECRET_TTL": "86400s",
        "SECRET_GRACE_PERIOD_RATIO_JITTER": "0",
        "ISTIO_META_ENABLE_HBONE": "true",
    }


def test_each_destination_has_a_route_and_a_new_connection_for_each_request() -> None:
    objects = gateway_objects(with_gateway((GATEWAY, SERVER), (GATEWAY, CLIENT)), MACHINES)
    (route,) = of_kind(objects, "HTTPRoute")
    chosen = {
        rule["matches"][0]["headers"][0]["value"]: rule["backendRefs"][0]["name"]
        for rule in route["spec"]["rules"]
    }
    assert chosen == {SERVER: "server", CLIENT: "client"}
    assert route["spec"]["rules"][0]["matches"][0]["headers"][0]["name"] == DESTINATION_HEADER
    rules = of_kind(objects, "DestinationRule")
    assert [rule["spec"]["host"] for rule in rules] == [
        "server.default.svc.cluster.local",
        "client.default.svc.cluster.local",
    ]
    for rule in rules:
        pool = rule["spec"]["trafficPolicy"]["connectionPool"]["http"]
        assert pool == {"maxRequestsPerConnection": 1}


def test_a_gateway_that_connects_to_nothing_has_no_route() -> None:
    """An HTTPRoute without rules would route everything."""
    objects = gateway_objects(with_gateway((CLIENT, SERVER)), MACHINES)
    assert [thing["kind"] for thing in objects] == ["ConfigMap", "Gateway"]


def test_where_a_gateway_is_found() -> None:
    (gateway,) = with_gateway().gateways
    assert gateway_url(gateway) == "http://ingress-istio.default.svc.cluster.local/"
    assert gateway_labels(gateway) == {"gateway.networking.k8s.io/gateway-name": "ingress"}


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (with_gateway((CLIENT, GATEWAY)), "pods connect to a gateway without mTLS"),
        (
            with_gateway(("edge/ingress", SERVER), identity="edge/ingress"),
            "give both identities the namespace 'default'",
        ),
        (with_gateway((GATEWAY, SERVER), version="1.25.5"), "since 1.26.0; use a newer release"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(of: Plan, message: str) -> None:
    (refusal,) = gateway_refusals(of)
    assert message in refusal


def test_nothing_else_is_refused() -> None:
    assert gateway_refusals(with_gateway((GATEWAY, SERVER), (CLIENT, SERVER))) == []
    assert gateway_refusals(plan(nodes=TWO_NODES).model_copy(update={"version": "1.22.0"})) == []


def test_an_identity_in_a_namespace_of_the_cluster_is_refused() -> None:
    with pytest.raises(BadInput, match="belongs to the cluster"):
        gateway_objects(with_gateway(identity="istio-system/ingress"), MACHINES)
