"""Which waits of a running program a move of its clocks does not reach, and would falsify.

Problem: a program works out a deadline from a clock that we have moved, and hands it to the kernel,
which judges it by its own clock. After an hour's move, what wanted to sleep for a second sleeps for
an hour and a second: a hang, and nobody would know whose. Idea: the kernel shows of every waiting
thread what it called and with which arguments (/proc/PID/task/TID/syscall), so whoever moves clocks
can look first, and refuse by name.

    reached       epoll_wait and its kin: a kick ends them with EINTR, and their callers look at the clock again
                  (libuv, tokio, Go, asyncio, libevent: measured, docs/injectors.md)
    harmless      what waits without a deadline; what ends by itself within two seconds, or, of threads that wait to be
                  given work (futex), fifteen: pools end theirs after ten; a clock that is not moved
    not reached   sleeps and absolute deadlines in the kernel: nanosleep, clock_nanosleep, futex, poll, select, timerfd

A kick is a stop signal to the threads that wait in epoll, and a continue signal, which takes it
back as a rule before anything has stopped. Other threads are left alone: the kernel would begin
their waits anew.

Go's own futex waits with a timeout are not counted: they only bound how long Go's runtime sleeps,
and its timers are told by epoll. A wait that somebody has interrupted is shown as restart_syscall
with the arguments of the first call; which that was is told by their shape. Limits: a wait that
begins in the very moment between the look and the move; POSIX timers (timer_create), of which the
kernel tells nothing here.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from meshwake.clocks.injectors.programs import look_at
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS, NS_PER_S, seconds
from meshwake.core.errors import BadInput
from meshwake.system.libc import signal_thread, system_call_numbers

SHORT_NS, SHORT_IDLE_NS = 2 * NS_PER_S, 15 * NS_PER_S
_SETTLES_WITHIN_S = 0.25
_LOOK_EVERY_S = 0.001
_RUNS = -1
_RESTARTED = "restart_syscall"
_PAGE_BYTES = 4096
_A_CENTURY_NS = 100 * 366 * 86400 * NS_PER_S
# Calls that wait for a time, whose deadlines are looked at; number to name, of this machine.
_CALLS = system_call_numbers(
    "nanosleep",
    "clock_nanosleep",
    "futex",
    "futex_waitv",
    _RESTARTED,
    "poll",
    "ppoll",
    "select",
    "pselect6",
)
_EPOLL_WAITS = frozenset(system_call_numbers("epoll_wait", "epoll_pwait", "epoll_pwait2"))
_TIMESPEC_ARGUMENT = {"nanosleep": 0, "ppoll": 2, "pselect6": 4}
_FUTEX_WAIT, _FUTEX_WAIT_BITSET, _FUTEX_COMMAND = 0, 9, 0x7F
_FUTEX_PRIVATE, _FUTEX_WALL = 0x80, 0x100
_FUTEX_FLAGS = _FUTEX_PRIVATE | _FUTEX_WALL
_TIMER_ABSTIME = 1
_FOREVER_MS = 0x80000000
_KERNEL_CLOCKS = {"wall": 0, "monotonic": 1, "boottime": 7}
_CLOCKS = {0: "wall", 1: "monotonic", 7: "boottime", 8: "wall", 9: "boottime", 11: "wall"}


BECAUSE = (
    "the kernel judges the end of a wait of it by its own clock, so it would end too late by "
    "what was moved"
)


@dataclass(frozen=True)
class Wait:
    """A wait that a move would falsify."""

    tid: int
    how: str


@dataclass(frozen=True)
class Stranded:
    """Threads that sleep too long because of what was moved before; `all_of_it`: the program has no
    other thread."""

    waits: tuple[Wait, ...]
    all_of_it: bool


@dataclass(frozen=True)
class _Deadline:
    """What a thread waits for. `left_ns`: how long, where the deadline is relative; None: absolute,
    and a time of the kernel's `clock`, which stands at the address `until_at` of the process."""

    call: str
    clock: str
    left_ns: int | None
    until_at: int = 0


def unreached(pid: int, by: ClockReading) -> list[Wait]:
    """Waits of process `pid` that would not end when they should if its clocks were moved by so
    much; [] for a process that has ended. What may not be looked at (another user's) counts as
    none: it cannot be moved either."""
    moved = {
        clock: value
        for clock, value in zip(("wall", "monotonic", "boottime"), by, strict=True)
        if value
    }
    if not moved:
        return []
    found = []
    with suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            with suppress(OSError):
                deadline = _deadline_of(pid, int(task.name))
                if deadline is not None and (why := _why_unreached(deadline, moved)):
                    found.append(Wait(int(task.name), why))
        found += [Wait(pid, why) for why in _armed_timers(pid, moved)]
    return found


def stranded(pid: int, moved: ClockReading, least_ns: int = SHORT_NS) -> Stranded:
    """The threads of process `pid` that wait for a time which they worked out from clocks that are
    ahead by `moved`, and which the kernel judges by its own: until then is longer than half of what
    was moved, and than `least_ns`."""
    ahead = dict(zip(("wall", "monotonic", "boottime"), moved, strict=True))
    found, threads = [], 0
    with suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            threads += 1
            with suppress(OSError, struct.error):
                deadline = _deadline_of(pid, int(task.name))
                if deadline is None or deadline.left_ns is not None or ahead[deadline.clock] <= 0:
                    continue
                left_ns = _timespec_ns(pid, deadline.until_at) - time.clock_gettime_ns(
                    _KERNEL_CLOCKS[deadline.clock]
                )
                if left_ns > max(ahead[deadline.clock] // 2, least_ns):
                    found.append(
                        Wait(int(task.name), f"in {deadline.call} for {seconds(left_ns):.0f} s")
                    )
    return Stranded(tuple(found), bool(found) and len(found) == threads)


def waits_in_epoll(tid: int) -> bool:
    """Whether the first thread of process `tid` waits there for something to happen."""
    with suppress(OSError):
        return _call_of(tid, tid)[0] in _EPOLL_WAITS
    return False


def kick(*pids: int) -> None:
    """Makes the threads of processes that wait in epoll look at their clocks, after these were
    moved. A thread that ran at that moment may have read the old clock and be about to wait by it,
    so it is kicked in its next wait. A process that is stopped stays so."""
    give_up = time.monotonic() + _SETTLES_WITHIN_S
    ran = {pid: threads for pid in pids if (threads := _threads_of(pid))}
    while ran:
        ran = {
            pid: left
            for pid, threads in ran.items()
            if (left := _kick_those_that_wait(pid, threads))
        }
        if time.monotonic() > give_up:
            return
        time.sleep(_LOOK_EVERY_S)


def _threads_of(pid: int) -> set[int]:
    """Of a process that is not stopped, and has not ended."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {
            "T",
            "t",
            "Z",
            "X",
        }:
            return {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}
    return set()


def _kick_those_that_wait(pid: int, tids: set[int]) -> set[int]:
    """Those of `tids` that run."""
    ran, kicked = set(), False
    for tid in tids:
        with suppress(OSError):
            number, _ = _call_of(pid, tid)
            if number == _RUNS:
                ran.add(tid)
            elif number in _EPOLL_WAITS:
                signal_thread(pid, tid, signal.SIGSTOP)
                kicked = True
    if kicked:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return ran


def _why_unreached(deadline: _Deadline, moved: dict[str, int]) -> str | None:
    if deadline.left_ns is None:
        if deadline.clock not in moved:
            return None
        return f"in {deadline.call} until a time of the {deadline.clock} clock"
    if "monotonic" not in moved or deadline.left_ns < (
        SHORT_IDLE_NS if deadline.call == "futex" else SHORT_NS
    ):
        return None
    return f"in {deadline.call} for {seconds(deadline.left_ns):.3f} s"


def _deadline_of(pid: int, tid: int) -> _Deadline | None:
    """What a thread waits for in the kernel; None when it waits for no time, or for one that a kick
    reaches."""
    number, arguments = _call_of(pid, tid)
    call = _CALLS.get(number)
    if call == _RESTARTED:
        call = _first_call(pid, arguments)
    if call is None:
        return None
    if call == "clock_nanosleep":
        return _of_clock_nanosleep(pid, arguments)
    if call in ("futex", "futex_waitv"):
        return _of_futex(pid, call, arguments)
    return _of_sleep(pid, call, arguments)


def _call_of(pid: int, tid: int) -> tuple[int, list[int]]:
    """The number and the arguments of the system call that a thread waits in; _RUNS: in none."""
    words = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
    if len(words) < 7:  # "running", or "-1 SP PC": it waits in no call
        return _RUNS, []
    return int(words[0]), [int(word, 16) for word in words[1:7]]


def _first_call(pid: int, arguments: list[int]) -> str:
    """Of the four calls that the kernel restarts so, the one whose arguments look like these."""
    first, second = arguments[0], arguments[1]
    if 0 < first < _PAGE_BYTES:
        return "clock_nanosleep"
    if second & ~_FUTEX_FLAGS in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET) and second & _FUTEX_PRIVATE:
        return "futex"
    if (
        first
        and (second == 0 or second >= _PAGE_BYTES)
        and 0 < _timespec_ns(pid, first) < _A_CENTURY_NS
    ):
        return "nanosleep"
    return "poll"


def _of_clock_nanosleep(pid: int, arguments: list[int]) -> _Deadline | None:
    clock = _CLOCKS.get(arguments[0])
    if clock is None:
        return None
    if arguments[1] & _TIMER_ABSTIME:
        return _Deadline("clock_nanosleep", clock, None, arguments[2])
    return _Deadline("clock_nanosleep", "monotonic", _timespec_ns(pid, arguments[2]))


def _of_futex(pid: int, call: str, arguments: list[int]) -> _Deadline | None:
    if call == "futex_waitv":
        clock = _CLOCKS.get(arguments[4], "monotonic")
        return _Deadline(call, clock, None, arguments[3]) if arguments[3] else None
    command, timeout_at = arguments[1] & _FUTEX_COMMAND, arguments[3]
    if not timeout_at:
        return None
    if command == _FUTEX_WAIT_BITSET:
        return _Deadline(
            "futex", "wall" if arguments[1] & _FUTEX_WALL else "monotonic", None, timeout_at
        )
    if command == _FUTEX_WAIT and not _is_go(pid):
        return _Deadline("futex", "monotonic", _timespec_ns(pid, timeout_at))
    return None


def _of_sleep(pid: int, call: str, arguments: list[int]) -> _Deadline | None:
    if call == "poll":
        timeout_ms = arguments[2] & 0xFFFFFFFF
        return (
            None
            if timeout_ms >= _FOREVER_MS
            else _Deadline(call, "monotonic", timeout_ms * NS_PER_MS)
        )
    address = arguments[4 if call == "select" else _TIMESPEC_ARGUMENT[call]]
    if not address:
        return None
    parts_ns = 1000 if call == "select" else 1  # a timeval counts microseconds
    return _Deadline(call, "monotonic", _timespec_ns(pid, address, parts_ns))


def _timespec_ns(pid: int, address: int, parts_ns: int = 1) -> int:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole, parts = struct.unpack("<qq", os.pread(memory, 16, address))
    finally:
        os.close(memory)
    return int(whole * NS_PER_S + parts * parts_ns)


def _is_go(pid: int) -> bool:
    try:
        return look_at(Path(f"/proc/{pid}/exe")).is_go
    except BadInput:
        return False


def _armed_timers(pid: int, moved: dict[str, int]) -> Iterator[str]:
    """Timers that a process waits for by a file (timerfd), by what the kernel tells of the file."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError, KeyError, ValueError, IndexError):
            if str(entry.readlink()) != "anon_inode:[timerfd]":
                continue
            lines = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().splitlines()
            told = dict(line.split(":", 1) for line in lines if ":" in line)
            whole, parts = told["it_value"].strip(" ()").split(",")
            left_ns = int(whole) * NS_PER_S + int(parts)
            if left_ns:
                is_absolute = int(told["settime flags"], 8) & _TIMER_ABSTIME
                clock = _CLOCKS[int(told["clockid"])]
                deadline = _Deadline("a timerfd", clock, None if is_absolute else left_ns)
                if why := _why_unreached(deadline, moved):
                    yield why
