"""When connections are attempted: on the scenario's schedule, and where the answer could change.

A schedule of ten minutes alone would know an outage to ten minutes. So each pair is also tried when
a certificate of either end was issued or lost, whenever the peer's clock passes its notBefore or
notAfter (again, after a step back), when a ztunnel started or a fault ended, and when the time ends
within which connections must work again. Same plan, same attempts, in every lab.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from meshwake.clocks.virtual import Clocks
from meshwake.core.durations import NS_PER_S
from meshwake.core.plan import RECOVERS_WITHIN_NS, Plan
from meshwake.core.planned_faults import PlannedFault


@dataclass(frozen=True, order=True)
class _Probe:
    world_ns: int
    pair: int
    # The certificate whose change of validity this attempt is to show: of no interest once it has
    # been replaced.
    identity: str = ""
    serial: str = ""


class ProbeSchedule:
    """The attempts of one run. `clocks` as from `clocks_of(plan)`."""

    def __init__(self, plan: Plan, clocks: Clocks) -> None:
        self._plan, self._clocks = plan, clocks
        self._pending: list[_Probe] = []
        self._next_regular = 0
        self._serials: dict[str, str] = {}
        for fault in plan.faults:
            self._add_around(fault)

    def _add_around(self, fault: PlannedFault) -> None:
        for position, pair in enumerate(self._plan.pairs):
            if not self._touches(fault, pair):
                continue
            # At the wake, when a wall clock may still be behind, and at the end of the fault.
            self._add(_Probe(fault.asleep_until_world_ns, position))
            self._add_after(fault.ends_world_ns, position)

    def _touches(self, fault: PlannedFault, pair: tuple[str, str]) -> bool:
        nodes = {self._plan.node_of(identity) for identity in pair}
        return fault.node in {*nodes, self._plan.authority_node, None}

    def _add_after(self, world_ns: int, pair: int) -> None:
        """At `world_ns`, when a fault has ended, and when it excuses a failure no longer."""
        self._add(_Probe(world_ns, pair))
        # A whole second after it: certificates count in seconds, and stopping at odd nanoseconds
        # has programs round their waits to milliseconds once more.
        self._add(_Probe(world_ns + RECOVERS_WITHIN_NS + NS_PER_S, pair))

    def ztunnel_started(self, identities: tuple[str, ...], world_ns: int) -> None:
        """A ztunnel that serves `identities` started at `world_ns`."""
        served = set(identities)
        for position, pair in enumerate(self._plan.pairs):
            if not served.isdisjoint(pair):
                self._add_after(world_ns, position)

    def certificate_issued(
        self,
        identity: str,
        serial: str,
        not_before_wall_s: int,
        not_after_wall_s: int,
        world_ns: int,
    ) -> None:
        """`identity` got a certificate at `world_ns`, valid between these two wall times, both
        included."""
        self._serials[identity] = serial
        validity_wall_ns = (not_before_wall_s * NS_PER_S, (not_after_wall_s + 1) * NS_PER_S)
        for position, pair in enumerate(self._plan.pairs):
            if identity in pair:
                peer = pair[1] if identity == pair[0] else pair[0]
                for changes_ns in self._changes_world_ns(peer, validity_wall_ns, world_ns):
                    self._add(_Probe(changes_ns, position, identity, serial))

    def _changes_world_ns(
        self, peer: str, validity_wall_ns: tuple[int, int], after_world_ns: int
    ) -> list[int]:
        """When `peer` begins to find the certificate valid, or expired."""
        # A clock that is set back may make a certificate invalid that was valid when it was issued,
        # or valid one that had expired: each boundary can be passed more than once. The steps back
        # themselves are ends of faults, which have their attempts from the start.
        clock = self._clocks[self._plan.node_of(peer)]
        valid_wall_ns, expired_wall_ns = validity_wall_ns
        valid_world_ns = clock.wall_reached_world_ns(valid_wall_ns, after_world_ns)
        expired_world_ns = clock.wall_reached_world_ns(expired_wall_ns, after_world_ns)
        return sorted({*valid_world_ns, *expired_world_ns})

    def certificate_lost(self, identity: str, world_ns: int) -> None:
        """The ztunnel of `identity` holds no usable certificate for it from `world_ns` on."""
        for position, pair in enumerate(self._plan.pairs):
            if identity in pair:
                self._add(_Probe(world_ns, position))

    def next_world_ns(self) -> int | None:
        """World time of the next attempt, or None when there is none before the end."""
        regular_ns = self._next_regular * self._plan.attempt_every_ns
        due_ns = regular_ns
        if self._pending:
            due_ns = min(due_ns, self._pending[0].world_ns)
        return due_ns if due_ns < self._plan.duration_ns else None

    def take(self, world_ns: int) -> list[tuple[str, str]]:
        """The pairs to try at `world_ns`, each once, and only those whose processes run at both
        ends."""
        due = self._take_regular(world_ns) | self._take_pending(world_ns)
        taken = []

        # In the order of the plan, whatever made them due.
        for position in sorted(due):
            pair = self._plan.pairs[position]
            if self._runs(pair, world_ns):
                taken.append(pair)
        return taken

    def _take_regular(self, world_ns: int) -> set[int]:
        """All pairs, if one or several regular attempts are due."""
        taken: set[int] = set()
        while self._next_regular * self._plan.attempt_every_ns <= world_ns:
            self._next_regular += 1
            taken = set(range(len(self._plan.pairs)))
        return taken

    def _take_pending(self, world_ns: int) -> set[int]:
        taken: set[int] = set()
        while self._pending and self._pending[0].world_ns <= world_ns:
            probe = heapq.heappop(self._pending)
            # Meant for the end of a certificate that has been renewed since.
            is_replaced = probe.serial and self._serials[probe.identity] != probe.serial
            if is_replaced:
                continue
            taken.add(probe.pair)
        return taken

    def _runs(self, pair: tuple[str, str], world_ns: int) -> bool:
        return all(
            self._clocks[self._plan.node_of(identity)].processes_run(world_ns) for identity in pair
        )

    def _add(self, probe: _Probe) -> None:
        if probe.world_ns < self._plan.duration_ns:
            heapq.heappush(self._pending, probe)
