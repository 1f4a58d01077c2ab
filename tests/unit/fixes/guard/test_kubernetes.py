"""The guard's way to an API server: what it asks, with its rights, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import LabUnavailable
from harness.fixes.guard.cluster import GATEWAYS, ISTIOD, ZTUNNELS, Unreachable
from harness.fixes.guard.kubernetes import ThroughKr8s
from tests.unit.fixes.guard.api_server import Cluster, serving

NS = 10**9
WALL_NS = 1_800_000_000 * NS
HOLDS_NS = 45 * NS
DAEMONSET = Path(__file__).parents[4] / "clusters/fixes/wake-guard/daemonset.yaml"


def pod(namespace: str, name: str, node: str, **labels: str) -> dict[str, Any]:
    running = {"name": "istio-proxy", "state": {"running": {"startedAt": "2027-01-15T08:00:00Z"}}}
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}", "labels": labels},
        "spec": {"nodeName": node},
        "status": {
            "podIP": "10.0.0.1",
            "containerStatuses": [running],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def cluster() -> Cluster:
    gateway = {"gateway.networking.k8s.io/gateway-name": "web"}
    return Cluster(
        [
            pod("istio-system", "ztunnel-b", "b", app="ztunnel"),
            pod("istio-system", "ztunnel-a", "a", app="ztunnel"),
            pod("elsewhere", "ztunnel-x", "a", app="ztunnel"),
            pod("istio-system", "istiod-1", "b", app="istiod"),
            pod("web", "web-1", "a", **gateway),
        ]
    )


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path) -> Iterator[ThroughKr8s]:
    with serving(cluster, tmp_path) as kubeconfig:
        through = ThroughKr8s(kubeconfig, "meshwake-guard", lambda: WALL_NS)
        yield through
        through.close()


def test_pods_of_one_node(api: ThroughKr8s) -> None:
    """ztunnels where istio keeps them, gateways anywhere, istiod wherever it runs."""
    (ztunnel,) = api.pods(*ZTUNNELS, "a")
    assert (ztunnel.full_name, ztunnel.ready, ztunnel.started_wall_ns) == (
        "istio-system/ztunnel-a",
        True,
        {"istio-proxy": WALL_NS},
    )
    assert [each.full_name for each in api.pods(*GATEWAYS, "a")] == ["web/web-1"]
    assert [each.full_name for each in api.pods(*ISTIOD, None)] == ["istio-system/istiod-1"]


def test_an_eviction_and_its_event(api: ThroughKr8s, cluster: Cluster) -> None:
    (ztunnel,) = api.pods(*ZTUNNELS, "a")
    api.tell(ztunnel, "WakeGuardRestarted", "because", warning=False)
    api.evict(ztunnel)
    assert cluster.evicted == ["/api/v1/namespaces/istio-system/pods/ztunnel-a/eviction"]
    (event,) = cluster.events
    assert event["involvedObject"]["uid"] == "uid-ztunnel-a"
    assert (event["type"], event["reason"], event["firstTimestamp"]) == (
        "Normal",
        "WakeGuardRestarted",
        "2027-01-15T08:00:00Z",
    )


def test_the_lease_goes_from_one_node_to_the_next_when_it_has_stood_still(api: ThroughKr8s, cluster: Cluster) -> None:
    """Judged by our own monotonic clock from when we saw it, whatever another wall clock wrote into it."""
    assert api.take_lease(0, "a", HOLDS_NS, 0)
    assert api.take_lease(0, "a", HOLDS_NS, 10 * NS)
    assert not api.take_lease(0, "b", HOLDS_NS, 20 * NS)
    assert not api.take_lease(0, "b", HOLDS_NS, 64 * NS)
    assert api.take_lease(0, "b", HOLDS_NS, 65 * NS)
    assert cluster.leases["wake-guard"]["spec"]["holderIdentity"] == "b"


def test_each_turn_has_a_lease_of_its_own(api: ThroughKr8s, cluster: Cluster) -> None:
    """Whoever has one keeps nobody waiting for another."""
    assert api.take_lease(0, "a", HOLDS_NS, 0)
    assert api.take_lease(7, "b", HOLDS_NS, 0)
    assert not api.take_lease(7, "a", HOLDS_NS, 1)
    assert {name: lease["spec"]["holderIdentity"] for name, lease in cluster.leases.items()} == {
        "wake-guard": "a",
        "wake-guard-7": "b",
    }


def test_of_two_that_reach_for_the_lease_one_gets_it(api: ThroughKr8s, cluster: Cluster) -> None:
    assert api.take_lease(0, "a", HOLDS_NS, 0)
    cluster.refuse["/leases/wake-guard"] = 409
    with pytest.raises(Unreachable):  # a conflict where none can be is no answer
        api.take_lease(0, "a", HOLDS_NS, 1)
    cluster.refuse.clear()
    assert not api._write_lease("PUT", 0, {"resourceVersion": "0"}, "a", HOLDS_NS)


def test_no_answer_is_said_with_what_was_asked(api: ThroughKr8s, cluster: Cluster) -> None:
    cluster.refuse["/pods"] = 503
    with pytest.raises(Unreachable, match="list pods"):
        api.pods(*ZTUNNELS, "a")


def test_a_kubeconfig_that_leads_nowhere_is_no_cluster(tmp_path: Path) -> None:
    with serving(Cluster([]), tmp_path) as kubeconfig:
        pass
    with pytest.raises(LabUnavailable, match="--kubeconfig"):
        ThroughKr8s(kubeconfig, "meshwake-guard", lambda: WALL_NS)


def test_the_manifest_allows_all_that_the_guard_asks(api: ThroughKr8s, cluster: Cluster) -> None:
    """Every request, held against the roles of the DaemonSet's service account."""
    (ztunnel,) = api.pods(*ZTUNNELS, "a")
    (gateway,) = api.pods(*GATEWAYS, "a")
    for each in (ztunnel, gateway):
        api.evict(each)
        api.tell(each, "x", "y", warning=True)
    api.take_lease(0, "a", HOLDS_NS, 0)
    api.take_lease(0, "a", HOLDS_NS, 1)
    asked = [(method, path) for method, path in cluster.asked if not path.endswith("/version")]
    assert len(asked) >= 8
    refused = [(method, path) for method, path in asked if not _allowed(method, path)]
    assert refused == []


def _allowed(method: str, path: str) -> bool:
    words = path.strip("/").split("/")
    words = words[2:] if words[0] == "api" else words[3:]
    namespace = words[1] if words[0] == "namespaces" else None
    words = words[2:] if namespace else words
    resource = f"{words[0]}/{words[2]}" if len(words) > 2 else words[0]
    verb = {"POST": "create", "PUT": "update"}.get(method, "get" if len(words) > 1 else "list")
    for thing in yaml.safe_load_all(DAEMONSET.read_text(encoding="utf-8")):
        if thing["kind"] == "ClusterRole" or (thing["kind"] == "Role" and thing["metadata"]["namespace"] == namespace):
            for rule in thing["rules"]:
                named = rule.get("resourceNames")
                if resource in rule["resources"] and verb in rule["verbs"] and (not named or words[1] in named):
                    return True
    return False
