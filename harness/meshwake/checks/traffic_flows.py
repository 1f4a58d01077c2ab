"""Every connection that was attempted worked."""

from __future__ import annotations

from meshwake.checks.facts.traffic import PairFailure, attempts, failures
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import lasting, moment, moment_exactly
from meshwake.core.durations import seconds
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "traffic_flows"
TITLE = "Connections always work"


def check(plan: Plan, history: History) -> Finding:
    """Attempts are made only while both nodes are awake, so none may fail."""
    count = sum(len(attempts(history, pair)) for pair in plan.pairs)
    if not count:
        return unknown(NAME, "no connection was attempted")
    failing = failures(plan, history)
    if not failing:
        return holds(NAME, f"none of {count} attempts failed")
    first, failed = failing[0], sum(one.attempts for one in failing)
    longest_ns = max(one.awake_ns for one in failing)
    others = ""
    if len(failing) > 1:
        others = f"; {len(failing)} outages in all, of up to {lasting(longest_ns)}"
    because = (
        f"{first.pair[0]} could not reach {first.pair[1]} for {lasting(first.awake_ns)}, "
        f"first at {moment(first.from_world_ns)} ({first.error}){others}; {failed} of "
        f"{count} attempts failed"
    )
    return broken(NAME, because, [_place(one) for one in failing])


def _place(failing: PairFailure) -> Evidence:
    until = f"until {moment_exactly(failing.to_world_ns)}" if failing.recovered else "until the end"
    text = (
        f"{failing.pair[0]} could not reach {failing.pair[1]} from "
        f"{moment_exactly(failing.from_world_ns)} {until}, "
        f"{lasting(failing.awake_ns)} awake: {failing.error}"
    )
    return place(
        failing.from_world_ns,
        text,
        pair=list(failing.pair),
        from_world_s=seconds(failing.from_world_ns),
        to_world_s=seconds(failing.to_world_ns),
        attempts=failing.attempts,
        error=failing.error,
    )
