"""Clock faults in time lapse: a sleep is two actions, its beginning and its end, and the run goes
on between them.

The programs of the node are stopped in between (clocks/movers/lapse.py). Nodes that are awake go on
in leaps; when all nodes sleep, world time leaps to the wake at once.
"""

from __future__ import annotations

from meshwake.clocks.movers.lapse import LapseMover
from meshwake.core.planned_faults import PlannedFault
from meshwake.kubernetes.api import Kubernetes
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.pace import LapsePace
from meshwake.labs.kind.session import ClusterSession


class LapsedFaults(Faults):
    """See the module, and faults.Faults for the others."""

    def __init__(
        self, session: ClusterSession, mover: LapseMover, kubernetes: Kubernetes, pace: LapsePace
    ) -> None:
        super().__init__(session, mover, kubernetes)
        self._lapse, self._pace = mover, pace

    def _move_clocks(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._mark_begun(*group)
        if group[0].kind == "step":
            self._set_walls(group, group[0].by_wall_ns)
            return
        nodes = _nodes(group)
        self._lapse.fall_asleep(nodes)
        self._session.asleep |= set(nodes)
        stopped_world_ns = self._session.world.now_ns
        # Not asleep_until_world_ns: a frozen node does not sleep, and runs again at its end.
        wakes_world_ns = group[0].at_world_ns + group[0].duration_ns
        self._at(wakes_world_ns, lambda: self._wake(group, stopped_world_ns))

    def _wake(self, group: list[PlannedFault], stopped_world_ns: int) -> None:
        """The programs were stopped a moment later than planned, and a monotonic clock must not go
        back by more than they were stopped for: so the wake is moved by the same moment."""
        session, first = self._session, group[0]
        self._pace.leap(stopped_world_ns + first.duration_ns - session.world.now_ns)
        self._lapse.wake(_nodes(group), first.kind, first.duration_ns)
        session.woke(_nodes(group))
        if first.kind != "pause":
            self._record_ended(group, None)
            return
        for fault in group:
            self._record("node_woke", fault)
        corrected_world_ns = session.world.now_ns + first.corrected_after_ns
        self._at(corrected_world_ns, lambda: self._set_walls(group, first.corrected_by_ns))

    def _set_walls(self, group: list[PlannedFault], by_ns: int) -> None:
        for node in _nodes(group):
            self._lapse.set_wall(node, by_ns)
        self._session.disturbed_world_ns = self._session.world.now_ns
        self._record_ended(group, by_ns)

    def _record_ended(self, group: list[PlannedFault], wall_set_by_ns: int | None) -> None:
        """`wall_set_by_ns`: by how much the wall clock has just been set."""
        for fault in group:
            assert fault.node is not None
            world_ns, clocks = self._session.clocks.measure(fault.node)
            before_ns = None if wall_set_by_ns is None else clocks.wall_ns - wall_set_by_ns
            data = {"fault": fault.index, "fault_kind": fault.kind, "wall_before_ns": before_ns}
            self._session.events.add(world_ns, "fault_ended", fault.node, clocks, **data)
        self._mark_ended(*group)


def _nodes(group: list[PlannedFault]) -> list[str]:
    return [str(fault.node) for fault in group]
