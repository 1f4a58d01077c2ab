"""When a renewal fires: as released, and with each of the three patches."""

from __future__ import annotations

import pytest
from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.model.timing import Timing, renewal_due

HOUR_S = 3_600
START = ClockReading(1_800_000_000 * NS_PER_S, 0, 0)
HALF_LIFE_S = 12 * HOUR_S - 60


def clock(fault: str) -> NodeClock:
    """An hour awake, then the fault."""
    of = NodeClock(START)
    of.advance_to(1 * HOUR_S * NS_PER_S)
    if fault == "suspend":
        of.suspend(8 * HOUR_S * NS_PER_S)
    elif fault == "pause":
        of.pause(8 * HOUR_S * NS_PER_S, 25 * NS_PER_S)
    elif fault == "back":
        of.step(-13 * HOUR_S * NS_PER_S)
    return of


def renewed_world_s(timing: Timing, of: NodeClock, issued_world_s: int = 0) -> float:
    """When a certificate of 24 h that came at `issued_world_s` is renewed."""
    now = of.reading(issued_world_s * NS_PER_S)
    refresh_ns, begins_ns = now.wall_ns + HALF_LIFE_S * NS_PER_S, now.wall_ns - 120 * NS_PER_S
    due = renewal_due(timing, refresh_ns, begins_ns, START, now)
    return due.world_ns(of, issued_world_s * NS_PER_S) / NS_PER_S


@pytest.mark.parametrize(
    ("timing", "fault", "late_s"),
    [
        ("as-released", "nothing", 0),
        ("as-released", "suspend", 8 * HOUR_S),
        ("as-released", "pause", 8 * HOUR_S),
        ("fresh-time-base", "suspend", 8 * HOUR_S),  # it waits already: late once
        ("fresh-time-base", "pause", 8 * HOUR_S),
        ("boottime", "nothing", 0),
        ("boottime", "suspend", 0),
        ("boottime", "pause", 8 * HOUR_S),
        ("wall-polling", "nothing", 0),
        ("wall-polling", "suspend", 0),
        ("wall-polling", "pause", 0),
    ],
)
def test_the_renewal_that_waits_when_the_fault_comes(
    timing: Timing, fault: str, late_s: int
) -> None:
    """Late by the sleep, or by no more than a look."""
    late = renewed_world_s(timing, clock(fault)) - HALF_LIFE_S
    assert late_s <= late <= late_s + (10 if late_s == 0 else 0)


@pytest.mark.parametrize(
    ("timing", "late_s"), [("as-released", 8 * HOUR_S), ("fresh-time-base", 0), ("wall-polling", 0)]
)
def test_the_renewal_of_a_certificate_that_came_after_the_sleep(
    timing: Timing, late_s: int
) -> None:
    """As released it is as late as the one before: the time base is that of the start."""
    issued_s = 10 * HOUR_S
    assert renewed_world_s(timing, clock("suspend"), issued_s) == issued_s + HALF_LIFE_S + late_s


def test_wall_polling_fires_at_the_wake_when_it_is_overdue() -> None:
    """Sixteen hours asleep: within ten seconds after."""
    of = NodeClock(START)
    of.advance_to(5 * NS_PER_S)
    of.suspend(16 * HOUR_S * NS_PER_S)
    assert 0 < renewed_world_s("wall-polling", of) - 16 * HOUR_S <= 10


def test_wall_polling_notices_a_certificate_that_became_not_valid_yet() -> None:
    assert 0 <= renewed_world_s("wall-polling", clock("back")) - HOUR_S <= 10


def test_wall_polling_leaves_one_alone_that_came_not_valid_yet() -> None:
    """An issuer whose clock is ahead would get a request every ten seconds."""
    of = NodeClock(START)
    begins_ns = START.wall_ns + HOUR_S * NS_PER_S
    due = renewal_due("wall-polling", begins_ns + HALF_LIFE_S * NS_PER_S, begins_ns, START, START)
    assert due.world_ns(of, 0) == (HOUR_S + HALF_LIFE_S) * NS_PER_S


def test_as_released_after_a_step_back_the_renewal_lies_in_the_past() -> None:
    """The storm: at once, and again at once."""
    assert renewed_world_s("as-released", clock("back"), 2 * HOUR_S) == 2 * HOUR_S
