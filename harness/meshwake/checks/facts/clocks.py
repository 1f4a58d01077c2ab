"""What happened to the clocks of a node: faults as they were measured, its wall clock as a function
of world time, and when it was asleep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from meshwake.checks.facts.node_timeline import NodeTimeline
from meshwake.checks.facts.once import once
from meshwake.checks.facts.spans import Spans
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import FaultBegan, FaultEnded, NodeWoke
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import ASLEEP_FAULTS, PlannedFault

# Faults during which the processes of a node do not run. A suspend and a pause are over when the
# node wakes; a frozen node wakes at the end of the fault.
_STOPS_PROCESSES = (*ASLEEP_FAULTS, "freeze")


@dataclass(frozen=True)
class FaultSpan:
    """One fault as it happened. `woke`: processes of the node run again, before the end (pause).
    `ended` None: it had not ended when the history did, and `until_world_ns` is the end of that."""

    index: int
    kind: str
    node: str | None
    began: FaultBegan
    woke: NodeWoke | None
    ended: FaultEnded | None
    until_world_ns: int

    @property
    def began_world_ns(self) -> int:
        """World time of its beginning."""
        return self.began.world_ns

    @property
    def asleep_until_world_ns(self) -> int:
        """World time at which processes run again, if it is a fault that stops them."""
        # A freeze has no event of a wake: processes run again when the fault ends.
        if self.woke is None:
            return self.until_world_ns
        return self.woke.world_ns


@once
def fault_spans(history: History) -> tuple[FaultSpan, ...]:
    """The faults that began, in order."""
    woke = {event.fault: event for event in history.of(NodeWoke)}
    all_ended = {event.fault: event for event in history.of(FaultEnded)}
    spans: list[FaultSpan] = []
    for began in history.of(FaultBegan):
        ended = all_ended.get(began.fault)
        until_world_ns = history.end_world_ns
        if ended is not None:
            until_world_ns = ended.world_ns
        span = FaultSpan(
            index=began.fault,
            kind=began.fault_kind,
            node=began.node,
            began=began,
            woke=woke.get(began.fault),
            ended=ended,
            until_world_ns=until_world_ns,
        )
        spans.append(span)
    return tuple(spans)


@once
def timelines(history: History) -> dict[str, NodeTimeline]:
    """The timeline of every node whose clocks were recorded."""
    readings: dict[str, list[tuple[int, ClockReading]]] = defaultdict(list)
    points: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in history:
        if event.node is None or event.clocks is None:
            continue
        if isinstance(event, FaultEnded) and event.wall_before_ns is not None:
            # A step has two points at one world time: before it, and after it.
            points[event.node].append((event.world_ns, event.wall_before_ns))
        points[event.node].append((event.world_ns, event.clocks.wall_ns))
        readings[event.node].append((event.world_ns, event.clocks))

    found: dict[str, NodeTimeline] = {}
    # Points are complete now: how a clock goes on after the last depends on faults without an end.
    for node, walls in points.items():
        faults = [fault for fault in fault_spans(history) if fault.node == node]
        found[node] = NodeTimeline(
            points=walls,
            asleep=_asleep(faults),
            rate_after=_rate_after(faults, walls[-1]),
            readings=readings[node],
        )
    return found


def _asleep(faults: Iterable[FaultSpan]) -> Spans:
    """When processes of the node of these faults did not run."""
    stopping = [fault for fault in faults if fault.kind in _STOPS_PROCESSES]
    return Spans((fault.began_world_ns, fault.asleep_until_world_ns) for fault in stopping)


def _rate_after(faults: Iterable[FaultSpan], last: tuple[int, int]) -> Fraction:
    """How the wall clock of a node runs after the `last` recorded (world, wall): faults that never
    ended decide."""
    rate = Fraction(1)
    last_world_ns, last_wall_ns = last
    for fault in faults:
        clocks_before = fault.began.clocks
        if fault.ended is not None or clocks_before is None:
            continue
        is_paused = fault.kind == "pause" and fault.woke is None
        if is_paused:
            return Fraction(0)  # no clock of a paused machine advances
        if fault.kind != "drift":
            continue
        lasted_ns = last_world_ns - fault.began_world_ns
        # Within less than a second a drift is lost in the noise of reading real clocks.
        if lasted_ns >= NS_PER_S:
            moved_ns = last_wall_ns - clocks_before.wall_ns
            rate = Fraction(moved_ns, lasted_ns)
    return rate


def timeline(history: History, node: str) -> NodeTimeline:
    """The timeline of `node`. Raises ValueError when its clocks were never recorded."""
    found = timelines(history).get(node)
    if found is None:
        raise ValueError(f"no event of this history has the clocks of node {node!r}")
    return found


def asleep_either(plan: Plan, history: History, pair: tuple[str, str]) -> Spans:
    """When one or the other node of `pair` was asleep."""
    known = timelines(history)
    asleep = Spans()
    for node in {plan.node_of(identity) for identity in pair}:
        # Of a node without clocks it is not known when it slept.
        if node in known:
            asleep = asleep | known[node].asleep
    return asleep


@dataclass(frozen=True)
class ClockFault:
    """A clock fault that began: what was planned, and how far each clock of the node really moved
    from its beginning to its end. World time that passes awake within it (a pause before its
    correction) is in all three."""

    planned: PlannedFault
    span: FaultSpan
    measured: ClockReading | None

    @property
    def planned_ns(self) -> int:
        """By how much a step was to set the wall clock; how long any other fault was to last."""
        if self.planned.kind == "step":
            return self.planned.by_wall_ns
        return self.planned.duration_ns


def clock_faults(plan: Plan, history: History) -> tuple[ClockFault, ...]:
    """The clock faults of the plan that began; `measured` is None for one that had not ended."""
    spans = {span.index: span for span in fault_spans(history)}
    found: list[ClockFault] = []
    for fault in plan.faults:
        span = spans.get(fault.index)
        if span is not None and fault.kind in CLOCK_FAULTS:
            found.append(ClockFault(fault, span, _measured(span)))
    return tuple(found)


def _measured(span: FaultSpan) -> ClockReading | None:
    """How far each clock moved; None where one of both ends has no reading."""
    if span.ended is None:
        return None
    before, after = span.began.clocks, span.ended.clocks
    if before is None or after is None:
        return None
    return after.since(before)
