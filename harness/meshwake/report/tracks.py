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

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

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
    ZtunnelStarted,
)
from meshwake.core.history import History
from meshwake.core.plan import Plan, PlannedGateway, PlannedNode

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
    known = timelines(history)
    events = _sort_history(plan, history)
    drawn: list[NodeTracks] = []
    for node in plan.nodes:
        clock = known.get(node.name)
        if clock is None:
            continue
        drawn.append(_tracks_of_node(plan, history, node, clock, events))
    return tuple(drawn)


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
    issued: set[tuple[str, str, int]] = set()
    for own in certificates(history).values():
        issued.update((one.identity, one.serial, one.issued_world_ns) for one in own)
    for holding in holdings(history):
        if (holding.identity, holding.serial, holding.from_world_ns) not in issued:
            yield holding


def _tracks_of_node(
    plan: Plan,
    history: History,
    node: PlannedNode,
    clock: NodeTimeline,
    events: _SortedHistory,
) -> NodeTracks:
    failing = events.failing.get(node.name, [])
    tracks = [
        _bounded(track, history.end_world_ns)
        for track in _all_tracks(plan, history, node, clock, events)
        if track.bars or track.marks
    ]
    line = _clock_line(events.by_node.get(node.name, []), history.end_world_ns)
    return NodeTracks(
        node=node.name,
        asleep=tuple(clock.asleep),
        clocks=line,
        walls=tuple(_walls(line, plan.starts_wall_s * NS_PER_S)),
        tracks=tuple(tracks),
        drift_end_ns=_drift_ns(line),
        out_ns=_out_ns(failing, clock),
    )


def _all_tracks(
    plan: Plan,
    history: History,
    node: PlannedNode,
    clock: NodeTimeline,
    events: _SortedHistory,
) -> Iterator[Track]:
    """In the order of the lines on the page: certificates, gateways, connections, faults."""
    others = _others_on(history, node)
    for identity in (*node.identities, *others):
        yield _certificate_track(history, identity, clock, events)
    for gateway in plan.gateways:
        if gateway.node == node.name:
            yield _gateway_track(gateway, history, clock)
    failing = events.failing.get(node.name, [])
    for pair in plan.pairs:
        # A connection is drawn once, where it begins.
        if plan.node_of(pair[0]) == node.name:
            yield _connection_track(plan, history, pair, failing)
    yield _fault_track(history, node.name)


def _out_ns(failing: Sequence[PairFailure], clock: NodeTimeline) -> int:
    """Time awake in which any pair of the node was without a connection; two at once count once."""
    out = Spans(failure.span for failure in failing)
    return sum(clock.awake_ns(from_ns, to_ns) for from_ns, to_ns in out)


def _others_on(history: History, node: PlannedNode) -> list[str]:
    """Identities on this node that the plan does not name as its own: gateways, waypoints."""
    found: dict[str, None] = {}
    for life in lives(history):
        if life.node == node.name:
            found |= dict.fromkeys(life.identities)
    return [identity for identity in found if identity not in node.identities]


# --- Clocks ---------------------------------------------------------------------------------------


def _clock_line(events: list[Event], end_world_ns: int) -> ClockLine:
    """Where the lag of a clock bends or jumps; what lies on a straight line between is left out."""
    points = list(_clock_points(events))
    if points:
        last_world_ns, last_lag = points[-1]
        # The line goes on to the end of the picture, as far off as it was last.
        if end_world_ns > last_world_ns:
            points.append((end_world_ns, last_lag))

    line = ClockLine()
    for world_ns, lag in _bends(points):
        line.world_ns.append(world_ns)
        line.lags_ns.append(lag)
    return line


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
    """How far each clock has moved less than the world since `start`, negative."""
    start_world_ns, start_clocks = start
    passed_ns = world_ns - start_world_ns
    moved = clocks.since(start_clocks)
    return ClockReading(
        wall_ns=moved.wall_ns - passed_ns,
        monotonic_ns=moved.monotonic_ns - passed_ns,
        boottime_ns=moved.boottime_ns - passed_ns,
    )


def _bends(recorded: list[tuple[int, ClockReading]]) -> Iterator[tuple[int, ClockReading]]:
    """The first point, the last, and those between that lie on no straight line."""
    # Events of one moment have the same reading, and each is written down.
    points = [point for point, _ in groupby(recorded)]
    yield from points[:1]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        if not _straight(before, here, after):
            yield here
    if len(points) > 1:
        yield points[-1]


def _straight(
    before: tuple[int, ClockReading],
    here: tuple[int, ClockReading],
    after: tuple[int, ClockReading],
) -> bool:
    """To the millisecond: a drifting wall clock is recorded in whole nanoseconds, which bend a
    little."""
    before_world_ns, before_lags = before
    here_world_ns, here_lags = here
    after_world_ns, after_lags = after
    run_ns = here_world_ns - before_world_ns
    whole_ns = after_world_ns - before_world_ns
    # All at one moment: a step.
    if whole_ns == 0:
        return before_lags == here_lags == after_lags
    for first_ns, middle_ns, last_ns in zip(before_lags, here_lags, after_lags, strict=True):
        on_the_line_ns = first_ns + (last_ns - first_ns) * run_ns // whole_ns
        if abs(on_the_line_ns - middle_ns) >= NS_PER_S // 1_000:
            return False
    return True


def _walls(line: ClockLine, starts_wall_ns: int) -> Iterator[tuple[int, int]]:
    for world_ns, lag in zip(line.world_ns, line.lags_ns, strict=True):
        yield world_ns, starts_wall_ns + world_ns + lag.wall_ns


def _drift_ns(line: ClockLine) -> int:
    """How far wall and monotonic clock are apart at the end."""
    if not line.lags_ns:
        return 0
    last = line.lags_ns[-1]
    return last.wall_ns - last.monotonic_ns


# --- Certificates ---------------------------------------------------------------------------------


def _certificate_track(
    history: History, identity: str, clock: NodeTimeline, events: _SortedHistory
) -> Track:
    held = certificates(history).get(identity, ())
    bars: list[Bar] = []
    for certificate in held:
        bars += _life_bars(certificate, clock)
    for holding in events.unissued.get(identity, []):
        span = (holding.from_world_ns, holding.to_world_ns)
        text = f"certificate {holding.serial}, as ztunnel shows it"
        # Of a certificate of another authority it is not known when it was due.
        due_world_ns = holding.to_world_ns
        bars += _validity_bars(span, holding.not_after_wall_s, due_world_ns, clock, text)

    marks: list[Mark] = []
    # Each certificate with the one before it; None before the first and after the last.
    for old, new in pairwise((None, *held, None)):
        marks += _life_marks(old, new, clock, history)
    for event in events.unanswered.get(identity, []):
        text = f"the request for {identity} was {event.outcome}"
        marks.append(Mark(event.world_ns, REFUSED, text))
    return Track(
        label=identity,
        kind="certificate",
        bars=tuple(bars),
        marks=_by_time(marks),
    )


def _by_time(marks: list[Mark]) -> tuple[Mark, ...]:
    return tuple(sorted(marks, key=lambda mark: mark.world_ns))


def _gateway_track(gateway: PlannedGateway, history: History, clock: NodeTimeline) -> Track:
    """A gateway or waypoint: its agent asks by itself, so that only issues and ends are known, not
    when one was due."""
    issued = history.of(CsrAnswered, identity=gateway.identity, outcome="issued")
    stopped = history.of(ProxyStopped, process=gateway.name)
    # A certificate is served until the next issue, or until its gateway stops.
    ends_ns = sorted(event.world_ns for event in (*issued, *stopped))
    bars: list[Bar] = []
    marks: list[Mark] = []
    for event in issued:
        assert event.not_after_wall_s is not None  # as always when it was issued
        until_ns = history.end_world_ns
        following = bisect_right(ends_ns, event.world_ns)
        if following < len(ends_ns):
            until_ns = ends_ns[following]
        span = (event.world_ns, until_ns)
        text = f"certificate {event.serial} of {moment_exactly(event.world_ns)}"
        bars += _validity_bars(span, event.not_after_wall_s, until_ns, clock, text)
        marks.append(Mark(event.world_ns, RENEWED, "certificate issued to the gateway"))
    return Track(
        label=f"{gateway.identity} (gateway)",
        kind="certificate",
        bars=tuple(bars),
        marks=tuple(marks),
    )


def _life_bars(certificate: CertificateInUse, clock: NodeTimeline) -> Iterator[Bar]:
    due_ns = _due_world_ns(certificate, clock)
    text = f"certificate {certificate.serial} of {moment_exactly(certificate.issued_world_ns)}"
    span = (certificate.issued_world_ns, certificate.until_world_ns)
    yield from _validity_bars(span, certificate.not_after_wall_s, due_ns, clock, text)


def _validity_bars(
    span: Span, not_after_wall_s: int, due_world_ns: int, clock: NodeTimeline, text: str
) -> Iterator[Bar]:
    """The states of one certificate while it was held, which was for `span`."""
    # notAfter itself is still valid: expired is the first whole second after it (RFC 5280).
    expired = Spans(clock.spans_at_or_after_wall((not_after_wall_s + 1) * NS_PER_S, *span))
    for from_ns, to_ns in expired.without(*span):
        middle_ns = min(max(due_world_ns, from_ns), to_ns)
        yield from _bar(from_ns, middle_ns, FRESH, f"{text}: fresh")
        yield from _bar(middle_ns, to_ns, OVERDUE, f"{text}: its renewal is overdue")
    for from_ns, to_ns in expired:
        for awake in clock.asleep.without(from_ns, to_ns):
            yield from _bar(*awake, EXPIRED, f"{text}: EXPIRED and still served")
        # What sleep covers of it: cut off at both ends, and what lies outside is of no length.
        for begins_ns, ends_ns in clock.asleep:
            asleep = (max(begins_ns, from_ns), min(ends_ns, to_ns))
            yield from _bar(*asleep, EXPIRED_ASLEEP, f"{text}: expired while the node sleeps")


def _bar(from_ns: int, to_ns: int, state: str, text: str) -> Iterator[Bar]:
    """One, or none where it would be of no length."""
    if from_ns < to_ns:
        yield Bar(from_ns, to_ns, state, text)


def _due_world_ns(certificate: CertificateInUse, clock: NodeTimeline) -> int:
    """When its renewal was due; its end where the wall clock never got there."""
    due_ns = clock.world_ns_at_wall(certificate.due_wall_ns, certificate.issued_world_ns)
    if due_ns is None:
        return certificate.until_world_ns
    return due_ns


def _life_marks(
    old: CertificateInUse | None,
    new: CertificateInUse | None,
    clock: NodeTimeline,
    history: History,
) -> Iterator[Mark]:
    """What lies between two certificates of one identity: when the first was due, and how the
    second came."""
    if old is not None:
        due_world_ns = _due_world_ns(old, clock)
        if due_world_ns <= history.end_world_ns:
            yield Mark(due_world_ns, DUE, f"renewal of certificate {old.serial} due")
        if old.until == "dropped":
            words = f"certificate {old.serial} dropped: ztunnel has none"
            yield Mark(old.until_world_ns, DROPPED, words)
    if new is None:
        return

    # A new process had no certificate, so its first one renews nothing.
    if old is None or old.life is not new.life:
        yield Mark(new.issued_world_ns, ISSUED, "first certificate of this ztunnel")
        return
    late_ns = new.issued_wall_ns - old.due_wall_ns
    words = "renewed"
    # Certificates have whole seconds, so less than one is on time.
    if late_ns >= NS_PER_S:
        words = f"renewed, {lasting(late_ns)} after it was due"
    yield Mark(new.issued_world_ns, RENEWED, words)


# --- Connections ----------------------------------------------------------------------------------


def _connection_track(
    plan: Plan, history: History, pair: tuple[str, str], failing: Sequence[PairFailure]
) -> Track:
    """Nothing is drawn for a time when either node slept: no connection could be tried."""
    own = [failure for failure in failing if failure.pair == pair]
    tried = attempts(history, pair)
    asleep = asleep_either(plan, history, pair)
    bars: list[Bar] = []
    for failure in own:
        words = _failing_words(failure)
        bars += [Bar(*awake, FAILS, words) for awake in asleep.without(*failure.span)]
    # Before its first attempt nothing is known of a pair, so nothing is drawn.
    if tried:
        not_working = asleep | Spans(failure.span for failure in own)
        works = not_working.without(tried[0].world_ns, history.end_world_ns)
        bars += [Bar(*span, WORKS, "works") for span in works]
    bars.sort(key=lambda bar: bar.from_world_ns)

    source, destination = pair
    marks = [Mark(event.world_ns, FAILED, str(event.error)) for event in tried if not event.ok]
    return Track(
        label=f"{source} \N{RIGHTWARDS ARROW} {destination}",
        kind="connections",
        bars=tuple(bars),
        marks=tuple(marks),
    )


def _failing_words(failing: PairFailure) -> str:
    return (
        f"no connection for {lasting(failing.awake_ns)} awake, "
        f"{count(failing.attempts, 'attempt')}: {failing.error}"
    )


# --- Faults ---------------------------------------------------------------------------------------


def _fault_track(history: History, node: str) -> Track:
    bars: list[Bar] = []
    marks: list[Mark] = []
    for span in fault_spans(history):
        # A fault of the authority (None) concerns every node, and is on the track of each.
        if span.node not in (node, None):
            continue
        words = span.kind.replace("_", " ")
        if span.node is None:
            words = f"istiod: {words}"
        lasted_ns = span.until_world_ns - span.began_world_ns
        if lasted_ns > 0:
            text = f"{words} for {lasting(lasted_ns)}"
            bars.append(Bar(span.began_world_ns, span.until_world_ns, FAULT, text))
        # Of a restart the new ztunnel has a mark, below.
        elif span.kind != "restart":
            text = words + _stepped_by(span.ended)
            marks.append(Mark(span.began_world_ns, STEPPED, text))

    marks += _restart_marks(history, node)
    for alert in history.of(AlertFired):
        if alert.node in (node, None):
            marks.append(Mark(alert.world_ns, ALERTED, f"alert {alert.alert} fired"))
    return Track(
        label="faults, restarts, alerts",
        kind="faults",
        bars=tuple(bars),
        marks=_by_time(marks),
    )


def _restart_marks(history: History, node: str) -> Iterator[Mark]:
    """What was started on a node again. The first start in a run (cause "start") is none."""
    started: list[ZtunnelStarted | ProxyStarted | ApplicationsRestarted] = [
        *(life.started for life in lives(history)),
        *history.of(ProxyStarted),
        *history.of(ApplicationsRestarted),
    ]
    for event in started:
        if event.node != node or event.cause == "start":
            continue
        match event:
            case ZtunnelStarted():
                what = f"ztunnel {event.process}"
            case ProxyStarted():
                what = f"gateway {event.process}"
            case ApplicationsRestarted():
                what = "all application pods"
        yield Mark(event.world_ns, RESTARTED, f"{what} restarted: {event.cause}")


def _stepped_by(ended: FaultEnded | None) -> str:
    """By how much the wall clock was set at the end of a fault; "" where that is not known."""
    if ended is None or ended.clocks is None or ended.wall_before_ns is None:
        return ""
    by_ns = ended.clocks.wall_ns - ended.wall_before_ns
    # `lasting` writes a minus itself.
    sign = "+" if by_ns > 0 else ""
    return f" by {sign}{lasting(by_ns)}"


# --- Bounds ---------------------------------------------------------------------------------------


def _bounded(track: Track, end_world_ns: int) -> Track:
    """`track` with no more bars and marks of one kind than can be seen."""
    by_state: dict[str, list[Bar]] = {}
    for bar in track.bars:
        by_state.setdefault(bar.state, []).append(bar)
    by_kind: dict[str, list[Mark]] = {}
    for mark in track.marks:
        by_kind.setdefault(mark.kind, []).append(mark)

    bars: list[Bar] = []
    for own_bars in by_state.values():
        bars += _merged(own_bars, end_world_ns)
    bars.sort(key=lambda bar: bar.from_world_ns)
    marks: list[Mark] = []
    for own_marks in by_kind.values():
        marks += _thinned(own_marks)
    return Track(
        label=track.label,
        kind=track.kind,
        bars=tuple(bars),
        marks=_by_time(marks),
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
        last = merged[-1] if merged else None
        if last is None or bar.from_world_ns - last.from_world_ns >= least_ns:
            merged.append(bar)
            continue
        merged[-1] = Bar(
            from_world_ns=last.from_world_ns,
            to_world_ns=max(last.to_world_ns, bar.to_world_ns),
            state=bar.state,
            text="several together",
        )
    return merged


def _thinned(marks: list[Mark]) -> list[Mark]:
    """Every n-th, so that no more than `MARKS_MAX` are left."""
    if len(marks) <= MARKS_MAX:
        return marks
    every = -(-len(marks) // MARKS_MAX)  # rounded up, so that no more are left
    return marks[::every]
