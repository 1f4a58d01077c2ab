"""After a fault has ended, new connections work within five minutes of waking time, and no later
outage comes of it.

What a fix must deliver. A sleep longer than the rest of a certificate's life leaves an expired one
at the moment of waking, whatever is deployed; what can be asked for is that it does not stay.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from meshwake.checks.derive import attempts, fault_spans, lives
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.spans import Span
from meshwake.checks.words import count, lasting, moment, moment_exactly
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import RECOVERS_WITHIN_NS, Plan

NAME = "recovers_within"
BOUND_NS = RECOVERS_WITHIN_NS


class _Excuses:
    """The faults, service faults and restarts that a pair may suffer from. A sleep of either node
    is such a fault too: between the last of them and a failure both were awake."""

    def __init__(self, plan: Plan, history: History, pair: tuple[str, str]) -> None:
        spans = sorted(_excusing(plan, history, pair))
        self._begins = [span[0] for span in spans]
        # The latest end of all that began so far: in this order no span needs to be looked at
        # twice.
        self._ends = list(accumulate((span[1] for span in spans), max))
        self._end_world_ns = history.end_world_ns

    def awake_since_ns(self, world_ns: int) -> int | None:
        """Waking time since the last fault ended, 0 within one; None before the first."""
        position = bisect_right(self._begins, world_ns) - 1
        if position < 0:
            return None
        return max(world_ns - self._ends[position], 0)

    def outlasts_the_run(self, world_ns: int) -> bool:
        """Whether a fault that had begun at `world_ns` lasted until the end."""
        position = bisect_right(self._begins, world_ns) - 1
        return position >= 0 and self._ends[position] >= self._end_world_ns

    def excuse(self, world_ns: int) -> bool:
        """Whether a failure at `world_ns` is forgiven."""
        since_ns = self.awake_since_ns(world_ns)
        return since_ns is not None and since_ns <= BOUND_NS


def _excusing(plan: Plan, history: History, pair: tuple[str, str]) -> list[Span]:
    """Faults of the pair's nodes, of the authority and of its node; and every ztunnel of the pair
    started anew."""
    nodes = {plan.node_of(identity) for identity in pair}
    touching = {*nodes, plan.authority_node, None}
    faults = [
        (f.began_world_ns, f.until_world_ns) for f in fault_spans(history) if f.node in touching
    ]
    started = [
        life.started
        for life in lives(history)
        if life.node in nodes and life.started["cause"] != "start"
    ]
    return faults + [(event.world_ns, event.world_ns) for event in started]


def check(plan: Plan, history: History) -> Finding:
    """Unknown when what excuses a failure, or the five minutes after it, had not ended when the
    history did."""
    late: list[tuple[Event, int | None]] = []
    unshown: list[Event] = []
    failed = 0
    for pair in plan.pairs:
        tried = attempts(history, pair)
        if all(event["ok"] for event in tried):
            continue
        excuses = _Excuses(plan, history, pair)
        late += _late(tried, excuses)
        unshown += _unshown(tried, excuses, history.end_world_ns)
        failed += sum(not event["ok"] for event in tried)
    if late:
        late.sort(key=lambda entry: entry[0].world_ns)
        because = (
            f"{_words(*late[0], exact=False)}; {count(len(late), 'outage')} that no fault excuses"
        )
        return broken(NAME, because, [_place(*entry) for entry in late])
    if unshown:
        because = (
            f"{_words(unshown[0], 0, exact=False)}; the run ended too early to show whether it "
            "recovers"
        )
        return unknown(NAME, because, [_place(event, 0) for event in unshown])
    if failed:
        return holds(
            NAME,
            f"{count(failed, 'failed attempt')}, within a fault or {lasting(BOUND_NS)} "
            "awake after one",
        )
    return holds(NAME, "no attempt failed")


def _unshown(tried: list[Event], excuses: _Excuses, end_world_ns: int) -> list[Event]:
    """A failure within a fault that lasted until the end, or still there and still excused at the
    end."""
    for event in tried:
        if not event["ok"] and excuses.outlasts_the_run(event.world_ns):
            return [event]
    return tried[-1:] if not tried[-1]["ok"] and excuses.excuse(end_world_ns) else []


def _late(tried: list[Event], excuses: _Excuses) -> list[tuple[Event, int | None]]:
    """Of each outage the first attempt that no fault excuses, and how long awake after the last
    fault it was."""
    late: list[tuple[Event, int | None]] = []
    told = False
    for event in tried:
        if event["ok"]:
            told = False
        elif not told and not excuses.excuse(event.world_ns):
            told = True
            late.append((event, excuses.awake_since_ns(event.world_ns)))
    return late


def _words(event: Event, since_ns: int | None, exact: bool = True) -> str:
    when = moment_exactly(event.world_ns) if exact else moment(event.world_ns)
    return (
        f"{event['source']} could not reach {event['destination']} at {when}, "
        f"{_after(since_ns)} ({event['error']})"
    )


def _after(since_ns: int | None) -> str:
    if since_ns is None:
        return "before any fault"
    return f"{lasting(since_ns)} awake after the last fault" if since_ns else "during a fault"


def _place(event: Event, since_ns: int | None) -> Evidence:
    pair = [event["source"], event["destination"]]
    return place(event.world_ns, _words(event, since_ns), pair=pair, error=event["error"])
