"""When time is leapt over, how far, and what is waited for before it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from meshwake.cluster.observe import Held
from meshwake.cluster.real_time import WorldTime
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.backend import MeshProcess
from meshwake.labs.kind.pace import (
    BEFORE_RENEWAL_NS,
    CERTIFICATE_TIMEOUT_S,
    RETRY_STEP_NS,
    LapsePace,
)
from meshwake.labs.kind.renewals import Renewals

DAY_NS, HOUR_NS = 86_400 * NS_PER_S, 3_600 * NS_PER_S
START = ClockReading(1_800_000_000 * NS_PER_S, 0, 0)


@dataclass
class Quiet:
    """A session of one node in which nothing happens; `real` is its time too."""

    asleep: frozenset[str] = frozenset()
    istiod_away: bool = False
    failure_seen: bool = False
    disturbed_world_ns: int = -DAY_NS
    gone: frozenset[str] = frozenset()
    attempt_ns: int | None = None
    done: list[str] = field(default_factory=list)
    now_ns: int = 0

    def __post_init__(self) -> None:
        self.world = WorldTime(self)
        self.renewals = Renewals(
            lambda node: ClockReading(*(each + self.world.now_ns for each in START))
        )
        self.renewals.started(MeshProcess("vm", "vm", ("default/client",)), START)
        self.issue(0)

    def issue(self, at_ns: int) -> None:
        begins_s = START.wall_ns // NS_PER_S + at_ns // NS_PER_S - 120
        self.renewals.holds(
            "default/client", Held("Available", "1", begins_s, begins_s + 120 + 86_400), START
        )

    @property
    def real(self) -> Quiet:
        return self

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, lasts_s: float) -> None:
        self.now_ns += int(lasts_s * NS_PER_S)

    def all_asleep(self) -> bool:
        return self.asleep == {"vm"}

    def awaited_processes(self) -> frozenset[str]:
        return self.gone

    def next_attempt_world_ns(self) -> int | None:
        return self.attempt_ns

    def poll_ztunnels(self) -> None:
        self.done.append("ztunnels")

    def poll_pods(self) -> None:
        self.done.append("pods")

    def poll_logs(self) -> None:
        self.done.append("logs")
        self.failure_seen = False

    def finish(self) -> None:
        self.done.append("finish")

    # The mover

    def await_still(self) -> None:
        self.done.append("still")

    def skip(self, by_ns: int) -> None:
        self.done.append(f"skip {by_ns / NS_PER_S:.1f}")


def passed(
    session: Quiet, until_ns: int, *, has_fix: bool = False, has_gateways: bool = False
) -> list[str]:
    """What letting time pass once does."""
    session.done.clear()
    pace = LapsePace(session, session, has_fix=has_fix, has_gateways=has_gateways)
    pace.let_pass(until_ns)
    return session.done


def test_a_leap_ends_at_whatever_comes_first() -> None:
    """A fault, a connection, or shortly before a renewal, which then happens in real time."""
    half_s = 86_520 / 2 - 120
    assert passed(Quiet(), HOUR_NS) == ["finish", "still", "skip 3600.0"]
    assert passed(Quiet(attempt_ns=HOUR_NS // 2), HOUR_NS)[-1] == "skip 1800.0"
    assert passed(Quiet(), DAY_NS)[-1] == f"skip {half_s - BEFORE_RENEWAL_NS / NS_PER_S:.1f}"


def test_before_a_connection_of_a_gateway_two_timers_of_a_minute_can_fire() -> None:
    """Envoy closes a connection that two cleanups, one a minute, have found unused; a leap lets a
    timer fire once. Else the connection of an hour ago is used again, and no expiry is noticed."""
    session = Quiet(attempt_ns=HOUR_NS)
    assert passed(session, DAY_NS, has_gateways=True)[-1] == "skip 3535.0"
    assert passed(session, DAY_NS, has_gateways=True)[-1] == "skip 65.0"
    soon = Quiet(attempt_ns=100 * NS_PER_S)
    assert passed(soon, DAY_NS, has_gateways=True)[-1] == "skip 100.0"


def test_where_everybody_sleeps_only_the_end_of_it_counts() -> None:
    """No connection is tried, no certificate renewed."""
    session = Quiet(asleep=frozenset({"vm"}), attempt_ns=HOUR_NS)
    assert passed(session, 8 * HOUR_NS)[-1] == "skip 28800.0"


def test_a_certificate_that_is_due_is_waited_for_and_looked_for() -> None:
    """In real time, within a bound; then time goes on in small leaps, and logs are read before
    each."""
    session = Quiet()
    session.world.jump(DAY_NS)
    pace = LapsePace(session, session)
    while not pace.may_go_on():
        pace.let_pass(10 * DAY_NS)
    assert session.now_ns == pytest.approx(CERTIFICATE_TIMEOUT_S * NS_PER_S, abs=NS_PER_S)
    assert set(session.done) == {"ztunnels"}
    session.done.clear()
    pace.let_pass(10 * DAY_NS)
    assert session.done == [
        "finish",
        "logs",
        "finish",
        "still",
        f"skip {RETRY_STEP_NS / NS_PER_S:.1f}",
    ]
    session.issue(session.world.now_ns)
    pace.let_pass(session.world.now_ns + HOUR_NS)
    assert session.done[-1] == "skip 3600.0"


def test_a_ztunnel_that_has_gone_is_waited_for() -> None:
    """Until the next one runs: time does not leap over a restart."""
    session = Quiet(gone=frozenset({"vm"}))
    assert passed(session, HOUR_NS) == ["ztunnels"]


def test_who_mends_looks_often_and_what_it_did_is_seen_before_a_connection() -> None:
    """After a fault as often as it would itself."""
    assert passed(Quiet(), HOUR_NS, has_fix=True) == [
        "finish",
        "still",
        "skip 600.0",
        "still",
        "pods",
    ]
    assert "skip 30.0" in passed(Quiet(disturbed_world_ns=0), HOUR_NS, has_fix=True)


def test_what_is_near_is_waited_for_in_real_time() -> None:
    """A leap of less than a second is none."""
    session = Quiet()
    assert passed(session, NS_PER_S // 2) == ["finish"]
    assert 0 < session.now_ns <= NS_PER_S // 2
