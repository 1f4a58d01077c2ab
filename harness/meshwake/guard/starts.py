"""What the clocks of a node showed when one of its processes started, found out afterwards.

Three sources, none of which knows all: kubelet says by the wall clock when a container started.
/proc/PID/stat says it by the boottime clock (field 22, since Linux 2.6.34). The monotonic clock
differs from boottime by all the time that the machine was suspended since boot; how much that was
at the start is known only if the guard was running by then. So it notes the difference at each
look. For a process that is older than the guard, all sleep since boot is taken to lie after its
start: the drift is then too large rather than too small, and at worst there is one restart too
many.

A process that was not there at the last look needs none of them where no clock has parted from
another since (`Witnessed`): it started with the drift of now.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S
from meshwake.system.process_stat import read_stat

PROC = Path("/proc")
# Within it two looks show the same drift: a sleep is longer, and time services slew by less in half
# a minute.
STEADY_NS = 2 * NS_PER_S


class Starts:
    """Remembers how far monotonic and boottime clock were apart, at every look that brought
    something new."""

    def __init__(self) -> None:
        self._boottimes_ns: list[int] = []
        self._suspended_ns: list[int] = []

    def look(self, now: ClockReading) -> None:
        """Notes the clocks of this look."""
        suspended_ns = now.boottime_ns - now.monotonic_ns
        if self._suspended_ns:
            since_ns = suspended_ns - self._suspended_ns[-1]
            # A microsecond passes between two clocks; a sleep is never so short.
            if abs(since_ns) <= NS_PER_S // 1000:
                return
        self._boottimes_ns.append(now.boottime_ns)
        self._suspended_ns.append(suspended_ns)

    def started(self, wall_ns: int, boottime_ns: int) -> ClockReading:
        """The clocks at the start of a process of which two are known."""
        # What was noted last before it started; nothing before the guard's own first look.
        position = bisect_right(self._boottimes_ns, boottime_ns) - 1
        suspended_ns = self._suspended_ns[position] if position >= 0 else 0
        return ClockReading(wall_ns, boottime_ns - suspended_ns, boottime_ns)


class Process(NamedTuple):
    """Names a process: its number, and when it started by the kernel's boottime clock."""

    pid: int
    boottime_ns: int


class Witnessed:
    """Processes that began between two looks at which the clocks showed the same drift."""

    def __init__(self) -> None:
        self._looked: ClockReading | None = None
        self._there: set[Process] = set()
        self._began: dict[Process, ClockReading] = {}

    def look(self, now: ClockReading, there: set[Process]) -> None:
        """Notes which processes run, at a poll that cannot have missed one."""
        # After a jump it is not known on which side of it a process began.
        is_steady = self._looked is not None and abs(drift_ns(self._looked, now)) < STEADY_NS
        new = there - self._there if is_steady else set()

        # Those of before that still run keep their clocks; what has ended is forgotten.
        still_there = there & (self._began.keys() | new)
        self._began = {each: self._began.get(each, now) for each in still_there}
        self._looked = now
        self._there = there

    def started(self, process: Process) -> ClockReading | None:
        """Clocks that show the drift with which it started; None: its start was not observed."""
        return self._began.get(process)


def boottime_of_start_ns(pid: int, proc: Path = PROC) -> int:
    """When a process started, by the boottime clock. Raises OSError when it has gone, ValueError on
    nonsense."""
    stat = read_stat(pid, proc=proc)
    if stat is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return stat.started_ticks * NS_PER_S // os.sysconf("SC_CLK_TCK")


def pid_of_container(pod_uid: str, program: str, proc: Path = PROC) -> int | None:
    """The oldest process called `program` in the pod `pod_uid`, by the names of control groups;
    None: there is none."""
    # kubelet's systemd driver writes the uid with underscores, its cgroupfs driver with dashes.
    named = re.compile(re.escape(pod_uid).replace(r"\-", "[-_]"))
    found = []
    for path in proc.glob("[0-9]*"):
        pid = int(path.name)
        try:
            # The name first: it leaves a handful of processes whose control group is read.
            if (path / "comm").read_text().strip() != program:
                continue
            if named.search((path / "cgroup").read_text()):
                found.append((boottime_of_start_ns(pid, proc), pid))
        # It has just ended.
        except (OSError, ValueError, IndexError):
            continue

    if not found:
        return None
    _, oldest = min(found)
    return oldest
