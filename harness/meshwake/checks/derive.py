"""Facts that no lab writes down and every check needs: which certificate was held when, which
renewal was late by how much, when a pair could not talk. Pure functions of a history (and its
plan), each computed once for a history.

The definitions, for a certificate issued at wall w_i (facts: istio/ztunnel src/tls/certificate.rs
`refresh_at`, src/time.rs `Converter`; checked against real binaries of 1.27, 1.28 and 1.31):

    due       notBefore + (notAfter - notBefore) / 2, by the wall clock: the middle of the validity on paper
    late      wall at the renewal - due; on an unpatched ztunnel this is J, all the time its machine ever slept
    expired   wall > notAfter; until notAfter itself a certificate is good, at both ends (RFC 5280, rustls)
    awake     world time during which the processes of a node could run: not suspended, paused or frozen

A fault that had not ended at the end of the history lasts until that end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import wraps
from itertools import pairwise
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary

from meshwake.checks.spans import Span, Spans
from meshwake.checks.timeline import NodeTimeline
from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.core.plan import ASLEEP_FAULTS, Plan, PlannedFault
from meshwake.core.scenario import CLOCK_FAULTS

__all__ = [
    "AVAILABLE",
    "Certificate",
    "ClockFault",
    "Failing",
    "FaultSpan",
    "Holding",
    "Life",
    "NodeTimeline",
    "Outage",
    "Renewal",
    "asleep_either",
    "certificates",
    "clock_faults",
    "failures",
    "fault_spans",
    "holdings",
    "life_drift_ns",
    "lives",
    "outages",
    "renewals",
    "timeline",
    "timelines",
]

AVAILABLE = "Available"
_UNAVAILABLE = "Unavailable"
_Fact = TypeVar("_Fact")


def _once(derive: Callable[[History], _Fact]) -> Callable[[History], _Fact]:
    """A history never changes, and every check asks for the same facts: derived once and kept as
    long as it."""
    known: WeakKeyDictionary[History, _Fact] = WeakKeyDictionary()

    @wraps(derive)
    def look_up(history: History) -> _Fact:
        if history not in known:
            known[history] = derive(history)
        return known[history]

    return look_up


# Faults and clocks


@dataclass(frozen=True)
class FaultSpan:
    """One fault as it happened. `woke`: processes of the node run again, before the end (pause).
    `ended` None: it had not ended when the history did, and `until_world_ns` is the end of that."""

    index: int
    kind: str
    node: str | None
    began: Event
    woke: Event | None
    ended: Event | None
    until_world_ns: int

    @property
    def began_world_ns(self) -> int:
        """World time of its beginning."""
        return self.began.world_ns

    @property
    def asleep_until_world_ns(self) -> int:
        """World time at which processes run again, if it is a fault that stops them."""
        return self.woke.world_ns if self.woke else self.until_world_ns


@_once
def fault_spans(history: History) -> tuple[FaultSpan, ...]:
    """The faults that began, in order."""
    woke = {event["fault"]: event for event in history.of("node_woke")}
    ended = {event["fault"]: event for event in history.of("fault_ended")}
    spans = []
    for began in history.of("fault_began"):
        index = began["fault"]
        end = ended.get(index)
        until_world_ns = end.world_ns if end else history.end_world_ns
        spans.append(
            FaultSpan(
                index, began["fault_kind"], began.node, began, woke.get(index), end, until_world_ns
            )
        )
    return tuple(spans)


@_once
def timelines(history: History) -> dict[str, NodeTimeline]:
    """The timeline of every node whose clocks were recorded."""
    readings: dict[str, list[tuple[int, ClockReading]]] = {}
    points: dict[str, list[tuple[int, int]]] = {}
    for event in history:
        if event.node is None or event.clocks is None:
            continue
        walls = points.setdefault(event.node, [])
        if event.kind == "fault_ended" and event["wall_before_ns"] is not None:
            walls.append((event.world_ns, event["wall_before_ns"]))
        walls.append((event.world_ns, event.clocks.wall_ns))
        readings.setdefault(event.node, []).append((event.world_ns, event.clocks))
    faults = fault_spans(history)
    return {
        node: NodeTimeline(
            walls, _asleep(faults, node), _rate_after(faults, node, walls[-1]), readings[node]
        )
        for node, walls in points.items()
    }


def _asleep(faults: Iterable[FaultSpan], node: str) -> Spans:
    stops = (*ASLEEP_FAULTS, "freeze")
    return Spans(
        (f.began_world_ns, f.asleep_until_world_ns)
        for f in faults
        if f.node == node and f.kind in stops
    )


def _rate_after(faults: Iterable[FaultSpan], node: str, last: tuple[int, int]) -> Fraction:
    """How the wall clock runs after the last reading, which faults that never ended decide."""
    rate = Fraction(1)
    for fault in faults:
        if fault.node != node or fault.ended is not None or fault.began.clocks is None:
            continue
        if fault.kind == "pause" and fault.woke is None:
            return Fraction(0)
        if fault.kind == "drift" and last[0] - fault.began_world_ns >= NS_PER_S:
            rate = Fraction(last[1] - fault.began.clocks.wall_ns, last[0] - fault.began_world_ns)
    return rate


def timeline(history: History, node: str) -> NodeTimeline:
    """The timeline of `node`. Raises ValueError when its clocks were never recorded."""
    if node not in timelines(history):
        raise ValueError(f"no event of this history holds the clocks of node {node!r}")
    return timelines(history)[node]


def asleep_either(plan: Plan, history: History, pair: tuple[str, str]) -> Spans:
    """When one or the other node of `pair` slept."""
    nodes = {plan.node_of(identity) for identity in pair}
    known = timelines(history)
    return Spans(span for node in nodes if node in known for span in known[node].asleep)


@dataclass(frozen=True)
class ClockFault:
    """A clock fault that began: what was asked for, and how far each clock of the node really moved
    from its beginning to its end. World time that passes awake within it (a pause before its
    correction) is in all three."""

    planned: PlannedFault
    span: FaultSpan
    measured: ClockReading | None

    @property
    def asked_ns(self) -> int:
        """By how much a step was to set the wall clock; how long any other fault was to last."""
        return self.planned.by_wall_ns if self.planned.kind == "step" else self.planned.lasts_ns


def clock_faults(plan: Plan, history: History) -> tuple[ClockFault, ...]:
    """The clock faults of the plan that began; `measured` is None for one that had not ended."""
    spans = {span.index: span for span in fault_spans(history)}
    return tuple(
        ClockFault(fault, spans[fault.index], _measured(spans[fault.index]))
        for fault in plan.faults
        if fault.kind in CLOCK_FAULTS and fault.index in spans
    )


def _measured(span: FaultSpan) -> ClockReading | None:
    if span.ended is None or span.ended.clocks is None or span.began.clocks is None:
        return None
    return span.ended.clocks.since(span.began.clocks)


# Processes and certificates


@dataclass(frozen=True)
class Life:
    """One ztunnel process from its start to its end."""

    number: int
    process: str
    node: str
    identities: tuple[str, ...]
    started: Event
    until_world_ns: int


@_once
def lives(history: History) -> tuple[Life, ...]:
    """Every ztunnel process, in order of start. A process that starts anew under the same name has
    ended before."""
    found: list[Life] = []
    running: dict[str, int] = {}
    for event in history:
        if event.kind not in ("ztunnel_started", "ztunnel_stopped"):
            continue
        if event["process"] in running:
            number = running.pop(event["process"])
            found[number] = replace(found[number], until_world_ns=event.world_ns)
        if event.kind == "ztunnel_started" and event.node is not None:
            running[event["process"]] = len(found)
            identities = tuple(event["identities"])
            end_ns = history.end_world_ns
            found.append(Life(len(found), event["process"], event.node, identities, event, end_ns))
    return tuple(found)


def life_drift_ns(history: History, life: Life, world_ns: int) -> int | None:
    """J of `life`: how far wall and monotonic clock of its node have parted since it started (None:
    not recorded)."""
    now = timeline(history, life.node).reading(world_ns)
    return (
        None if now is None or life.started.clocks is None else drift_ns(life.started.clocks, now)
    )


@dataclass(frozen=True)
class Certificate:
    """One certificate, from its issue until its ztunnel no longer held it. Validity is X.509's:
    whole seconds of Unix time, both ends included. `until`: why it was held no longer."""

    identity: str
    life: Life
    serial: str
    issued_world_ns: int
    issued_wall_ns: int
    not_before_wall_s: int
    not_after_wall_s: int
    until_world_ns: int
    until: Literal["replaced", "dropped", "stopped", "end"]

    @property
    def due_wall_ns(self) -> int:
        """When ztunnel means to renew it: the middle of its validity."""
        return (self.not_before_wall_s + self.not_after_wall_s) * (NS_PER_S // 2)

    @property
    def due_world_ns(self) -> int:
        """When that would be if no clock were touched after the issue."""
        return self.issued_world_ns + self.due_wall_ns - self.issued_wall_ns


@_once
def certificates(history: History) -> dict[str, tuple[Certificate, ...]]:
    """For each identity the certificates its ztunnels got, in order. One ends when it is replaced,
    when ztunnel says that it dropped it (state Unavailable), when its ztunnel stops, or with the
    history."""
    shelf = _Shelf(history)
    by_start = {id(life.started): life for life in lives(history)}
    for event in history:
        if event.kind == "ztunnel_started" and id(event) in by_start:
            shelf.start(by_start[id(event)])
        elif event.kind == "ztunnel_stopped":
            shelf.stop(event["process"], event.world_ns)
        elif event.kind == "pod_replaced":
            shelf.end(event["identity"], event.world_ns, "stopped")
        elif event.kind == "csr_answered" and event["outcome"] == "issued":
            shelf.issue(event)
        elif event.kind == "certificate_state" and event["state"].startswith(_UNAVAILABLE):
            shelf.end(event["identity"], event.world_ns, "dropped")
    return {identity: tuple(kept) for identity, kept in shelf.kept.items()}


class _Shelf:
    """Who holds which certificate while a history is read from its beginning."""

    def __init__(self, history: History) -> None:
        self.kept: dict[str, list[Certificate]] = {}
        self._history = history
        self._lives: dict[str, Life] = {}
        self._held: set[str] = set()

    def start(self, life: Life) -> None:
        self.stop(life.process, life.started.world_ns)
        for identity in life.identities:
            self.end(identity, life.started.world_ns, "stopped")
            self._lives[identity] = life

    def stop(self, process: str, world_ns: int) -> None:
        for identity, life in list(self._lives.items()):
            if life.process == process:
                self.end(identity, world_ns, "stopped")
                del self._lives[identity]

    def issue(self, event: Event) -> None:
        """A certificate for an identity whose ztunnel does not run reached nobody."""
        identity = event["identity"]
        if identity not in self._lives:
            return
        self.end(identity, event.world_ns, "replaced")
        life = self._lives[identity]
        certificate = Certificate(
            identity=identity,
            life=life,
            serial=event["serial"],
            issued_world_ns=event.world_ns,
            issued_wall_ns=timeline(self._history, life.node).wall_ns(event.world_ns),
            not_before_wall_s=event["not_before_wall_s"],
            not_after_wall_s=event["not_after_wall_s"],
            until_world_ns=self._history.end_world_ns,
            until="end",
        )
        self.kept.setdefault(identity, []).append(certificate)
        self._held.add(identity)

    def end(
        self, identity: str, world_ns: int, because: Literal["replaced", "dropped", "stopped"]
    ) -> None:
        if identity in self._held:
            self._held.remove(identity)
            last = self.kept[identity][-1]
            self.kept[identity][-1] = replace(last, until_world_ns=world_ns, until=because)


@dataclass(frozen=True)
class Holding:
    """A certificate in the hands of a ztunnel from one world time to another, whoever told us of
    it."""

    identity: str
    life: Life
    serial: str
    not_after_wall_s: int
    from_world_ns: int
    to_world_ns: int


@_once
def holdings(history: History) -> tuple[Holding, ...]:
    """Every certificate held: those the authority issued, and those of which only ztunnel itself
    spoke (another authority's, or one it still showed as Available after it had been replaced or
    dropped)."""
    known = certificates(history)
    issued = [
        Holding(
            c.identity, c.life, c.serial, c.not_after_wall_s, c.issued_world_ns, c.until_world_ns
        )
        for kept in known.values()
        for c in kept
    ]
    until = {(c.identity, c.serial): c.until_world_ns for kept in known.values() for c in kept}
    told = []
    for event, to_world_ns in _states(history):
        life = _life_of(history, event["identity"], event.world_ns)
        if event["state"] != AVAILABLE or event["not_after_wall_s"] is None or life is None:
            continue
        if event.world_ns > until.get((event["identity"], event["serial"]), -1):
            ends_ns = min(to_world_ns, life.until_world_ns)
            serial, not_after_s = str(event["serial"]), event["not_after_wall_s"]
            told.append(
                Holding(event["identity"], life, serial, not_after_s, event.world_ns, ends_ns)
            )
    return tuple(sorted([*issued, *told], key=lambda held: (held.from_world_ns, held.identity)))


def _states(history: History) -> Iterator[tuple[Event, int]]:
    """Each state a ztunnel told of a certificate, and the world time until which that was so."""
    by_identity: dict[str, list[Event]] = {}
    for event in history:
        if event.kind == "certificate_state" or (
            event.kind == "csr_answered" and event["outcome"] == "issued"
        ):
            by_identity.setdefault(event["identity"], []).append(event)
    for events in by_identity.values():
        ends_ns = [event.world_ns for event in events[1:]] + [history.end_world_ns]
        for event, to_world_ns in zip(events, ends_ns, strict=True):
            if event.kind == "certificate_state":
                yield event, to_world_ns


def _life_of(history: History, identity: str, world_ns: int) -> Life | None:
    for life in reversed(_lives_by_identity(history).get(identity, [])):
        if life.started.world_ns <= world_ns:
            return life
    return None


@_once
def _lives_by_identity(history: History) -> dict[str, list[Life]]:
    found: dict[str, list[Life]] = {}
    for life in lives(history):
        for identity in life.identities:
            found.setdefault(identity, []).append(life)
    return found


@dataclass(frozen=True)
class Renewal:
    """The renewal of one certificate by the process that held it; `done_*` and `late_ns` None: due
    and never done."""

    certificate: Certificate
    done_world_ns: int | None
    late_ns: int | None

    @property
    def node(self) -> str:
        """The node of the identity."""
        return self.certificate.life.node

    @property
    def identity(self) -> str:
        """Whose certificate."""
        return self.certificate.identity

    @property
    def issued_world_s(self) -> float:
        """When the certificate that was to be renewed had been issued."""
        return seconds(self.certificate.issued_world_ns)

    @property
    def due_world_s(self) -> float:
        """issued + (due wall - issued wall)."""
        return seconds(self.certificate.due_world_ns)

    @property
    def done_world_s(self) -> float | None:
        """When the next certificate was issued."""
        return None if self.done_world_ns is None else seconds(self.done_world_ns)

    @property
    def late_s(self) -> float | None:
        """Wall at the renewal - due wall; negative: early."""
        return None if self.late_ns is None else seconds(self.late_ns)


def renewals(plan: Plan, history: History) -> tuple[Renewal, ...]:
    """Every renewal of an identity of the plan, in order of issue. The first certificate of a
    process is none. One that fell due while its process lived and was not done before that process
    ended is listed as never done."""
    found = []
    for identity in (identity for node in plan.nodes for identity in node.identities):
        own = certificates(history).get(identity, ())
        for old, new in pairwise((*own, None)):
            if old is None:
                continue
            if new is not None and new.life is old.life:
                wall_ns = new.issued_wall_ns
                found.append(Renewal(old, new.issued_world_ns, wall_ns - old.due_wall_ns))
            elif _due_in_life(history, old):
                found.append(Renewal(old, None, None))
    return tuple(sorted(found, key=lambda renewal: renewal.certificate.issued_world_ns))


def _due_in_life(history: History, certificate: Certificate) -> bool:
    clock = timeline(history, certificate.life.node)
    due_ns = clock.world_ns_at_wall(certificate.due_wall_ns, certificate.issued_world_ns)
    return due_ns is not None and due_ns < certificate.life.until_world_ns


# Traffic


@dataclass(frozen=True)
class Failing:
    """From the first failed attempt of a pair until its next good one, or the end (`recovered`
    False); `awake_ns` of it both its nodes were awake."""

    pair: tuple[str, str]
    from_world_ns: int
    to_world_ns: int
    awake_ns: int
    attempts: int
    error: str
    recovered: bool


@_once
def _attempts(history: History) -> dict[tuple[str, str], list[Event]]:
    found: dict[tuple[str, str], list[Event]] = {}
    for event in history.of("connection_attempted"):
        found.setdefault((event["source"], event["destination"]), []).append(event)
    return found


def attempts(history: History, pair: tuple[str, str]) -> list[Event]:
    """Every attempt of `pair`, in order."""
    return _attempts(history).get(pair, [])


def failures(plan: Plan, history: History) -> tuple[Failing, ...]:
    """Every time a pair of the plan could not talk, sleep included, in order of beginning."""
    found = []
    for pair in plan.pairs:
        asleep = asleep_either(plan, history, pair)
        found += list(_failures_of(history, pair, asleep))
    return tuple(sorted(found, key=lambda failing: (failing.from_world_ns, failing.pair)))


def _failures_of(history: History, pair: tuple[str, str], asleep: Spans) -> Iterator[Failing]:
    bad: list[Event] = []
    for event in attempts(history, pair):
        if not event["ok"]:
            bad.append(event)
        elif bad:
            yield _failing(pair, bad, event.world_ns, asleep, recovered=True)
            bad = []
    if bad:
        yield _failing(pair, bad, history.end_world_ns, asleep, recovered=False)


def _failing(
    pair: tuple[str, str], bad: list[Event], to_world_ns: int, asleep: Spans, recovered: bool
) -> Failing:
    from_world_ns = bad[0].world_ns
    awake_ns = to_world_ns - from_world_ns - asleep.overlap_ns(from_world_ns, to_world_ns)
    return Failing(
        pair, from_world_ns, to_world_ns, awake_ns, len(bad), str(bad[0]["error"]), recovered
    )


@dataclass(frozen=True)
class Outage:
    """A time during which a pair could not talk and both its nodes were awake."""

    pair: tuple[str, str]
    span: Span

    @property
    def from_world_s(self) -> float:
        """From the first failed attempt, or from the wake."""
        return seconds(self.span[0])

    @property
    def to_world_s(self) -> float:
        """Until the next good attempt, the next sleep, or the end."""
        return seconds(self.span[1])


def outages(plan: Plan, history: History) -> tuple[Outage, ...]:
    """`failures`, cut by the sleep of either node: nobody misses a connection on a machine that
    sleeps."""
    asleep = {pair: asleep_either(plan, history, pair) for pair in plan.pairs}
    return tuple(
        Outage(failing.pair, span)
        for failing in failures(plan, history)
        for span in asleep[failing.pair].without(failing.from_world_ns, failing.to_world_ns)
    )
