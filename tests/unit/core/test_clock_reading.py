from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.core.clock_reading import ClockReading, drift_ns

readings = st.builds(ClockReading, *[st.integers(-(10**18), 10**18)] * 3)


def test_j_is_what_the_wall_clock_gained_on_the_monotonic_one() -> None:
    """An hour awake and a night of eight hours: the clock drift is the night, whatever boottime
    reads."""
    start = ClockReading(wall_ns=1_000, monotonic_ns=50, boottime_ns=70)
    now = ClockReading(wall_ns=1_000 + 9, monotonic_ns=50 + 1, boottime_ns=70 + 9)
    assert drift_ns(start, now) == 8


@settings(derandomize=True)
@given(readings, readings, readings)
def test_drift_adds_up_over_any_moment_in_between(
    one: ClockReading, two: ClockReading, three: ClockReading
) -> None:
    """The drift from one to three is that from one to two plus that from two to three: many short
    sleeps count like a long one."""
    assert drift_ns(one, three) == drift_ns(one, two) + drift_ns(two, three)


def test_since_takes_each_clock_by_itself() -> None:
    """The three differences are in the order of the three clocks."""
    assert ClockReading(10, 20, 30).since(ClockReading(1, 2, 3)) == ClockReading(9, 18, 27)
