"""When connections are attempted: on the scenario's schedule, and where the answer could change.

A schedule of ten minutes alone would know an outage to ten minutes. So each pair is also tried when a certificate of
either end was issued, when the peer's clock passes its notAfter (or notBefore, when the issuer's clock is ahead), when
a ztunnel started and when a fault ended. Same plan, same attempts, in every lab.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from harness.clocks.virtual import NodeClock
from harness.durations import NS_PER_S
from harness.plan import Plan


@dataclass(frozen=True, order=True)
class _Asked:
    world_ns: int
    pair: int
    # The certificate whose change of validity this attempt is to show: of no interest once it has been replaced.
    identity: str = ""
    serial: str = ""


class ProbeSchedule:
    """The attempts of one run. `clocks` as from `clocks_of(plan)`."""

    def __init__(self, plan: Plan, clocks: dict[str | None, NodeClock]) -> None:
        self._plan, self._clocks = plan, clocks
        self._asked: list[_Asked] = []
        self._next_regular = 0
        self._serials: dict[str, str] = {}
        for fault in plan.faults:
            for world_ns in {fault.asleep_until_world_ns, fault.ends_world_ns}:
                for position, pair in enumerate(plan.pairs):
                    if fault.node is None or fault.node in (plan.node_of(pair[0]), plan.node_of(pair[1])):
                        self._ask(_Asked(world_ns, position))

    def ztunnel_started(self, identities: tuple[str, ...], world_ns: int) -> None:
        """A ztunnel that serves `identities` started at `world_ns`."""
        for position, pair in enumerate(self._plan.pairs):
            if set(identities) & set(pair):
                self._ask(_Asked(world_ns, position))

    def certificate_issued(
        self, identity: str, serial: str, not_before_wall_s: int, not_after_wall_s: int, world_ns: int
    ) -> None:
        """`identity` got a certificate at `world_ns`, valid between these two walls, both ends included."""
        self._serials[identity] = serial
        for position, pair in enumerate(self._plan.pairs):
            if identity not in pair:
                continue
            peer = pair[1] if identity == pair[0] else pair[0]
            clock = self._clocks[self._plan.node_of(peer)]
            valid_from_ns = clock.world_ns_at_wall(not_before_wall_s * NS_PER_S, world_ns)
            expired_ns = clock.world_ns_at_wall((not_after_wall_s + 1) * NS_PER_S, world_ns)
            for changes_ns in sorted({valid_from_ns, expired_ns}):
                self._ask(_Asked(changes_ns, position, identity, serial))

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
        return [self._plan.pairs[pair] for pair in sorted(pairs) if self._runs(self._plan.pairs[pair], world_ns)]

    def _runs(self, pair: tuple[str, str], world_ns: int) -> bool:
        return all(self._clocks[self._plan.node_of(identity)].processes_run(world_ns) for identity in pair)

    def _ask(self, asked: _Asked) -> None:
        if asked.world_ns < self._plan.duration_ns:
            heapq.heappush(self._asked, asked)
