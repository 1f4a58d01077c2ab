"""After a fault has ended, new connections work within five minutes of awake time, and no later
outage comes of it.

What a fix must deliver. A sleep longer than the rest of a certificate's life leaves an expired one
at the moment of waking, whatever is deployed; what a fix can be held to is that it does not stay.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

from meshwake.checks.facts.certificates import lives
from meshwake.checks.facts.clocks import fault_spans
from meshwake.checks.facts.spans import Span
from meshwake.checks.facts.traffic import attempts
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import count, lasting, moment, moment_exactly
from meshwake.core.events import ConnectionAttempted
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import RECOVERS_WITHIN_NS, Plan

NAME = "recovers_within"
TITLE = "Connections work again within 5 minutes"
BOUND_NS = RECOVERS_WITHIN_NS


class _Failed(NamedTuple):
    """A failed attempt, and the awake time between the last fault and it (0: within a fault; None:
    before any)."""

    event: ConnectionAttempted
    awake_since_fault_ns: int | None

    def text(self, when: str) -> str:
        return (
            f"{self.event.source} could not reach {self.event.destination} at {when}, "
            f"{self._after_fault} ({self.event.error})"
        )

    @property
    def summary(self) -> str:
        """To the minute, for the sentence of the finding."""
        return self.text(moment(self.event.world_ns))

    @property
    def _after_fault(self) -> str:
        if self.awake_since_fault_ns is None:
            return "before any fault"
        if self.awake_since_fault_ns == 0:
            return "during a fault"
        return f"{lasting(self.awake_since_fault_ns)} awake after the last fault"


class _Excuses:
    """The clock faults, service faults and restarts that excuse failures of one pair. A sleep of
    either node is such a fault too: between the last of them and a failure both were awake."""

    def __init__(self, plan: Plan, history: History, pair: tuple[str, str]) -> None:
        spans = sorted(_excusing(plan, history, pair))
        self._begins = [span[0] for span in spans]
        # The latest end of all that began so far, so that one look finds the end of whatever was
        # going on, however the spans overlap.
        self._ends = list(accumulate((span[1] for span in spans), max))
        self._end_world_ns = history.end_world_ns

    def awake_since_ns(self, world_ns: int) -> int | None:
        """Awake time since the last fault ended, 0 within one; None before the first."""
        position = bisect_right(self._begins, world_ns) - 1
        if position < 0:
            return None
        return max(world_ns - self._ends[position], 0)

    def outlasts_the_run(self, world_ns: int) -> bool:
        """Whether a fault that had begun at `world_ns` lasted until the end."""
        position = bisect_right(self._begins, world_ns) - 1
        if position < 0:
            return False
        return self._ends[position] >= self._end_world_ns

    def excuse(self, world_ns: int) -> bool:
        """Whether a failure at `world_ns` is excused."""
        since_ns = self.awake_since_ns(world_ns)
        # Before the first fault nothing excuses one.
        if since_ns is None:
            return False
        return since_ns <= BOUND_NS


def _excusing(plan: Plan, history: History, pair: tuple[str, str]) -> list[Span]:
    """Faults of the pair's nodes, of the authority and of its node; and every restart of a ztunnel
    of the pair."""
    nodes = {plan.node_of(identity) for identity in pair}
    # None: a fault of no node, as when the authority refuses or hangs.
    touching = {*nodes, plan.authority_node, None}
    faults = [fault for fault in fault_spans(history) if fault.node in touching]
    excusing = [(fault.began_world_ns, fault.until_world_ns) for fault in faults]
    for life in lives(history):
        # The first start in a run (cause "start") is not a restart.
        if life.node not in nodes or life.started.cause == "start":
            continue
        # A restart is a moment: what it cuts must be back within the five minutes after it.
        restarted_ns = life.started.world_ns
        excusing.append((restarted_ns, restarted_ns))
    return excusing


def check(plan: Plan, history: History) -> Finding:
    """Unknown when what excuses a failure, or the five minutes after it, had not ended when the
    history did."""
    late: list[_Failed] = []
    unshown: list[_Failed] = []
    failed = 0
    for pair in plan.pairs:
        tried = attempts(history, pair)
        failed_here = sum(not event.ok for event in tried)
        # Of most pairs: what excuses their failures is not looked for.
        if failed_here == 0:
            continue
        failed += failed_here
        excuses = _Excuses(plan, history, pair)
        late += _late(tried, excuses)
        unshown += _unshown(tried, excuses, history.end_world_ns)

    # The order matters: one unexcused outage is proof, whatever else could not be shown.
    if late:
        late.sort(key=lambda one: one.event.world_ns)
        because = f"{late[0].summary}; {count(len(late), 'outage')} that no fault excuses"
        return broken(NAME, because, [_place(one) for one in late])
    if unshown:
        because = f"{unshown[0].summary}; the run ended too early to show whether it recovers"
        return unknown(NAME, because, [_place(one) for one in unshown])
    if failed:
        within = f"within a fault or {lasting(BOUND_NS)} awake after one"
        return holds(NAME, f"{count(failed, 'failed attempt')}, {within}")
    return holds(NAME, "no attempt failed")


def _unshown(
    tried: list[ConnectionAttempted], excuses: _Excuses, end_world_ns: int
) -> list[_Failed]:
    """A failure within a fault that lasted until the end, or one that is still there and still
    excused at the end."""
    for event in tried:
        if not event.ok and excuses.outlasts_the_run(event.world_ns):
            return [_Failed(event, 0)]
    last = tried[-1]
    if not last.ok and excuses.excuse(end_world_ns):
        return [_Failed(last, 0)]
    return []


def _late(tried: list[ConnectionAttempted], excuses: _Excuses) -> list[_Failed]:
    """Of each outage the first attempt that no fault excuses."""
    late: list[_Failed] = []
    outage_is_listed = False
    for event in tried:
        if event.ok:
            outage_is_listed = False
        elif not outage_is_listed and not excuses.excuse(event.world_ns):
            outage_is_listed = True
            late.append(_Failed(event, excuses.awake_since_ns(event.world_ns)))
    return late


def _place(failed: _Failed) -> Evidence:
    event = failed.event
    text = failed.text(moment_exactly(event.world_ns))
    pair = [event.source, event.destination]
    return place(event.world_ns, text, pair=pair, error=event.error)
