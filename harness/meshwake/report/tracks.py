"""A history as tracks of bars and marks: for each node its clocks, its sleep and what it held.

    clocks        by how much wall, monotonic and boottime clock lag behind the world; where two diverge, that is drift
    certificate   one track an identity: fresh until it is due, overdue until it is renewed, expired while still served
    connections   one track a pair: works, fails
    faults        what was done to the node, to its ztunnel and to istiod; alerts

Both renderings, the page and the ASCII timeline, are drawn from this and from nothing else, so they
cannot differ. It is a pure function of plan and history; verdicts are not its business.

Its limits: a track of more than `BARS_MAX` bars of one state, or of `MARKS_MAX` marks, is drawn
coarser, and has how many were merged (`merged`). The difference is invisible until one zooms in
far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, pairwise

from meshwake.checks.facts.certificates import (
    CertificateInUse,
    Holding,
    certificates,
    holdings,
    lives,
)
from meshwake.checks.facts.clocks import asleep_either, fault_spans, timelines
from meshwake.checks.facts.node_timeline import NodeTimeline
from meshwake.checks.facts.spans import Span, Spans
from meshwake.checks.facts.traffic import PairFailure, attempts, failures
from meshwake.checks.format import count, lasting, moment_exactly
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import (
    AlertFired,
    ApplicationsRestarted,
    CsrAnswered,
    Event,
    FaultEnded,
    ProxyStarted,
    ProxyStopped,
)
from meshwake.core.history import History
from meshwake.core.plan import Plan, PlannedGateway

BARS_MAX = 4_000
MARKS_MAX = 2_000

FRESH, OVERDUE, EXPIRED, EXPIRED_ASLEEP = "fresh", "overdue", "expired", "expired-asleep"
WORKS, FAILS, FAULT = "works", "fails", "fault"
DUE, RENEWED, ISSUED, DROPPED, REFUSED = "due", "renewed", "issued", "dropped", "refused"
FAILED, RESTARTED, STEPPED, ALERTED = "failed", "restarted", "stepped", "alerted"


@dataclass(frozen=True)
class Bar:
    """One state of a track for [from, to); `text` is what it is, in words."""

    from_world_ns: int
    to_world_ns: int
    state: str
    text: str


@dataclass(frozen=True)
class Mark:
    """Something that happened at one moment."""

    world_ns: int
    kind: str
    text: str


@dataclass(frozen=True)
class Track:
    """One line of a picture. `merged`: how many bars and marks were drawn together with a
    neighbour."""

    label: str
    kind: str
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    merged: int = 0


@dataclass(frozen=True)
class ClockLine:
    """How far each clock of a node has moved less than the world, at world times that lie on no
    straight line."""

    world_ns: list[int] = field(default_factory=list)
    lags_ns: list[ClockReading] = field(default_factory=list)


@dataclass(frozen=True)
class NodeTracks:
    """All that is drawn of one node. `walls`: (world, wall) in ns, straight lines between."""

    node: str
    asleep: tuple[Span, ...]
    clocks: ClockLine
    walls: tuple[tuple[int, int], ...]
    tracks: tuple[Track, ...]
    drift_end_ns: int
    out_ns: int

    def tracks_of(self, kind: str) -> list[Track]:
        """Its tracks of one kind."""
        return [track for track in self.tracks if track.kind == kind]


def node_tracks(plan: Plan, history: History) -> tuple[NodeTracks, ...]:
    """The tracks of each node of the plan, in its order, whose clocks were recorded."""
    known, events = timelines(history), _sort_history(plan, history)
    return tuple(
        _tracks_of_node(plan, history, node.name, node.identities, known[node.name], events)
        for node in plan.nodes
        if node.name in known
    )


@dataclass(frozen=True)
class _SortedHistory:
    """The events of a history by node and identity: with many nodes, reading all of it for each
    would be slow."""

    by_node: dict[str, list[Event]]
    unanswered: dict[str, list[CsrAnswered]]
    unissued: dict[str, list[Holding]]
    failing: dict[str, list[PairFailure]]


def _sort_history(plan: Plan, history: History) -> _SortedHistory:
    events = _SortedHistory({}, {}, {}, _failing_by_node(plan, history))
    for event in history:
        if event.node is not None and event.clocks is not None:
            events.by_node.setdefault(event.node, []).append(event)
    for answer in history.of(CsrAnswered):
        if answer.outcome != "issued":
            events.unanswered.setdefault(answer.identity, []).append(answer)
    for holding in _unissued(history):
        events.unissued.setdefault(holding.identity, []).append(holding)
    return events


def _failing_by_node(plan: Plan, history: History) -> dict[str, list[PairFailure]]:
    """By the node of the source."""
    by_node: dict[str, list[PairFailure]] = {}
    for failing in failures(plan, history):
        by_node.setdefault(plan.node_of(failing.pair[0]), []).append(failing)
    return by_node


def _unissued(history: History) -> Iterator[Holding]:
    """Certificates that were seen in ztunnel itself, and not when they were issued."""
    issued = {
        (one.identity, one.serial, one.issued_world_ns)
        for one in chain.from_iterable(certificates(history).values())
    }
    for holding in holdings(history):
        if (holding.identity, holding.serial, holding.from_world_ns) not in issued:
            yield holding


def _tracks_of_node(
    plan: Plan,
    history: History,
    node: str,
    identities: tuple[str, ...],
    clock: NodeTimeline,
    events: _SortedHistory,
) -> NodeTracks:
    shown = [*identities, *_others_on(history, node, identities)]
    # The order of the lines on the page: certificates, gateways, connections, faults.
    failing = events.failing.get(node, [])
    tracks = [
        *(_certificate_track(history, identity, clock, events) for identity in shown),
        *(_gateway_track(each, history, clock) for each in plan.gateways if each.node == node),
        *(
            _connection_track(plan, history, pair, failing)
            for pair in plan.pairs
            if plan.node_of(pair[0]) == node
        ),
        _fault_track(history, node),
    ]
    line = _clock_line(events.by_node.get(node, []), history.end_world_ns)
    out = Spans((f.from_world_ns, f.to_world_ns) for f in failing)
    awake = chain.from_iterable(clock.asleep.without(*span) for span in out)
    out_ns = sum(to_ns - from_ns for from_ns, to_ns in awake)
    return NodeTracks(
        node=node,
        asleep=tuple(clock.asleep),
        clocks=line,
        walls=tuple(_walls(line, plan.starts_wall_s * NS_PER_S)),
        tracks=tuple(
            _bounded(track, history.end_world_ns) for track in tracks if track.bars or track.marks
        ),
        drift_end_ns=_drift_ns(line),
        out_ns=out_ns,
    )


def _others_on(history: History, node: str, identities: tuple[str, ...]) -> list[str]:
    """Identities on this node that the plan does not name as its own: gateways, waypoints."""
    found: dict[str, None] = {}
    for life in lives(history):
        if life.node == node:
            found |= dict.fromkeys(life.identities)
    return [identity for identity in found if identity not in identities]


# --- Clocks ---------------------------------------------------------------------------------------


def _clock_line(events: list[Event], end_world_ns: int) -> ClockLine:
    """Where the lag of a clock bends or jumps; what lies on a straight line between is left out."""
    points = list(_clock_points(events))
    # The line goes on to the end of the picture, as far off as it was last.
    if points and end_world_ns > points[-1][0]:
        points.append((end_world_ns, points[-1][1]))
    kept = list(_bends(points))
    return ClockLine([world_ns for world_ns, _ in kept], [lag for _, lag in kept])


def _clock_points(events: list[Event]) -> Iterator[tuple[int, ClockReading]]:
    """The lags at each event; two at the end of a fault that set the wall clock."""
    start: tuple[int, ClockReading] | None = None
    for event in events:
        if event.clocks is None:
            continue
        start = start or (event.world_ns, event.clocks)
        if isinstance(event, FaultEnded) and event.wall_before_ns is not None:
            before = event.clocks._replace(wall_ns=event.wall_before_ns)
            yield event.world_ns, _lag(start, event.world_ns, before)
        yield event.world_ns, _lag(start, event.world_ns, event.clocks)


def _lag(start: tuple[int, ClockReading], world_ns: int, clocks: ClockReading) -> ClockReading:
    passed_ns = world_ns - start[0]
    return ClockReading(*(moved_ns - passed_ns for moved_ns in clocks.since(start[1])))


def _bends(recorded: list[tuple[int, ClockReading]]) -> Iterator[tuple[int, ClockReading]]:
    # Events of one moment have the same reading, and each is written down.
    points = [point for point, _ in groupby(recorded)]
    for position, point in enumerate(points):
        last = position in (0, len(points) - 1)
        if last or not _straight(points[position - 1], point, points[position + 1]):
            yield point


def _straight(
    before: tuple[int, ClockReading],
    here: tuple[int, ClockReading],
    after: tuple[int, ClockReading],
) -> bool:
    """To the millisecond: a drifting wall clock is recorded in whole nanoseconds, which bend a
    little."""
    run_ns, whole_ns = here[0] - before[0], after[0] - before[0]
    if whole_ns == 0:
        return before[1] == here[1] == after[1]
    return all(
        abs((last - first) * run_ns // whole_ns - (middle - first)) < NS_PER_S // 1_000
        for first, middle, last in zip(before[1], here[1], after[1], strict=True)
    )


def _walls(line: ClockLine, starts_wall_ns: int) -> Iterator[tuple[int, int]]:
    for world_ns, lag in zip(line.world_ns, line.lags_ns, strict=True):
        yield world_ns, starts_wall_ns + world_ns + lag.wall_ns


def _drift_ns(line: ClockLine) -> int:
    return line.lags_ns[-1].wall_ns - line.lags_ns[-1].monotonic_ns if line.lags_ns else 0


# --- Certificates ---------------------------------------------------------------------------------


def _certificate_track(
    history: History, identity: str, clock: NodeTimeline, events: _SortedHistory
) -> Track:
    held = certificates(history).get(identity, ())
    bars = [bar for certificate in held for bar in _life_bars(certificate, clock)]
    marks: list[Mark] = []
    # Each certificate with the one before it; None before the first and after the last.
    for old, new in pairwise((None, *held, None)):
        marks += _life_marks(old, new, clock, history)
    for holding in events.unissued.get(identity, []):
        span = (holding.from_world_ns, holding.to_world_ns)
        text = f"certificate {holding.serial}, as ztunnel shows it"
        bars += _validity_bars(span, holding.not_after_wall_s, span[1], clock, text)
    marks += [
        Mark(event.world_ns, REFUSED, f"the request for {identity} was {event.outcome}")
        for event in events.unanswered.get(identity, [])
    ]
    return Track(
        identity, "certificate", tuple(bars), tuple(sorted(marks, key=lambda mark: mark.world_ns))
    )


def _gateway_track(gateway: PlannedGateway, history: History, clock: NodeTimeline) -> Track:
    """A gateway or waypoint: its agent asks by itself, so that only issues and ends are known, not
    when one was due."""
    issued = history.of(CsrAnswered, identity=gateway.identity, outcome="issued")
    stopped_ns = [event.world_ns for event in history.of(ProxyStopped, process=gateway.name)]
    ends_ns = sorted([*(event.world_ns for event in issued), *stopped_ns, history.end_world_ns])
    bars: list[Bar] = []
    for event in issued:
        # Until the next issue, a restart of the gateway, or the end, whichever comes first.
        later_ns = [end_ns for end_ns in ends_ns if end_ns > event.world_ns]
        until_ns = later_ns[0] if later_ns else history.end_world_ns
        text = f"certificate {event.serial} of {moment_exactly(event.world_ns)}"
        assert event.not_after_wall_s is not None  # as always when it was issued
        bars += _validity_bars(
            (event.world_ns, until_ns), event.not_after_wall_s, until_ns, clock, text
        )
    marks = [Mark(event.world_ns, RENEWED, "certificate issued to the gateway") for event in issued]
    return Track(f"{gateway.identity} (gateway)", "certificate", tuple(bars), tuple(marks))


def _life_bars(certificate: CertificateInUse, clock: NodeTimeline) -> Iterator[Bar]:
    due_ns = _due_world_ns(certificate, clock)
    text = f"certificate {certificate.serial} of {moment_exactly(certificate.issued_world_ns)}"
    span = (certificate.issued_world_ns, certificate.until_world_ns)
    yield from _validity_bars(span, certificate.not_after_wall_s, due_ns, clock, text)


def _validity_bars(
    span: Span, not_after_wall_s: int, due_world_ns: int, clock: NodeTimeline, text: str
) -> Iterator[Bar]:
    # notAfter itself is still valid: expired is the first whole second after it (RFC 5280).
    expired = Spans(clock.spans_at_or_after_wall((not_after_wall_s + 1) * NS_PER_S, *span))
    for from_ns, to_ns in expired.without(*span):
        middle_ns = min(max(due_world_ns, from_ns), to_ns)
        yield from _bar(from_ns, middle_ns, FRESH, f"{text}: fresh")
        yield from _bar(middle_ns, to_ns, OVERDUE, f"{text}: its renewal is overdue")
    for from_ns, to_ns in expired:
        for awake in clock.asleep.without(from_ns, to_ns):
            yield from _bar(*awake, EXPIRED, f"{text}: EXPIRED and still served")
        for asleep in _within(clock.asleep, from_ns, to_ns):
            yield from _bar(*asleep, EXPIRED_ASLEEP, f"{text}: expired while the node sleeps")


def _bar(from_ns: int, to_ns: int, state: str, text: str) -> Iterator[Bar]:
    if from_ns < to_ns:
        yield Bar(from_ns, to_ns, state, text)


def _within(spans: Spans, from_ns: int, to_ns: int) -> Iterator[Span]:
    for begins_ns, ends_ns in spans:
        if begins_ns < to_ns and ends_ns > from_ns:
            yield max(begins_ns, from_ns), min(ends_ns, to_ns)


def _due_world_ns(certificate: CertificateInUse, clock: NodeTimeline) -> int:
    due_ns = clock.world_ns_at_wall(certificate.due_wall_ns, certificate.issued_world_ns)
    return certificate.until_world_ns if due_ns is None else due_ns


def _life_marks(
    old: CertificateInUse | None,
    new: CertificateInUse | None,
    clock: NodeTimeline,
    history: History,
) -> Iterator[Mark]:
    """What lies between two certificates of one identity: when the first was due, and how the
    second came."""
    if old is not None and _due_world_ns(old, clock) <= history.end_world_ns:
        yield Mark(_due_world_ns(old, clock), DUE, f"renewal of certificate {old.serial} due")
    if old is not None and old.until == "dropped":
        yield Mark(
            old.until_world_ns, DROPPED, f"certificate {old.serial} dropped: ztunnel has none"
        )
    if new is None:
        return
    if old is not None and old.life is new.life:
        late_ns = new.issued_wall_ns - old.due_wall_ns
        words = "renewed"
        # Certificates have whole seconds, so less than one is on time.
        if late_ns >= NS_PER_S:
            words = f"renewed, {lasting(late_ns)} after it was due"
        yield Mark(new.issued_world_ns, RENEWED, words)
    else:
        yield Mark(new.issued_world_ns, ISSUED, "first certificate of this ztunnel")


# --- Connections ----------------------------------------------------------------------------------


def _connection_track(
    plan: Plan, history: History, pair: tuple[str, str], failing: Sequence[PairFailure]
) -> Track:
    """Nothing is drawn for a time when either node slept: no connection could be tried."""
    own = [failure for failure in failing if failure.pair == pair]
    tried = attempts(history, pair)
    asleep = asleep_either(plan, history, pair)
    bars = [
        Bar(*awake, FAILS, _failing_words(failure))
        for failure in own
        for awake in asleep.without(failure.from_world_ns, failure.to_world_ns)
    ]
    # Before its first attempt nothing is known of a pair, so nothing is drawn.
    if tried:
        idle = asleep | Spans((failure.from_world_ns, failure.to_world_ns) for failure in own)
        bars += [
            Bar(*span, WORKS, "works")
            for span in idle.without(tried[0].world_ns, history.end_world_ns)
        ]
    marks = [Mark(event.world_ns, FAILED, str(event.error)) for event in tried if not event.ok]
    label = f"{pair[0]} \N{RIGHTWARDS ARROW} {pair[1]}"
    return Track(
        label, "connections", tuple(sorted(bars, key=lambda bar: bar.from_world_ns)), tuple(marks)
    )


def _failing_words(failing: PairFailure) -> str:
    return (
        f"no connection for {lasting(failing.awake_ns)} awake, "
        f"{count(failing.attempts, 'attempt')}: {failing.error}"
    )


# --- Faults ---------------------------------------------------------------------------------------


def _fault_track(history: History, node: str) -> Track:
    bars = []
    marks = []
    for span in fault_spans(history):
        # A fault of the authority (None) concerns every node, and is on the track of each.
        if span.node not in (node, None):
            continue
        whose = "istiod: " if span.node is None else ""
        words = f"{whose}{span.kind.replace('_', ' ')}"
        if span.until_world_ns > span.began_world_ns:
            lasts = lasting(span.until_world_ns - span.began_world_ns)
            bars.append(
                Bar(span.began_world_ns, span.until_world_ns, FAULT, f"{words} for {lasts}")
            )
        # Of a restart the new ztunnel has a mark, below.
        elif span.kind != "restart":
            marks.append(Mark(span.began_world_ns, STEPPED, f"{words}{_stepped_by(span.ended)}"))
    marks += [
        Mark(
            life.started.world_ns,
            RESTARTED,
            f"ztunnel {life.process} restarted: {life.started.cause}",
        )
        for life in lives(history)
        if life.node == node and life.started.cause != "start"
    ]
    marks += [
        Mark(event.world_ns, RESTARTED, f"gateway {event.process} restarted: {event.cause}")
        for event in history.of(ProxyStarted)
        if event.node == node and event.cause != "start"
    ]
    marks += [
        Mark(event.world_ns, RESTARTED, f"all application pods restarted: {event.cause}")
        for event in history.of(ApplicationsRestarted)
        if event.node == node and event.cause != "start"
    ]
    marks += [
        Mark(event.world_ns, ALERTED, f"alert {event.alert} fired")
        for event in history.of(AlertFired)
        if event.node in (node, None)
    ]
    return Track(
        "faults, restarts, alerts",
        "faults",
        tuple(bars),
        tuple(sorted(marks, key=lambda m: m.world_ns)),
    )


def _stepped_by(ended: FaultEnded | None) -> str:
    if ended is None or ended.clocks is None or ended.wall_before_ns is None:
        return ""
    by_ns = ended.clocks.wall_ns - ended.wall_before_ns
    return f" by {'+' if by_ns > 0 else ''}{lasting(by_ns)}"


# --- Bounds ---------------------------------------------------------------------------------------


def _bounded(track: Track, end_world_ns: int) -> Track:
    """`track` with no more bars and marks of one kind than can be seen."""
    by_state: dict[str, list[Bar]] = {}
    for bar in track.bars:
        by_state.setdefault(bar.state, []).append(bar)
    by_kind: dict[str, list[Mark]] = {}
    for mark in track.marks:
        by_kind.setdefault(mark.kind, []).append(mark)
    bars = [each for own in by_state.values() for each in _merged(own, end_world_ns)]
    marks = [each for own in by_kind.values() for each in _thinned(own)]
    return Track(
        label=track.label,
        kind=track.kind,
        bars=tuple(sorted(bars, key=lambda bar: bar.from_world_ns)),
        marks=tuple(sorted(marks, key=lambda mark: mark.world_ns)),
        merged=len(track.bars) - len(bars) + len(track.marks) - len(marks),
    )


def _merged(bars: list[Bar], end_world_ns: int) -> Iterable[Bar]:
    """Neighbours of one state become one bar where less than a pixel of a wide screen lies between
    them."""
    if len(bars) <= BARS_MAX:
        return bars
    # By where they begin: however many there are, no more than half of the limit can be left.
    least_ns = 2 * end_world_ns // BARS_MAX
    merged: list[Bar] = []
    for bar in bars:
        if merged and bar.from_world_ns - merged[-1].from_world_ns < least_ns:
            last = merged[-1]
            merged[-1] = Bar(
                last.from_world_ns,
                max(last.to_world_ns, bar.to_world_ns),
                bar.state,
                "several together",
            )
        else:
            merged.append(bar)
    return merged


def _thinned(marks: list[Mark]) -> list[Mark]:
    """Every n-th, so that no more than `MARKS_MAX` are left."""
    if len(marks) <= MARKS_MAX:
        return marks
    every = -(-len(marks) // MARKS_MAX)  # rounded up, so that no more are left
    return marks[::every]
