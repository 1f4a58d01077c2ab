"""Gateways of a run on a simulated cluster: read from Envoy, judged by what connects through them,
and renewed when the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History
from meshwake.kubernetes.api import Pod
from meshwake.labs.kind import pace

from tests.unit.cluster.simulated import Clock, SimulatedCluster
from tests.unit.labs.kind.lapse import SimulatedLapse, lapsed
from tests.unit.labs.kind.runs import cluster_of, sleeping_gateway

GATEWAY, HOUR_NS = "default/ingress", 3_600 * NS_PER_S


def issued_world_ns(history: History, identity: str = GATEWAY) -> list[int]:
    issued = history.of("csr_answered", identity=identity, outcome="issued")
    return [event.world_ns for event in issued]


def test_a_gateway_is_late_once() -> None:
    """12 h after the issue by the clock that was stopped for 14 h, and 12 h after each later one."""
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
    _, *later_ns = issued_world_ns(history)
    assert later_ns
    assert min(later_ns) >= second.world_ns, "a certificate of a process that had not started"


@dataclass
class PolledByKubelet(SimulatedLapse):
    """Kubelet polls in real time: it finds the gateway unready while that is stopped, and ready some
    seconds after its wake."""

    ready_after_s: float = 15.0

    def wake(self, nodes: Sequence[str], kind: str, lasts_ns: int) -> None:
        """See LapseMover."""
        super().wake(nodes, kind, lasts_ns)
        ready_ns = self.cluster.now_ns + int(self.ready_after_s * NS_PER_S)
        self.cluster.unready_until_ns["ingress"] = ready_ns


def woken(ready_after_s: float) -> tuple[History, SimulatedCluster]:
    """A run in which kubelet finds the gateway ready so long after its wake."""
    of = sleeping_gateway()
    cluster = cluster_of(of, clocks={node.name: Clock() for node in of.nodes})
    history, _ = lapsed(of, mover=PolledByKubelet(cluster, ready_after_s=ready_after_s))
    return history, cluster


def test_connections_wait_until_kubelet_finds_a_gateway_ready_that_woke() -> None:
    """Seen on a real cluster: reset and empty reply at the wake and five minutes after it, because
    those five minutes took ten seconds, and kubelet polls every fifteen."""
    history, _ = woken(15.0)
    attempts = history.of("connection_attempted", source=GATEWAY)
    failed_h = [event.world_ns / HOUR_NS for event in attempts if not event["ok"]]
    assert min(failed_h) >= 23.9
    (wake,) = history.of("fault_ended")
    at_wake = [event for event in attempts if 0 <= event.world_ns - wake.world_ns <= 60 * NS_PER_S]
    assert [event["ok"] for event in at_wake] == [True]


def test_a_gateway_that_does_not_become_ready_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run goes on, and records that its connections fail."""
    timeout_s = 20.0
    monkeypatch.setattr(pace, "PROCESS_TIMEOUT_S", timeout_s)
    history, cluster = woken(2 * timeout_s)
    assert cluster.now_ns < 5 * timeout_s * NS_PER_S
    (wake,) = history.of("fault_ended")
    attempts = history.of("connection_attempted", source=GATEWAY)
    (first, *_) = [event for event in attempts if event.world_ns >= wake.world_ns]
    assert not first["ok"]
    assert first.world_ns - wake.world_ns <= (timeout_s + 10) * NS_PER_S


def gateway_pod(cluster: SimulatedCluster) -> Pod:
    (pod,) = cluster.pods("default", {"gateway.networking.k8s.io/gateway-name": "ingress"})
    return pod
