"""What a plan and its fix do, in order: faults begin, wake and end, ztunnels start anew. The same in every lab."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from harness.clocks.virtual import NodeClock
from harness.fixes import planned_restarts
from harness.plan import Plan, PlannedFault


class Turn(IntEnum):
    """The order within one world time: what ends comes before what begins, restarts come last. A fault without length
    ends where it began, after its own beginning."""

    WAKE = 0
    END = 1
    BEGIN = 2
    END_AT_ONCE = 3
    RESTART_BY_FAULT = 4
    RESTART_BY_FIX = 5


@dataclass(frozen=True)
class Appointment:
    """One thing to do at `world_ns`. `fault` is None for a restart by a fix, which `cause` names; `node` is None for
    what concerns the authority's service."""

    world_ns: int
    turn: Turn
    node: str | None
    fault: PlannedFault | None = None
    cause: str = ""


class Keeper(Protocol):
    """A world that does what is on its agenda."""

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


def keep(appointment: Appointment, world: Keeper) -> None:
    """Has `world` do what is due."""
    fault, node = appointment.fault, appointment.node
    if fault is None:
        assert node is not None
        world.restart(node, appointment.cause)
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
    """Everything that `plan` and its fix do before its end, in order. `clocks` as from `clocks_of(plan)`. Raises
    BadInput when the fix's manifest is not what it should be."""
    appointments = [appointment for fault in plan.faults for appointment in _of_fault(fault, clocks)]
    appointments += [
        Appointment(restart.world_ns, Turn.RESTART_BY_FIX, restart.node, cause=restart.cause)
        for restart in planned_restarts(plan, clocks)
    ]
    appointments.sort(key=lambda appointment: (appointment.world_ns, appointment.turn))
    return [appointment for appointment in appointments if appointment.world_ns < plan.duration_ns]


def _of_fault(fault: PlannedFault, clocks: dict[str | None, NodeClock]) -> list[Appointment]:
    if fault.kind in ("restart", "pod_restart"):
        # Nobody restarts anything on a machine asleep: it happens when it wakes.
        world_ns = clocks[fault.node].world_ns_when_running(fault.at_world_ns)
        return [Appointment(world_ns, Turn.RESTART_BY_FAULT, fault.node, fault)]
    lasts = fault.ends_world_ns > fault.at_world_ns
    appointments = [
        Appointment(fault.at_world_ns, Turn.BEGIN, fault.node, fault),
        Appointment(fault.ends_world_ns, Turn.END if lasts else Turn.END_AT_ONCE, fault.node, fault),
    ]
    if fault.kind == "pause":
        appointments.append(Appointment(fault.asleep_until_world_ns, Turn.WAKE, fault.node, fault))
    return appointments
