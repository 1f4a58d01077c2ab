"""What each clock fault does to the three clocks: one body per promise, over everything that moves
clocks."""

from __future__ import annotations

from fractions import Fraction

from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading

from tests.conformance.injectors import START, Injector

H, M, S = 3600 * 10**9, 60 * 10**9, 10**9


def moved(injector: Injector, clock: NodeClock, before: ClockReading) -> ClockReading:
    """How far the clocks moved since `before`."""
    return injector.show(clock).since(before)


def test_awake_time_moves_all_clocks(injector: Injector) -> None:
    """An hour awake is an hour on every clock."""
    clock = NodeClock(START)
    before = injector.show(clock)
    clock.advance_to(H)
    assert moved(injector, clock, before) == ClockReading(H, H, H)


def test_suspend_moves_wall_and_boottime(injector: Injector) -> None:
    """A suspend is seen by wall and boottime, and not by monotonic."""
    clock = NodeClock(START)
    before = injector.show(clock)
    clock.suspend(8 * H)
    assert moved(injector, clock, before) == ClockReading(8 * H, 0, 8 * H)


def test_pause_moves_nothing_until_the_wall_is_corrected(injector: Injector) -> None:
    """A paused VM wakes with all clocks where they were; when it is corrected, only the wall clock
    moves."""
    clock = NodeClock(START)
    before = injector.show(clock)
    clock.pause(17 * M, corrected_after_ns=25 * S)
    assert injector.show(clock).since(before) == ClockReading(17 * M + 25 * S, 25 * S, 25 * S)
    assert clock.reading(17 * M).since(before) == ClockReading(0, 0, 0)
    assert clock.reading_before(17 * M + 25 * S).since(before) == ClockReading(
        25 * S, 25 * S, 25 * S
    )


def test_step_moves_the_wall_either_way(injector: Injector) -> None:
    """A step sets the wall clock and nothing else, also back."""
    clock = NodeClock(START)
    before = injector.show(clock)
    clock.step(13 * H)
    assert moved(injector, clock, before) == ClockReading(13 * H, 0, 0)
    clock.step(-26 * H)
    assert moved(injector, clock, before) == ClockReading(-13 * H, 0, 0)


def test_drift_runs_the_wall_at_another_rate(injector: Injector) -> None:
    """At a rate of 1.025 a day is 36 minutes longer on the wall clock."""
    clock = NodeClock(START)
    before = injector.show(clock)
    clock.drift(24 * H, Fraction("1.025"))
    assert moved(injector, clock, before) == ClockReading(24 * H + 36 * M, 24 * H, 24 * H)


def test_freeze_moves_all_clocks(injector: Injector) -> None:
    """Frozen processes do not run; their clocks do."""
    clock = NodeClock(START)
    before = injector.show(clock)
    clock.freeze(17 * M)
    assert moved(injector, clock, before) == ClockReading(17 * M, 17 * M, 17 * M)
    assert not clock.processes_run(16 * M)
