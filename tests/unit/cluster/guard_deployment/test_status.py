"""What the guard of each node reports."""

from __future__ import annotations

import pytest
from meshwake.cluster.guard_deployment.status import (
    ExportedMetrics,
    NodeStatus,
    read_metrics,
    read_status,
)
from meshwake.core.clock_reading import ClockReading
from meshwake.guard.metrics import PrometheusMetrics

from tests.unit.cluster.guard_deployment.homelab import NOW_S, Homelab
from tests.unit.cluster.guard_deployment.test_install import IMAGE, installed


def test_each_node_reports_what_its_guard_runs_and_has_seen() -> None:
    cluster = Homelab()
    installed(cluster)
    one, two = read_status(cluster, NOW_S)
    metrics = ExportedMetrics(
        NOW_S - 12,
        {"istio-system/ztunnel-x": 28800.4},
        {"ztunnel": 3, "proxy": 0},
        {"settling": 2, "cooldown": 0},
    )
    assert one == NodeStatus("one", "wake-guard-one", IMAGE, "", metrics)
    assert two.node == "two" and two.problem == ""


def test_what_keeps_a_node_from_being_guarded_is_named() -> None:
    """No guard, one that does not start, one that never looked, one that does no longer look."""
    cluster = Homelab(("a", "b", "c", "d"))
    installed(cluster)
    cluster.silent.add("b")
    cluster.pod(
        "meshwake-guard",
        "wake-guard-c",
        "c",
        {"app": "wake-guard"},
        waiting=("CrashLoopBackOff", "back-off"),
    )
    del cluster.objects["Pod", "meshwake-guard", "wake-guard-d"]
    assert {each.node: each.problem for each in read_status(cluster, NOW_S)} == {
        "a": "",
        "b": "it has not looked yet",
        "c": "not ready: CrashLoopBackOff: back-off",
        "d": "a ztunnel runs here and no guard",
    }
    late = read_status(cluster, NOW_S + 3600)
    assert late[0].problem == "its last look is more than ten minutes ago"


def test_a_page_of_a_real_guard_is_read() -> None:
    """As it is exported before the first look, and after it."""
    metrics = PrometheusMetrics("laptop")
    assert read_metrics(metrics.text()).last_look_wall_s is None
    metrics.looked(ClockReading(NOW_S * 10**9, 0, 0), [])
    metrics.held_back("settling")
    metrics.restarted("ztunnel")
    found = read_metrics(metrics.text())
    assert found.last_look_wall_s == NOW_S
    assert found.restarts == {"ztunnel": 1, "proxy": 0}
    assert found.held_back["settling"] == 1 and found.held_back["cooldown"] == 0


@pytest.mark.parametrize("page", ["", "up 1\n", "<html>"])
def test_another_page_is_not_a_guards(page: str) -> None:
    with pytest.raises(ValueError, match="meshwake_guard_last_look|unparsable|invalid|float"):
        read_metrics(page)
