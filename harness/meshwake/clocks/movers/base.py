"""What moves the clocks of a cluster's nodes in real time: one interface to three very different
ways.

    engine    the wall clock of the machine that runs the container engine is stepped         (engine.py)
    command   the user's own command suspends that machine, whatever it is                    (command.py)
    process   the clock functions of chosen processes are rewritten, node by node             (attach.py)

A mover says what it cannot do before anything has begun, measures inside the node before and after,
and restores what it changed, also when the harness was killed. It does not believe a command that
reports that it has set a clock.

World time goes on while a node sleeps, but an injected sleep takes no real time, and in a real one
the machine of the harness may have slept too. So every moment carries the harness's own monotonic
clock, and a movement says by how much world time went on *in addition to* that clock
(`skipped_world_ns`), all of it at its beginning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import SubjectFailed
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault, PlannedFaultT, event_of


class NoProgramToRead(SubjectFailed):
    """No program runs on a node in which its clocks could be read: one is just being restarted."""


@dataclass(frozen=True)
class Moment:
    """One reading of the clocks of a node, and when it was taken: the reading is of
    `real_monotonic_ns` on the harness's own CLOCK_MONOTONIC, or up to `within_ns` before or after
    it."""

    real_monotonic_ns: int
    clocks: ClockReading
    within_ns: int


@dataclass(frozen=True)
class Moved:
    """A clock fault that was carried out on one node, as measured inside it.

    `woke` (pause only): processes run again, the wall clock is still behind. `wall_before_ns`: the
    wall clock just before it was stepped (step, and the correction of a pause), None where no
    process stepped it.
    """

    fault: PlannedFault
    before: Moment
    after: Moment
    skipped_world_ns: int
    woke: Moment | None = None
    wall_before_ns: int | None = None

    @property
    def clocks_moved(self) -> ClockReading:
        """How far each clock went from before to after."""
        return self.after.clocks.since(self.before.clocks)

    @property
    def within_ns(self) -> int:
        """How far `clocks_moved` may be wrong: less than this is not to be called a drift."""
        return self.before.within_ns + self.after.within_ns

    @property
    def real_ns(self) -> int:
        """How long it took by the harness's own monotonic clock."""
        return self.after.real_monotonic_ns - self.before.real_monotonic_ns

    @property
    def world_ns(self) -> int:
        """How much world time passed from before to after."""
        return self.real_ns + self.skipped_world_ns


# Called when a node has woken and its wall clock is still behind: what was measured then, the world
# time skipped, and the harness's monotonic time at which the clock is to be corrected. Returns at
# about that time, not before it.
Meanwhile = Callable[[Moment, int, int], None]


def sleep_meanwhile(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
    """Waits until the correction is due; observes nothing."""
    while (left_ns := until_monotonic_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)


class Mover(Protocol):
    """What every way of moving clocks offers."""

    name: str

    def refusals(self, plan: Plan) -> list[str]:
        """What of the plan it cannot do, by name ("[fault 1] suspend of one node alone: ..."); []
        when all of it. Touches nothing."""

    def prepare(self) -> None:
        """Checks every guard on what is there, and starts what will put the clocks back if we are
        killed. Raises LabUnavailable; then nothing was changed."""

    def read(self, node: str) -> ClockReading:
        """The clocks of a node of the plan, measured inside it. Raises SubjectFailed when something
        else has moved them since they were last moved here, or when there is no answer within the
        bound; NoProgramToRead where they are read in a program, and none runs at this moment."""

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        """Carries out a suspend, pause or step whole and returns what was measured. Where one
        movement carries out the faults of several nodes (a shared kernel), they are given one after
        another and it is made once, with the first. `meanwhile` is called where a pause waits for
        its correction. Raises SubjectFailed when the clocks did not do what was requested."""

    def release(self) -> None:
        """Restores the clocks and releases everything, once; after run_ended, because restoring is
        a backward step. Idempotent, also after a failed prepare. Raises SubjectFailed when a clock
        could not be restored; the message says how to do it by hand."""


def alike(one: PlannedFault, other: PlannedFault) -> bool:
    """They differ in nothing but the node, so they are one event."""
    return event_of(one) == event_of(other)


class SharedMovements:
    """Movements that carry out one event on all its nodes: made with the first of its faults, and
    handed out with the others as they come."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: dict[int, Moved] = {}

    def move(
        self, fault: PlannedFaultT, make: Callable[[list[PlannedFaultT]], Iterable[Moved]]
    ) -> Moved:
        """What was measured for `fault`. `make` carries out all faults that are alike, itself
        included, and gives one result for each."""
        if fault.index not in self._made:
            event = event_of(fault)
            alike_faults = [other for other in self._plan.faults if event_of(other) == event]
            # Faults that are one event are of one class, which mypy cannot see.
            group = cast("list[PlannedFaultT]", alike_faults)
            for moved in make(group):
                self._made[moved.fault.index] = moved
        return self._made.pop(fault.index)


def refused_because_shared(plan: Plan, way: str) -> Iterator[str]:
    """Faults of some nodes that a way which moves the clock of the one machine below all of them
    cannot carry out."""
    every = {node.name for node in plan.nodes}
    for fault in plan.faults:
        # A freeze stops programs, and no clock.
        if fault.kind not in CLOCK_FAULTS or fault.kind == "freeze":
            continue
        if _nodes_of(plan, fault) == every:
            continue

        yield (
            f"[fault {fault.index}] {fault.kind} of node {fault.node} alone: the nodes "
            "of a cluster share one "
            f"kernel clock, and --clock {way} moves that; use --clock process"
        )


def _nodes_of(plan: Plan, fault: PlannedFault) -> set[str | None]:
    """The nodes that have this fault at the same time."""
    return {other.node for other in plan.faults if alike(fault, other)}
