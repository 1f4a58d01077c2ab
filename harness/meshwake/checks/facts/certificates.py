"""Which certificate was held when, by which process, and which renewal was late by how much.

The middle of a validity is worked out here and not taken from ztunnel/renewal.py, which the model
uses: a check that shared its arithmetic with the model could not find a mistake in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Literal

from meshwake.checks.facts.clocks import timeline
from meshwake.checks.facts.once import once
from meshwake.core.clock_reading import drift_ns
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.events import (
    CertificateState,
    CsrAnswered,
    Event,
    PodReplaced,
    ZtunnelStarted,
    ZtunnelStopped,
)
from meshwake.core.history import History
from meshwake.core.plan import Plan

AVAILABLE = "Available"
# A state that begins so: ztunnel has dropped the certificate; the error follows.
_UNAVAILABLE = "Unavailable"


# Processes


@dataclass(frozen=True)
class Life:
    """One ztunnel process from its start to its end."""

    number: int
    process: str
    node: str
    identities: tuple[str, ...]
    started: ZtunnelStarted
    until_world_ns: int


@once
def lives(history: History) -> tuple[Life, ...]:
    """Every ztunnel process, in order of start. A process that starts again under the same name has
    ended before."""
    found: list[Life] = []
    running: dict[str, int] = {}
    for event in history:
        if not isinstance(event, ZtunnelStarted | ZtunnelStopped):
            continue
        # A process that was killed without a word has no end of its own in the history: it had
        # ended when its successor of the same name starts.
        if event.process in running:
            number = running.pop(event.process)
            found[number] = replace(found[number], until_world_ns=event.world_ns)
        if isinstance(event, ZtunnelStarted) and event.node is not None:
            running[event.process] = len(found)
            found.append(
                Life(
                    number=len(found),
                    process=event.process,
                    node=event.node,
                    identities=tuple(event.identities),
                    started=event,
                    until_world_ns=history.end_world_ns,
                )
            )
    return tuple(found)


def life_drift_ns(history: History, life: Life, world_ns: int) -> int | None:
    """The clock drift of a process: how far wall and monotonic clock of its node have parted since
    it started (None: not recorded)."""
    now = timeline(history, life.node).reading(world_ns)
    if now is None or life.started.clocks is None:
        return None
    return drift_ns(life.started.clocks, now)


def _life_of(history: History, identity: str, world_ns: int) -> Life | None:
    """The process that served `identity` at `world_ns`, or had last served it."""
    # From the last backwards: lives are in order of start, and a later process took over.
    for life in reversed(_lives_by_identity(history).get(identity, [])):
        if life.started.world_ns <= world_ns:
            return life
    return None


@once
def _lives_by_identity(history: History) -> dict[str, list[Life]]:
    found: dict[str, list[Life]] = {}
    for life in lives(history):
        for identity in life.identities:
            found.setdefault(identity, []).append(life)
    return found


# Certificates that the authority issued


@dataclass(frozen=True)
class CertificateInUse:
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
        # Half a second is a whole number of ns, so the middle is exact also where the sum is odd.
        return (self.not_before_wall_s + self.not_after_wall_s) * (NS_PER_S // 2)

    @property
    def due_world_ns(self) -> int:
        """When that would be if no clock were moved after the issue."""
        return self.issued_world_ns + self.due_wall_ns - self.issued_wall_ns


@once
def certificates(history: History) -> dict[str, tuple[CertificateInUse, ...]]:
    """For each identity the certificates its ztunnels got, in order. One ends when it is replaced,
    when ztunnel reports that it dropped it (state Unavailable), when its ztunnel stops, or with the
    history."""
    issued = _Issued(history)
    for event in history:
        issued.read(event)
    return {identity: tuple(found) for identity, found in issued.certificates.items()}


class _Issued:
    """Which process holds which certificate, while a history is read from its beginning."""

    def __init__(self, history: History) -> None:
        self.certificates: dict[str, list[CertificateInUse]] = {}
        self._history = history
        # By the object itself: an event holds mappings, so it cannot be a key.
        self._by_start = {id(life.started): life for life in lives(history)}
        self._lives: dict[str, Life] = {}
        self._held: set[str] = set()

    def read(self, event: Event) -> None:
        match event:
            case ZtunnelStarted() if id(event) in self._by_start:
                self.start(self._by_start[id(event)])
            case ZtunnelStopped():
                self.stop(event.process, event.world_ns)
            case PodReplaced():
                self.end(event.identity, event.world_ns, "stopped")
            case CsrAnswered() if event.outcome == "issued":
                self.issue(event)
            case CertificateState() if event.state.startswith(_UNAVAILABLE):
                self.end(event.identity, event.world_ns, "dropped")

    def start(self, life: Life) -> None:
        self.stop(life.process, life.started.world_ns)
        # The successor may have another name and the same workload (a pod that was replaced), so
        # what its identities held ends too.
        for identity in life.identities:
            self.end(identity, life.started.world_ns, "stopped")
            self._lives[identity] = life

    def stop(self, process: str, world_ns: int) -> None:
        # A copy, since entries are removed on the way.
        for identity, life in list(self._lives.items()):
            if life.process == process:
                self.end(identity, world_ns, "stopped")
                del self._lives[identity]

    def issue(self, event: CsrAnswered) -> None:
        """A certificate for an identity whose ztunnel does not run reached no process."""
        life = self._lives.get(event.identity)
        if life is None:
            return  # an answer that came after the end of its ztunnel
        # The dates and the serial are None only where nothing was issued.
        assert event.serial is not None
        assert event.not_before_wall_s is not None
        assert event.not_after_wall_s is not None
        self.end(event.identity, event.world_ns, "replaced")
        certificate = CertificateInUse(
            identity=event.identity,
            life=life,
            serial=event.serial,
            issued_world_ns=event.world_ns,
            # By the clock of the holder, which may differ from the authority's.
            issued_wall_ns=timeline(self._history, life.node).wall_ns(event.world_ns),
            not_before_wall_s=event.not_before_wall_s,
            not_after_wall_s=event.not_after_wall_s,
            until_world_ns=self._history.end_world_ns,
            until="end",
        )
        self.certificates.setdefault(event.identity, []).append(certificate)
        self._held.add(event.identity)

    def end(
        self, identity: str, world_ns: int, because: Literal["replaced", "dropped", "stopped"]
    ) -> None:
        """Its certificate, if it has one, is held no longer."""
        if identity not in self._held:
            return
        self._held.remove(identity)
        own = self.certificates[identity]
        own[-1] = replace(own[-1], until_world_ns=world_ns, until=because)


# Certificates that were held, from whomever they came


@dataclass(frozen=True)
class Holding:
    """A certificate that a ztunnel held from one world time to another, whatever the source."""

    identity: str
    life: Life
    serial: str
    not_after_wall_s: int
    from_world_ns: int
    to_world_ns: int


@once
def holdings(history: History) -> tuple[Holding, ...]:
    """Every certificate held: those the authority issued, and those that only ztunnel itself
    reported (another authority's, or one it still showed as Available after it had been replaced or
    dropped)."""
    found = [*_issued_holdings(history), *_reported_holdings(history)]
    return tuple(sorted(found, key=lambda held: (held.from_world_ns, held.identity)))


def _issued_holdings(history: History) -> Iterator[Holding]:
    for own in certificates(history).values():
        for certificate in own:
            yield Holding(
                identity=certificate.identity,
                life=certificate.life,
                serial=certificate.serial,
                not_after_wall_s=certificate.not_after_wall_s,
                from_world_ns=certificate.issued_world_ns,
                to_world_ns=certificate.until_world_ns,
            )


def _reported_holdings(history: History) -> Iterator[Holding]:
    """Of what ztunnel showed as Available: what the authority did not issue, or not for so long."""
    issued_until_world_ns: dict[tuple[str, str], int] = {}
    for own in certificates(history).values():
        for certificate in own:
            issued = (certificate.identity, certificate.serial)
            issued_until_world_ns[issued] = certificate.until_world_ns

    for event, to_world_ns in _states(history):
        if event.state != AVAILABLE or event.not_after_wall_s is None:
            continue
        life = _life_of(history, event.identity, event.world_ns)
        if life is None:
            continue
        # What the authority issued is in _issued_holdings already, unless ztunnel still shows it
        # after its end. -1: the serial of another authority, which was never in use here.
        serial = str(event.serial)
        until_world_ns = issued_until_world_ns.get((event.identity, serial), -1)
        if event.world_ns <= until_world_ns:
            continue
        yield Holding(
            identity=event.identity,
            life=life,
            serial=serial,
            not_after_wall_s=event.not_after_wall_s,
            from_world_ns=event.world_ns,
            to_world_ns=min(to_world_ns, life.until_world_ns),
        )


def _states(history: History) -> Iterator[tuple[CertificateState, int]]:
    """Each state of a certificate that a ztunnel reported, and the world time until which it held:
    until the next report, or the next certificate that was issued."""
    for events in _reports(history).values():
        # Each with its successor, the last one with None.
        for event, after in zip_longest(events, events[1:]):
            if not isinstance(event, CertificateState):
                continue
            to_world_ns = history.end_world_ns
            if after is not None:
                to_world_ns = after.world_ns
            yield event, to_world_ns


def _reports(history: History) -> dict[str, list[CertificateState | CsrAnswered]]:
    """Of each identity what ztunnel reported, and what was issued."""
    found: dict[str, list[CertificateState | CsrAnswered]] = {}
    for event in history:
        if not isinstance(event, CertificateState | CsrAnswered):
            continue
        # A request that was refused changes nothing of what is held.
        if isinstance(event, CsrAnswered) and event.outcome != "issued":
            continue
        found.setdefault(event.identity, []).append(event)
    return found


# Renewals


@dataclass(frozen=True)
class Renewal:
    """The renewal of one certificate by the process that held it; `done_*` and `late_ns` None: due
    and never done."""

    certificate: CertificateInUse
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
        if self.done_world_ns is None:
            return None
        return seconds(self.done_world_ns)

    @property
    def late_s(self) -> float | None:
        """Wall at the renewal - due wall; negative: early."""
        if self.late_ns is None:
            return None
        return seconds(self.late_ns)


def renewals(plan: Plan, history: History) -> tuple[Renewal, ...]:
    """Every renewal of an identity of the plan, in order of issue. The first certificate of a
    process is not one. One that fell due while its process lived and was not done before that
    process ended is listed as never done."""
    found: list[Renewal] = []
    for node in plan.nodes:
        for identity in node.identities:
            found += _renewals_of(history, certificates(history).get(identity, ()))
    return tuple(sorted(found, key=lambda renewal: renewal.certificate.issued_world_ns))


def _renewals_of(history: History, own: tuple[CertificateInUse, ...]) -> Iterator[Renewal]:
    # Each certificate with its successor, the last one with None.
    for old, new in pairwise((*own, None)):
        if old is None:
            continue
        # The first certificate of a new process is not a renewal: it had none before.
        if new is not None and new.life is old.life:
            late_ns = new.issued_wall_ns - old.due_wall_ns
            yield Renewal(old, new.issued_world_ns, late_ns)
        elif _due_in_life(history, old):
            yield Renewal(old, None, None)


def _due_in_life(history: History, certificate: CertificateInUse) -> bool:
    clock = timeline(history, certificate.life.node)
    due_ns = clock.world_ns_at_wall(certificate.due_wall_ns, certificate.issued_world_ns)
    # The wall clock never got there, as in a pause that outlasts the run.
    if due_ns is None:
        return False
    return due_ns < certificate.life.until_world_ns
