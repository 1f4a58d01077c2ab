"""What a plan and its fix do, in order: faults begin, wake and end, ztunnels start anew, fixes look
and act. The same in every lab."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from meshwake.clocks.virtual import NodeClock
from meshwake.core.plan import Plan, PlannedFault
from meshwake.fixes import PlannedRestart, deploy
from meshwake.guard.watch import Target, View, Watcher


class Turn(IntEnum):
    """The order within one world time: what ends comes before what begins, restarts come last. A
    fault without length ends where it began, after its own beginning."""

    WAKE = 0
    END = 1
    BEGIN = 2
    END_AT_ONCE = 3
    RESTART_BY_FAULT = 4
    RESTART_BY_FIX = 5
    LOOK = 6


@dataclass(frozen=True)
class Appointment:
    """One thing to do at `world_ns`. `fault` is None for a restart by a fix, which `cause` names,
    and for a look of `watcher`; `node` is None for what concerns the authority's service."""

    world_ns: int
    turn: Turn
    node: str | None
    fault: PlannedFault | None = None
    cause: str = ""
    what: Target = "ztunnel"
    watcher: Watcher | None = None


class Keeper(View, Protocol):
    """A world that does what is on its agenda, and can be looked at."""

    def begin(self, fault: PlannedFault) -> None:
        """A fault begins."""

    def wake(self, fault: PlannedFault) -> None:
        """The node of a pause runs again; its wall clock is still behind."""

    def end(self, fault: PlannedFault) -> None:
        """A fault has had its last effect."""

    def restart_by_fault(self, fault: PlannedFault, node: str) -> None:
        """The fault that is a restart, of ztunnels or of a pod: from its beginning to its end."""

    def restart(self, node: str, cause: str) -> None:
        """The ztunnels of a node are ended and started anew."""

    def restart_applications(self, node: str, cause: str) -> None:
        """The application pods of a node are ended and started anew: its ztunnel forgets their
        certificates and fetches others."""

    def restart_proxies(self, node: str, cause: str) -> None:
        """The gateways and waypoints of a node are ended and started anew."""


class Agenda:
    """All appointments of a run, those of the plan and those that come of looks. `clocks` as from
    `clocks_of(plan)`.

    Raises BadInput when the fix's manifest is not what it should be.
    """

    def __init__(self, plan: Plan, clocks: dict[str | None, NodeClock]) -> None:
        self._ends_world_ns = plan.duration_ns
        self._coming: list[tuple[int, Turn, int, Appointment]] = []
        self._made = 0
        for appointment in agenda(plan, clocks):
            self._add(appointment)
        for watcher in deploy(plan, clocks).watchers:
            self._let_look(watcher, -1)

    def next_world_ns(self) -> int | None:
        """World time of the next appointment, or None when there is none before the end."""
        return self._coming[0][0] if self._coming else None

    def keep_due(self, world: Keeper, now_world_ns: int) -> bool:
        """Has `world` do all that is due, in order. True: a freeze has ended, and what is left at
        this time comes only when the processes that run on have done what was overdue: they do it
        at once, before anybody can restart them."""
        thawed = False
        while self._coming and self._coming[0][0] <= now_world_ns:
            if thawed and self._coming[0][1] >= Turn.RESTART_BY_FAULT:
                return True
            appointment = heapq.heappop(self._coming)[-1]
            if appointment.watcher is None:
                keep(appointment, world)
                thawed = thawed or _thaws(appointment)
                continue
            for restart in appointment.watcher.look(world):
                self._add(_of_restart(restart))
            self._let_look(appointment.watcher, appointment.world_ns)
        return False

    def _let_look(self, watcher: Watcher, after_world_ns: int) -> None:
        next_world_ns = watcher.next_look_world_ns(after_world_ns)
        if next_world_ns is not None:
            self._add(Appointment(next_world_ns, Turn.LOOK, None, watcher=watcher))

    def _add(self, appointment: Appointment) -> None:
        if appointment.world_ns < self._ends_world_ns:
            self._made += 1
            heapq.heappush(
                self._coming, (appointment.world_ns, appointment.turn, self._made, appointment)
            )


def _thaws(appointment: Appointment) -> bool:
    return (
        appointment.turn is Turn.END
        and appointment.fault is not None
        and appointment.fault.kind == "freeze"
    )


def keep(appointment: Appointment, world: Keeper) -> None:
    """Has `world` do what is due."""
    fault, node = appointment.fault, appointment.node
    if fault is None:
        assert node is not None
        restart = {
            "ztunnel": world.restart,
            "applications": world.restart_applications,
            "proxies": world.restart_proxies,
        }
        restart[appointment.what](node, appointment.cause)
    elif appointment.turn is Turn.RESTART_BY_FAULT:
        assert node is not None
        world.restart_by_fault(fault, node)
    elif appointment.turn is Turn.BEGIN:
        world.begin(fault)
    elif appointment.turn is Turn.WAKE:
        world.wake(fault)
    else:
        world.end(fault)


def agenda(plan: Plan, clocks: dict[str | None, NodeClock]) -> list[Appointment]:
    """Everything that `plan` and its fix do before its end and that is known before it begins, in
    order. `clocks` as from `clocks_of(plan)`. Raises BadInput when the fix's manifest is not what
    it should be."""
    appointments = [
        appointment for fault in plan.faults for appointment in _of_fault(fault, clocks)
    ]
    appointments += [_of_restart(restart) for restart in deploy(plan, clocks).restarts]
    appointments.sort(key=lambda appointment: (appointment.world_ns, appointment.turn))
    return [appointment for appointment in appointments if appointment.world_ns < plan.duration_ns]


def _of_restart(restart: PlannedRestart) -> Appointment:
    return Appointment(
        restart.world_ns, Turn.RESTART_BY_FIX, restart.node, cause=restart.cause, what=restart.what
    )


def _of_fault(fault: PlannedFault, clocks: dict[str | None, NodeClock]) -> list[Appointment]:
    if fault.kind in ("restart", "pod_restart"):
        # Nobody restarts anything on a machine asleep: it happens when it wakes.
        world_ns = clocks[fault.node].world_ns_when_running(fault.at_world_ns)
        return [Appointment(world_ns, Turn.RESTART_BY_FAULT, fault.node, fault)]
    lasts = fault.ends_world_ns > fault.at_world_ns
    appointments = [
        Appointment(fault.at_world_ns, Turn.BEGIN, fault.node, fault),
        Appointment(
            fault.ends_world_ns, Turn.END if lasts else Turn.END_AT_ONCE, fault.node, fault
        ),
    ]
    if fault.kind == "pause":
        appointments.append(Appointment(fault.asleep_until_world_ns, Turn.WAKE, fault.node, fault))
    return appointments
