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
from meshwake.core.plan import RECOVERS_WITHIN_NS, Plan, PlannedFault


@dataclass(frozen=True, order=True)
class _Asked:
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
        self._asked: list[_Asked] = []
        self._next_regular = 0
        self._serials: dict[str, str] = {}
        for fault in plan.faults:
            for position, pair in enumerate(plan.pairs):
                if self._touches(fault, pair):
                    self._ask(_Asked(fault.asleep_until_world_ns, position))
                    self._ask_after(fault.ends_world_ns, position)

    def _touches(self, fault: PlannedFault, pair: tuple[str, str]) -> bool:
        nodes = {self._plan.node_of(identity) for identity in pair}
        return fault.node in {*nodes, self._plan.authority_node, None}

    def _ask_after(self, world_ns: int, pair: int) -> None:
        """At `world_ns`, when a fault has ended, and when it excuses a failure no longer."""
        self._ask(_Asked(world_ns, pair))
        # A whole second after it: certificates count in seconds, and a world that stops at odd
        # nanoseconds has programs round their waits to milliseconds anew.
        self._ask(_Asked(world_ns + RECOVERS_WITHIN_NS + NS_PER_S, pair))

    def ztunnel_started(self, identities: tuple[str, ...], world_ns: int) -> None:
        """A ztunnel that serves `identities` started at `world_ns`."""
        for position, pair in enumerate(self._plan.pairs):
            if set(identities) & set(pair):
                self._ask_after(world_ns, position)

    def certificate_issued(
        self,
        identity: str,
        serial: str,
        not_before_wall_s: int,
        not_after_wall_s: int,
        world_ns: int,
    ) -> None:
        """`identity` got a certificate at `world_ns`, valid between these two walls, both ends
        included."""
        self._serials[identity] = serial
        for position, pair in enumerate(self._plan.pairs):
            if identity not in pair:
                continue
            peer = pair[1] if identity == pair[0] else pair[0]
            clock = self._clocks[self._plan.node_of(peer)]
            # A clock that is set back may make a certificate invalid that was valid when it was
            # issued, or valid one that had expired: each boundary can be passed more than once.
            # The steps back themselves are ends of faults, which are asked about from the start.
            valid_ns = clock.wall_reached_world_ns(not_before_wall_s * NS_PER_S, world_ns)
            expired_ns = clock.wall_reached_world_ns((not_after_wall_s + 1) * NS_PER_S, world_ns)
            for changes_ns in sorted({*valid_ns, *expired_ns}):
                self._ask(_Asked(changes_ns, position, identity, serial))

    def certificate_lost(self, identity: str, world_ns: int) -> None:
        """The ztunnel of `identity` holds no usable certificate for it from `world_ns` on."""
        for position, pair in enumerate(self._plan.pairs):
            if identity in pair:
                self._ask(_Asked(world_ns, position))

    def next_world_ns(self) -> int | None:
        """World time of the next attempt, or None when there is none before the end."""
        regular_ns = self._next_regular * self._plan.attempt_every_ns
        due_ns = min([regular_ns, *(asked.world_ns for asked in self._asked[:1])])
        return due_ns if due_ns < self._plan.duration_ns else None

    def take(self, world_ns: int) -> list[tuple[str, str]]:
        """The pairs to try at `world_ns`, each once, those only whose processes run at both ends."""
        pairs = set()
        while self._next_regular * self._plan.attempt_every_ns <= world_ns:
            self._next_regular += 1
            pairs |= set(range(len(self._plan.pairs)))
        while self._asked and self._asked[0].world_ns <= world_ns:
            asked = heapq.heappop(self._asked)
            if not asked.serial or self._serials[asked.identity] == asked.serial:
                pairs.add(asked.pair)
        return [
            self._plan.pairs[pair]
            for pair in sorted(pairs)
            if self._runs(self._plan.pairs[pair], world_ns)
        ]

    def _runs(self, pair: tuple[str, str], world_ns: int) -> bool:
        return all(
            self._clocks[self._plan.node_of(identity)].processes_run(world_ns) for identity in pair
        )

    def _ask(self, asked: _Asked) -> None:
        if asked.world_ns < self._plan.duration_ns:
            heapq.heappush(self._asked, asked)
