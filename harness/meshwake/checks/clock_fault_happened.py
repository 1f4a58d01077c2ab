"""Assumption: every clock fault that was planned did to the clocks what its kind does, measured
inside the subject.

The trap others fell into: a container is frozen, its clocks run on, nothing breaks, and "suspend"
is ticked off.

    suspend   wall parts from monotonic by the sleep; boottime goes with wall
    pause     wall parts from monotonic by the sleep, once it is corrected; boottime stays with monotonic
    step      wall parts from monotonic by the step
    drift     wall parts from monotonic by (rate - 1) x the time awake, and by every other fault that lies within
    freeze    nothing parts, and time passed: as long as planned, or seconds longer; in a cluster its begin is told
              before the node is asked to stand still, and its end once it was seen to have ended

Faults that were to begin after the end of the history (it may have been stopped early) are not
asked for. Of one that was to outlast it, only the beginning is; of a drift also what it has done by
then.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from meshwake.checks.derive import ClockFault, clock_faults, timeline
from meshwake.checks.finding import broken, holds, place
from meshwake.checks.words import count, lasting, moment_exactly
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import ASLEEP_FAULTS, Plan, PlannedFault
from meshwake.core.scenario import CLOCK_FAULTS

NAME = "clock_fault_happened"
# What it took, by exec into the helper of each node, to ask for a freeze and to see that it had
# ended: 2.8 s on a cluster with little to do.
_SEEN_WITHIN_NS = 5 * NS_PER_S


def check(plan: Plan, history: History) -> Finding:
    """Holds when none was planned."""
    due = [
        f for f in plan.faults if f.kind in CLOCK_FAULTS and f.at_world_ns < history.end_world_ns
    ]
    if not due:
        return holds(NAME, "no clock fault was planned for the time of this run")
    happened = {fault.planned.index: fault for fault in clock_faults(plan, history)}
    wrong = [
        (fault, why)
        for fault in due
        for why in _wrong(plan, history, fault, happened.get(fault.index))
    ]
    if wrong:
        because = (
            f"{_named(wrong[0][0])} {wrong[0][1]}; {len(wrong)} of "
            f"{count(len(due), 'clock fault')} went wrong"
        )
        return broken(NAME, because, [_place(*entry) for entry in wrong])
    return holds(NAME, f"{count(len(due), 'clock fault')} measured inside the subject, as planned")


def _named(fault: PlannedFault) -> str:
    return f"the {fault.kind} of node {fault.node} at {moment_exactly(fault.at_world_ns)}"


def _place(fault: PlannedFault, why: str) -> Evidence:
    return place(
        fault.at_world_ns,
        f"{_named(fault)} {why}",
        fault=fault.index,
        kind=fault.kind,
        node=fault.node,
    )


def _wrong(
    plan: Plan, history: History, fault: PlannedFault, happened: ClockFault | None
) -> Iterator[str]:
    """The first thing wrong with `fault`, if any."""
    if happened is None:
        yield "was planned and never began"
    elif happened.measured is not None:
        world_ns = happened.span.until_world_ns - happened.span.began_world_ns
        yield from list(_wrong_clocks(plan, fault, happened.measured, world_ns))[:1]
    elif fault.ends_world_ns < history.end_world_ns or happened.span.ended is not None:
        yield "began and never ended, or nobody read the clocks"
    elif fault.kind == "drift":
        yield from _wrong_so_far(plan, history, happened)


def _wrong_clocks(
    plan: Plan, fault: PlannedFault, moved: ClockReading, world_ns: int
) -> Iterator[str]:
    expected_ns = (
        _drift_ns(plan, fault, fault.ends_world_ns)
        if fault.kind == "drift"
        else fault.expected_drift_ns
    )
    if not _near(_parted_ns(moved), expected_ns):
        yield _parted_words(_parted_ns(moved), expected_ns)
    ahead_ns = moved.boottime_ns - moved.monotonic_ns
    boottime_ns = fault.lasts_ns if fault.kind == "suspend" else 0
    if fault.kind in ASLEEP_FAULTS and not _near(ahead_ns, boottime_ns):
        yield (
            f"moved boottime {lasting(ahead_ns)} ahead of monotonic instead of "
            f"{lasting(boottime_ns)}"
        )
    seen_ns = max(world_ns - _SEEN_WITHIN_NS, min(world_ns, fault.lasts_ns))
    if fault.kind == "freeze" and not _near(seen_ns, fault.lasts_ns):
        yield f"lasted {lasting(world_ns)} instead of {lasting(fault.lasts_ns)}"


def _wrong_so_far(plan: Plan, history: History, drift: ClockFault) -> Iterator[str]:
    """A drift that outlasts the run, by the last reading of its node; not when that was taken
    within another fault."""
    began, last = drift.span.began, timeline(history, str(drift.planned.node)).last_reading
    if began.clocks is None or last is None:
        yield "began, and nobody read the clocks"
        return
    last_world_ns, clocks = last
    if any(f.at_world_ns <= last_world_ns < f.ends_world_ns for f in _within(plan, drift.planned)):
        return
    expected_ns = _drift_ns(plan, drift.planned, last_world_ns)
    if not _near(_parted_ns(clocks.since(began.clocks)), expected_ns):
        yield _parted_words(_parted_ns(clocks.since(began.clocks)), expected_ns)


def _parted_words(parted_ns: int, expected_ns: int) -> str:
    return f"parted wall from monotonic by {lasting(parted_ns)} instead of {lasting(expected_ns)}"


def _parted_ns(moved: ClockReading) -> int:
    return moved.wall_ns - moved.monotonic_ns


def _near(measured_ns: int, expected_ns: int) -> bool:
    """Within 1 % or a second: real clocks are read a moment after they were moved."""
    return abs(measured_ns - expected_ns) <= max(NS_PER_S, abs(expected_ns) // 100)


def _drift_ns(plan: Plan, drift: PlannedFault, until_world_ns: int) -> int:
    """What `drift` and the faults within it do by `until_world_ns`: only time awake runs at the
    other rate."""
    within = [other for other in _within(plan, drift) if other.ends_world_ns <= until_world_ns]
    asleep_ns = sum(other.lasts_ns for other in within if other.kind in ASLEEP_FAULTS)
    excess = Fraction(drift.rate_numerator, drift.rate_denominator) - 1
    awake_ns = until_world_ns - drift.at_world_ns - asleep_ns
    return int(awake_ns * excess) + sum(other.expected_drift_ns for other in within)


def _within(plan: Plan, drift: PlannedFault) -> list[PlannedFault]:
    return [
        other
        for other in plan.faults_on(drift.node)
        if other.kind in CLOCK_FAULTS
        and other.index != drift.index
        and drift.at_world_ns <= other.at_world_ns < drift.ends_world_ns
    ]
