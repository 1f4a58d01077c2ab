"""Assumption: every clock fault that was planned did to the clocks what its kind does, measured
inside the subject.

The mistake that this rules out: a container is frozen, its clocks run on, nothing breaks, and
"suspend" is ticked off.

    suspend   wall parts from monotonic by the sleep; boottime goes with wall
    pause     wall parts from monotonic by the sleep, once it is corrected; boottime stays with monotonic
    step      wall parts from monotonic by the step
    drift     wall parts from monotonic by (rate - 1) x the time awake, and by every other fault that lies within
    freeze    nothing parts, and time passed: as long as planned, or seconds longer; in a cluster its beginning is
              recorded before the node is frozen, and its end once it was observed to have ended

Faults that were to begin after the end of the history (it may have been stopped early) are not
looked for. Of one that was to outlast it, only the beginning is; of a drift also what it has done by
then.
"""

from __future__ import annotations

from meshwake.checks.facts.clocks import ClockFault, clock_faults, timeline
from meshwake.checks.finding import broken, holds, place
from meshwake.checks.format import count, lasting, moment_exactly
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import (
    PlannedDrift,
    PlannedFault,
    PlannedFreeze,
    PlannedSleep,
)

NAME = "clock_fault_happened"
TITLE = "Every clock fault happened as planned"
# What it took, by exec into the helper of each node, to ask for a freeze and to see that it had
# ended: 2.8 s on a cluster with little to do.
_SEEN_WITHIN_NS = 5 * NS_PER_S


def check(plan: Plan, history: History) -> Finding:
    """Holds when none was planned."""
    happened = {fault.planned.index: fault for fault in clock_faults(plan, history)}
    due = 0
    wrong: list[tuple[PlannedFault, str]] = []
    for fault in plan.faults:
        # See the module: what was to begin after the end is not looked for.
        if fault.kind not in CLOCK_FAULTS or fault.at_world_ns >= history.end_world_ns:
            continue
        due += 1
        why = _wrong(plan, history, fault, happened.get(fault.index))
        if why is not None:
            wrong.append((fault, why))

    if due == 0:
        return holds(NAME, "no clock fault was planned for the time of this run")
    faults = count(due, "clock fault")
    if not wrong:
        return holds(NAME, f"{faults} measured inside the subject, as planned")
    first, why = wrong[0]
    because = f"{_named(first)} {why}; {len(wrong)} of {faults} went wrong"
    return broken(NAME, because, [_place(fault, why) for fault, why in wrong])


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
) -> str | None:
    """The first thing wrong with `fault`, if any."""
    if happened is None:
        return "was planned and never began"
    # Both ends were recorded with clocks: the whole fault can be measured.
    if happened.measured is not None:
        lasted_ns = happened.span.until_world_ns - happened.span.began_world_ns
        return _wrong_clocks(plan, fault, happened.measured, lasted_ns)
    # One end is missing. That is in order only where the plan has it outlast the history.
    if fault.ends_world_ns < history.end_world_ns or happened.span.ended is not None:
        return "began and never ended, or the clocks were not read"
    if fault.kind == "drift":
        return _wrong_so_far(plan, history, fault, happened.span.began)
    return None


def _wrong_clocks(
    plan: Plan, fault: PlannedFault, moved: ClockReading, lasted_ns: int
) -> str | None:
    """What is wrong with how far the clocks `moved` within a fault that lasted `lasted_ns` of world
    time."""
    expected_ns = fault.expected_drift_ns
    # A drift lasts for days, and other faults of its node happen within it.
    if fault.kind == "drift":
        expected_ns = _drift_ns(plan, fault, fault.ends_world_ns)
    # What every kind has in common comes first; then what distinguishes kinds: a suspend
    # and a pause part wall from monotonic alike, and only boottime differs.
    wrong_drift = _wrong_drift(moved, expected_ns)
    if wrong_drift is not None:
        return wrong_drift
    if isinstance(fault, PlannedSleep):
        return _wrong_boottime(fault, moved)
    if fault.kind == "freeze":
        return _wrong_length(fault, lasted_ns)
    return None


def _wrong_drift(moved: ClockReading, expected_ns: int) -> str | None:
    """The drift is what makes a ztunnel late: wall against monotonic clock."""
    parted_ns = moved.wall_ns - moved.monotonic_ns
    if _near(parted_ns, expected_ns):
        return None
    return f"parted wall from monotonic by {lasting(parted_ns)} instead of {lasting(expected_ns)}"


def _wrong_boottime(fault: PlannedSleep, moved: ClockReading) -> str | None:
    """Boottime counts a suspend, and not a pause."""
    ahead_ns = moved.boottime_ns - moved.monotonic_ns
    expected_ns = 0
    if fault.kind == "suspend":
        expected_ns = fault.lasts_ns
    if _near(ahead_ns, expected_ns):
        return None
    return (
        f"moved boottime {lasting(ahead_ns)} ahead of monotonic instead of {lasting(expected_ns)}"
    )


def _wrong_length(freeze: PlannedFreeze, lasted_ns: int) -> str | None:
    # What was recorded may be longer than the freeze by the time that it took to observe it.
    observed_ns = max(lasted_ns - _SEEN_WITHIN_NS, min(lasted_ns, freeze.lasts_ns))
    if _near(observed_ns, freeze.lasts_ns):
        return None
    return f"lasted {lasting(lasted_ns)} instead of {lasting(freeze.lasts_ns)}"


def _wrong_so_far(plan: Plan, history: History, drift: PlannedDrift, began: Event) -> str | None:
    """Of a drift that outlasts the run, by the last reading of its node; not when that was taken
    within another fault."""
    last = timeline(history, str(drift.node)).last_reading
    if began.clocks is None or last is None:
        return "began, and the clocks were not read"
    last_world_ns, clocks = last
    # A reading from within a sleep or a pause shows neither the rate nor the whole jump.
    for other in _within(plan, drift):
        if other.at_world_ns <= last_world_ns < other.ends_world_ns:
            return None
    expected_ns = _drift_ns(plan, drift, last_world_ns)
    return _wrong_drift(clocks.since(began.clocks), expected_ns)


def _near(measured_ns: int, expected_ns: int) -> bool:
    """Within 1 % or a second: real clocks are read a moment after they were moved."""
    return abs(measured_ns - expected_ns) <= max(NS_PER_S, abs(expected_ns) // 100)


def _drift_ns(plan: Plan, drift: PlannedDrift, until_world_ns: int) -> int:
    """What `drift` and the faults within it do by `until_world_ns`: only time awake runs at the
    other rate."""
    asleep_ns = 0
    by_others_ns = 0
    for other in _within(plan, drift):
        if other.ends_world_ns > until_world_ns:
            continue
        by_others_ns += other.expected_drift_ns
        if isinstance(other, PlannedSleep):
            asleep_ns += other.lasts_ns

    awake_ns = until_world_ns - drift.at_world_ns - asleep_ns
    # At rate 1.01 an hour awake parts the clocks by 36 s: monotonic keeps the world's pace.
    by_rate_ns = int(awake_ns * (drift.rate - 1))
    return by_rate_ns + by_others_ns


def _within(plan: Plan, drift: PlannedFault) -> list[PlannedFault]:
    """The other clock faults of its node that begin while `drift` lasts."""
    within: list[PlannedFault] = []
    for other in plan.faults_on(drift.node):
        if other.index == drift.index or other.kind not in CLOCK_FAULTS:
            continue
        if drift.at_world_ns <= other.at_world_ns < drift.ends_world_ns:
            within.append(other)
    return within
