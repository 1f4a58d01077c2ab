"""Somebody is told before an outage of more than five minutes begins.

An alert at any earlier moment counts, also one that was first about an earlier outage: whoever was told had the time.
"""

from __future__ import annotations

from harness.checks.derive import Failing, failures
from harness.checks.finding import broken, holds, place, unknown
from harness.checks.words import count, lasting, moment, moment_exactly
from harness.durations import NS_PER_S
from harness.history import History
from harness.plan import Plan
from harness.verdict import Evidence, Finding

NAME = "alert_before_outage"
LONG_NS = 300 * NS_PER_S


def check(plan: Plan, history: History) -> Finding:
    """Unknown when no alerting rule was ever evaluated."""
    if not history.of("alerts_evaluated"):
        return unknown(NAME, "nothing that could alert was deployed")
    long = [failing for failing in failures(plan, history) if failing.awake_ns > LONG_NS]
    if not long:
        return holds(NAME, f"there was no outage of more than {lasting(LONG_NS)}")
    fired = history.of("alert_fired")
    first_ns = fired[0].world_ns if fired else None
    untold = [failing for failing in long if first_ns is None or failing.from_world_ns <= first_ns]
    if untold:
        because = f"an outage began at {moment(untold[0].from_world_ns)} and {_told(first_ns)}"
        return broken(NAME, because, [_place(failing) for failing in untold])
    return holds(
        NAME,
        f"{fired[0]['alert']} fired at {moment(fired[0].world_ns)}, before the first of {count(len(long), 'outage')}",
    )


def _told(first_ns: int | None) -> str:
    return "no alert ever fired" if first_ns is None else f"the first alert fired at {moment(first_ns)}"


def _place(failing: Failing) -> Evidence:
    source, destination = failing.pair
    text = f"{source} could not reach {destination} from {moment_exactly(failing.from_world_ns)} on: {failing.error}"
    return place(failing.from_world_ns, text, pair=[source, destination], error=failing.error)
