"""How world time goes on between the things that a run does.

    RealTimePace    with real time: a moment is waited, and looked again
    LapsePace       idle time is leapt over, to the next thing that anybody waits for: a renewal, a fault, a connection

A leap is made only when nothing is under way: no look and no attempt of ours, no certificate that
has fallen due and has not come, no program that does something (the mover asks the helpers). All of
that is waited for in real time, in bounds: a certificate that does not come within `COMES_WITHIN_S`
is taken for one that cannot be had (istiod is away), and time goes on by no more than
`RETRY_STEP_NS` at once, so that retries happen nearly when they should. Shortly before a renewal is
due real time takes over, so it happens at its own moment and not at ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from meshwake.cluster.real_time import RealTime, WorldTime
from meshwake.core.durations import NS_PER_MS, NS_PER_S
from meshwake.labs.kind.renewals import Renewals

TICK_S, LAPSE_TICK_S = 0.25, 0.1
COMES_WITHIN_S, COMES_WITHOUT_ISTIOD_WITHIN_S, STARTS_WITHIN_S = 20.0, 3.0, 180.0
RETRY_STEP_NS = 10 * NS_PER_S
BEFORE_RENEWAL_NS, LEAST_LEAP_NS = 700 * NS_PER_MS, NS_PER_S
# Where somebody looks at the mesh to mend it (a fix): as often as that, and after a fault as often
# as it would itself.
FIX_LOOKS_NS, FIX_LOOKS_AFTER_FAULT_NS, AFTER_FAULT_NS = (
    600 * NS_PER_S,
    30 * NS_PER_S,
    360 * NS_PER_S,
)


class Skips(Protocol):
    """Who moves clocks over idle time; clocks/movers/lapse.py."""

    def await_still(self) -> None:
        """Waits until no program does anything."""

    def skip(self, by_ns: int) -> None:
        """All clocks go on by so much at once."""


class Paced(Protocol):
    """What of a session is needed here."""

    world: WorldTime
    renewals: Renewals
    asleep: frozenset[str]
    istiod_away: bool
    troubled: bool
    disturbed_world_ns: int

    @property
    def real(self) -> RealTime:
        """Time as the harness lives through it."""

    def all_asleep(self) -> bool:
        """Whether no node is awake."""

    def without_ztunnel(self) -> Collection[str]:
        """Nodes whose ztunnel has gone and none has come yet."""

    def next_attempt_world_ns(self) -> int | None:
        """When the next connection is due."""

    def look_at_ztunnels(self) -> None:
        """Looks at what every ztunnel wrote and says of itself, and takes it in."""

    def look_at_pods(self) -> None:
        """Looks whether every node has its ztunnel."""

    def look_at_logs(self) -> None:
        """Looks at what ztunnels wrote, and takes it in."""

    def finish(self) -> None:
        """Awaits all that is under way, and tells everything."""


class Pace(Protocol):
    """See the module."""

    def may_go_on(self) -> bool:
        """Whether what is due of renewals has been done, and every ztunnel runs: faults and
        connections come after."""

    def let_pass(self, until_world_ns: int) -> None:
        """Lets time pass, at most to `until_world_ns`."""


class RealTimePace:
    """See the module."""

    def __init__(self, session: Paced) -> None:
        self._session = session

    def may_go_on(self) -> bool:
        """See Pace: nobody waits for anybody."""
        return True

    def let_pass(self, until_world_ns: int) -> None:
        """See Pace."""
        self._session.real.sleep(TICK_S)


class LapsePace:
    """See the module. `mended`: something is deployed that looks at the mesh."""

    def __init__(self, session: Paced, mover: Skips, *, mended: bool = False) -> None:
        self._session, self._mover, self._mended = session, mover, mended
        self._since_ns: dict[str, int] = {}  # since when in real time something has been waited for

    def may_go_on(self) -> bool:
        """See Pace."""
        return not self._waits()

    def let_pass(self, until_world_ns: int) -> None:
        """See Pace."""
        session = self._session
        if self._waits():
            session.look_at_ztunnels()
            session.real.sleep(LAPSE_TICK_S)
            return
        session.finish()
        if session.troubled:
            session.look_at_logs()
            session.finish()
        until_ns = min([until_world_ns, *self._stops()])
        left_ns = until_ns - session.world.now_ns
        if left_ns < LEAST_LEAP_NS:
            session.real.sleep(min(max(left_ns / NS_PER_S, 0.01), LAPSE_TICK_S))
            return
        self._mover.await_still()
        self.leap(until_ns - session.world.now_ns)
        if self._mended:
            # It has looked, and may have sent a ztunnel away: the connections that are due come
            # after the next one, as they would if it looked at its own times and not at theirs.
            self._mover.await_still()
            session.look_at_pods()

    def leap(self, by_ns: int) -> None:
        """World time goes on by `by_ns` at once."""
        if by_ns > 0:
            self._mover.skip(by_ns)
            self._session.world.jump(by_ns)

    def _stops(self) -> Iterator[int]:
        session = self._session
        now_ns = session.world.now_ns
        if session.all_asleep():
            return  # nobody does anything before the fault ends
        if (attempt_ns := session.next_attempt_world_ns()) is not None:
            yield attempt_ns
        if (in_ns := session.renewals.next_in_ns(session.asleep)) is not None:
            yield now_ns + (in_ns - BEFORE_RENEWAL_NS if in_ns > BEFORE_RENEWAL_NS else in_ns)
        if self._since_ns:
            yield now_ns + RETRY_STEP_NS
        if self._mended:
            soon = now_ns < session.disturbed_world_ns + AFTER_FAULT_NS
            yield now_ns + (FIX_LOOKS_AFTER_FAULT_NS if soon else FIX_LOOKS_NS)

    def _waits(self) -> bool:
        """Whether there is something to wait for; what has not come within its bound is no longer
        waited for."""
        session = self._session
        now_ns = session.real.monotonic_ns()
        comes_within_s = COMES_WITHOUT_ISTIOD_WITHIN_S if session.istiod_away else COMES_WITHIN_S
        named = dict.fromkeys(session.renewals.overdue(session.asleep).values(), comes_within_s)
        named |= {
            f"a ztunnel on node {node}": STARTS_WITHIN_S for node in session.without_ztunnel()
        }
        self._since_ns = {what: self._since_ns.get(what, now_ns) for what in named}
        waits = any(
            now_ns - since_ns < named[what] * NS_PER_S for what, since_ns in self._since_ns.items()
        )
        session.troubled = session.troubled or bool(self._since_ns)
        return waits
