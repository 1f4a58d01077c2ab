"""Which Gateways have a status that is older than their pods."""

from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.gateway_status import recompute_stale

from tests.support.fake_kubernetes import FakeKubernetes, Key
from tests.unit.cluster.world import NOT_PROGRAMMED

LABELS = {"gateway.networking.k8s.io/gateway-name": "gateway"}
METADATA = {"namespace": "demo", "name": "gateway-istio", "labels": LABELS}


class Patched(FakeKubernetes):
    """Remembers the patches."""

    def __init__(self, available: int) -> None:
        status = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": available}
        self.objects: dict[Key, Any] = {
            (kind, "demo", "gateway-istio"): {"kind": kind, "metadata": METADATA, "status": status}
            for kind in ("Service", "Deployment")
        }
        self.patches: list[tuple[str, str, Any]] = []

    def patch(self, kind: str, namespace: str, name: str, patch: Any) -> None:
        self.patches.append((kind, name, patch["metadata"]["labels"]))


def gateway(**programmed: str) -> dict[str, Any]:
    conditions = [{**NOT_PROGRAMMED, **programmed}]
    metadata = {"namespace": "demo", "name": "gateway"}
    return {"kind": "Gateway", "metadata": metadata, "status": {"conditions": conditions}}


def test_its_service_gets_a_label_for_a_moment() -> None:
    kube = Patched(available=1)
    assert [*recompute_stale(kube, [gateway()])] == ["Gateway demo/gateway"]
    label = "meshwake.dev/recompute-status"
    assert kube.patches == [
        ("Service", "gateway-istio", {label: "now"}),
        ("Service", "gateway-istio", {label: None}),
    ]


@pytest.mark.parametrize(
    ("available", "programmed"),
    [
        (0, {}),
        (1, {"status": "True"}),
        (1, {"message": 'address pending for hostname "gateway-istio.demo.svc.cluster.local"'}),
    ],
    ids=["no pod is ready", "programmed", "has no address"],
)
def test_nothing_is_changed_where_the_status_is_right(
    available: int, programmed: dict[str, str]
) -> None:
    kube = Patched(available)
    assert [*recompute_stale(kube, [gateway(**programmed)])] == []
    assert kube.patches == []
