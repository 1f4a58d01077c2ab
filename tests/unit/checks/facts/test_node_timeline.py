"""The wall clock rebuilt from a history is the wall clock that the node had."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.checks.facts.clocks import timeline
from meshwake.checks.facts.node_timeline import NodeTimeline
from meshwake.checks.facts.spans import Spans

from tests.support.histories import LAPTOP, World, fault, ns, plan

HOUR = ns("1h")


@st.composite
def faults(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Clock faults one after the other within 40 h, as a scenario may have them."""
    found, at_m = [], 0
    for _ in range(draw(st.integers(0, 5))):
        at_m += draw(st.integers(1, 120))
        lasts_m = draw(st.integers(1, 240))
        kind = draw(st.sampled_from(["suspend", "pause", "step", "drift", "freeze"]))
        times: dict[str, Any] = {"lasts": f"{lasts_m}m"}
        if kind == "pause":
            times["corrected_after"] = f"{draw(st.integers(0, 30))}m"
        if kind == "step":
            times = {"by": f"{draw(st.integers(-900, 900).filter(bool))}m"}
        if kind == "drift":
            times["rate"] = (draw(st.integers(1, 40)), 20)
        found.append(fault(kind, f"{at_m}m", **times))
        at_m += lasts_m + 30
    return found


def world_with(some: list[dict[str, Any]], looks_m: list[int]) -> World:
    """A world in which the clocks were also looked at, at these minutes."""
    world = World(plan(faults=some, duration="40h")).start()
    for minute in looks_m:
        world.attempt(f"{minute}m")
    return world


looks = st.lists(st.integers(0, 2399), max_size=8)
world_times = st.integers(0, 40 * HOUR - 1)


@given(faults(), looks, world_times)
def test_wall_is_the_wall_of_the_node(
    some: list[dict[str, Any]], looks_m: list[int], world_ns: int
) -> None:
    """However few events there are, the wall clock between them is known to the nanosecond."""
    world = world_with(some, looks_m)
    rebuilt, clock = timeline(world.history(), LAPTOP), world.clocks[LAPTOP]
    assert abs(rebuilt.wall_ns(world_ns) - clock.reading(world_ns).wall_ns) <= 1
    assert abs(rebuilt.wall_before_ns(world_ns) - clock.reading_before(world_ns).wall_ns) <= 1


@given(faults(), looks, world_times)
def test_awake_is_when_processes_ran(
    some: list[dict[str, Any]], looks_m: list[int], world_ns: int
) -> None:
    """Asleep are suspends, pauses until the wake, and freezes; nothing else."""
    world = world_with(some, looks_m)
    asleep = not world.clocks[LAPTOP].processes_run(world_ns)
    assert timeline(world.history(), LAPTOP).awake_ns(world_ns, world_ns + 1) == (
        0 if asleep else 1
    )


@given(faults(), looks, world_times, st.integers(-20 * HOUR, 60 * HOUR))
def test_world_at_wall_is_the_first_time(
    some: list[dict[str, Any]], looks_m: list[int], from_ns: int, ahead_ns: int
) -> None:
    """There the wall clock shows what was requested, and at no time before, however it was
    stepped."""
    world = world_with(some, looks_m)
    rebuilt = timeline(world.history(), LAPTOP)
    wanted_ns = rebuilt.wall_ns(from_ns) + ahead_ns
    found_ns = rebuilt.world_ns_at_wall(wanted_ns, from_ns)
    assert found_ns is not None
    assert rebuilt.wall_ns(found_ns) >= wanted_ns
    if found_ns > from_ns:
        for part in range(20):
            earlier_ns = from_ns + (found_ns - from_ns) * part // 20
            assert rebuilt.wall_ns(earlier_ns) < wanted_ns


@given(faults(), looks, world_times, world_times, st.integers(-20 * HOUR, 60 * HOUR), world_times)
def test_spans_at_or_after_wall(
    some: list[dict[str, Any]],
    looks_m: list[int],
    one_ns: int,
    two_ns: int,
    ahead_ns: int,
    at_ns: int,
) -> None:
    """A moment lies in the spans exactly when the wall clock then shows at least what was requested
    for."""
    rebuilt = timeline(world_with(some, looks_m).history(), LAPTOP)
    from_ns, to_ns = sorted((one_ns, two_ns))
    wanted_ns = rebuilt.wall_ns(from_ns) + ahead_ns
    spans = rebuilt.spans_at_or_after_wall(wanted_ns, from_ns, to_ns)
    inside = any(begins_ns <= at_ns < ends_ns for begins_ns, ends_ns in spans)
    assert inside == (from_ns <= at_ns < to_ns and rebuilt.wall_ns(at_ns) >= wanted_ns)


def test_a_pause_that_never_ended_lasts_for_ever() -> None:
    """The history ends while the machine is paused: its wall clock shows no later time, ever."""
    world = World(
        plan(faults=[fault("pause", "1h", lasts="5h", corrected_after="25s")], duration="3h")
    ).start()
    rebuilt = timeline(world.history(killed_at="3h"), LAPTOP)
    assert rebuilt.wall_ns(ns("9h")) == rebuilt.wall_ns(ns("1h"))
    assert rebuilt.world_ns_at_wall(rebuilt.wall_ns(ns("1h")) + 1) is None


def test_a_pause_that_was_never_corrected_runs_on_behind() -> None:
    """The machine woke before the history ended: its clock runs again, as late as it was."""
    pause = fault("pause", "1h", lasts="5h", corrected_after="2h")
    rebuilt = timeline(World(plan([pause], duration="9h")).start().history(killed_at="7h"), LAPTOP)
    assert rebuilt.wall_ns(ns("8h")) - rebuilt.wall_ns(ns("1h")) == ns("2h")


def test_before_its_first_reading_a_clock_ran_as_the_world_does() -> None:
    """A node whose first event is after an hour had been running for that hour."""
    world = World(plan(duration="3h"))
    world.attempt("1h")
    rebuilt = timeline(world.history(), LAPTOP)
    assert rebuilt.wall_ns(0) == world.clocks[LAPTOP].reading(0).wall_ns
    assert rebuilt.world_ns_at_wall(rebuilt.wall_ns(ns("30m"))) == ns("30m")


def test_a_step_back_before_the_time_requested_ends_nothing() -> None:
    """Spans end at the next step below, not at one of long ago."""
    rebuilt = NodeTimeline(
        [(0, 100), (10, 110), (10, 50), (100, 140), (100, 60), (200, 160)], Spans()
    )
    assert rebuilt.spans_at_or_after_wall(120, 20, 200) == [(80, 100), (160, 200)]


def test_a_fault_that_never_ended_lasts_until_the_end() -> None:
    """A machine that still slept when the history ended slept all that time."""
    world = World(plan(faults=[fault("suspend", "1h", lasts="5h")], duration="3h")).start()
    world.add(ns("3h"), "run_ended", None, reason="duration")
    history = world.history(killed_at="3h")
    assert timeline(history, LAPTOP).awake_ns(0, ns("3h")) == ns("1h")


def test_a_drift_that_never_ended_goes_on() -> None:
    """After the last reading the wall clock keeps the rate that it had."""
    world = World(
        plan(faults=[fault("drift", "1h", lasts="5h", rate=(2, 1))], duration="9h")
    ).start()
    world.attempt("2h")
    rebuilt = timeline(world.history(killed_at="2h"), LAPTOP)
    assert rebuilt.wall_ns(ns("3h")) - rebuilt.wall_ns(ns("2h")) == ns("2h")


def test_steps_of_one_moment_keep_their_order() -> None:
    """Just before a step the clock shows the first of two points, at it the last."""
    rebuilt = NodeTimeline([(0, 100), (10, 110), (10, 50), (20, 60)], Spans(), Fraction(1))
    assert (rebuilt.wall_before_ns(10), rebuilt.wall_ns(10)) == (110, 50)
    assert (rebuilt.wall_ns(5), rebuilt.wall_ns(15), rebuilt.wall_ns(30)) == (105, 55, 70)


def test_a_node_without_clocks_is_refused() -> None:
    """Nothing is made up for a node whose clocks were not read."""
    with pytest.raises(ValueError, match="has the clocks of node 'moon'"):
        timeline(World(plan()).start().history(), "moon")
