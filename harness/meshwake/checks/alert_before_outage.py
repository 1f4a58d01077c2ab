"""An alert fires before an outage of more than five minutes begins.

An alert at any earlier moment counts, also one that was first about an earlier outage: its receiver
had the time.

An outage that begins with the jump itself (a sleep longer than a certificate had left to live: the
outage is there at the wake) cannot be alerted on before. Then the alert must come within five
waking minutes: before the outage is long enough to count.
"""

from __future__ import annotations

from meshwake.checks.facts.clocks import asleep_either, fault_spans
from meshwake.checks.facts.traffic import PairFailure, failures
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import count, lasting, moment, moment_exactly
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import AlertFired, AlertsEvaluated
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "alert_before_outage"
TITLE = "An alert fires before the outage"
# The bound of check recovers_within (core/plan.py): an outage that is over by then needs no action.
LONG_NS = 300 * NS_PER_S


def check(plan: Plan, history: History) -> Finding:
    """Unknown when no alerting rule was ever evaluated."""
    if not history.of(AlertsEvaluated):
        return unknown(NAME, "nothing that could alert was deployed")
    long = [failing for failing in failures(plan, history) if failing.awake_ns > LONG_NS]
    if not long:
        return holds(NAME, f"there was no outage of more than {lasting(LONG_NS)}")
    fired = history.of(AlertFired)
    if not fired:
        began = moment(long[0].from_world_ns)
        because = f"an outage began at {began} and no alert ever fired"
        return broken(NAME, because, [_place(failing) for failing in long])

    # Any earlier alert counts, so the first is the one to compare with.
    first = fired[0]
    at = moment(first.world_ns)
    unannounced = [
        failing for failing in long if not _in_time(plan, history, failing, first.world_ns)
    ]
    if unannounced:
        began = moment(unannounced[0].from_world_ns)
        because = f"an outage began at {began} and the first alert fired at {at}"
        return broken(NAME, because, [_place(failing) for failing in unannounced])

    # Each was in time, so an alert that is not before the first came with a jump.
    when = "before"
    if first.world_ns >= long[0].from_world_ns:
        when = "as soon as a clock had jumped, with"
    outages = count(len(long), "outage")
    return holds(NAME, f"{first.alert} fired at {at}, {when} the first of {outages}")


def _in_time(plan: Plan, history: History, failing: PairFailure, alert_world_ns: int) -> bool:
    """Whether the receiver of an alert had the time to act."""
    began_ns = failing.from_world_ns
    if alert_world_ns < began_ns:
        return True
    if not _begins_with_a_jump(plan, history, failing):
        return False
    # The five minutes are minutes awake, of both nodes.
    asleep = asleep_either(plan, history, failing.pair)
    asleep_ns = asleep.overlap_ns(began_ns, alert_world_ns)
    awake_ns = alert_world_ns - began_ns - asleep_ns
    return awake_ns <= LONG_NS


def _begins_with_a_jump(plan: Plan, history: History, failing: PairFailure) -> bool:
    """Whether a clock fault of either node was going on, or had just ended, when it began."""
    nodes = {plan.node_of(identity) for identity in failing.pair}
    for fault in fault_spans(history):
        if fault.node not in nodes:
            continue
        if fault.kind not in CLOCK_FAULTS:
            continue
        # The first attempt after a jump may come a while after it: attempts have an interval.
        latest_ns = fault.until_world_ns + LONG_NS
        if fault.began_world_ns <= failing.from_world_ns <= latest_ns:
            return True
    return False


def _place(failing: PairFailure) -> Evidence:
    source, destination = failing.pair
    text = (
        f"{source} could not reach {destination} from {moment_exactly(failing.from_world_ns)} "
        f"on: {failing.error}"
    )
    return place(failing.from_world_ns, text, pair=[source, destination], error=failing.error)
