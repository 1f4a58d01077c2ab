"""The faults of a plan, carried out on a cluster.

    suspend, pause,   by the mover (clocks/movers/base.py), from beginning to end, and measured by
    step, freeze      it. World time jumps by what our own clock did not see. While only some nodes
                      sleep, or a pause waits for its correction, the run goes on
    restart           the ztunnel pod of the node is deleted; its DaemonSet starts another
    ca_outage         istiod is scaled to 0 and back

Faults of several nodes at the same time are one fault of the machine they share: world time jumps
once for all of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import groupby
from threading import Event
from typing import Any

from meshwake.clocks.movers.base import Moment, Moved, Mover, sleep_meanwhile
from meshwake.clocks.virtual import clocks_of
from meshwake.cluster.reset import scale_istiod_back, scale_istiod_down
from meshwake.core.durations import format_duration, seconds
from meshwake.core.errors import HarnessFault
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.planned_faults import PlannedFault
from meshwake.kubernetes.api import Kubernetes, Unreachable
from meshwake.labs.kind.session import CLOCKS_SHARED, ClusterSession
from meshwake.labs.schedule import Phase, restart_world_ns
from meshwake.ztunnel.names import ISTIO_NAMESPACE, ISTIOD_LABELS

RESTART_TIMEOUT_S, SCALE_TIMEOUT_S, CORRECTION_TIMEOUT_S = 180.0, 240.0, 60.0
_BY_MOVER = ("suspend", "pause", "step", "freeze")


class Faults:
    """See session.FaultsOfRun. Later faults keep their planned times: an action that takes longer
    than planned (a restart) delays only those that fall into it."""

    def __init__(self, session: ClusterSession, mover: Mover, kubernetes: Kubernetes) -> None:
        self._session, self._mover, self._kubernetes = session, mover, kubernetes
        self._schedule: list[tuple[int, Phase, int, Callable[[], None]]] = []
        self._count = 0
        self._jumped, self._woken = False, set[int]()
        self._under_way: dict[int, str] = {}

        # Sorted, so that faults that differ only in their node are adjacent.
        alike = sorted(session.plan.faults, key=_all_but_node)
        for _, group in groupby(alike, key=_all_but_node):
            self._plan(list(group))

    def next_world_ns(self) -> int | None:
        """See FaultsOfRun."""
        if not self._schedule:
            return None
        next_world_ns, *_ = self._schedule[0]
        return next_world_ns

    def do_next(self) -> None:
        """See FaultsOfRun."""
        *_, do = heapq.heappop(self._schedule)
        do()

    def _at(self, world_ns: int, do: Callable[[], None], phase: Phase = Phase.BEGIN) -> None:
        self._count += 1
        heapq.heappush(self._schedule, (world_ns, phase, self._count, do))

    def _plan(self, group: list[PlannedFault]) -> None:
        first = group[0]
        if first.kind in _BY_MOVER:
            self._at(first.at_world_ns, lambda: self._move_clocks(group))
        elif first.kind == "restart":
            self._plan_restarts(group)
        elif first.kind == "ca_outage":
            self._at(first.at_world_ns, lambda: self._stop_istiod(first))
        else:
            raise HarnessFault(
                f"fault {first.index}: {first.kind} should have been refused before the run"
            )

    def _plan_restarts(self, group: list[PlannedFault]) -> None:
        """Each when its node runs. kubelet is awake in time lapse, and would start a ztunnel with
        the clocks of the sleeping node, by which every renewal after the wake would be late."""
        clocks = clocks_of(self._session.plan)
        by_world_ns: dict[int, list[PlannedFault]] = {}
        for fault in group:
            by_world_ns.setdefault(restart_world_ns(fault, clocks), []).append(fault)
        for world_ns, due in by_world_ns.items():
            self._at(world_ns, partial(self._restart, due), Phase.RESTART_BY_FAULT)

    # Clocks

    def _move_clocks(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._mark_begun(*group)

        self._jumped = False
        self._woken = set()
        move = self._move_while_running if self._mover.name == "process" else self._move_and_wait

        # All are moved before the first is recorded: they are one event.
        results = [move(group, fault) for fault in group]
        for moved in results:
            self._jump_once(moved.skipped_world_ns)
            self._record_moved(moved)
        self._mark_ended(*group)

    def _mark_begun(self, *faults: PlannedFault) -> None:
        for fault in faults:
            words: str = fault.kind
            # A fault of a service has no node, and a step takes no time.
            if fault.node is not None:
                words += f" of {fault.node}"
            if fault.duration_ns:
                words += f" for {format_duration(fault.duration_ns)}"
            self._under_way[fault.index] = words
        self._session.setting.report_under_way(", ".join(self._under_way.values()))

    def _mark_ended(self, *faults: PlannedFault) -> None:
        for fault in faults:
            self._under_way.pop(fault.index, None)
        self._session.setting.report_under_way(", ".join(self._under_way.values()))

    def _move_and_wait(self, group: list[PlannedFault], fault: PlannedFault) -> Moved:
        """Everything sleeps, or the fault takes no time: there is nothing to poll meanwhile."""
        return self._mover.move(fault, partial(self._meanwhile, group, fault))

    def _move_while_running(self, group: list[PlannedFault], fault: PlannedFault) -> Moved:
        """Some nodes sleep, in real time, and the run goes on with the others. A pause reports
        when its nodes wake."""
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
        within_s = seconds(fault.ends_world_ns - fault.at_world_ns) + CORRECTION_TIMEOUT_S
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
        """The nodes are awake and their wall clocks are behind: the run goes on until they are
        corrected."""
        self._jump_once(skipped_world_ns)
        for woken in group if self._mover.name in CLOCKS_SHARED else [fault]:
            self._record("node_woke", woken)
            self._woken.add(woken.index)
        real = self._session.setting.real
        within_s = seconds(until_monotonic_ns - real.monotonic_ns()) + CORRECTION_TIMEOUT_S
        what = "the wall clocks to be corrected"
        self._session.wait_until(what, within_s, lambda: real.monotonic_ns() >= until_monotonic_ns)
        self._session.settle()

    def _record_moved(self, moved: Moved) -> None:
        fault = moved.fault
        data: MutableJsonObject = {"fault": fault.index, "fault_kind": fault.kind}
        assert fault.node is not None
        if moved.woke is not None and fault.index not in self._woken:
            world_ns = self._session.world.at(moved.woke.real_monotonic_ns)
            self._session.events.add(world_ns, "node_woke", fault.node, moved.woke.clocks, **data)
        world_ns = self._session.world.at(moved.after.real_monotonic_ns)
        self._session.clocks.take(fault.node, world_ns, moved.after.clocks)
        data["wall_before_ns"] = moved.wall_before_ns
        self._session.events.add(world_ns, "fault_ended", fault.node, moved.after.clocks, **data)

    def _record(self, kind: str, fault: PlannedFault, **data: Any) -> None:
        """Record with the clocks of the fault's node, read inside it, or with the authority's."""
        if fault.node is not None:
            world_ns, clocks = self._session.clocks.measure(fault.node)
        else:
            world_ns = self._session.world.now_ns
            clocks = self._session.authority_clocks(world_ns)
        self._session.events.add(
            world_ns, kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data
        )

    # Processes

    def _restart(self, group: list[PlannedFault]) -> None:
        self._session.cause, self._session.restarting = "restart", True
        for fault in group:
            assert fault.node is not None
            self._record("fault_began", fault)
            self._mark_begun(fault)
            self._restart_on(fault.node)
            self._record("fault_ended", fault, wall_before_ns=None)
            self._mark_ended(fault)
        self._session.cause, self._session.restarting = "", False

    def _restart_on(self, node: str) -> None:
        old = self._session.process_of(node)
        self._kubernetes.end_pod(old)
        what = f"a new ztunnel on node {node}"
        self._session.wait_until(what, RESTART_TIMEOUT_S, lambda: self._is_new(node, old.process))

    def _is_new(self, node: str, process: str) -> bool:
        return self._session.process_of(node).process != process

    def _stop_istiod(self, fault: PlannedFault) -> None:
        self._mark_begun(fault)
        scale_istiod_down(self._kubernetes)
        self._await_istiod(0)
        self._record("fault_began", fault)
        self._session.istiod_away = True
        lasts_until_ns = self._session.world.now_ns + fault.duration_ns
        self._at(lasts_until_ns, lambda: self._start_istiod(fault))

    def _start_istiod(self, fault: PlannedFault) -> None:
        self._await_istiod(scale_istiod_back(self._kubernetes) or 1)
        self._session.istiod_away = False
        self._record("fault_ended", fault, wall_before_ns=None)
        self._mark_ended(fault)

    def _await_istiod(self, replicas: int) -> None:
        is_scaled = partial(self._istiod_is_scaled, replicas)
        self._session.wait_until(f"{replicas} ready istiod", SCALE_TIMEOUT_S, is_scaled)

    def _istiod_is_scaled(self, replicas: int) -> bool:
        try:
            pods = self._kubernetes.pods(ISTIO_NAMESPACE, ISTIOD_LABELS)
        except Unreachable:
            return False
        return len(pods) == replicas and all(pod.ready for pod in pods)


def _all_but_node(fault: PlannedFault) -> tuple[int, str, str]:
    return fault.at_world_ns, fault.kind, fault.model_dump_json(exclude={"index", "node"})
