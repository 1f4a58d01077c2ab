"""Are all threads of a process asleep in the kernel, and until when do they want to sleep?

The kernel shows for every thread what system call it is in and with which arguments
(/proc/PID/task/TID/syscall). The next deadline of a process is the earliest timeout that one of its
threads has handed to epoll_wait, counted from the virtual time at which it went to sleep.

Threads that wait do not notice that their clock has moved. One whose deadline has come is *woken*:
by its runtime's own event (eventfd.py), or by SIGSTOP and SIGCONT, which end epoll_wait with EINTR;
tokio and Go then read their clocks again (measured; docs/time-skipping.md says for which programs
that is true).

Polls are cheap: a process whose CPU time is what it was when all its threads were last seen asleep
need not be polled again, unless something may have woken a thread of it that has not run yet: a
wake-up of ours, or a packet. (What else wakes a thread is its own timeout in real time; it then
finds nothing due.) A clock of the kernel that counts nanoseconds, and one system call, take the
place of five for every thread.

Threads that sleep in a real-time loop (nanosleep) are asleep for this purpose; their timeouts are
the kernel's.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field

from meshwake.clocks.quiescence.eventfd import EpollWaker, find_waker
from meshwake.core.durations import NS_PER_MS
from meshwake.core.errors import SubjectFailed
from meshwake.system.libc import signal_thread, system_call_numbers

# --- /proc/PID/task/TID/syscall -------------------------------------------------------------------

# proc(5); fs/proc/base.c, proc_pid_syscall. One line: the number of the call, its six arguments,
# the stack pointer and the program counter ("232 0x4 0x7f... 0x400 0x2ee0 0x0 0x0 0x7ffd...
# 0x7f..."). "-1" and two addresses: blocked in the kernel, and in no call (a page fault).
# "running": all else.
_RUNNING = b"running"
_NOT_IN_A_CALL = b"-1"
# proc(5), /proc/PID/stat: sleeping in an interruptible wait.
_ASLEEP = b"S"
_TIMEOUT_WORD = 4  # epoll_wait(epfd, events, maxevents, timeout): the fourth argument
_EPOLL_WORD = 1
# The whole line: nine words of at most eighteen characters. Of a stat file, the name of the program
# (which may be 64 characters long) and the state behind it; schedstat is three numbers.
_SYSCALL_BYTES = 256
_STAT_BYTES = 1024
_SCHEDSTAT_BYTES = 128


def _as_shown(*names: str) -> frozenset[bytes]:
    """Numbers of system calls in the form of that file."""
    return frozenset(str(number).encode() for number in system_call_numbers(*names))


# To sleep in one of these is to wait for something to happen. Only the timeout of the first two is
# an argument; the others are waits whose ends are none of our business, or without an end.
_EPOLL_WAITS = _as_shown("epoll_wait", "epoll_pwait")
# Its timeout is a struct in memory, which is not read here: see WatchedProcess._is_wait.
_EPOLL_PWAIT2 = _as_shown("epoll_pwait2")
_WAITS = _EPOLL_WAITS | _as_shown(
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "pause",
    "nanosleep",
    "clock_nanosleep",
    "wait4",
    "rt_sigtimedwait",
    "rt_sigsuspend",
    "futex",
    "restart_syscall",
)
# A timeout is an int: minus one, shown as a register of 64 bits, is for ever.
_INT_MASK = 0xFFFF_FFFF
_NEGATIVE_INT = 0x8000_0000

# --- CPU time of a process ------------------------------------------------------------------------

# include/linux/posix-timers.h, MAKE_PROCESS_CPUCLOCK: a clock id made of a process id and the kind
# of time, here CPUCLOCK_SCHED: nanoseconds on a CPU, summed over all threads, also those that
# ended.
_CPUCLOCK_SCHED = 2
# The id is (~pid << 3) | kind, so every such id is negative.
_CPUCLOCK_PID_SHIFT = 3
_HAS_ENDED = -1
# No CPU time is ever that: not known, or something may have woken a thread since.
_UNKNOWN = -2


@dataclass(eq=False)
class _Thread:
    """One thread: files kept open, and the wait it was last seen in."""

    syscall_file: int
    schedstat_file: int
    stat_file: int
    # The line of `syscall_file` that `timeout_ns` was read from.
    call: bytes = b""
    timeout_ns: int | None = None
    # What schedstat read when `due_monotonic_ns` was computed: it changes when the thread has run.
    ran: bytes = b""
    due_monotonic_ns: int | None = None
    # When it was polled last, or woken by us since.
    awake: bool = True

    def close(self) -> None:
        os.close(self.syscall_file)
        os.close(self.schedstat_file)
        os.close(self.stat_file)


@dataclass(eq=False)
class WatchedProcess:
    """A process whose threads must be asleep before time moves. `waits_virtually`: its clocks are
    ours, so its timeouts are deadlines (a subject); otherwise it only has to be idle (the
    authority)."""

    pid: int
    name: str
    waits_virtually: bool = True
    stopped: bool = False  # frozen or asleep by a fault: neither busy nor waiting
    _threads: dict[str, _Thread] = field(default_factory=dict)
    # By the epoll that a thread waits in; None: it has no waker, and gets signals.
    _wakers: dict[bytes, EpollWaker | None] = field(default_factory=dict)
    _due_ns: int | None = None
    # CPU time just before its threads were last polled, and when all of them slept.
    _polled_at_cpu_ns: int = _HAS_ENDED
    _asleep_at_cpu_ns: int = _UNKNOWN

    # Is it asleep?

    def asleep(self, monotonic_now_ns: int) -> bool:
        """Whether every thread sleeps in the kernel; notes what each waits for."""
        self._asleep_at_cpu_ns = _UNKNOWN

        # Before the threads: one that runs while they are polled is noticed by `still_asleep`.
        self._polled_at_cpu_ns = self._cpu_ns()
        try:
            if not self._all_threads_asleep(monotonic_now_ns):
                return False
        except (FileNotFoundError, ProcessLookupError):
            # A thread, or the whole process, has ended meanwhile.
            self._forget()
            return False
        self._due_ns = self._earliest_deadline()
        return True

    def still_asleep(self) -> bool:
        """Whether no thread has run since the last `asleep`, which returned True, and none has been
        woken that has not run yet."""
        # The states first: a thread that is awake in neither has not run between the two.
        if self._is_any_awake() or self._cpu_ns() != self._polled_at_cpu_ns:
            return False
        self._asleep_at_cpu_ns = self._polled_at_cpu_ns
        return True

    def known_asleep(self) -> bool:
        """Whether every thread still sleeps for certain, without polling them, provided that no
        packet has come for it since."""
        return self._asleep_at_cpu_ns == self._cpu_ns()

    def check_alive(self) -> None:
        """Raises SubjectFailed when it has ended. (A process that has ended looks asleep.)"""
        with suppress(ChildProcessError):  # not a child of ours: then its end is not our business
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                raise SubjectFailed(f"{self.name} ended by itself ({describe_end(status)})")

    def due_monotonic_ns(self) -> int | None:
        """The earliest deadline of any thread on its monotonic clock, as of the last `asleep`;
        None: it waits for ever."""
        return self._due_ns

    def _all_threads_asleep(self, monotonic_now_ns: int) -> bool:
        # Those that were awake at the last poll come first: most polls of a busy process end there.
        first = [one for one in self._threads.values() if one.awake]
        if not self._are_asleep(first, monotonic_now_ns):
            return False
        self._find_threads()
        rest = [one for one in self._threads.values() if one not in first]
        return self._are_asleep(rest, monotonic_now_ns)

    def _are_asleep(self, threads: list[_Thread], monotonic_now_ns: int) -> bool:
        return all(self._thread_asleep(thread, monotonic_now_ns) for thread in threads)

    def _thread_asleep(self, thread: _Thread, monotonic_now_ns: int) -> bool:
        call = os.pread(thread.syscall_file, _SYSCALL_BYTES, 0)
        thread.awake = False
        if call != thread.call:
            if call.startswith(_RUNNING) or not self._is_wait(call, thread):
                thread.call, thread.awake = b"", True
                return False
            thread.call, thread.ran, thread.due_monotonic_ns = call, b"", None
            thread.timeout_ns = _timeout_ns(call) if self.waits_virtually else None
        if thread.timeout_ns is not None:
            # The same line can be another wait: the thread has run and waits for as long again. Its
            # deadline is later then.
            ran = os.pread(thread.schedstat_file, _SCHEDSTAT_BYTES, 0)
            if ran != thread.ran:
                thread.ran, thread.due_monotonic_ns = ran, monotonic_now_ns + thread.timeout_ns
        return True

    def _is_wait(self, call: bytes, thread: _Thread) -> bool:
        """Whether what a thread sleeps in is a wait, and not work: a page being read from a slow
        disk, for example."""
        number = call.split(maxsplit=1)[0]
        if number in _EPOLL_PWAIT2 and self.waits_virtually:
            raise SubjectFailed(
                f"{self.name} waits with epoll_pwait2, whose deadline meshwake cannot read "
                "yet; please report it"
            )
        if number in _WAITS or number in _EPOLL_PWAIT2:
            return True

        # Any other call, a read for example: a wait if it can be interrupted by a signal (S), work
        # of the kernel if it cannot (D).
        return number != _NOT_IN_A_CALL and self._state(thread) == _ASLEEP

    def _is_any_awake(self) -> bool:
        """Whether any thread is in another state than sleep.

        A thread that has been woken and waits for a processor has used no CPU time yet. Its
        `syscall` line does not always show it: while the wake-up is on its way to another processor
        (TASK_WAKING, kernel/sched/core.c, ttwu_queue_wakelist) the line is still that of the wait.
        In a virtual machine whose processors are themselves scheduled that lasts for milliseconds.
        The state in `stat` is R from the moment of the wake-up. (Without this, a guest of a busy
        machine was leapt over 752 s in which its kernel had a timer.)
        """
        try:
            return any(self._state(thread) != _ASLEEP for thread in self._threads.values())
        except (FileNotFoundError, ProcessLookupError):
            self._forget()
            return True

    def _state(self, thread: _Thread) -> bytes:
        # The state follows the program's name, which may hold brackets.
        return os.pread(thread.stat_file, _STAT_BYTES, 0).rsplit(b")", 1)[-1].split(maxsplit=1)[0]

    def _cpu_ns(self) -> int:
        """The CPU time of all its threads, those that have ended too; -1: the process has ended."""
        try:
            return time.clock_gettime_ns(~self.pid << _CPUCLOCK_PID_SHIFT | _CPUCLOCK_SCHED)
        except OSError:
            return _HAS_ENDED

    def _earliest_deadline(self) -> int | None:
        deadlines = [thread.due_monotonic_ns for thread in self._threads.values()]
        return min((due_ns for due_ns in deadlines if due_ns is not None), default=None)

    # Which threads there are

    def _find_threads(self) -> None:
        if self._thread_count() == len(self._threads):
            return
        directory = f"/proc/{self.pid}/task"
        present = set(os.listdir(directory))  # noqa: PTH208  # as in _thread_count
        if not present:
            raise ProcessLookupError
        for tid in self._threads.keys() - present:
            self._threads.pop(tid).close()
        for tid in sorted(present - self._threads.keys()):
            self._threads[tid] = _open_thread(f"{directory}/{tid}")

    def _thread_count(self) -> int:
        # A directory has a link for each directory in it, one for its own name and one for its ".".
        # At every poll: a Path costs more than the call.
        return os.stat(f"/proc/{self.pid}/task").st_nlink - 2  # noqa: PTH116

    def _forget(self) -> None:
        for thread in self._threads.values():
            thread.close()
        self._threads.clear()
        for waker in self._wakers.values():
            if waker is not None:
                waker.close()
        self._wakers.clear()
        self._due_ns = None

    # Waking and stopping it

    def wake(self, monotonic_now_ns: int) -> None:
        """Makes every thread whose deadline has come read its clock again.

        A runtime of Rust has an event of its own in each epoll, by which its threads wake one that
        waits there: so do we. Otherwise a stop signal is sent to the thread, which ends its
        epoll_wait with EINTR, and the continue signal that follows takes it back, as a rule before
        it has happened: a tenth of what it costs to stop all threads and wait for that.
        """
        self._asleep_at_cpu_ns = _UNKNOWN
        signalled = False
        for tid, thread in self._threads.items():
            due_ns = thread.due_monotonic_ns
            if due_ns is None or due_ns > monotonic_now_ns:
                continue
            thread.awake = True
            if not self._wake_by_event(thread):
                with suppress(ProcessLookupError):
                    signal_thread(self.pid, int(tid), signal.SIGSTOP)
                signalled = True
        if signalled:
            os.kill(self.pid, signal.SIGCONT)

    def _wake_by_event(self, thread: _Thread) -> bool:
        epoll = thread.call.split(None, _EPOLL_WORD + 1)[_EPOLL_WORD]
        if epoll not in self._wakers:
            self._wakers[epoll] = find_waker(self.pid, int(epoll, 16))
        waker = self._wakers[epoll]
        return waker is not None and waker.wake()

    def stop(self) -> None:
        """Stops it as a freezer does; clocks are not touched. Returns when it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise SubjectFailed(f"{self.name} ended by itself ({describe_end(status)})")
        self.stopped = True

    def resume(self) -> None:
        """The reverse of `stop`; also makes it read its clocks."""
        self.stopped = False
        self._asleep_at_cpu_ns = _UNKNOWN
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Closes all files; the process is not touched."""
        self._forget()


def _open_thread(directory: str) -> _Thread:
    """Files of /proc are read again and again by pread from the same descriptor: opening one costs
    several times what reading it does."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    syscall_file = os.open(f"{directory}/syscall", flags)
    schedstat_file = os.open(f"{directory}/schedstat", flags)
    stat_file = os.open(f"{directory}/stat", flags)
    return _Thread(syscall_file, schedstat_file, stat_file)


def _timeout_ns(call: bytes) -> int | None:
    """How long the wait lasts that a line of /proc/PID/task/TID/syscall shows. None: for ever, or
    not a wait whose timeout counts."""
    words = call.split()
    if words[0] not in _EPOLL_WAITS:
        return None
    timeout_ms = int(words[_TIMEOUT_WORD], 16) & _INT_MASK
    return None if timeout_ms >= _NEGATIVE_INT else timeout_ms * NS_PER_MS


def describe_end(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
