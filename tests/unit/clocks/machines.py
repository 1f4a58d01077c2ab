"""A machine whose clocks can be set, behind the commands that really enter one: the scripts run in
a real shell, on a /proc of its own and with a `date` of its own. It gives wrong readings on
request.

    python machines.py DIRECTORY exec NODE sh -c SCRIPT ...     in the place of `docker exec`

`answer` does what those scripts do without starting programs, for tests of what is built upon them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A machine is entered by starting this file: it must not need what is not in Python itself.
    from meshwake.clocks.movers.node_access import CommandResult, Way

BOOT_ID = "11111111-2222-3333-4444-555555555555"
NS = 10**9
YEAR_NS = 365 * 86_400 * NS


@dataclass(frozen=True)
class Machine:
    """What it is. `ahead_ns`: of the real monotonic clock (0: it is the same kernel, whatever it
    says). `deaf`: sets nothing and says that it did; `resynced`: restores its clock a moment after
    it was set; `moves_ours`: a file that the clock is written to, in the place of the test
    machine's own; `dead`: cannot be entered."""

    boot_id: str = BOOT_ID
    ahead_ns: int = YEAR_NS
    base_ns: int = 1_700_000_000 * NS
    slept_ns: int = 0
    capabilities: int = 0x1FFFFFFFFFF
    uid_map: str = "         0          0 4294967295"
    syncs: tuple[tuple[int, str], ...] = ()
    init: str = "systemd"
    implicit: str = ""
    deaf: bool = False
    resynced: bool = False
    moves_ours: str = ""
    dead: bool = False
    # What was done to it, for a test to look at.
    sets: int = 0
    signals: tuple[str, ...] = ()

    @property
    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns


class Box:
    """A machine on disk, and the command line that enters it."""

    def __init__(self, directory: Path, machine: Machine | None = None) -> None:
        self.directory = directory
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("date", "kill", "nsenter"):
            program = directory / "bin" / name
            program.write_text(
                f'#!/bin/sh\nexec {sys.executable} -S {__file__} {directory} {name} "$@"\n'
            )
            program.chmod(0o755)
        if machine is not None:
            self.now = machine

    @property
    def way(self) -> tuple[str, ...]:
        return (sys.executable, "-S", __file__, str(self.directory), "exec", "{node}")

    @property
    def now(self) -> Machine:
        fields = json.loads((self.directory / "machine.json").read_text())
        syncs = tuple((pid, name) for pid, name in fields["syncs"])
        return Machine(**{**fields, "syncs": syncs, "signals": tuple(fields["signals"])})

    @now.setter
    def now(self, machine: Machine) -> None:
        fresh = self.directory / f"machine.json.{os.getpid()}"
        fresh.write_text(json.dumps(asdict(machine)))
        fresh.replace(self.directory / "machine.json")

    def change(self, **about: object) -> None:
        self.now = replace(self.now, **about)  # type: ignore[arg-type]


def answer(way: Way, node: str, argv: Sequence[str], within_s: float) -> CommandResult:
    """In the place of Way.run, in this process."""
    from meshwake.clocks.movers import node_access as inside
    from meshwake.clocks.movers import timesync

    box = Box(Path(way.prefix[3]))
    machine, script, arguments = box.now, argv[2], argv[4:]
    if machine.dead:
        return inside.CommandResult(125, "", "Error: No such container")
    output = ""
    if script == inside.READ:
        up_ns = machine.monotonic_ns + machine.slept_ns
        now_ns = machine.monotonic_ns
        wall_ns = now_ns + machine.base_ns
        up = f"{up_ns // NS}.{up_ns % NS // 10_000_000:02d}"
        output = (
            f"boot_id {machine.boot_id}\nclocks {now_ns} {up} "
            f"{wall_ns // NS}.{wall_ns % NS:09d} {now_ns}"
        )
    elif script == inside.SET_BASE:
        _set(box, int(arguments[0]))
    elif script == inside.RIGHTS:
        output = (
            f"capabilities {machine.capabilities:x}\nuser_namespace "
            f"{' '.join(machine.uid_map.split())}"
        )
    elif script == timesync.FIND:
        lines = [
            f"init {machine.init}",
            *(f"process {pid} 4018 {name}" for pid, name in machine.syncs),
        ]
        output = "\n".join(
            [*lines, *([f"implicit {machine.implicit}"] if machine.implicit else [])]
        )
    else:
        box.change(signals=(*machine.signals, " ".join(arguments)))
    return inside.CommandResult(0, output, "")


def _set(box: Box, base_ns: int) -> None:
    machine = box.now
    if machine.deaf or machine.resynced:
        base_ns = machine.base_ns
    if machine.moves_ours:
        Path(machine.moves_ours).write_text(str(base_ns))
    box.now = replace(machine, base_ns=base_ns, sets=machine.sets + 1)


def _enter(box: Box, words: list[str]) -> int:
    machine = box.now
    if machine.dead:
        sys.stderr.write("Error: No such container\n")
        return 125
    _, shell, flag, script, *arguments = words
    proc = _write_proc(box, machine)
    script = script.replace("/proc/", f"{proc}/").replace(
        "/sys/module/", f"{box.directory}/module/"
    )
    # `kill` is a builtin of a shell; this one is ours.
    script = "kill() { command " + str(box.directory / "bin" / "kill") + ' "$@"; }\n' + script
    path = f"{box.directory / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [shell, flag, script, *arguments], env={**os.environ, "PATH": path}, check=False
    ).returncode


def _write_proc(box: Box, machine: Machine) -> Path:
    """As of now, for as long as the script runs: how long that takes says how busy the test machine
    is."""
    proc, now_ns = box.directory / "proc", machine.monotonic_ns
    up_ns = now_ns + machine.slept_ns
    files = {
        "timer_list": f"Timer List Version: v0.9\nHRTIMER_MAX_CLOCK_BASES: 8\nnow at {now_ns} "
        "nsecs\n",
        "uptime": f"{up_ns // NS}.{up_ns % NS // 10_000_000:02d} 1.00\n",
        "sys/kernel/random/boot_id": machine.boot_id + "\n",
        "self/status": f"Name:\tsh\nCapEff:\t{machine.capabilities:016x}\n",
        "self/uid_map": machine.uid_map + "\n",
        "1/comm": machine.init + "\n",
    }
    for pid, name in machine.syncs:
        files[f"{pid}/comm"] = name + "\n"
        files[f"{pid}/stat"] = (
            f"{pid} ({name}) S " + " ".join(str(4000 + at) for at in range(40)) + "\n"
        )
    for name, text in files.items():
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(text)
    if machine.implicit:
        parameter = box.directory / "module/hv_utils/parameters/timesync_implicit"
        parameter.parent.mkdir(parents=True, exist_ok=True)
        if not parameter.exists():
            parameter.write_text(machine.implicit + "\n")
    return proc


def _date(box: Box, words: list[str]) -> int:
    machine = box.now
    entered_ns = int((box.directory / "proc/timer_list").read_text().split()[-2])
    if words[0].startswith("+"):
        wall_ns = entered_ns + machine.base_ns
        sys.stdout.write(f"{wall_ns // NS}.{wall_ns % NS:09d}\n")
        return 0
    whole, fraction = words[-1].removeprefix("@").split(".")
    wall_ns = int(whole) * NS + int(fraction)
    _set(box, wall_ns - entered_ns)
    return 0


def main() -> int:
    box, word, words = Box(Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
    if word == "exec":
        return _enter(box, words)
    if word == "date":
        return _date(box, words)
    box.now = replace(box.now, signals=(*box.now.signals, f"{word} {' '.join(words)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
