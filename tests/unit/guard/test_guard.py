"""The guard's decisions, look by look: when it restarts, when it waits, and why it leaves things
alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.ztunnel.renewal import forecast_renewal

from tests.unit.guard.nodes import HOUR, MINUTE, NS, HandNode, guard_of, look_for


def slept(hours: float, *, age_s: float = 0) -> HandNode:
    """A node whose ztunnel has a certificate, and which then slept."""
    node = HandNode()
    node.ztunnel(age_s=age_s)
    guard_of(node)
    node.awake(MINUTE)
    node.asleep(hours * HOUR)
    return node


def test_a_sleep_that_does_no_harm_is_left_alone() -> None:
    """Eight hours late is still in time: 12 h 01 min are the threshold."""
    node = slept(8)
    look_for(guard_of(node), node, 20 * HOUR)
    assert node.restarted == []


def test_it_acts_half_an_hour_before_an_outage() -> None:
    """Sixteen hours in two sleeps; the certificate is good for another six hours."""
    node = slept(16)
    guard = guard_of(node)
    look_for(guard, node, 7 * HOUR)
    assert node.restarted == []
    look_for(guard, node, 1 * HOUR)
    (name, why), *more = node.restarted
    assert name == "ztunnel" and more == []
    assert "renewals are 16h late" in why


def test_what_expired_asleep_is_restarted_after_clocks_have_settled() -> None:
    node = slept(1)
    guard = guard_of(node)
    guard.look()
    node.asleep(30 * HOUR)
    look_for(guard, node, 45)
    assert node.restarted == []
    look_for(guard, node, MINUTE)
    assert len(node.restarted) == 1
    assert node.waited == ["settling"]


@pytest.mark.parametrize("why", ["authority", "turn"])
def test_it_waits_while_a_restart_would_do_harm(why: str) -> None:
    """No certificate could be had, or another node is restarting. It reports once, and acts when
    that has passed."""
    node = slept(40)
    setattr(node, why, False)
    guard = guard_of(node)
    look_for(guard, node, HOUR)
    assert node.restarted == []
    assert node.waited == ["authority-away" if why == "authority" else "another-node"]
    setattr(node, why, True)
    look_for(guard, node, MINUTE)
    assert len(node.restarted) == 1


def test_a_restart_that_did_not_help_is_not_done_again_at_once() -> None:
    """The cooldown is on the monotonic clock: that the wall clock jumps on does not end it."""
    node = slept(40)
    guard = guard_of(node)
    guard.look()
    assert len(node.restarted) == 1
    node.asleep(40 * HOUR)
    look_for(guard, node, 90)
    assert len(node.restarted) == 1
    look_for(guard, node, 90)
    assert len(node.restarted) == 2
    assert "cooldown" in node.waited


def test_the_cooldown_is_of_the_controller_and_not_of_a_pod() -> None:
    """A pod that is evicted comes back under another name."""
    node = slept(40)
    node.processes = [
        each._replace(owner="istio-system/DaemonSet/ztunnel") for each in node.processes
    ]
    guard = guard_of(node)
    guard.look()
    assert len(node.restarted) == 1
    node.processes = [
        each._replace(name="ztunnel-2", owner="istio-system/DaemonSet/ztunnel")
        for each in node.processes
    ]
    node.asleep(40 * HOUR)
    look_for(guard, node, 90)
    assert len(node.restarted) == 1


def test_a_clock_set_back_makes_certificates_not_valid_yet() -> None:
    node = HandNode()
    node.ztunnel()
    node.awake(HOUR)
    guard = guard_of(node)
    guard.look()
    node.asleep(-2 * HOUR)
    look_for(guard, node, 2 * MINUTE)
    assert len(node.restarted) == 1
    assert "not valid before" in node.restarted[0][1]


def test_an_issuer_whose_clock_is_ahead_is_not_its_business() -> None:
    """Not valid yet, and the clocks never parted: a restart would bring another such
    certificate."""
    node = HandNode()
    node.ztunnel(age_s=-HOUR)
    look_for(guard_of(node), node, HOUR)
    assert node.restarted == []


def test_a_clock_set_back_by_half_a_life_is_a_storm() -> None:
    node = HandNode()
    node.ztunnel()
    node.awake(30)
    node.asleep(-13 * HOUR)
    node.processes[0] = node.processes[0]._replace(certificates=(node.certificate(0),))
    look_for(guard_of(node), node, MINUTE)
    assert "without a pause" in node.restarted[0][1]


def test_a_slow_drift_is_not_a_jump_and_is_seen() -> None:
    """2.5 % fast: nothing ever settles, and the drift adds up."""
    node = HandNode()
    node.ztunnel()
    guard = guard_of(node)
    for _ in range(24 * 60 * 22):
        node.awake(MINUTE)
        node.asleep(1.5)
        age_s = (node.now.wall_ns - node.processes[0].certificates[0].not_before_wall_ns) / NS
        if age_s > 24.2 * HOUR:
            node.processes[0] = node.processes[0]._replace(certificates=(node.certificate(0),))
        guard.look()
    assert len(node.restarted) == 1
    assert node.waited == []


def test_a_gateway_is_late_once_and_counts_from_its_own_certificate() -> None:
    """Its agent computes again at each issue: sleep before the issue is forgotten, sleep after it
    is not."""
    node = HandNode()
    node.asleep(40 * HOUR)
    node.proxy()
    guard = guard_of(node)
    look_for(guard, node, HOUR)
    node.asleep(26 * HOUR)
    look_for(guard, node, 3 * MINUTE)
    assert [name for name, _ in node.restarted] == ["gateway"]


def test_a_gateway_that_does_not_answer_after_the_wake_is_late_all_the_same() -> None:
    """kubelet is busy then; the drift counts from before the sleep, not from the first answer."""
    node = HandNode()
    node.proxy()
    guard = guard_of(node)
    look_for(guard, node, 5 * MINUTE)
    node.asleep(30 * HOUR)
    gateway, node.processes = node.processes, []
    look_for(guard, node, 2 * MINUTE)
    node.processes = gateway
    look_for(guard, node, 3 * MINUTE)
    assert [name for name, _ in node.restarted] == ["gateway"]


def test_what_is_gone_is_forgotten() -> None:
    """So that nothing grows with the pods that come and go."""
    node = HandNode()
    node.proxy("short-lived")
    guard = guard_of(node)
    guard.look()
    node.processes.clear()
    look_for(guard, node, 30 * MINUTE)
    assert guard._first_seen
    look_for(guard, node, 31 * MINUTE)
    assert not guard._first_seen and not guard._last_seen


def test_ztunnel_comes_before_the_gateway() -> None:
    node = HandNode()
    node.ztunnel()
    node.proxy()
    guard = guard_of(node)
    guard.look()
    node.asleep(60 * HOUR)
    look_for(guard, node, 3 * MINUTE)
    assert [name for name, _ in node.restarted] == ["ztunnel", "gateway"]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20 * 60), st.integers(0, 40 * 60)), min_size=1, max_size=8)
)
def test_it_restarts_only_what_would_be_served_expired(days: list[tuple[int, int]]) -> None:
    """Whatever sleeps: at every restart an outage lies ahead by the bare formula, within the lead
    or already there."""
    node = HandNode()
    node.ztunnel()
    guard = guard_of(node)
    for awake_min, asleep_min in days:
        for _ in range(awake_min // 5):
            before = node.processes[0]
            guard.look()
            if node.processes[0] != before:
                parted_ns = (node.now.wall_ns - before.started.wall_ns) - (
                    node.now.monotonic_ns - before.started.monotonic_ns
                )
                _, begins_ns, ends_ns = before.certificates[0]
                seen = forecast_renewal(begins_ns, ends_ns, parted_ns, node.now.wall_ns)
                assert seen.outage_from_wall_ns is not None
                assert seen.outage_from_wall_ns - node.now.wall_ns <= 30 * MINUTE * NS
            node.awake(5 * MINUTE)
        node.asleep(asleep_min * MINUTE)
