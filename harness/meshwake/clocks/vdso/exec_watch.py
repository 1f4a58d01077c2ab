"""Catches programs at their exec, before their first instruction: for processes that are started by
others (Linux, root).

Problem: a ztunnel that is restarted under a moved clock takes its time base with its first
instructions. A helper that finds the new process and attaches to it comes too late: the base is
then taken on the kernel's clocks, and the program starts with a drift that it would not have.

Idea: fanotify asks us before a marked file is executed (FAN_OPEN_EXEC_PERM), and the exec waits for
our answer. While it waits we begin to trace the thread (PTRACE_SEIZE with TRACEEXEC), then we let
the exec go on; the kernel stops the process at the end of the exec, and there the clock page is put
in. Two kinds of files are marked:

    programs    the executable itself. A mark belongs to a file of one mounted file system, and a
                new container has a new one, so this catches what is started again in a container
                that is known.
    launchers   the container runtime's binary on the node (runc, crun). What it executes and forks
                is followed (TRACEFORK, TRACECLONE, TRACEEXEC) up to the first program that is
                neither the runtime itself nor still outside of the container (a runtime that is
                wrapped in another program, a hook): the program of a new container, whatever its
                image.

Nothing hangs when we die: the kernel answers questions of a closed fanotify file with yes, and
detaches what a dead tracer traced. Everything that is followed is detached after
`FOLLOWED_WITHIN_S`.

Limits: before Linux 6.8 an exec waits for the answer with a lock held that PTRACE_SEIZE needs, so
there only launchers can be used; `holds` is found out by trying. The same lock is held at any
release while the interpreter of a script is opened, so what is marked must not be one: with
/usr/bin/python3 under a rule and a runtime that is a Python script, a container hung until the
helper's alarm went off. fanotify needs CAP_SYS_ADMIN of the machine itself, not of a user
namespace.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from meshwake.clocks.vdso.ptrace import (
    EVENT_CLONE,
    EVENT_EXEC,
    EVENT_FORK,
    EVENT_VFORK,
    OPTION_CLONE,
    OPTION_EXEC,
    OPTION_FORK,
    OPTION_VFORK,
    Stop,
    Tracee,
    await_interruption,
    detach,
    event_number,
    interrupt,
    next_stop,
    resume,
    seize,
)
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.system.deadline import Deadline
from meshwake.system.libc import fanotify_init, fanotify_mark

# From the exec of a runtime to that of its container's program, hooks included.
FOLLOWED_WITHIN_S = 120.0
_EXEC_WITHIN_S = 5.0
_STARTS_WITHIN_S = 2.0
# PTRACE_SEIZE needs the lock that an exec holds (see above): where that is the exec which waits for
# our answer, no time is long enough.
_SEIZED_WITHIN_S = 0.5
_STOPPED_WITHIN_S = 2.0
_PROBE_WITHIN_S = 3.0
_POLL_EVERY_S = 0.001

# --- fanotify: include/uapi/linux/fanotify.h; fanotify(7) -----------------------------------------

# Flags of fanotify_init. CLASS_CONTENT: events that ask for permission. REPORT_TID: events name the
# thread, which is what is traced, and not its process.
_FAN_CLOEXEC = 0x1
_FAN_NONBLOCK = 0x2
_FAN_CLASS_CONTENT = 0x4
_FAN_REPORT_TID = 0x100
# fanotify_mark: add a mark, for opening a file in order to execute it (Linux 5.0).
_FAN_MARK_ADD = 0x1
_FAN_OPEN_EXEC_PERM = 0x4_0000
# struct fanotify_event_metadata: length, version, reserved, length of this head, mask of what has
# happened, a file descriptor of ours for what is about to be executed, the thread.
_EVENT = struct.Struct("=IBBHQii")
_EVENTS_BYTES = 4096  # some 170 at once
# struct fanotify_response: that descriptor, and the answer.
_RESPONSE = struct.Struct("=iI")
_FAN_ALLOW = 1

# All that a runtime makes: a thread or process that misses one option would run untraced.
_FOLLOW = OPTION_FORK | OPTION_VFORK | OPTION_CLONE | OPTION_EXEC
# A runtime that executes a sealed copy of itself is still the runtime.
_COPY_OF_A_LAUNCHER = "/memfd:"


class _FileId(NamedTuple):
    device: int
    inode: int


@dataclass
class _Held:
    """An exec that waits for our answer, given through `file`."""

    file: int
    tid: int
    is_launcher: bool
    deadline: Deadline


@dataclass
class _Traced:
    """A thread that we trace. `is_followed`: with all that it forks."""

    is_followed: bool
    deadline: Deadline
    is_leaving: bool = False

    @classmethod
    def begun(cls, *, is_followed: bool) -> _Traced:
        """One that is traced from now on."""
        within_s = FOLLOWED_WITHIN_S if is_followed else _EXEC_WITHIN_S
        return cls(is_followed, Deadline("a traced program to start", within_s))

    def began_less_than(self, seconds: float) -> bool:
        """Whether it has been traced for less than that."""
        return self.deadline.remaining_s > self.deadline.within_s - seconds


@dataclass
class WatchCounts:
    """What has happened so far."""

    asked: int = 0
    caught: int = 0
    passed: int = 0
    missed: int = 0


class ExecWatch:
    """Watches execs of marked files. `wanted` is called with a process that has just exec'ed, and
    is stopped; if it says yes, `install` gets the process before its first instruction. Both are
    called from `serve`.

    To be made and served by one thread. Raises LabUnavailable when this system does not allow it.
    """

    def __init__(
        self,
        wanted: Callable[[int], bool],
        install: Callable[[Tracee], None],
        refused: Callable[[int, str], None] = lambda pid, why: None,
    ) -> None:
        self._wanted, self._install, self._refused = wanted, install, refused
        self.counts = WatchCounts()
        self.file = _fanotify()
        self._launchers: set[_FileId] = set()
        self._outside: set[str] = (
            set()
        )  # mount namespaces in which launchers were executed: no container's
        self._marked: set[_FileId] = set()
        self._held: list[_Held] = []
        self._traced: dict[int, _Traced] = {}
        self.holds = _can_seize_while_held()

    @property
    def marks(self) -> int:
        """How many files are marked."""
        return len(self._marked)

    @property
    def is_busy(self) -> bool:
        """Whether something is held or followed just now, so that `serve` should be called soon
        again."""
        return bool(self._held or self._traced)

    @property
    def is_starting(self) -> bool:
        """Whether a program has been on its way for a moment only: what is followed for longer is a
        runtime that waits for something, or never ends."""
        return bool(self._held) or any(
            traced.began_less_than(_STARTS_WITHIN_S) for traced in self._traced.values()
        )

    def follows(self, pid: int) -> bool:
        """Whether this process is on its way to be caught, or released."""
        return pid in self._traced

    def mark_program(self, path: Path) -> bool:
        """From now on execs of this very file are caught; False when it is not there, or cannot be
        held here."""
        return self.holds and self._mark(path) is not None

    def mark_launcher(self, path: Path) -> bool:
        """From now on what this file executes and forks is followed; False when it is not there."""
        found = self._mark(path)
        if found is not None:
            self._launchers.add(found)
        return found is not None

    def serve(self) -> None:
        """Answers every exec that waits, and takes every traced thread one step on; does not
        wait."""
        self._read_questions()
        for held in list(self._held):
            self._answer(held)
        self._handle_stops()
        self._detach_in_time()

    def close(self) -> None:
        """No more execs are caught. What waits goes on; what is followed is detached as it stops,
        or when we end."""
        for held in self._held:
            os.close(held.file)
        self._held.clear()
        os.close(self.file)
        for traced in self._traced.values():
            traced.deadline = Deadline("being detached", 0.0)
        deadline = Deadline("all that is traced to stop", _STOPPED_WITHIN_S)
        while self._traced and not deadline.has_passed:
            self._detach_in_time()
            self._handle_stops()
            deadline.sleep(_POLL_EVERY_S)

    def _mark(self, path: Path) -> _FileId | None:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = _FileId(status.st_dev, status.st_ino)

        # Also where that file has been marked already: the file system of a container that has gone
        # gives its number to the next one, whose files of the same image have the same numbers, and
        # no marks.
        try:
            fanotify_mark(self.file, _FAN_MARK_ADD, _FAN_OPEN_EXEC_PERM, path)
        except OSError as error:
            raise LabUnavailable(f"{path} cannot be watched: {error.strerror}") from error
        self._marked.add(found)
        return found

    def _read_questions(self) -> None:
        with suppress(BlockingIOError):
            for file, tid in _events(os.read(self.file, _EVENTS_BYTES)):
                self.counts.asked += 1
                status = os.fstat(file)
                is_launcher = _FileId(status.st_dev, status.st_ino) in self._launchers
                deadline = Deadline("a thread to be seized", _SEIZED_WITHIN_S)
                self._held.append(_Held(file, tid, is_launcher, deadline))

    def _answer(self, held: _Held) -> None:
        """Traces the thread and then allows its exec; where the lock is in the way (`holds`), the
        exec is allowed first."""
        if not self.holds:
            self._allow(held)
        if held.tid not in self._traced and not self._trace(held):
            return  # tried again at the next call
        if self.holds:
            self._allow(held)
        self._held.remove(held)

    def _trace(self, held: _Held) -> bool:
        """Begins to trace a thread whose exec waits; False when that is to be tried again."""
        try:
            seize(held.tid, _FOLLOW if held.is_launcher else OPTION_EXEC)
        except ProcessLookupError:
            self.counts.missed += 1
            return True
        except OSError:
            # A child process of ours that attaches has its threads stopped at this moment, or a
            # debugger traces it for good.
            if self.holds and not held.deadline.has_passed:
                return False
            self.counts.missed += 1
            return True
        if held.is_launcher:
            self._outside.add(_mounts(held.tid))
        self._traced[held.tid] = _Traced.begun(is_followed=held.is_launcher)
        return True

    def _allow(self, held: _Held) -> None:
        os.write(self.file, _RESPONSE.pack(held.file, _FAN_ALLOW))
        os.close(held.file)

    def _handle_stops(self) -> None:
        with suppress(ChildProcessError):  # nothing is traced
            while (stop := next_stop()) is not None:
                # It may be killed while it is stopped; its end is reported next.
                with suppress(ProcessLookupError):
                    self._go_on(stop)

    def _go_on(self, stop: Stop) -> None:
        if stop.signal == 0:
            # Also the end of a child of ours that is not traced: attach.py waits for it by its
            # pidfd.
            self._traced.pop(stop.tid, None)
            return

        # A new thread may stop for us before the event of its parent is reported.
        traced = self._traced.setdefault(stop.tid, _Traced.begun(is_followed=True))
        if stop.event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            self._traced.setdefault(event_number(stop.tid), _Traced(True, traced.deadline))
        elif stop.event == EVENT_EXEC:
            self._at_exec(stop, traced)
            return
        if traced.is_leaving:
            self._leave(stop)
        else:
            resume(stop)

    def _at_exec(self, stop: Stop, traced: _Traced) -> None:
        # A thread that execs takes the number of its process; the event names the one it had.
        former = event_number(stop.tid)
        if former != stop.tid:
            self._traced.pop(former, None)
        if traced.is_followed and self._is_launcher(stop.tid):
            resume(stop)
            return
        if not self._wanted(stop.tid):
            # Still in the mount namespace of a runtime: a wrapper or a hook, not the container's
            # own.
            if traced.is_followed and _mounts(stop.tid) in self._outside:
                resume(stop)
                return
            self.counts.passed += 1
            self._leave(stop)
            return

        # The exec itself is not over at this stop; at the next one the process is about to do its
        # first instruction.
        interrupt(stop.tid)
        resume(stop)
        await_interruption(stop.tid, _STOPPED_WITHIN_S)
        tracee = Tracee(stop.tid)
        try:
            self._install(tracee)
            self.counts.caught += 1
        except HarnessError as error:
            self.counts.missed += 1
            self._refused(stop.tid, str(error))
        finally:
            self._traced.pop(stop.tid, None)
            tracee.detach()

    def _is_launcher(self, pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/exe").stat()
            name = str(Path(f"/proc/{pid}/exe").readlink())
        except OSError:
            return False
        is_marked = _FileId(status.st_dev, status.st_ino) in self._launchers
        return is_marked or name.startswith(_COPY_OF_A_LAUNCHER)

    def _leave(self, stop: Stop) -> None:
        self._traced.pop(stop.tid, None)
        with suppress(ProcessLookupError):
            detach(stop)

    def _detach_in_time(self) -> None:
        """An exec that failed, a runtime that never ends: they are made to stop, and detached when
        they have."""
        for tid, traced in list(self._traced.items()):
            if traced.deadline.has_passed and not traced.is_leaving:
                traced.is_leaving = True
                try:
                    interrupt(tid)
                except OSError:
                    del self._traced[tid]


def _mounts(pid: int) -> str:
    """Which mount namespace a process is in; where that cannot be read, a name that only it has."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return f"that of process {pid}"


def _fanotify() -> int:
    flags = _FAN_CLASS_CONTENT | _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_REPORT_TID
    try:
        return fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabUnavailable(
            f"execs cannot be watched here: {error.strerror}; fanotify's permission events need "
            "root of the machine itself (a privileged container, no user namespace, no rootless "
            "engine)"
        ) from error


def _events(data: bytes) -> Iterator[tuple[int, int]]:
    """What was read of a fanotify file: a descriptor and a thread for each exec that waits."""
    for place in range(0, len(data), _EVENT.size):
        _, _, _, _, _, file, tid = _EVENT.unpack_from(data, place)
        yield file, tid


def _can_seize_while_held() -> bool:
    """Tried on a child of ours that executes the Python we are: whether a thread can be seized
    while its exec waits."""
    file = _fanotify()
    program = os.path.realpath(sys.executable)
    try:
        fanotify_mark(file, _FAN_MARK_ADD, _FAN_OPEN_EXEC_PERM, program)
    except OSError:
        os.close(file)
        return False
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(2 * _PROBE_WITHIN_S))
            os.execv(program, [program, "-I", "-S", "-c", ""])  # noqa: S606
        finally:
            os._exit(127)
    try:
        return _seized_while_held(file, pid)
    finally:
        os.close(file)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
            pass


def _seized_while_held(file: int, pid: int) -> bool:
    deadline = Deadline("the exec of the probe", _PROBE_WITHIN_S)
    while not deadline.has_passed:
        try:
            events = os.read(file, _EVENTS_BYTES)
        except BlockingIOError:
            deadline.sleep(_POLL_EVERY_S)
            continue
        for process_fd, tid in _events(events):
            try:
                if tid == pid:
                    with _interrupted_by_an_alarm():
                        seize(pid, OPTION_EXEC)
                    return True
            except OSError:
                return False
            finally:
                os.write(file, _RESPONSE.pack(process_fd, _FAN_ALLOW))
                os.close(process_fd)
    return False


@contextmanager
def _interrupted_by_an_alarm() -> Iterator[None]:
    """Where the lock is in the way, the call for it waits until a signal comes."""

    def nothing(number: int, frame: FrameType | None) -> None:
        """That it comes is enough."""

    before = signal.signal(signal.SIGALRM, nothing)
    signal.setitimer(signal.ITIMER_REAL, _PROBE_WITHIN_S / 3, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
