"""What a plan and its fix do, in order: faults begin, wake and end, processes restart, fixes poll
and act. The same in every lab."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from meshwake.clocks.virtual import Clocks
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.fixes import PlannedRestart, deploy
from meshwake.guard.watch import Target, View, Watcher


class Phase(IntEnum):
    """The order within one world time: what ends comes before what begins, restarts come last. A
    fault without length ends where it began, after its own beginning."""

    WAKE = 0
    END = 1
    BEGIN = 2
    END_SAME_INSTANT = 3
    RESTART_BY_FAULT = 4
    RESTART_BY_FIX = 5
    POLL = 6


@dataclass(frozen=True)
class ScheduledAction:
    """One thing to do at `world_ns`. `fault` is None for a restart by a fix, which `cause` names,
    and for a poll of `watcher`; `node` is None for what concerns the authority's service."""

    world_ns: int
    phase: Phase
    node: str | None
    fault: PlannedFault | None = None
    cause: str = ""
    what: Target = "ztunnel"
    watcher: Watcher | None = None


class Executor(View, Protocol):
    """Does what is scheduled, and can be observed by fixes."""

    def begin(self, fault: PlannedFault) -> None:
        """A fault begins."""

    def wake(self, fault: PlannedFault) -> None:
        """The node of a pause runs again; its wall clock is still behind."""

    def end(self, fault: PlannedFault) -> None:
        """A fault has had its last effect."""

    def restart_by_fault(self, fault: PlannedFault, node: str) -> None:
        """The fault that is a restart, of ztunnels or of a pod: from its beginning to its end."""

    def restart(self, node: str, cause: str) -> None:
        """The ztunnels of a node are ended and started again."""

    def restart_applications(self, node: str, cause: str) -> None:
        """The application pods of a node are ended and started again: its ztunnel drops their
        certificates and requests others."""

    def restart_proxies(self, node: str, cause: str) -> None:
        """The gateways and waypoints of a node are ended and started again."""


class Schedule:
    """All scheduled actions of a run, those of the plan and those that come of polls. `clocks` as
    from `clocks_of(plan)`.

    Raises BadInput when the fix's manifest is not what it should be.
    """

    def __init__(self, plan: Plan, clocks: Clocks) -> None:
        self._ends_world_ns = plan.duration_ns

        # Heap; the third member is a sequence number: actions of one phase keep their order.
        self._pending: list[tuple[int, Phase, int, ScheduledAction]] = []
        self._added = 0
        deployment = deploy(plan, clocks)
        for action in planned_actions(plan, clocks, deployment.restarts):
            self._add(action)
        for watcher in deployment.watchers:
            self._add_next_poll(watcher, -1)

    def next_world_ns(self) -> int | None:
        """World time of the next action, or None when there is none before the end."""
        if not self._pending:
            return None
        world_ns, *_ = self._pending[0]
        return world_ns

    def run_due(self, executor: Executor, now_world_ns: int) -> bool:
        """Has `executor` do all that is due, in order. True: a freeze has ended, and restarts and
        polls are still due at this time. They come only when the processes that run again have
        done what was overdue, which they do at once; then call again."""
        thawed = False
        while self._pending:
            due_world_ns, phase, *_ = self._pending[0]
            if due_world_ns > now_world_ns:
                return False
            # Phases from a restart on wait until what was frozen has caught up.
            if thawed and phase >= Phase.RESTART_BY_FAULT:
                return True

            action = heapq.heappop(self._pending)[-1]
            if action.watcher is not None:
                self._poll(action.watcher, executor, action.world_ns)
                continue
            execute(action, executor)
            if _thaws(action):
                thawed = True
        return False

    def _poll(self, watcher: Watcher, view: View, world_ns: int) -> None:
        for restart in watcher.look(view):
            self._add(_action_of_restart(restart))
        # Only now: what a watcher saw may change when it looks again.
        self._add_next_poll(watcher, world_ns)

    def _add_next_poll(self, watcher: Watcher, after_world_ns: int) -> None:
        next_world_ns = watcher.next_look_world_ns(after_world_ns)
        if next_world_ns is not None:
            self._add(ScheduledAction(next_world_ns, Phase.POLL, None, watcher=watcher))

    def _add(self, action: ScheduledAction) -> None:
        # What is due at the end itself does not happen: a run is [0, duration).
        if action.world_ns < self._ends_world_ns:
            self._added += 1
            heapq.heappush(self._pending, (action.world_ns, action.phase, self._added, action))


def _thaws(action: ScheduledAction) -> bool:
    if action.fault is None or action.phase is not Phase.END:
        return False
    return action.fault.kind == "freeze"


def execute(action: ScheduledAction, executor: Executor) -> None:
    """Has `executor` do what is due; not for polls."""
    fault, node = action.fault, action.node
    if fault is None:
        assert node is not None
        restart = {
            "ztunnel": executor.restart,
            "applications": executor.restart_applications,
            "proxies": executor.restart_proxies,
        }
        restart[action.what](node, action.cause)
    elif action.phase is Phase.RESTART_BY_FAULT:
        assert node is not None
        executor.restart_by_fault(fault, node)
    elif action.phase is Phase.BEGIN:
        executor.begin(fault)
    elif action.phase is Phase.WAKE:
        executor.wake(fault)
    else:
        executor.end(fault)


def planned_actions(
    plan: Plan, clocks: Clocks, restarts: tuple[PlannedRestart, ...] = ()
) -> list[ScheduledAction]:
    """Everything before the end of `plan` that is known before it begins, in order: its faults, and
    the `restarts` of its fix. `clocks` as from `clocks_of(plan)`."""
    actions: list[ScheduledAction] = []
    for fault in plan.faults:
        actions += _actions_of_fault(fault, clocks)
    actions += [_action_of_restart(restart) for restart in restarts]

    # What comes after the end of the run is not part of it.
    within = [action for action in actions if action.world_ns < plan.duration_ns]
    return sorted(within, key=lambda action: (action.world_ns, action.phase))


def _action_of_restart(restart: PlannedRestart) -> ScheduledAction:
    return ScheduledAction(
        restart.world_ns, Phase.RESTART_BY_FIX, restart.node, cause=restart.cause, what=restart.what
    )


def restart_world_ns(fault: PlannedFault, clocks: Clocks) -> int:
    """When the restart `fault` happens. Nothing restarts on a machine that sleeps: it happens when
    the machine wakes. `clocks` as from `clocks_of(plan)`."""
    return clocks[fault.node].world_ns_when_running(fault.at_world_ns)


def _actions_of_fault(fault: PlannedFault, clocks: Clocks) -> list[ScheduledAction]:
    if fault.kind in ("restart", "pod_restart"):
        world_ns = restart_world_ns(fault, clocks)
        return [ScheduledAction(world_ns, Phase.RESTART_BY_FAULT, fault.node, fault)]
    ends_later = fault.ends_world_ns > fault.at_world_ns
    end = Phase.END if ends_later else Phase.END_SAME_INSTANT
    actions = [
        ScheduledAction(fault.at_world_ns, Phase.BEGIN, fault.node, fault),
        ScheduledAction(fault.ends_world_ns, end, fault.node, fault),
    ]
    if fault.kind == "pause":
        actions.append(ScheduledAction(fault.asleep_until_world_ns, Phase.WAKE, fault.node, fault))
    return actions
