"""The user's own suspend: a command that puts the machine below the cluster to sleep and wakes it
again.

`limactl stop && start`, `virsh suspend`, `prlctl`, `Suspend-VM`, `rtcwake -m mem -s {seconds}`, a
cloud's call: nothing of that is known here. It is run with a deadline, and what it did is read from
the clocks, before and after, inside the nodes. Whether that was the requested suspend is
for the check `clock_fault_happened` to say; a command after which no clock has parted from another
is an error here.

    {seconds}    in the command is replaced by how long the sleep is to last; $MESHWAKE_SECONDS says
                 it too
    a shell      is not used; for more than one command write a script, or say: sh -c '...'

Nothing is restored, for nothing was set: a wall clock that such a machine has after its wake is the
right one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from meshwake.clocks.movers.base import (
    Meanwhile,
    Moved,
    SharedMovements,
    refused_because_shared,
    sleep_meanwhile,
)
from meshwake.clocks.movers.node_access import ClockMeasurement, Inside, NoAnswer, measure
from meshwake.clocks.movers.own_clock import Own, OwnMachine
from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault, PlannedSleep

# Beyond the sleep itself: a VM that is saved to disk and read again.
SPARE_S = 300.0
AWAKE_WITHIN_S = 240.0
# Where nothing corrects the clock of that machine it stays behind, and is recorded so.
CORRECTED_WITHIN_S = 60.0
_LOOK_EVERY_S = 1.0
_LAST_WORDS = 400


def command_refusals(plan: Plan, command: str) -> list[str]:
    """See Mover.refusals."""
    steps = []
    pauses = []
    for fault in plan.faults:
        if fault.kind == "step":
            steps.append(
                f"[fault {fault.index}] step: --clock command suspends, and sets no clock; use "
                "--clock engine or process"
            )
        # The machine corrects its own clock when it wakes, which a command has no part in.
        if fault.kind == "pause" and not fault.corrected:
            pauses.append(
                f"[fault {fault.index}] pause whose wall clock stays behind: --clock command cannot "
                "keep the machine from "
                "setting its clock; use --clock engine or process"
            )
    return [*_about(command), *steps, *pauses, *refused_because_shared(plan, "command")]


def _about(command: str) -> list[str]:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        return [f"--suspend-command {command!r}: cannot be split into words ({error})"]
    if not arguments:
        return ["--suspend-command: is empty; say what suspends the machine below the cluster"]
    if shutil.which(arguments[0]) is None:
        return [
            f"--suspend-command: no program {arguments[0]!r} on PATH; give its path, or install it"
        ]
    return []


class CommandMover:
    """A Mover (clocks/movers/base.py). `node_names`: plan node -> what `inside` calls it."""

    name = "command"

    def __init__(
        self,
        plan: Plan,
        inside: Inside,
        node_names: Mapping[str, str],
        command: str,
        *,
        own: Own | None = None,
        pause: Callable[[float], None] = time.sleep,
        spare_s: float = SPARE_S,
    ) -> None:
        self._plan, self._inside, self._names, self._command = (
            plan,
            inside,
            dict(node_names),
            command,
        )
        self._own, self._pause, self._spare_s = own or OwnMachine(), pause, spare_s
        self._movements = SharedMovements(plan)

    def refusals(self, plan: Plan) -> list[str]:
        """See Mover."""
        return command_refusals(plan, self._command)

    def prepare(self) -> None:
        """See Mover: every node answers, and they are one machine."""
        try:
            boots = {
                node: measure(self._inside, name).boot_id for node, name in self._names.items()
            }
        except (NoAnswer, SubjectFailed) as error:
            raise LabUnavailable(f"--clock command: {error}") from error
        if len(set(boots.values())) > 1:
            raise LabUnavailable(
                f"--clock command: {', '.join(boots)} run on {len(set(boots.values()))} "
                "kernels, and one command "
                "cannot suspend them at one moment; use --clock process"
            )

    def read(self, node: str) -> ClockReading:
        """See Mover."""
        return self._measure(node).clocks

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        """See Mover. One command for all nodes, run with the first of them."""
        if not isinstance(fault, PlannedSleep):
            raise HarnessFault(
                f"fault {fault.index}: {fault.kind} should have been refused before the run"
            )
        return self._movements.move(fault, lambda group: self._suspend(group, meanwhile))

    def release(self) -> None:
        """See Mover: there is nothing to restore."""

    def _suspend(self, group: list[PlannedSleep], meanwhile: Meanwhile) -> list[Moved]:
        fault = group[0]
        own_before = self._own.clocks()
        before = {each.index: self._measure(str(each.node)) for each in group}
        self._run(fault.lasts_ns)
        woke = {each.index: self._awake(str(each.node)) for each in group}
        skipped_ns = _skipped_ns(
            own_before, self._own.clocks(), before[fault.index], woke[fault.index]
        )
        after = woke
        if fault.kind == "pause":
            first = woke[fault.index].moment
            meanwhile(first, skipped_ns, first.real_monotonic_ns + fault.corrected_after_ns)
            after = {each.index: self._corrected(each, before[each.index]) for each in group}
        _check_anything_happened(fault, before[fault.index], after[fault.index], self._command)
        return [
            Moved(
                each,
                before[each.index].moment,
                after[each.index].moment,
                skipped_ns,
                woke[each.index].moment if each.kind == "pause" else None,
            )
            for each in group
        ]

    def _run(self, lasts_ns: int) -> None:
        """The deadline is counted on the wall clock as well: ours may have stopped with the
        machine's."""
        lasts_s = round(seconds(lasts_ns))
        arguments = [word.replace("{seconds}", str(lasts_s)) for word in shlex.split(self._command)]
        environment = {**os.environ, "MESHWAKE_SECONDS": str(lasts_s)}
        try:
            ended = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=lasts_s + self._spare_s,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise SubjectFailed(
                f"the suspend command did not end within {lasts_s + self._spare_s:.0f} s: "
                f"{_shown(arguments)}; is the "
                "machine awake? wake it by hand"
            ) from error
        except OSError as error:
            raise SubjectFailed(
                f"the suspend command cannot be run ({error.strerror}): {_shown(arguments)}"
            ) from error
        if ended.returncode:
            output = (ended.stderr or ended.stdout).decode(errors="replace").strip()[-_LAST_WORDS:]
            raise SubjectFailed(
                f"the suspend command ended with {ended.returncode}: {_shown(arguments)}: {output}"
            )

    def _awake(self, node: str) -> ClockMeasurement:
        """A machine that has just woken is given time to answer."""
        give_up_ns = self._own.clocks().monotonic_ns + int(AWAKE_WITHIN_S * NS_PER_S)
        while True:
            try:
                return measure(self._inside, self._names[node])
            except (NoAnswer, SubjectFailed) as error:
                if self._own.clocks().monotonic_ns > give_up_ns:
                    raise SubjectFailed(
                        f"node {node} does not answer {AWAKE_WITHIN_S:.0f} s after the "
                        f"suspend command ended: {error}"
                    ) from error
            self._pause(_LOOK_EVERY_S)

    def _corrected(self, fault: PlannedSleep, before: ClockMeasurement) -> ClockMeasurement:
        """Once the wall clock has been corrected, or the time for that is over: then it is measured
        as it is."""
        give_up_ns = self._own.clocks().monotonic_ns + int(CORRECTED_WITHIN_S * NS_PER_S)
        while True:
            now = self._measure(str(fault.node))
            drifted_ns = drift_ns(before.clocks, now.clocks)
            if drifted_ns >= fault.lasts_ns - NS_PER_S:
                return now
            if self._own.clocks().monotonic_ns > give_up_ns:
                return now
            self._pause(_LOOK_EVERY_S)

    def _measure(self, node: str) -> ClockMeasurement:
        try:
            return measure(self._inside, self._names[node])
        except NoAnswer as error:
            raise SubjectFailed(f"node {node}: its clocks cannot be read: {error}") from error


def _skipped_ns(
    own_before: ClockReading,
    own_after: ClockReading,
    before: ClockMeasurement,
    after: ClockMeasurement,
) -> int:
    """World time that our monotonic clock has not seen. A wall clock may be still behind after a
    pause, and we may have slept as well, so the wall clock that went further says how much time has
    passed."""
    own = own_after.since(own_before)
    node_wall_ns = after.clocks.wall_ns - before.clocks.wall_ns
    return max(node_wall_ns, own.wall_ns, own.monotonic_ns) - own.monotonic_ns


def _check_anything_happened(
    fault: PlannedSleep, before: ClockMeasurement, after: ClockMeasurement, command: str
) -> None:
    parted_ns = drift_ns(before.clocks, after.clocks)
    if abs(parted_ns) < NS_PER_S:
        raise SubjectFailed(
            f"fault {fault.index}: {fault.kind} of {seconds(fault.lasts_ns):.0f} s: the "
            "suspend command ended, and "
            f"inside node {fault.node} wall and monotonic clock have parted by "
            f"{seconds(parted_ns):+.3f} s only: that "
            f"machine did not sleep ({command})"
        )


def _shown(arguments: Sequence[str]) -> str:
    return shlex.join(arguments)[:_LAST_WORDS]
