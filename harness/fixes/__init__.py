"""What people deploy against the fault, modelled: which restarts of ztunnel it makes, and when.

Every lab asks the same question, so a fix does the same in all of them: a pure function of the plan and of the clocks
of its nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import BadInput
from harness.fixes import weekly_restart
from harness.fixes.restart import Clocks, PlannedRestart
from harness.plan import Plan

__all__ = ["Clocks", "PlannedRestart", "planned_restarts"]

FIXES: dict[str, Callable[[Plan, Clocks], list[PlannedRestart]]] = {
    "none": lambda plan, clocks: [],
    weekly_restart.NAME: weekly_restart.restarts,
}


def planned_restarts(plan: Plan, clocks: Clocks) -> tuple[PlannedRestart, ...]:
    """The restarts that the fix of `plan` makes before its end, in order. `clocks` as from `clocks_of(plan)`.

    Raises BadInput when there is no such fix, or its manifest is not what it should be.
    """
    name = plan.fix.name if plan.fix else "none"
    if name not in FIXES:
        raise BadInput(f"fix.name: read {name!r}, allowed: {', '.join(FIXES)}")
    return tuple(sorted(restart for restart in FIXES[name](plan, clocks) if restart.world_ns < plan.duration_ns))
