"""The wall clock of the machine that runs the container engine, stepped: what Docker Desktop's VM
goes through.

    pause   all clocks of that machine would have stopped: world time jumps, the wall clock stays
            behind, and is corrected after `corrected_after`
    step    the wall clock is set
    suspend refused: only the wall clock can be set, and in a suspend boottime goes with it

The one mover that sets a machine's clock, so it trusts nothing:

    whose kernel is it    refused when it is this machine's own (own.py asks twice), unless
                          --allow-own-clock; and after every step our own clock is read: has it
                          moved, the step is undone at once
    who else sets it      time synchronisation is looked for on that machine and held (timesync.py);
                          what cannot be held refuses the run
    did it happen         measured inside the node after each step; a command that reports it is not
                          believed
    how it ends           restore.py: an intent is on disk before anything is changed, a watchdog
                          outlives us
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meshwake.clocks.movers.base import (
    Meanwhile,
    Moved,
    SharedMovements,
    refused_because_shared,
    sleep_meanwhile,
)
from meshwake.clocks.movers.node_access import (
    ClockMeasurement,
    Inside,
    NoAnswer,
    Way,
    measure,
    rights_missing,
    set_base,
)
from meshwake.clocks.movers.own_clock import Own, OwnMachine, shared_kernel
from meshwake.clocks.movers.restore import (
    RECOGNISED_WITHIN_NS,
    RIGHT_WITHIN_NS,
    Intent,
    Watchdog,
    intent_path,
    lock_now,
    restore,
    write_intent,
)
from meshwake.clocks.movers.timesync import TimeSync, find_time_syncs, hold
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault, PlannedPause, PlannedStep

# The clock is set by a program inside the node and then read: on a busy machine time passes in
# between, and something else may set it back.
_SETS_MAX = 3
# Our own clock may be slewed, never stepped, while the engine's is set.
_OWN_MOVED_NS = NS_PER_S // 2


@dataclass(frozen=True)
class EngineWays:
    """How the engine's machine is entered: command lines with {node} in them, so that they can be
    written down for a watchdog. `nodes`: into a node, the first that answers; `host`: into its own
    process namespace."""

    nodes: tuple[tuple[str, ...], ...]
    host: tuple[str, ...] | None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


class ClockWatchdog(Protocol):
    """What puts the clock back when we are gone."""

    def end(self) -> None:
        """No more is needed of it."""


def engine_refusals(plan: Plan) -> list[str]:
    """See Mover.refusals."""
    suspends = [
        f"[fault {fault.index}] suspend: --clock engine sets the wall clock of the engine's "
        "machine, and in a suspend "
        'its boottime would go with it; write kind = "pause" with corrected_after, or use '
        "--clock process or command"
        for fault in plan.faults
        if fault.kind == "suspend"
    ]
    return [*dict.fromkeys(suspends), *refused_because_shared(plan, "engine")]


def refuse_own_kernel(own: Own, measured: ClockMeasurement) -> None:
    """Raises LabUnavailable when `measured`, read on the engine's machine just now, is of the
    kernel of `own`."""
    sign = shared_kernel(own, measured)
    if sign is not None:
        raise LabUnavailable(
            "--clock engine: the container engine runs on this machine's own kernel "
            f"({sign}), so the clock of "
            "this machine and of every program on it would be set; use --clock process, or "
            "an engine in a VM, or "
            "say --allow-own-clock"
        )


class EngineMover:
    """A Mover (clocks/movers/base.py). `node_names`: plan node -> the engine's container.
    `directory` holds intents."""

    name = "engine"

    def __init__(
        self,
        plan: Plan,
        ways: EngineWays,
        node_names: Mapping[str, str],
        directory: Path,
        *,
        allow_own_clock: bool = False,
        own: Own | None = None,
        guard: Callable[[Path], ClockWatchdog] = Watchdog,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._plan, self._ways, self._names, self._directory = (
            plan,
            ways,
            dict(node_names),
            directory,
        )
        self._allow_own_clock, self._own, self._guard, self._pause = (
            allow_own_clock,
            own or OwnMachine(),
            guard,
            pause,
        )
        self._inside: Inside = Way(ways.nodes[0], ways.environment)
        self._host = None if ways.host is None else Way(ways.host, ways.environment)
        self._first = next(iter(self._names))
        self._shares_our_kernel = False
        self._ready: _Ready | None = None
        self._movements = SharedMovements(plan)

    def refusals(self, plan: Plan) -> list[str]:
        """See Mover."""
        return engine_refusals(plan)

    def prepare(self) -> None:
        """See Mover."""
        try:
            self._prepare()
        except NoAnswer as error:
            raise LabUnavailable(f"--clock engine: {error}") from error

    def read(self, node: str) -> ClockReading:
        """See Mover."""
        measured = self._measure(node)
        if (
            self._ready is not None
            and abs(measured.base_ns - self._ready.base_ns) > RECOGNISED_WITHIN_NS
        ):
            off_ns = measured.base_ns - self._ready.base_ns
            raise SubjectFailed(
                f"node {node}: its wall clock is {seconds(off_ns):+.1f} s from where it was "
                "put; time synchronisation "
                "of the engine's machine has set it, or that machine has slept: stop the "
                "one, avoid the other "
                "(docs/kind.md)"
            )
        return measured.clocks

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        """See Mover. One movement for all nodes, made with the first of them."""
        if fault.kind == "pause":
            return self._movements.move(fault, lambda group: self._pause_nodes(group, meanwhile))
        if fault.kind == "step":
            return self._movements.move(fault, self._step_nodes)
        raise HarnessFault(
            f"fault {fault.index}: {fault.kind} should have been refused before the run"
        )

    def release(self) -> None:
        """See Mover."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.close(self._pause)

    # Guards

    def _prepare(self) -> None:
        measured = self._measure(self._first)
        self._check_kernel(measured)
        self._check_nodes(measured)
        path = intent_path(self._directory, measured.boot_id)
        ready = _Ready(path, lock_now(path))
        try:
            if restore(path, self._pause) is not None:
                measured = self._measure(self._first)
            self._set_up(ready, measured)
        except BaseException:
            ready.close(self._pause)
            raise
        self._ready = ready

    def _set_up(self, ready: _Ready, measured: ClockMeasurement) -> None:
        """From the moment the intent is written, any later command can undo what follows."""
        held = self._time_syncs()
        ready.base_ns = measured.base_ns
        ready.intent = self._intent(measured, held)
        write_intent(ready.path, ready.intent)
        ready.guard = self._guard(ready.path)
        for one in held:
            assert self._host is not None
            hold(self._host, one)

    def _check_kernel(self, measured: ClockMeasurement) -> None:
        if self._allow_own_clock:
            self._shares_our_kernel = shared_kernel(self._own, measured) is not None
        else:
            refuse_own_kernel(self._own, measured)

    def _check_nodes(self, first: ClockMeasurement) -> None:
        for node, name in self._names.items():
            measured = first
            if node != self._first:
                measured = self._measure(node)
            if measured.boot_id != first.boot_id:
                raise LabUnavailable(
                    f"--clock engine: node {node} runs on another kernel; there is not one "
                    "clock to set"
                )
            why = rights_missing(self._inside, name)
            if why is not None:
                raise LabUnavailable(f"--clock engine: {why}; use --clock process or command")

    def _time_syncs(self) -> tuple[TimeSync, ...]:
        if self._host is None:
            return ()
        found = find_time_syncs(self._host)
        for one in found:
            if one.how == "nobody":
                raise LabUnavailable(
                    f"--clock engine: {one.name} keeps the clock of the engine's machine "
                    "and cannot be held without "
                    "cutting the way to it; use --clock command (limactl stop and start) or process"
                )
        return found

    def _intent(self, measured: ClockMeasurement, held: tuple[TimeSync, ...]) -> Intent:
        return Intent(
            boot_id=measured.boot_id,
            wall_ns=measured.clocks.wall_ns,
            monotonic_ns=measured.clocks.monotonic_ns,
            boottime_ns=measured.clocks.boottime_ns,
            held=held,
            node=self._names[self._first],
            ways=self._ways.nodes,
            host_way=self._ways.host,
            environment=dict(self._ways.environment),
        )

    # Movements

    def _pause_nodes(self, group: list[PlannedPause], meanwhile: Meanwhile) -> list[Moved]:
        lasts_ns = group[0].lasts_ns
        before, woke = self._measure_all(group), self._measure_all(group)
        first = next(iter(woke.values())).moment
        meanwhile(first, lasts_ns, first.real_monotonic_ns + group[0].corrected_after_ns)
        behind = self._measure_all(group)
        if group[0].corrected:
            self._step_base(lasts_ns)
        after = self._measure_all(group)
        return [
            Moved(
                fault,
                before[fault.index].moment,
                after[fault.index].moment,
                lasts_ns,
                woke[fault.index].moment,
                behind[fault.index].clocks.wall_ns,
            )
            for fault in group
        ]

    def _step_nodes(self, group: list[PlannedStep]) -> list[Moved]:
        before = self._measure_all(group)
        self._step_base(group[0].by_wall_ns)
        after = self._measure_all(group)
        return [
            Moved(
                fault,
                before[fault.index].moment,
                after[fault.index].moment,
                0,
                wall_before_ns=before[fault.index].clocks.wall_ns,
            )
            for fault in group
        ]

    def _step_base(self, by_wall_ns: int) -> None:
        ready = self._ready
        if ready is None:
            raise HarnessFault("a clock is to be moved before its guard is ready")
        base_ns = ready.base_ns + by_wall_ns
        ready.intend(base_ns)
        own_before = self._own.clocks()
        for _ in range(_SETS_MAX):
            with suppress(NoAnswer):
                set_base(self._inside, self._names[self._first], base_ns)
            self._check_own_clock(own_before)
            shown_ns = self._measure(self._first).base_ns
            if abs(shown_ns - base_ns) <= RIGHT_WITHIN_NS:
                ready.base_ns = base_ns
                return
        raise SubjectFailed(
            f"the wall clock of the engine's machine was set {_SETS_MAX} times by "
            f"{seconds(by_wall_ns):+.1f} s, and "
            f"inside node {self._first} it moved by "
            f"{seconds(shown_ns - ready.base_ns):+.1f} s: something sets it back "
            "at once, or the engine does not do what it says"
        )

    def _check_own_clock(self, before: ClockReading) -> None:
        """An engine that reported to be another machine, and was ours: everything is restored at
        once."""
        moved = self._own.clocks().since(before)
        parted_ns = moved.wall_ns - moved.boottime_ns
        if self._shares_our_kernel or abs(parted_ns) <= _OWN_MOVED_NS:
            return
        self.release()
        raise SubjectFailed(
            "setting the clock of the engine's machine moved this machine's own by "
            f"{seconds(parted_ns):+.1f} s, "
            "though nothing had shown that they are one; it was restored at once. Use "
            "--clock process"
        )

    def _measure_all(self, group: Sequence[PlannedFault]) -> dict[int, ClockMeasurement]:
        return {fault.index: self._measure(str(fault.node)) for fault in group}

    def _measure(self, node: str) -> ClockMeasurement:
        try:
            return measure(self._inside, self._names[node])
        except NoAnswer as error:
            if self._ready is None:
                raise
            raise SubjectFailed(f"node {node}: its clocks cannot be read: {error}") from error


@dataclass
class _Ready:
    """What `prepare` has set up, and how it is taken down: the lock, the intent, the watchdog."""

    path: Path
    lock: ExitStack
    base_ns: int = 0
    intent: Intent | None = None
    guard: ClockWatchdog | None = None

    def intend(self, base_ns: int) -> None:
        """Written down before it is done."""
        assert self.intent is not None
        self.intent = self.intent.model_copy(update={"bases_ns": (*self.intent.bases_ns, base_ns)})
        write_intent(self.path, self.intent)

    def close(self, pause: Callable[[float], None]) -> None:
        """Restores the clock and releases everything. Where the clock cannot be reached, the
        intent stays: for the watchdog, who gets the lock at once, and for the next command."""
        try:
            restore(self.path, pause)
        finally:
            self.lock.close()
            if self.guard is not None:
                self.guard.end()
