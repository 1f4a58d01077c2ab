"""/proc/PID/stat: what Linux says of a process or thread in one line (proc(5); fs/proc/array.c).

The second field, the name of the program, is in parentheses and may hold spaces and parentheses, so
only what follows the last one is split.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

# Numbers of the manual page, less the two fields up to the name, less one.
_STATE, _PARENT, _FLAGS, _USER, _SYSTEM, _STARTED = 0, 1, 6, 11, 12, 19
# include/linux/sched.h. Set when a process begins to exit: its memory goes next, and some time
# later its state becomes Z.
_PF_EXITING = 0x4
# Z: has ended, its parent has not read the status yet. X: ended, and gone in a moment.
_ENDED_STATES = frozenset({"Z", "X"})
# T: stopped by a signal. t: stopped by a tracer.
_STOPPED_STATES = frozenset({"T", "t"})


class ProcessStat(NamedTuple):
    """`state`: one letter. Times are in clock ticks (`os.sysconf("SC_CLK_TCK")` a second), the
    start since boot by CLOCK_BOOTTIME. The start and the pid together name a process."""

    state: str
    parent: int
    flags: int
    user_ticks: int
    system_ticks: int
    started_ticks: int

    @property
    def has_ended(self) -> bool:
        """Only its status is left."""
        return self.state in _ENDED_STATES

    @property
    def is_ending(self) -> bool:
        """It has ended, or executes no more of its program."""
        return self.has_ended or bool(self.flags & _PF_EXITING)

    @property
    def is_stopped(self) -> bool:
        """By a signal or a tracer."""
        return self.state in _STOPPED_STATES


def parse_stat(text: str) -> ProcessStat:
    """Raises ValueError for anything else than the text of such a file."""
    # The name of a program may hold a parenthesis itself: the last one ends it.
    after_name = text.rpartition(")")[2]
    fields = after_name.split()
    if len(fields) <= _STARTED:
        raise ValueError(f"{len(fields)} fields, expected at least {_STARTED + 1}")

    return ProcessStat(
        state=fields[_STATE],
        parent=int(fields[_PARENT]),
        flags=int(fields[_FLAGS]),
        user_ticks=int(fields[_USER]),
        system_ticks=int(fields[_SYSTEM]),
        started_ticks=int(fields[_STARTED]),
    )


def read_stat(pid: int, tid: int | None = None, proc: Path = Path("/proc")) -> ProcessStat | None:
    """Of a process, or of a thread of it; None when it is not there (any more)."""
    folder = proc / str(pid)
    if tid is not None:
        folder = folder / "task" / str(tid)

    try:
        # A program may give itself a name in any bytes.
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None

    # It ended between opening and reading.
    if not text:
        return None
    return parse_stat(text)


def is_ending(pid: int, tid: int | None = None) -> bool:
    """Whether it has ended or is about to; of the first thread of a process also when others of it
    go on."""
    stat = read_stat(pid, tid)
    return stat is None or stat.is_ending


def is_running(pid: int) -> bool:
    """Neither stopped nor ended."""
    stat = read_stat(pid)
    if stat is None:
        return False
    return not stat.is_stopped and not stat.has_ended


def started_ticks(pid: int) -> int | None:
    """When it was started, in clock ticks since the boot. Together with the pid this names a
    process; None when it is not there or only its status is left."""
    stat = read_stat(pid)
    if stat is None or stat.has_ended:
        return None
    return stat.started_ticks
