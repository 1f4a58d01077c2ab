"""How world time passes between the actions of a run.

    RealTimePace    in real time: sleep for a tick, then poll again
    LapsePace       idle time is skipped, up to the next event: a renewal, a fault, a connection

Time is skipped only while nothing is under way: no poll and no connection attempt of ours, no
certificate that is overdue, no busy program (the mover asks the node helpers). All of that is
waited for in real time, with timeouts: a certificate that is not there `CERTIFICATE_TIMEOUT_S`
later counts as one that cannot be had (istiod is unavailable); from then on time is skipped by
`RETRY_STEP_NS` at most, so that ztunnel's retries happen close to when they should. Shortly before
a renewal is due real time takes over, so that the renewal is timed by ztunnel and not by the size
of a skip.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from meshwake.cluster.real_time import HostTime, WorldTime
from meshwake.core.durations import NS_PER_MS, NS_PER_S
from meshwake.labs.kind.renewals import Renewals

TICK_S, LAPSE_TICK_S = 0.25, 0.1
CERTIFICATE_TIMEOUT_S, CERTIFICATE_WITHOUT_ISTIOD_TIMEOUT_S, PROCESS_TIMEOUT_S = (
    20.0,
    3.0,
    180.0,
)
# ztunnel's backoff begins with a second and ends at 150 s (labs/model/ztunnel.py): of all retries
# that a leap goes over, one is made.
RETRY_STEP_NS = 10 * NS_PER_S
# Less than the least leap, so that the last moments before a renewal always pass in real time.
BEFORE_RENEWAL_NS, LEAST_LEAP_NS = 700 * NS_PER_MS, NS_PER_S
# A gateway's Envoy goes on using its HBONE connection to a destination, and with it a certificate
# that may have expired since. It closes the connection once two runs of a cleanup every 60 s have
# found it unused (istiod's cluster connect_originate, cleanup_interval). A leap lets such a timer
# fire once, however long it is, so the idle time before a connection is leapt over in two parts:
# where hours pass between connections each is a new handshake, as it would be without time lapse.
ENVOY_CLEANUP_NS = 65 * NS_PER_S
# A fix that polls the mesh (the wake guard) must get its turns although time is skipped: every ten
# minutes of world time, and for a while after a fault as often as its own interval.
FIX_POLLS_NS, FIX_POLLS_AFTER_FAULT_NS, AFTER_FAULT_NS = (
    600 * NS_PER_S,
    30 * NS_PER_S,
    360 * NS_PER_S,
)


class TimeSkipper(Protocol):
    """Moves clocks over idle time; clocks/movers/lapse.py."""

    def await_still(self) -> None:
        """Wait until every program is idle."""

    def skip(self, by_ns: int) -> None:
        """Advance all clocks at once."""


class PacedSession(Protocol):
    """The part of a session that a pace uses."""

    world: WorldTime
    renewals: Renewals
    asleep: frozenset[str]
    istiod_away: bool
    failure_seen: bool
    disturbed_world_ns: int

    @property
    def real(self) -> HostTime:
        """The harness's own time."""

    def all_asleep(self) -> bool:
        """Whether no node is awake."""

    def awaited_processes(self) -> Collection[str]:
        """Which ztunnels and gateways have ended and have no successor that runs yet, and which
        gateways of nodes that woke are not ready yet, in words."""

    def next_attempt_world_ns(self) -> int | None:
        """When the next connection is due."""

    def poll_ztunnels(self) -> None:
        """Read the log and /config_dump of every ztunnel and process both."""

    def poll_pods(self) -> None:
        """List the ztunnel pods and process that."""

    def poll_logs(self) -> None:
        """Read the log of every ztunnel and process it."""

    def finish(self) -> None:
        """Wait for everything under way and record it."""


class Pace(Protocol):
    """See the module."""

    def may_go_on(self) -> bool:
        """Whether every renewal that is due is done and every ztunnel runs: faults and connections
        wait for that."""

    def let_pass(self, until_world_ns: int) -> None:
        """Let time pass, at most until `until_world_ns`."""


class RealTimePace:
    """See the module."""

    def __init__(self, session: PacedSession) -> None:
        self._session = session

    def may_go_on(self) -> bool:
        """See Pace: in real time nothing is held back."""
        return True

    def let_pass(self, until_world_ns: int) -> None:
        """See Pace."""
        self._session.real.sleep(TICK_S)


class LapsePace:
    """See the module. `has_fix`: a fix is deployed that polls the mesh; `has_gateways`: connections
    of the plan are made by gateways."""

    def __init__(
        self,
        session: PacedSession,
        mover: TimeSkipper,
        *,
        has_fix: bool = False,
        has_gateways: bool = False,
    ) -> None:
        self._session, self._mover = session, mover
        self._has_fix, self._has_gateways = has_fix, has_gateways
        self._since_ns: dict[str, int] = {}  # since when in real time something has been waited for

    def may_go_on(self) -> bool:
        """See Pace."""
        return not self._must_wait()

    def let_pass(self, until_world_ns: int) -> None:
        """See Pace."""
        session = self._session
        if self._must_wait():
            session.poll_ztunnels()
            session.real.sleep(LAPSE_TICK_S)
            return
        session.finish()
        if session.failure_seen:
            session.poll_logs()
            session.finish()
        until_ns = min([until_world_ns, *self._stops()])
        left_ns = until_ns - session.world.now_ns
        if left_ns < LEAST_LEAP_NS:
            session.real.sleep(min(max(left_ns / NS_PER_S, 0.01), LAPSE_TICK_S))
            return
        self._mover.await_still()
        self.leap(until_ns - session.world.now_ns)
        if self._has_fix:
            # The fix has polled, and may have evicted a ztunnel. Connections that are due come
            # after the next ztunnel is ready, as they would if the fix polled at its own times and
            # not at those of the connections.
            self._mover.await_still()
            session.poll_pods()

    def leap(self, by_ns: int) -> None:
        """Advance world time by `by_ns` at once."""
        if by_ns > 0:
            self._mover.skip(by_ns)
            self._session.world.jump(by_ns)

    def _stops(self) -> Iterator[int]:
        """World times at which real time must pass: no leap goes beyond the next of them."""
        session = self._session
        now_ns = session.world.now_ns
        if session.all_asleep():
            return  # nothing happens before the fault ends

        attempt_ns = session.next_attempt_world_ns()
        if attempt_ns is not None:
            yield attempt_ns
            cleanup_ns = attempt_ns - ENVOY_CLEANUP_NS
            if self._has_gateways and now_ns + ENVOY_CLEANUP_NS <= cleanup_ns:
                yield cleanup_ns

        renewal_in_ns = session.renewals.next_in_ns(session.asleep)
        if renewal_in_ns is not None:
            leap_ns = renewal_in_ns
            # The leap ends less than LEAST_LEAP_NS before a renewal, so that the renewal itself
            # happens in real time.
            if renewal_in_ns > BEFORE_RENEWAL_NS:
                leap_ns = renewal_in_ns - BEFORE_RENEWAL_NS
            yield now_ns + leap_ns

        if self._since_ns:
            yield now_ns + RETRY_STEP_NS
        if self._has_fix:
            # A fix acts when it sees a fault, so it is polled more often after one.
            is_after_fault = now_ns < session.disturbed_world_ns + AFTER_FAULT_NS
            polls_ns = FIX_POLLS_AFTER_FAULT_NS if is_after_fault else FIX_POLLS_NS
            yield now_ns + polls_ns

    def _must_wait(self) -> bool:
        """Whether something is still awaited; what has passed its timeout no longer is."""
        session = self._session
        now_ns = session.real.monotonic_ns()
        certificate_timeout_s = (
            CERTIFICATE_WITHOUT_ISTIOD_TIMEOUT_S if session.istiod_away else CERTIFICATE_TIMEOUT_S
        )
        named = dict.fromkeys(
            session.renewals.overdue(session.asleep).values(), certificate_timeout_s
        )
        named |= dict.fromkeys(session.awaited_processes(), PROCESS_TIMEOUT_S)
        self._since_ns = {what: self._since_ns.get(what, now_ns) for what in named}
        waits = any(
            now_ns - since_ns < named[what] * NS_PER_S for what, since_ns in self._since_ns.items()
        )
        session.failure_seen = session.failure_seen or bool(self._since_ns)
        return waits
