"""What the guard does each time it polls its node: have clocks parted, will a certificate be served
expired, is a restart due?

At each poll, for each process of its node that serves certificates, ztunnels first:

    drift     how far wall and monotonic clock have parted since that process started. A suspend, a
              pause that was corrected, a step, a slow drift, of either sign: all are one number. (A
              gateway's agent counts from each issue, so there the drift counts from when the guard
              first saw the certificate.)
    trouble   from the certificate's own dates and the drift (ztunnel/renewal.py): it will be served
              expired within `lead`, or is already; the clock was set back behind its notBefore; or so
              far that it is renewed without end.
    restart   only then, and only when nothing holds it back: clocks that have just jumped (`settle`:
              kubelet's token and a VM's wall clock need a moment), a recent restart of the same
              process (`cooldown`), an authority that does not answer (a new process would have no
              certificate at all, the old one may still have a good one), another node that is
              restarting right now.

Every wait is on the monotonic clock: a jump of the wall clock must not end or extend it.

What it cannot do: keep a certificate from running out while the machine sleeps. Then it is replaced
`settle` + `period` after the wake, and the restart's own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.guard.settings import Settings
from meshwake.guard.watch import CertificateValidity, ObservedProcess
from meshwake.ztunnel.renewal import forecast_renewal, renews_without_end

HeldBackBy = Literal["settling", "cooldown", "authority-away", "another-node"]
# The clocks are read one after the other, and the guard may lose its CPU in between: a second apart
# is not yet a jump.
JUMP_NS = 2 * NS_PER_S
# A slow drift is not a jump: time services that slew stay below a tenth of a second a second.
JUMP_SHARE = 10
# A process that was not seen for so long, on the monotonic clock, is gone.
REMEMBERED_NS = 3_600 * NS_PER_S
# pilot-agent spreads its renewals: SECRET_GRACE_PERIOD_RATIO_JITTER, 1 % of the lifetime.
PROXY_SPREAD = 100


class GuardedNode(Protocol):
    """One node, as far as the guard needs it."""

    @property
    def name(self) -> str:
        """Its name."""

    def clocks(self) -> ClockReading:
        """Its clocks, now."""

    def seen(self) -> Sequence[ObservedProcess]:
        """The processes of this node that serve certificates: ztunnels, then gateways and
        waypoints."""

    def authority_answers(self) -> bool:
        """Whether istiod is there to sign for a new process."""

    def take_turn(self, holds_ns: int) -> bool:
        """Whether this node may restart something now, because no other is just doing so."""

    def restart(self, process: ObservedProcess, why: str) -> None:
        """Ends `process`; its controller starts another. An Event says why."""

    def held_back(self, process: ObservedProcess, why: str) -> None:
        """Posts an Event: a restart is due and waits."""


class Trouble(NamedTuple):
    """Why a process needs a restart; `acts_wall_ns`: when to act."""

    why: str
    acts_wall_ns: int


class Metrics(Protocol):
    """Where the guard counts what it does: metrics.py, or nowhere (in labs without Prometheus)."""

    def looked(self, now: ClockReading, seen: Sequence[tuple[ObservedProcess, int]]) -> None:
        """A poll: every process that there is, and by how much its renewals will be late."""

    def restarted(self, target: str) -> None:
        """A restart was done."""

    def held_back(self, reason: str) -> None:
        """A restart is due and waits."""


class NullMetrics:
    """Counts nothing."""

    def looked(self, now: ClockReading, seen: Sequence[tuple[ObservedProcess, int]]) -> None:
        """See Metrics."""

    def restarted(self, target: str) -> None:
        """See Metrics."""

    def held_back(self, reason: str) -> None:
        """See Metrics."""


class Guard:
    """The guard of one node. `look` is to be called every `settings.period_ns`. `acts` False: it
    restarts nothing and needs no right to; its metrics are the same."""

    def __init__(
        self,
        node: GuardedNode,
        settings: Settings,
        metrics: Metrics | None = None,
        *,
        acts: bool = True,
    ) -> None:
        self._node, self._settings, self._acts = node, settings, acts
        self._metrics: Metrics = metrics or NullMetrics()
        self._last: ClockReading | None = None
        self._jumped_monotonic_ns: int | None = None
        self._restarted_monotonic_ns: dict[str, int] = {}
        self._first_seen: dict[tuple[str, CertificateValidity], ClockReading] = {}

        # By the monotonic clock, as is `_restarted_monotonic_ns`.
        self._last_seen: dict[str, int] = {}

        # The process and the reason of every wait that was reported.
        self._waits: set[tuple[str, HeldBackBy]] = set()
        self.busy = False
        self.next_wall_ns: int | None = None

    def look(self) -> None:
        """One look, and the restarts that are due. Afterwards `busy` says that something waits or
        was just done, and `next_wall_ns` when the next trouble that is known will have to be acted
        upon."""
        now = self._node.clocks()
        self._notice_jump(now)
        processes = self._node.seen()
        self._remember(processes, now)

        seen = [(process, self._parted_ns(process, now)) for process in processes]
        self._metrics.looked(now, seen)
        self.busy = self._settling(now)
        self.next_wall_ns = None
        if not self._acts:
            return

        for process, parted_ns in seen:
            trouble = self._trouble(process, parted_ns, now)
            if trouble is None:
                continue
            if now.wall_ns >= trouble.acts_wall_ns:
                self._act(process, trouble, now)
            elif self.next_wall_ns is None or trouble.acts_wall_ns < self.next_wall_ns:
                self.next_wall_ns = trouble.acts_wall_ns

    # Observing

    def _notice_jump(self, now: ClockReading) -> None:
        last, self._last = self._last, now
        if last is None:
            return

        # A time service may slew, so what counts as a jump grows with the time that has passed.
        passed_ns = now.monotonic_ns - last.monotonic_ns
        least_ns = max(JUMP_NS, passed_ns // JUMP_SHARE)
        if abs(drift_ns(last, now)) > least_ns:
            self._jumped_monotonic_ns = now.monotonic_ns

    def _remember(self, processes: Sequence[ObservedProcess], now: ClockReading) -> None:
        """When each certificate was first seen. What is gone is forgotten, so that nothing grows;
        a process that is missing from this look only after REMEMBERED_NS."""
        first_seen = {}
        missing = self._missing(processes, now)
        for key, first in self._first_seen.items():
            process_name, _ = key
            if process_name in missing:
                first_seen[key] = first

        for process in processes:
            for held in process.certificates:
                key = (process.name, held)
                first_seen[key] = self._first_seen.get(key, now)
        self._first_seen = first_seen

    def _missing(self, processes: Sequence[ObservedProcess], now: ClockReading) -> set[str]:
        """Processes that an earlier look saw and this one did not. One that does not answer (kubelet
        is busy after a wake) is left out of a look: its drift must not start from zero for that."""
        names = {process.name for process in processes}
        self._last_seen |= dict.fromkeys(names, now.monotonic_ns)

        oldest_ns = now.monotonic_ns - REMEMBERED_NS
        self._last_seen = {
            name: at_ns for name, at_ns in self._last_seen.items() if at_ns > oldest_ns
        }
        return self._last_seen.keys() - names

    def _parted_ns(self, process: ObservedProcess, now: ClockReading) -> int:
        """The clock drift, since the moment from which the process counts."""
        if process.target == "ztunnel":
            return drift_ns(process.started, now)

        # An agent counts from each issue, so each certificate has a drift of its own; the largest
        # decides.
        counted = (
            drift_ns(self._first_seen[process.name, held], now) for held in process.certificates
        )
        return max(counted, default=0, key=abs)

    # Judging

    def _trouble(
        self, process: ObservedProcess, parted_ns: int, now: ClockReading
    ) -> Trouble | None:
        troubles = (
            self._trouble_of(process, held, parted_ns, now) for held in process.certificates
        )
        # A restart replaces all certificates of a process, so the earliest trouble is the one.
        return min(filter(None, troubles), key=lambda each: each.acts_wall_ns, default=None)

    def _trouble_of(
        self, process: ObservedProcess, held: CertificateValidity, parted_ns: int, now: ClockReading
    ) -> Trouble | None:
        _, begins_ns, ends_ns = held

        # Set back since it started, or since this certificate was there (a sleep before can hide
        # that from the drift): a new process would be given a certificate that is valid by this clock.
        set_back = parted_ns < 0 or drift_ns(self._first_seen[process.name, held], now) < 0
        if set_back and now.wall_ns < begins_ns:
            return Trouble(
                f"{held.identity}: not valid before {_ago(begins_ns - now.wall_ns)} from now",
                now.wall_ns,
            )
        if process.target == "ztunnel" and renews_without_end(begins_ns, ends_ns, parted_ns):
            return Trouble(
                f"{held.identity}: would be renewed again and again without a pause", now.wall_ns
            )

        # At worst: an agent may add its spread to every renewal.
        late_ns = parted_ns
        if process.target != "ztunnel":
            late_ns += (ends_ns - begins_ns) // PROXY_SPREAD
        forecast = forecast_renewal(begins_ns, ends_ns, late_ns, now.wall_ns)
        if forecast.outage_from_wall_ns is None or forecast.outage_to_wall_ns is None:
            return None
        late = _ago(parted_ns)
        lasts = _ago(forecast.outage_to_wall_ns - forecast.outage_from_wall_ns)
        why = (
            f"{held.identity}: renewals are {late} late, its certificate would be served "
            f"expired for {lasts}"
        )
        return Trouble(why, forecast.outage_from_wall_ns - self._settings.lead_ns)

    # Acting

    def _act(self, process: ObservedProcess, trouble: Trouble, now: ClockReading) -> None:
        self.busy = True
        reason = self._held_back_by(process, now)
        if reason is not None:
            self._wait(process, reason, trouble)
            return
        self._waits = {wait for wait in self._waits if wait[0] != process.name}

        # Before the restart, so that one that fails is not tried again at every poll.
        self._restarted_monotonic_ns[process.lasting_name] = now.monotonic_ns
        self._node.restart(process, trouble.why)
        self._metrics.restarted(process.target)

    def _wait(self, process: ObservedProcess, reason: HeldBackBy, trouble: Trouble) -> None:
        """Reported once for each reason, not at every poll."""
        if (process.name, reason) not in self._waits:
            self._waits.add((process.name, reason))
            self._metrics.held_back(reason)
            self._node.held_back(process, f"{reason}: {trouble.why}")

    def _held_back_by(self, process: ObservedProcess, now: ClockReading) -> HeldBackBy | None:
        """Why not now; the turn comes last, since asking for it takes it."""
        if self._settling(now):
            return "settling"
        if self._cools_down(process, now):
            return "cooldown"

        # Without an authority a new ztunnel has no certificate at all: worse than one with an old one.
        if not self._node.authority_answers():
            return "authority-away"
        if not self._node.take_turn(self._settings.turn_ns):
            return "another-node"
        return None

    def _cools_down(self, process: ObservedProcess, now: ClockReading) -> bool:
        """Whether it was restarted just now, under this name or the one before."""
        restarted_ns = self._restarted_monotonic_ns.get(process.lasting_name)
        if restarted_ns is None:
            return False
        return now.monotonic_ns - restarted_ns < self._settings.cooldown_ns

    def _settling(self, now: ClockReading) -> bool:
        if self._jumped_monotonic_ns is None:
            return False
        since_ns = now.monotonic_ns - self._jumped_monotonic_ns
        return since_ns < self._settings.settle_ns


def _ago(length_ns: int) -> str:
    return format_duration(length_ns // NS_PER_S * NS_PER_S)
