"""Gateways of a run on a simulated cluster: read from Envoy, judged by what connects through them,
and renewed when the model says."""

from __future__ import annotations

from itertools import pairwise

from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History
from meshwake.kubernetes.api import Pod

from tests.unit.cluster.simulated import Clock, SimulatedCluster
from tests.unit.labs.kind.lapse import SimulatedLapse, lapsed
from tests.unit.labs.kind.runs import cluster_of, sleeping_gateway

GATEWAY, HOUR_NS = "default/ingress", 3_600 * NS_PER_S


def issued_world_ns(history: History, identity: str = GATEWAY) -> list[int]:
    issued = history.of("csr_answered", identity=identity, outcome="issued")
    return [event.world_ns for event in issued]


def test_a_gateway_is_late_once() -> None:
    """12 h after the issue by the clock that stood still for 14 h, and 12 h after each later one."""
    history, _ = lapsed(sleeping_gateway())
    gaps_ns = [later - earlier for earlier, later in pairwise(issued_world_ns(history))]
    expected_h = [26, 12, 12, 12]
    assert len(gaps_ns) >= len(expected_h)
    for gap_ns, hours in zip(gaps_ns, expected_h, strict=False):
        assert abs(gap_ns - hours * HOUR_NS) <= 2 * NS_PER_S


def test_connections_through_it_fail_while_its_certificate_is_expired() -> None:
    history, _ = lapsed(sleeping_gateway())
    attempts = history.of("connection_attempted", source=GATEWAY)
    failed_h = [event.world_ns / HOUR_NS for event in attempts if not event["ok"]]
    assert failed_h
    assert min(failed_h) >= 23.9
    assert max(failed_h) <= 26.1


def test_its_process_is_recorded_with_the_ztunnels() -> None:
    history, _ = lapsed(sleeping_gateway())
    (started,) = history.of("proxy_started")
    assert started.node == "sleeper"
    assert started["identities"] == [GATEWAY]
    assert started["cause"] == "start"
    assert len(history.of("ztunnel_started")) == 2


def test_one_that_is_restarted_is_seen_and_counts_from_its_new_certificate() -> None:
    """As the guard does it: its pod is deleted. Nothing of the old process is carried over."""
    of = sleeping_gateway()
    clocks = {node.name: Clock() for node in of.nodes}
    cluster = cluster_of(of, clocks=clocks)

    class EndsGateway(SimulatedLapse):
        def skip(self, by_ns: int) -> None:
            super().skip(by_ns)
            if len(self.leaps) == 3:
                self.cluster.end_pod(gateway_pod(self.cluster))

    history, _ = lapsed(of, mover=EndsGateway(cluster))
    (stopped,) = history.of("proxy_stopped")
    first, second = history.of("proxy_started")
    assert stopped["process"] == first["process"] != second["process"]
    assert second["cause"] == "by itself"
    assert len(history.of("ztunnel_started")) == 2
    later_ns = [at for at in issued_world_ns(history) if at > second.world_ns]
    assert later_ns


def gateway_pod(cluster: SimulatedCluster) -> Pod:
    (pod,) = cluster.pods("default", {"gateway.networking.k8s.io/gateway-name": "ingress"})
    return pod
