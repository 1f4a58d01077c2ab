"""Faults of clocks where idle time is skipped: a sleep has a beginning and an end, and the run goes
on between them.

Its programs stand still from the one to the other (clocks/movers/lapse.py). Whoever is awake lives
on, in leaps; where nobody is, world time leaps to the wake at once.
"""

from __future__ import annotations

from meshwake.clocks.movers.lapse import LapseMover
from meshwake.core.plan import PlannedFault
from meshwake.kubernetes.api import Kubernetes
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.pace import LapsePace
from meshwake.labs.kind.session import Session


class LapsedFaults(Faults):
    """See the module, and faults.Faults for the others."""

    def __init__(
        self, session: Session, mover: LapseMover, kubernetes: Kubernetes, pace: LapsePace
    ) -> None:
        super().__init__(session, mover, kubernetes)
        self._lapse, self._pace = mover, pace

    def _move_clocks(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._begins(*group)
        if group[0].kind == "step":
            self._set_walls(group, group[0].by_wall_ns)
            return
        nodes = _nodes(group)
        self._lapse.fall_asleep(nodes)
        self._session.asleep |= set(nodes)
        stood_world_ns = self._session.world.now_ns
        self._at(
            group[0].at_world_ns + group[0].lasts_ns, lambda: self._wake(group, stood_world_ns)
        )

    def _wake(self, group: list[PlannedFault], stood_world_ns: int) -> None:
        """They began to stand still a moment after the plan has it, and monotonic must not go back
        by more than that lasted."""
        session, first = self._session, group[0]
        self._pace.leap(stood_world_ns + first.lasts_ns - session.world.now_ns)
        self._lapse.wake(_nodes(group), first.kind, first.lasts_ns)
        session.asleep -= set(_nodes(group))
        session.disturbed_world_ns = session.world.now_ns
        if first.kind != "pause":
            self._tell_ended(group, None)
            return
        for fault in group:
            self._record("node_woke", fault)
        corrected_world_ns = session.world.now_ns + first.corrected_after_ns
        self._at(corrected_world_ns, lambda: self._set_walls(group, first.corrected_by_ns))

    def _set_walls(self, group: list[PlannedFault], by_ns: int) -> None:
        for node in _nodes(group):
            self._lapse.set_wall(node, by_ns)
        self._session.disturbed_world_ns = self._session.world.now_ns
        self._tell_ended(group, by_ns)

    def _tell_ended(self, group: list[PlannedFault], wall_set_by_ns: int | None) -> None:
        """`wall_set_by_ns`: how far somebody has just set the wall clock."""
        for fault in group:
            assert fault.node is not None
            world_ns, clocks = self._session.clocks.measure(fault.node)
            before_ns = None if wall_set_by_ns is None else clocks.wall_ns - wall_set_by_ns
            told = {"fault": fault.index, "fault_kind": fault.kind, "wall_before_ns": before_ns}
            self._session.ledger.add(world_ns, "fault_ended", fault.node, clocks, **told)
        self._ends(*group)


def _nodes(group: list[PlannedFault]) -> list[str]:
    return [str(fault.node) for fault in group]
