from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.clocks.virtual import NodeClock, build_clock
from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S
from meshwake.core.faults import FaultKind
from meshwake.core.planned_faults import PlannedFault, read_planned_fault

START = ClockReading(wall_ns=1_700_000_000 * NS_PER_S, monotonic_ns=5_000, boottime_ns=9_000)

lengths = st.integers(1, 100_000)
rates = st.fractions(Fraction(1, 10), 10, max_denominator=1_000)
faults = st.one_of(
    st.tuples(st.just("suspend"), lengths),
    st.tuples(st.just("pause"), lengths, st.integers(0, 1_000)),
    st.tuples(st.just("step"), st.integers(-50_000, 50_000).filter(bool)),
    st.tuples(st.just("drift"), lengths, rates),
    st.tuples(st.just("freeze"), lengths),
)
gaps = st.integers(0, 50_000)
stories = st.lists(st.tuples(gaps, faults), max_size=6)


def clock_of(story: list[tuple[int, tuple[str, ...]]]) -> NodeClock:
    clock = NodeClock(START)
    for gap_ns, (kind, *numbers) in story:
        clock.advance_to(clock.now_world_ns + gap_ns)
        getattr(clock, kind)(*numbers)
    return clock


def moments(clock: NodeClock, end_ns: int) -> list[int]:
    """World times worth a look: every nanosecond around a change of the clock, and the end."""
    changes = {begins + off for begins in clock._begins_world_ns for off in (-1, 0, 1)}
    return sorted({world_ns for world_ns in changes | {end_ns} if 0 <= world_ns <= end_ns})


def after(act: Callable[[NodeClock], None]) -> ClockReading:
    """What the clocks of a node have moved by when `act` is over."""
    clock = NodeClock(START)
    clock.advance_to(1_000)
    before = clock.now
    act(clock)
    return clock.now.since(before)


def test_a_suspend_moves_wall_and_boottime_and_not_monotonic() -> None:
    """The fault of ztunnel#1481 in one line: timers on the monotonic clock do not see the night."""
    assert after(lambda clock: clock.suspend(800)) == ClockReading(800, 0, 800)


def test_a_pause_stops_all_three_until_the_wall_clock_is_corrected() -> None:
    """17 min stopped, 25 s later corrected: the clock drift is 17 min, boottime has parted from
    nothing."""
    clock = NodeClock(START)
    clock.pause(1_020, 25)
    assert clock.reading(1_019).since(START) == ClockReading(0, 0, 0)
    assert clock.reading_before(1_045).since(START) == ClockReading(25, 25, 25)
    assert clock.reading(1_045).since(START) == ClockReading(1_045, 25, 25)


@pytest.mark.parametrize("by_ns", [700, -700])
def test_a_step_moves_the_wall_clock_alone(by_ns: int) -> None:
    """Forward or back, and in no time."""
    assert after(lambda clock: clock.step(by_ns)) == ClockReading(by_ns, 0, 0)


def test_a_drift_lets_the_wall_clock_run_at_its_rate_and_ends() -> None:
    """2.5 % as measured on WSL2; afterwards a second is a second again."""
    clock = NodeClock(START)
    clock.drift(1_000, Fraction("1.025"))
    assert clock.reading(1_000).since(START) == ClockReading(1_025, 1_000, 1_000)
    assert clock.reading(2_000).since(clock.reading(1_000)) == ClockReading(1_000, 1_000, 1_000)


def test_a_freeze_moves_no_clock_apart_and_stops_the_processes() -> None:
    """docker pause is not a suspend."""
    clock = NodeClock(START)
    clock.freeze(500)
    assert clock.reading(500).since(START) == ClockReading(500, 500, 500)
    assert [clock.processes_run(world_ns) for world_ns in (0, 499, 500)] == [False, False, True]


def test_time_does_not_go_back() -> None:
    """A timeline is built in order."""
    clock = NodeClock(START)
    clock.advance_to(10)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance_to(9)


@settings(derandomize=True, deadline=None)
@given(stories)
def test_every_fault_adds_to_j_what_it_says_and_nothing_else_does(
    story: list[tuple[int, tuple[str, ...]]],
) -> None:
    """J at the end is the sum over suspends, pauses, steps and drifts."""
    clock = clock_of(story)
    expected_ns = 0
    for _, (kind, *numbers) in story:
        if kind == "drift":
            lasts_ns, rate = int(numbers[0]), Fraction(numbers[1])
            expected_ns += lasts_ns * rate.numerator // rate.denominator - lasts_ns
        elif kind != "freeze":
            expected_ns += int(numbers[0])
    assert drift_ns(START, clock.now) == expected_ns


@settings(derandomize=True, deadline=None)
@given(stories)
def test_monotonic_and_boottime_never_go_back_nor_ahead_of_the_world(
    story: list[tuple[int, tuple[str, ...]]],
) -> None:
    """And boottime is never behind monotonic: it counts what monotonic counts, and sleep."""
    clock = clock_of(story)
    looks = [
        clock.reading(world_ns).since(START) for world_ns in moments(clock, clock.now_world_ns + 10)
    ]
    for world_ns, look in zip(moments(clock, clock.now_world_ns + 10), looks, strict=True):
        assert 0 <= look.monotonic_ns <= look.boottime_ns <= world_ns
    assert [look.monotonic_ns for look in looks] == sorted(look.monotonic_ns for look in looks)


@settings(derandomize=True, deadline=None)
@given(stories, st.integers(-1_000, 300_000), st.integers(0, 300_000))
def test_a_timer_fires_at_the_first_moment_at_which_it_can(
    story: list[tuple[int, tuple[str, ...]]], due_after_ns: int, from_world_ns: int
) -> None:
    """world_ns_at_monotonic agrees with reading and processes_run, and nothing earlier would."""
    clock = clock_of(story)
    due_ns = START.monotonic_ns + due_after_ns

    def could_fire(world_ns: int) -> bool:
        return clock.reading(world_ns).monotonic_ns >= due_ns and clock.processes_run(world_ns)

    fires_ns = clock.world_ns_at_monotonic(due_ns, from_world_ns)
    assert fires_ns >= from_world_ns and could_fire(fires_ns)
    earlier = [*moments(clock, fires_ns), fires_ns - 1]
    assert not [
        world_ns
        for world_ns in earlier
        if from_world_ns <= world_ns < fires_ns and could_fire(world_ns)
    ]


@settings(derandomize=True, deadline=None)
@given(stories, st.integers(-60_000, 400_000), st.integers(0, 300_000))
def test_a_wall_time_is_reached_at_the_first_moment_that_shows_it(
    story: list[tuple[int, tuple[str, ...]]], due_after_ns: int, from_world_ns: int
) -> None:
    """world_ns_at_wall agrees with reading to the nanosecond, at any rate and across steps."""
    clock = clock_of(story)
    due_ns = START.wall_ns + due_after_ns
    reached_ns = clock.world_ns_at_wall(due_ns, from_world_ns)
    assert reached_ns >= from_world_ns and clock.reading(reached_ns).wall_ns >= due_ns
    earlier = [
        world_ns
        for world_ns in [*moments(clock, reached_ns), reached_ns - 1]
        if world_ns < reached_ns
    ]
    assert all(
        clock.reading(world_ns).wall_ns < due_ns
        for world_ns in earlier
        if world_ns >= from_world_ns
    )


@settings(derandomize=True, deadline=None)
@given(rates, st.integers(0, 1_000), st.integers(0, 2_000))
def test_a_wall_time_is_reached_to_the_nanosecond_from_amid_a_drift(
    rate: Fraction, from_world_ns: int, due_after_ns: int
) -> None:
    """Fractions of a nanosecond that were cut off before `from` do not add up with those after
    it."""
    clock = NodeClock(START)
    clock.drift(1_000, rate)
    reached_ns = clock.world_ns_at_wall(START.wall_ns + due_after_ns, from_world_ns)
    assert clock.reading(reached_ns).wall_ns >= START.wall_ns + due_after_ns
    assert (
        reached_ns == from_world_ns
        or clock.reading(reached_ns - 1).wall_ns < START.wall_ns + due_after_ns
    )


@settings(derandomize=True, deadline=None)
@given(stories, st.integers(0, 400_000))
def test_processes_run_again_at_the_planned_moment(
    story: list[tuple[int, tuple[str, ...]]], world_ns: int
) -> None:
    """world_ns_when_running is now when they run, else the end of what holds them."""
    clock = clock_of(story)
    runs_ns = clock.world_ns_when_running(world_ns)
    assert clock.processes_run(runs_ns)
    assert (runs_ns == world_ns) == clock.processes_run(world_ns)
    assert runs_ns == world_ns or not clock.processes_run(runs_ns - 1)


@settings(derandomize=True, deadline=None)
@given(stories)
def test_just_before_a_moment_differs_only_where_the_wall_clock_jumps(
    story: list[tuple[int, tuple[str, ...]]],
) -> None:
    """reading_before is the limit from the left: monotonic and boottime never jump."""
    clock = clock_of(story)
    for world_ns in moments(clock, clock.now_world_ns + 10):
        before, now = clock.reading_before(world_ns), clock.reading(world_ns)
        assert before[1:] == now[1:]
        if world_ns not in clock._begins_world_ns:
            assert before == now


def planned(index: int, kind: FaultKind, at_ns: int, **numbers: Any) -> PlannedFault:
    return read_planned_fault(
        {"index": index, "kind": kind, "node": "laptop", "at_world_ns": at_ns, **numbers}
    )


def test_a_clock_is_built_from_planned_faults_in_order_of_time() -> None:
    """A drift may hold a sleep; the wall clock runs true while the machine sleeps, and drifts on
    after it."""
    clock = build_clock(
        START,
        (
            planned(0, "drift", 1_000, lasts_ns=10_000, rate_numerator=2),
            planned(1, "suspend", 3_000, lasts_ns=4_000),
            planned(2, "step", 20_000, by_wall_ns=-500),
        ),
    )
    # 1,000 true, 2,000 at double rate, 4,000 asleep, 4,000 at double rate, 9,000 true, the step.
    assert clock.reading(20_000).since(START) == ClockReading(
        1_000 + 4_000 + 4_000 + 8_000 + 9_000 - 500, 16_000, 20_000
    )


def test_a_restart_planned_within_a_sleep_does_nothing_to_the_clock() -> None:
    """It is not a clock fault; when it happens is the lab's affair."""
    night = planned(0, "suspend", 1_000, lasts_ns=8_000)
    with_restart = build_clock(START, (night, planned(1, "restart", 5_000)))
    assert with_restart.reading(20_000) == build_clock(START, (night,)).reading(20_000)


def test_a_drift_that_ends_where_another_begins_gives_way_to_it() -> None:
    """Ends come before beginnings; else the second drift would be undone by the end of the
    first."""
    clock = build_clock(
        START,
        (
            planned(0, "drift", 0, lasts_ns=1_000, rate_numerator=2),
            planned(1, "drift", 1_000, lasts_ns=1_000, rate_numerator=3),
        ),
    )
    assert clock.reading(3_000).since(START).wall_ns == 2_000 + 3_000 + 1_000


@settings(derandomize=True, deadline=None)
@given(stories, gaps, gaps)
def test_when_boottime_has_reached_a_time(
    story: list[tuple[int, tuple[str, ...]]], from_ns: int, wait_ns: int
) -> None:
    """Then it has, and a nanosecond before it had not, or the clock had not been read yet."""
    clock = clock_of(story)
    due_ns = clock.reading(from_ns).boottime_ns + wait_ns
    found_ns = clock.world_ns_at_boottime(due_ns, from_ns)
    assert clock.reading(found_ns).boottime_ns >= due_ns
    assert found_ns == from_ns or clock.reading(found_ns - 1).boottime_ns < due_ns


@settings(derandomize=True, deadline=None)
@given(stories, gaps, st.integers(-60_000, 60_000))
def test_when_the_wall_clock_is_below_a_time(
    story: list[tuple[int, tuple[str, ...]]], from_ns: int, by_ns: int
) -> None:
    """The first moment at which it is, or never: looked for at every change of the clock."""
    clock = clock_of(story)
    wall_ns = clock.reading(from_ns).wall_ns + by_ns
    found_ns = clock.world_ns_below_wall(wall_ns, from_ns)
    looks = [from_ns, *(begins for begins in clock._begins_world_ns if begins > from_ns)]
    below = [world_ns for world_ns in looks if clock.reading(world_ns).wall_ns < wall_ns]
    assert found_ns == (below[0] if below else None)


def test_the_next_change_of_a_clock() -> None:
    clock = NodeClock(START)
    clock.advance_to(1_000)
    clock.suspend(800)
    assert [clock.next_change_world_ns(at) for at in (0, 999, 1_000, 1_799, 1_800)] == [
        1_000,
        1_000,
        1_800,
        1_800,
        None,
    ]
