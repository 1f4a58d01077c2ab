"""Which waits of a running program a move of its clocks does not reach, and would falsify.

Problem: a program works out a deadline from a clock that we have moved, and hands it to the kernel,
which judges it by its own clock. After an hour's move, what wanted to sleep for a second sleeps for
an hour and a second: a hang of unknown origin. Idea: the kernel shows of every waiting
thread what it called and with which arguments (/proc/PID/task/TID/syscall), so they are read
before clocks are moved, and a move is refused by name.

    reached       epoll_wait and its kin: a wake-up ends them with EINTR, and their callers read the
                  clock again (libuv, tokio, Go, asyncio, libevent: measured, docs/injectors.md)
    harmless      what waits without a deadline; what ends by itself within two seconds, or, of
                  threads that wait to be given work (futex), fifteen: pools end theirs after ten; a
                  clock that is not moved
    not reached   sleeps and absolute deadlines in the kernel: nanosleep, clock_nanosleep, futex,
                  poll, select, timerfd

A wake-up is a stop signal to the threads that wait in epoll, and a continue signal, which takes it
back as a rule before anything has stopped. Other threads are left alone: the kernel would begin
their waits again.

Go's own futex waits with a timeout are not counted: they only bound how long Go's runtime sleeps,
and its timers go by epoll. A wait that was interrupted is shown as restart_syscall with the
arguments of the first call; which that was can be seen from their shape. Limits: a wait that begins
in the very moment between the reading and the move; POSIX timers (timer_create), which the kernel
does not show here."""

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
from meshwake.system.deadline import Deadline
from meshwake.system.libc import TFD_TIMER_ABSTIME, signal_thread, system_call_numbers
from meshwake.system.process_stat import is_running

# A wait that ends by itself so soon is not worth a refusal; nor is that of a pool's idle thread.
SHORT_NS = 2 * NS_PER_S
SHORT_IDLE_NS = 15 * NS_PER_S
_SETTLES_WITHIN_S = 0.25
_POLL_EVERY_S = 0.001
_RUNS = -1
_INT_MASK = 0xFFFF_FFFF
# A timeout of poll is an int of milliseconds; below zero it is for ever.
_NEGATIVE_INT = 0x8000_0000

# --- Which call, and where its deadline is --------------------------------------------------------

_RESTARTED = "restart_syscall"
# Calls that wait for a time, whose deadlines are read; number to name, of this machine.
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
# A line of /proc/PID/task/TID/syscall has the number, six arguments, stack pointer and program
# counter; with fewer words the thread is in no call.
_ARGUMENTS = slice(1, 7)
_WORDS_OF_A_CALL = 7
# Which argument points to a timespec (counted from 0), and for select to a timeval.
_TIMESPEC_ARGUMENT = {"nanosleep": 0, "ppoll": 2, "pselect6": 4}
_TIMEVAL_ARGUMENT = 4
_POLL_TIMEOUT_ARGUMENT = 2  # poll(fds, nfds, timeout), in milliseconds
# Both are two numbers of 64 bits: seconds, and nanoseconds or microseconds.
_TWO_NUMBERS = struct.Struct("<qq")
_NS_PER_US = 1000

# clock_nanosleep(clock, flags, request, remain); flags as for timerfd_settime.
_NANOSLEEP_CLOCK, _NANOSLEEP_FLAGS, _NANOSLEEP_REQUEST = 0, 1, 2
_TIMER_ABSTIME = TFD_TIMER_ABSTIME

# futex(address, operation, value, timeout, ...): include/uapi/linux/futex.h; futex(2).
_FUTEX_OPERATION, _FUTEX_TIMEOUT = 1, 3
_FUTEX_WAIT = 0  # its timeout is relative
_FUTEX_WAIT_BITSET = 9  # its timeout is absolute, and what glibc uses
_FUTEX_COMMAND_MASK = 0x7F
_FUTEX_PRIVATE = 0x80  # not shared between processes
_FUTEX_WALL = 0x100  # FUTEX_CLOCK_REALTIME
_FUTEX_FLAGS = _FUTEX_PRIVATE | _FUTEX_WALL
# futex_waitv(waiters, how many, flags, timeout, clock): always absolute.
_WAITV_TIMEOUT, _WAITV_CLOCK = 3, 4

# --- Clocks: include/uapi/linux/time.h ------------------------------------------------------------

_KERNEL_CLOCKS = {"wall": 0, "monotonic": 1, "boottime": 7}
# And those that follow one of them: 8 CLOCK_REALTIME_ALARM, 9 CLOCK_BOOTTIME_ALARM, 11 CLOCK_TAI.
_CLOCKS = {0: "wall", 1: "monotonic", 7: "boottime", 8: "wall", 9: "boottime", 11: "wall"}

# To distinguish the arguments of a call that is shown as restart_syscall: no pointer is below the
# first page, and no program sleeps for a century.
_PAGE_BYTES = 4096
_A_CENTURY_NS = 100 * 366 * 86400 * NS_PER_S


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
class UnreachableWaits:
    """Threads that sleep too long, because they are blocked on an absolute deadline of the kernel
    which they computed from moved clocks; `all_of_it`: the program has no other thread."""

    waits: tuple[Wait, ...]
    all_of_it: bool


@dataclass(frozen=True)
class _Deadline:
    """What a thread waits for. `left_ns`: how long, where the deadline is relative; None: absolute,
    and a time of the kernel's `clock`, which is at the address `until_at` of the process."""

    call: str
    clock: str
    left_ns: int | None
    until_at: int = 0


def unreached(pid: int, by: ClockReading) -> list[Wait]:
    """Waits of process `pid` that would not end when they should if its clocks were moved by so
    much; [] for a process that has ended. What cannot be read (another user's) counts as none: it
    cannot be moved either."""
    moved = {clock: moved_ns for clock, moved_ns in _by_clock(by).items() if moved_ns}
    if not moved:
        return []
    found = []
    with suppress(OSError):
        for tid in _tids(pid):
            # One thread that has ended, or may not be read, does not hide the others.
            with suppress(OSError):
                deadline = _deadline_of(pid, tid)
                why = None if deadline is None else _why_unreached(deadline, moved)
                if why is not None:
                    found.append(Wait(tid, why))
        # timerfds belong to no thread: any of them, or epoll, may wait for one.
        found += [Wait(pid, why) for why in _armed_timers(pid, moved)]
    return found


def unreachable_waits(pid: int, moved: ClockReading, least_ns: int = SHORT_NS) -> UnreachableWaits:
    """The threads of process `pid` that wait for a time which they computed from clocks that are
    ahead by `moved`, and which the kernel judges by its own: until then is longer than half of what
    was moved, and than `least_ns`."""
    ahead = _by_clock(moved)
    found, threads = [], 0
    with suppress(OSError):
        for tid in _tids(pid):
            threads += 1
            with suppress(OSError, struct.error):
                deadline = _deadline_of(pid, tid)
                if deadline is not None and (why := _why_too_long(pid, deadline, ahead, least_ns)):
                    found.append(Wait(tid, why))
    return UnreachableWaits(tuple(found), bool(found) and len(found) == threads)


def _why_too_long(
    pid: int, deadline: _Deadline, ahead: dict[str, int], least_ns: int
) -> str | None:
    ahead_ns = ahead[deadline.clock]
    if deadline.left_ns is not None or ahead_ns <= 0:
        return None
    now_ns = time.clock_gettime_ns(_KERNEL_CLOCKS[deadline.clock])
    left_ns = _timespec_ns(pid, deadline.until_at) - now_ns

    # Half: a wait that was meant to be that long would look the same.
    if left_ns <= max(ahead_ns // 2, least_ns):
        return None
    return f"in {deadline.call} for {seconds(left_ns):.0f} s"


def _by_clock(reading: ClockReading) -> dict[str, int]:
    return dict(zip(("wall", "monotonic", "boottime"), reading, strict=True))


def _tids(pid: int) -> list[int]:
    return [int(task.name) for task in sorted(Path(f"/proc/{pid}/task").iterdir())]


def waits_in_epoll(tid: int) -> bool:
    """Whether the first thread of process `tid` waits there for something to happen."""
    with suppress(OSError):
        return _call_of(tid, tid)[0] in _EPOLL_WAITS
    return False


def wake_epoll_waits(*pids: int) -> None:
    """Makes the threads of processes that wait in epoll read their clocks, after these were moved.
    A thread that ran at that moment may have read the old clock and be about to wait by it, so it
    is woken from its next wait. A process that is stopped stays so."""
    deadline = Deadline("threads that run to wait again", _SETTLES_WITHIN_S)
    ran = {pid: _threads_that_may_wait(pid) for pid in pids}
    while any(ran.values()):
        for pid, tids in ran.items():
            ran[pid] = _wake_those_that_wait(pid, tids)
        if deadline.has_passed:
            return
        deadline.sleep(_POLL_EVERY_S)


def _threads_that_may_wait(pid: int) -> set[int]:
    """Those of a process that is not stopped, and has not ended."""
    if is_running(pid):
        with suppress(OSError):
            return set(_tids(pid))
    return set()


def _wake_those_that_wait(pid: int, tids: set[int]) -> set[int]:
    """Returns those of `tids` that run, and have to be woken later."""
    ran, signalled = set(), False
    for tid in tids:
        with suppress(OSError):
            number, _ = _call_of(pid, tid)
            if number == _RUNS:
                ran.add(tid)
            elif number in _EPOLL_WAITS:
                signal_thread(pid, tid, signal.SIGSTOP)
                signalled = True
    if signalled:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return ran


def _why_unreached(deadline: _Deadline, moved: dict[str, int]) -> str | None:
    if deadline.left_ns is None:
        if deadline.clock not in moved:
            return None
        return f"in {deadline.call} until a time of the {deadline.clock} clock"
    short_ns = SHORT_IDLE_NS if deadline.call == "futex" else SHORT_NS
    if "monotonic" not in moved or deadline.left_ns < short_ns:
        return None
    return f"in {deadline.call} for {seconds(deadline.left_ns):.3f} s"


def _deadline_of(pid: int, tid: int) -> _Deadline | None:
    """What a thread waits for in the kernel; None when it waits for no time, or for one that a
    wake-up reaches."""
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
    if len(words) < _WORDS_OF_A_CALL:  # "running", or "-1 SP PC": it waits in no call
        return _RUNS, []
    return int(words[0]), [int(word, 16) for word in words[_ARGUMENTS]]


def _first_call(pid: int, arguments: list[int]) -> str:
    """Of the four calls that the kernel restarts so, the one whose arguments look like these."""
    first, second = arguments[0], arguments[1]
    if 0 < first < _PAGE_BYTES:
        return "clock_nanosleep"  # it begins with a clock; the others begin with a pointer
    if _is_futex_wait(second):
        return "futex"
    if _is_nanosleep(pid, first, second):
        return "nanosleep"
    return "poll"


def _is_futex_wait(operation: int) -> bool:
    """Whether that is a wait of the kind that all runtimes use. Without the private flag it would
    be a number that anything might be."""
    command = operation & ~_FUTEX_FLAGS
    return command in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET) and bool(operation & _FUTEX_PRIVATE)


def _is_nanosleep(pid: int, request: int, remain: int) -> bool:
    """nanosleep(request, remain): two pointers, of which the second may be null, and a
    plausible time."""
    is_pointer_or_null = remain == 0 or remain >= _PAGE_BYTES
    if not request or not is_pointer_or_null:
        return False
    return 0 < _timespec_ns(pid, request) < _A_CENTURY_NS


def _of_clock_nanosleep(pid: int, arguments: list[int]) -> _Deadline | None:
    clock = _CLOCKS.get(arguments[_NANOSLEEP_CLOCK])
    if clock is None:  # CPU time, for example: it is not moved
        return None
    request = arguments[_NANOSLEEP_REQUEST]
    if arguments[_NANOSLEEP_FLAGS] & _TIMER_ABSTIME:
        return _Deadline("clock_nanosleep", clock, None, request)

    # Relative sleeps are counted on the monotonic clock, whatever clock was named.
    return _Deadline("clock_nanosleep", "monotonic", _timespec_ns(pid, request))


def _of_futex(pid: int, call: str, arguments: list[int]) -> _Deadline | None:
    if call == "futex_waitv":
        return _of_futex_waitv(arguments)
    operation, timeout_at = arguments[_FUTEX_OPERATION], arguments[_FUTEX_TIMEOUT]
    if not timeout_at:
        return None  # it waits for ever
    command = operation & _FUTEX_COMMAND_MASK
    if command == _FUTEX_WAIT_BITSET:
        clock = "wall" if operation & _FUTEX_WALL else "monotonic"
        return _Deadline("futex", clock, None, timeout_at)
    if command == _FUTEX_WAIT and not _is_go(pid):
        return _Deadline("futex", "monotonic", _timespec_ns(pid, timeout_at))
    return None


def _of_futex_waitv(arguments: list[int]) -> _Deadline | None:
    if not arguments[_WAITV_TIMEOUT]:
        return None
    clock = _CLOCKS.get(arguments[_WAITV_CLOCK], "monotonic")
    return _Deadline("futex_waitv", clock, None, arguments[_WAITV_TIMEOUT])


def _of_sleep(pid: int, call: str, arguments: list[int]) -> _Deadline | None:
    if call == "poll":
        timeout_ms = arguments[_POLL_TIMEOUT_ARGUMENT] & _INT_MASK
        if timeout_ms >= _NEGATIVE_INT:
            return None
        return _Deadline(call, "monotonic", timeout_ms * NS_PER_MS)
    if call == "select":
        address, parts_ns = arguments[_TIMEVAL_ARGUMENT], _NS_PER_US
    else:
        address, parts_ns = arguments[_TIMESPEC_ARGUMENT[call]], 1
    if not address:
        return None
    return _Deadline(call, "monotonic", _timespec_ns(pid, address, parts_ns))


def _timespec_ns(pid: int, address: int, parts_ns: int = 1) -> int:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole, parts = _TWO_NUMBERS.unpack(os.pread(memory, _TWO_NUMBERS.size, address))
    finally:
        os.close(memory)
    return int(whole * NS_PER_S + parts * parts_ns)


def _is_go(pid: int) -> bool:
    try:
        return look_at(Path(f"/proc/{pid}/exe")).is_go
    except BadInput:
        return False


def _armed_timers(pid: int, moved: dict[str, int]) -> Iterator[str]:
    """Timers that a process waits for by a file (timerfd), by what the kernel shows of the file."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # The file may be closed meanwhile; and what a kernel shows otherwise is skipped.
        with suppress(OSError, KeyError, ValueError, IndexError):
            if str(entry.readlink()) == "anon_inode:[timerfd]":
                deadline = _of_timerfd(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text())
                if deadline is not None and (why := _why_unreached(deadline, moved)):
                    yield why


def _of_timerfd(text: str) -> _Deadline | None:
    """fs/timerfd.c, timerfd_show: lines such as "clockid: 1", "settime flags: 01" (octal), and
    "it_value: (3599, 999000000)": what is left, seconds and nanoseconds, zero when it is not
    armed."""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    whole, parts = fields["it_value"].strip(" ()").split(",")
    left_ns = int(whole) * NS_PER_S + int(parts)
    if not left_ns:
        return None
    is_absolute = int(fields["settime flags"], 8) & _TIMER_ABSTIME
    clock = _CLOCKS[int(fields["clockid"])]
    return _Deadline("a timerfd", clock, None if is_absolute else left_ns)
