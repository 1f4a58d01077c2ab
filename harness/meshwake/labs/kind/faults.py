"""The faults of a plan, carried out on a cluster.

    suspend, pause,   by the mover (clocks/movers/base.py), whole, and measured by it. World time
    step, freeze      jumps by what was slept beside our own clock. While only some nodes sleep, or
                      a pause waits for its correction, the run goes on
    restart           the ztunnel of the node is ended; its DaemonSet starts another
    ca_outage              istiod is scaled to nothing, and back

A fault of several nodes at one time is one fault of the machine they share: world time jumps once
for all of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import groupby
from threading import Event
from typing import Any

from meshwake.clocks.movers.base import Moment, Moved, Mover, sleep_meanwhile
from meshwake.cluster.reset import istiod_away, istiod_back
from meshwake.core.durations import format_duration, seconds
from meshwake.core.errors import HarnessFault
from meshwake.core.plan import PlannedFault
from meshwake.kubernetes.api import Kubernetes, Unreachable
from meshwake.labs.kind.session import CLOCKS_SHARED, Session
from meshwake.ztunnel.names import ISTIO_NAMESPACE, ISTIOD_LABELS

RESTARTED_WITHIN_S, SCALED_WITHIN_S, CORRECTED_WITHIN_S = 180.0, 240.0, 60.0
_BY_MOVER = ("suspend", "pause", "step", "freeze")


class Faults:
    """See session.FaultsOfRun. The times of what is still to come are those of the plan; what takes
    longer than it should (a restart) delays only what would lie within it."""

    def __init__(self, session: Session, mover: Mover, kubernetes: Kubernetes) -> None:
        self._session, self._mover, self._kubernetes = session, mover, kubernetes
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._jumped, self._woken = False, set[int]()
        self._under_way: dict[int, str] = {}
        # Sorted, those of one moment that differ in nothing but their node stand side by side.
        alike = sorted(session.plan.faults, key=_but_its_node)
        for _, group in groupby(alike, key=_but_its_node):
            self._plan(list(group))

    def next_world_ns(self) -> int | None:
        """See FaultsOfRun."""
        return self._agenda[0][0] if self._agenda else None

    def do_next(self) -> None:
        """See FaultsOfRun."""
        heapq.heappop(self._agenda)[2]()

    def _at(self, world_ns: int, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (world_ns, self._count, do))

    def _plan(self, group: list[PlannedFault]) -> None:
        first = group[0]
        if first.kind in _BY_MOVER:
            self._at(first.at_world_ns, lambda: self._move_clocks(group))
        elif first.kind == "restart":
            self._at(first.at_world_ns, lambda: self._restart(group))
        elif first.kind == "ca_outage":
            self._at(first.at_world_ns, lambda: self._istiod_goes(first))
        else:
            raise HarnessFault(
                f"fault {first.index}: {first.kind} should have been refused before the run"
            )

    # Clocks

    def _move_clocks(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._begins(*group)
        self._jumped, self._woken = False, set()
        move = self._move_beside if self._mover.name == "process" else self._move_here
        for moved in [move(group, fault) for fault in group]:
            self._jump_once(moved.skipped_world_ns)
            self._tell_moved(moved)
        self._ends(*group)

    def _begins(self, *faults: PlannedFault) -> None:
        for fault in faults:
            where = f" of {fault.node}" if fault.node is not None else ""
            lasts = f" for {format_duration(fault.lasts_ns)}" if fault.lasts_ns else ""
            self._under_way[fault.index] = f"{fault.kind}{where}{lasts}"
        self._session.setting.tell_under_way(", ".join(self._under_way.values()))

    def _ends(self, *faults: PlannedFault) -> None:
        for fault in faults:
            self._under_way.pop(fault.index, None)
        self._session.setting.tell_under_way(", ".join(self._under_way.values()))

    def _move_here(self, group: list[PlannedFault], fault: PlannedFault) -> Moved:
        """Everything sleeps, or it takes no time: nobody is there to be looked at."""
        return self._mover.move(fault, partial(self._meanwhile, group, fault))

    def _move_beside(self, group: list[PlannedFault], fault: PlannedFault) -> Moved:
        """Some nodes sleep, in real time, and the others live on: so does the run. A pause tells
        when they wake."""
        session, woken = self._session, Event()

        def meanwhile(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
            woken.set()
            sleep_meanwhile(woke, skipped_world_ns, until_monotonic_ns)

        def done() -> bool:
            if woken.is_set() and session.asleep:
                nodes, session.asleep = session.asleep, frozenset()
                for node in nodes:
                    session.clocks.measure(node)
            return moving.done()

        session.asleep, session.moving = frozenset(str(each.node) for each in group), True
        moving = session.setting.executor.submit(self._mover.move, fault, meanwhile)
        within_s = seconds(fault.lasts_ns + fault.corrected_after_ns) + CORRECTED_WITHIN_S
        session.wait_until(f"the end of fault {fault.index} ({fault.kind})", within_s, done)
        session.asleep, session.moving = frozenset(), False
        return moving.result()

    def _jump_once(self, skipped_world_ns: int) -> None:
        if not self._jumped:
            self._jumped = True
            self._session.world.jump(skipped_world_ns)

    def _meanwhile(
        self,
        group: list[PlannedFault],
        fault: PlannedFault,
        woke: Moment,
        skipped_world_ns: int,
        until_monotonic_ns: int,
    ) -> None:
        """The nodes have woken and their wall clocks are behind: the run goes on until they are put
        right."""
        self._jump_once(skipped_world_ns)
        for woken in group if self._mover.name in CLOCKS_SHARED else [fault]:
            self._record("node_woke", woken)
            self._woken.add(woken.index)
        real = self._session.setting.real
        within_s = seconds(until_monotonic_ns - real.monotonic_ns()) + CORRECTED_WITHIN_S
        what = "the moment at which wall clocks are put right"
        self._session.wait_until(what, within_s, lambda: real.monotonic_ns() >= until_monotonic_ns)
        self._session.settle()

    def _tell_moved(self, moved: Moved) -> None:
        fault = moved.fault
        told: dict[str, Any] = {"fault": fault.index, "fault_kind": fault.kind}
        assert fault.node is not None
        if moved.woke is not None and fault.index not in self._woken:
            world_ns = self._session.world.at(moved.woke.real_monotonic_ns)
            self._session.ledger.add(world_ns, "node_woke", fault.node, moved.woke.clocks, **told)
        world_ns = self._session.world.at(moved.after.real_monotonic_ns)
        self._session.clocks.take(fault.node, world_ns, moved.after.clocks)
        told["wall_before_ns"] = moved.wall_before_ns
        self._session.ledger.add(world_ns, "fault_ended", fault.node, moved.after.clocks, **told)

    def _record(self, kind: str, fault: PlannedFault, **data: Any) -> None:
        """With the clocks of the fault's node, read at this moment inside it, or with the
        authority's."""
        if fault.node is not None:
            world_ns, clocks = self._session.clocks.measure(fault.node)
        else:
            world_ns = self._session.world.now_ns
            clocks = self._session.authority_clocks(world_ns)
        self._session.ledger.add(
            world_ns, kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data
        )

    # Processes

    def _restart(self, group: list[PlannedFault]) -> None:
        self._session.cause, self._session.restarting = "restart", True
        for fault in group:
            assert fault.node is not None
            self._record("fault_began", fault)
            self._begins(fault)
            self._restart_on(fault.node)
            self._record("fault_ended", fault, wall_before_ns=None)
            self._ends(fault)
        self._session.cause, self._session.restarting = "", False

    def _restart_on(self, node: str) -> None:
        old = self._session.process_of(node)
        self._kubernetes.end_pod(old)
        what = f"a new ztunnel on node {node}"
        self._session.wait_until(what, RESTARTED_WITHIN_S, lambda: self._is_new(node, old.process))

    def _is_new(self, node: str, process: str) -> bool:
        return self._session.process_of(node).process != process

    def _istiod_goes(self, fault: PlannedFault) -> None:
        self._begins(fault)
        istiod_away(self._kubernetes)
        self._await_istiod(0)
        self._record("fault_began", fault)
        self._session.istiod_away = True
        lasts_until_ns = self._session.world.now_ns + fault.lasts_ns
        self._at(lasts_until_ns, lambda: self._istiod_comes(fault))

    def _istiod_comes(self, fault: PlannedFault) -> None:
        self._await_istiod(istiod_back(self._kubernetes) or 1)
        self._session.istiod_away = False
        self._record("fault_ended", fault, wall_before_ns=None)
        self._ends(fault)

    def _await_istiod(self, replicas: int) -> None:
        def there() -> bool:
            try:
                pods = self._kubernetes.pods(ISTIO_NAMESPACE, ISTIOD_LABELS)
            except Unreachable:
                return False
            return len(pods) == replicas and all(pod.ready for pod in pods)

        self._session.wait_until(f"{replicas} ready istiod", SCALED_WITHIN_S, there)


def _but_its_node(fault: PlannedFault) -> tuple[int, str, int, int, int]:
    return fault.at_world_ns, fault.kind, fault.lasts_ns, fault.corrected_after_ns, fault.by_wall_ns
