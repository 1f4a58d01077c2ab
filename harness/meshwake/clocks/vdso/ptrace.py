"""Stops a process and changes its registers and memory (Linux; x86-64, ARM64).

Uses, all rare and short: when a program has been exec'ed and has not run yet (page.py puts its
code in), to do the same to a program that runs (attach.py), and to read the time *inside* a running
program, by making it call its own clock function.

Only the thread that attached may send requests to the tracee; every function here is called from
one thread. Should that thread end, however it ends, the kernel lets all that was traced run on."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from meshwake.clocks.vdso.registers import Registers, registers_here
from meshwake.core.errors import SubjectFailed
from meshwake.system.deadline import Deadline
from meshwake.system.libc import die_with_parent, ptrace, system_call_number
from meshwake.system.process_stat import is_ending

# --- Requests: include/uapi/linux/ptrace.h; ptrace(2) ---------------------------------------------

_TRACEME = 0
_CONT = 7
# A trap behind one instruction. Where that is `syscall`, the whole call has been made by then.
_SINGLESTEP = 9
# Lets a stopped thread run on, no longer traced; it must be stopped.
_DETACH = 17
_SETOPTIONS = 0x4200
# After an event of fork, vfork or clone: the id of the new thread.
_GETEVENTMSG = 0x4201
# For all architectures, unlike PTRACE_GETREGS, which ARM64 does not have; struct iovec says how
# much.
_GETREGSET = 0x4204
_SETREGSET = 0x4205
# Unlike PTRACE_ATTACH, which stops a thread by a SIGSTOP that others can see.
_SEIZE = 0x4206
# Stops a thread without a signal; only one that was seized (ptrace(2)).
_INTERRUPT = 0x4207
# Leaves a thread stopped by job control as it is, and reports to us when that changes.
_LISTEN = 0x4208
# While a thread runs code of ours all signals are blocked: a handler would run on registers that
# are not its own.
_GETSIGMASK = 0x420A
_SETSIGMASK = 0x420B

# The register set of general registers (include/uapi/linux/elf.h).
_NT_PRSTATUS = 1
# The kernel's sigset_t: one bit for each of 64 signals. (That of glibc has 1024.)
_SIGNAL_SET_BYTES = 8
_ALL_SIGNALS = 2**64 - 1

# Options: what is traced is killed when we end; what a traced thread makes is traced too.
_OPTION_EXITKILL = 0x10_0000
OPTION_FORK, OPTION_VFORK, OPTION_CLONE, OPTION_EXEC = 0x2, 0x4, 0x8, 0x10
# Events, in bits 16 and up of a wait status. EVENT_STOP: an interrupt of ours, a job-control stop,
# or the first stop of a new thread that is traced from its beginning.
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_STOP = 1, 2, 3, 4, 128
_EVENT_SHIFT = 16
# The signals of job control: with EVENT_STOP one of them says that the whole process is stopped.
_JOB_CONTROL_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# --- Flags of waitpid: include/uapi/linux/wait.h; waitpid(2) --------------------------------------

# Also threads that are not the first of their process, which ptrace waits for like children.
_WALL = 0x4000_0000
# __WNOTHREAD: only what the calling thread traces itself, so that two watches do not take stops
# from one another.
_NOT_OF_OTHER_THREADS = 0x2000_0000

# --- Our own bounds -------------------------------------------------------------------------------

_STOPS_ON_THE_WAY_MAX = 10
_STOPS_WITHIN_S = 5.0
_PAUSE_S = 0.0001
# Below the stack pointer a function without calls may keep 128 bytes (the red zone of the System V
# ABI, 3.2.2); twice that, to be sure.
_RED_ZONE_BYTES = 256
# Both ABIs (System V x86-64, 3.2.2; AAPCS64, 6.4.5) want the stack at a multiple of 16 at a call.
_STACK_ALIGNMENT = 16


class _Vector(ctypes.Structure):
    """struct iovec: where a register set is, and its size; the kernel writes back how much it
    has."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def request_trace_and_death_with_parent(parent_pid: int) -> None:
    """In a forked child, before exec: stop at the exec, and die when the parent dies, by whatever
    cause."""
    die_with_parent(parent_pid)
    ptrace(_TRACEME, 0)


class Tracee:
    """A process that is stopped and traced by us."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of its memory."""
        return os.pread(self._memory, size, address)

    def write(self, address: int, data: bytes) -> None:
        """Also into pages that the process itself cannot write."""
        if os.pwrite(self._memory, data, address) != len(data):
            raise OSError(
                f"process {self.pid}: only part of {len(data)} bytes written at {address:#x}"
            )

    def system_call(self, gadget: int, name: str, *arguments: int) -> int:
        """Makes the process do the system call `name`; `gadget` is an address in it that holds a
        `syscall` instruction. Returns what the kernel answers: below zero it is -errno."""
        number = system_call_number(name)
        assert number is not None, name
        registers = self._registers()
        call = type(registers).from_buffer_copy(registers)
        call.aim_at_system_call(gadget, number, arguments)
        return self._run(_SINGLESTEP, call, registers)

    def call(self, function: int, return_to: int, below: int, *arguments: int) -> int:
        """Makes the process call `function`; `return_to` is an address that holds a breakpoint,
        `below` one under which the stack is free: see `scratch`."""
        registers = self._registers()
        call = type(registers).from_buffer_copy(registers)
        address, content = call.aim_at_function(function, return_to, below, arguments)
        self.write(address, content)
        return self._run(_CONT, call, registers)

    def scratch(self, size: int, stack_top: int | None = None) -> int:
        """An aligned address with `size` bytes of room: on its stack below everything in use, or
        under `stack_top`."""
        top = stack_top
        if top is None:
            top = self._registers().stack_pointer - _RED_ZONE_BYTES
        return int((top - size) & ~(_STACK_ALIGNMENT - 1))

    @property
    def at(self) -> int:
        """The address of the instruction that it does next."""
        return self._registers().at

    def stack(self, size: int) -> bytes:
        """What is on its stack, up to `size` bytes."""
        try:
            return self.read(self._registers().stack_pointer, size)
        except OSError:  # a stack pointer that points nowhere
            return b""

    def step(self) -> None:
        """Does one instruction; signals wait."""
        with self._signals_waiting():
            ptrace(_SINGLESTEP, self.pid)
            await_stop(self.pid, "the end of one instruction", _STOPS_WITHIN_S)

    def detach(self) -> None:
        """Lets it run, untraced."""
        os.close(self._memory)
        ptrace(_DETACH, self.pid)

    def _registers(self) -> Registers:
        registers = registers_here()()
        self._move_registers(_GETREGSET, registers)
        return registers

    def _move_registers(self, request: int, registers: Registers) -> None:
        vector = _Vector(ctypes.addressof(registers), ctypes.sizeof(registers))
        ptrace(request, self.pid, _NT_PRSTATUS, ctypes.byref(vector))

    def _run(self, request: int, call: Registers, restore: Registers) -> int:
        """Runs from the registers of `call` to the next trap, and restores those of `restore`."""
        with self._signals_waiting():
            self._move_registers(_SETREGSET, call)
            for _ in range(_STOPS_ON_THE_WAY_MAX):
                ptrace(request, self.pid)
                # Another stop than that of the trap is reported when another process sends a stop
                # signal meanwhile.
                if await_stop(self.pid, "the end of an injected call", _STOPS_WITHIN_S).event == 0:
                    break
            else:
                raise SubjectFailed(
                    f"process {self.pid} stops again and again during an injected call"
                )
            result = self._registers().result
            self._move_registers(_SETREGSET, restore)
        return result

    @contextmanager
    def _signals_waiting(self) -> Iterator[None]:
        """Signals for this thread wait: a handler must not run in the middle of a call of ours (Go
        sends itself SIGURG all the time)."""
        own, every = ctypes.c_uint64(), ctypes.c_uint64(_ALL_SIGNALS)
        ptrace(_GETSIGMASK, self.pid, _SIGNAL_SET_BYTES, ctypes.byref(own))
        ptrace(_SETSIGMASK, self.pid, _SIGNAL_SET_BYTES, ctypes.byref(every))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                ptrace(_SETSIGMASK, self.pid, _SIGNAL_SET_BYTES, ctypes.byref(own))


class Stop(NamedTuple):
    """A traced thread has stopped, for a signal (event 0) or an event of ptrace, or has ended
    (`signal` 0)."""

    tid: int
    signal: int
    event: int


def next_stop(tid: int = -1) -> Stop | None:
    """A stop that has not been looked at yet, of `tid` or of any thread that the calling thread
    traces; does not wait. Raises ChildProcessError when nothing is traced."""
    found, status = os.waitpid(tid, os.WNOHANG | _WALL | _NOT_OF_OTHER_THREADS)
    if found == 0:
        return None
    if not os.WIFSTOPPED(status):
        return Stop(found, 0, 0)
    return Stop(found, os.WSTOPSIG(status), status >> _EVENT_SHIFT)


def await_stop(tid: int, awaited: str, within_s: float) -> Stop:
    """The next stop of `tid`. Raises SubjectFailed when it ends instead, or does neither in
    time."""
    deadline = Deadline(f"process {tid} to stop at {awaited}", within_s, SubjectFailed)
    while (stop := next_stop(tid)) is None:
        deadline.pause(_PAUSE_S)
    if stop.signal == 0:
        raise SubjectFailed(f"process {tid} ended; expected {awaited}")
    if stop.event == 0 and stop.signal not in (signal.SIGTRAP, signal.SIGSTOP):
        raise SubjectFailed(
            f"process {tid} got {signal.Signals(stop.signal).name}; expected {awaited}"
        )
    return stop


def seize(tid: int, options: int = 0) -> None:
    """From now on the calling thread traces `tid`, which does not notice."""
    ptrace(_SEIZE, tid, 0, options)


def interrupt(tid: int) -> None:
    """`tid` will stop with EVENT_STOP."""
    ptrace(_INTERRUPT, tid)


def resume(stop: Stop) -> None:
    """What stopped goes on as if it had not been traced: its signal reaches it, and if it was
    stopped by job control it stays so."""
    if stop.event == EVENT_STOP and stop.signal in _JOB_CONTROL_STOPS:
        # PTRACE_CONT would make a process run that its user has stopped.
        ptrace(_LISTEN, stop.tid)
    else:
        ptrace(_CONT, stop.tid, 0, _signal_to_deliver(stop))


def detach(stop: Stop) -> None:
    """As `resume`, and it is not traced any more."""
    ptrace(_DETACH, stop.tid, 0, _signal_to_deliver(stop))


def _signal_to_deliver(stop: Stop) -> int:
    """The signal that a thread was stopped for on its way to it. That of an event (SIGTRAP) is only
    for the tracer."""
    return 0 if stop.event else stop.signal


def event_number(tid: int) -> int:
    """What the event was about: the new thread's number, or at an exec the old one."""
    number = ctypes.c_ulong()
    ptrace(_GETEVENTMSG, tid, 0, ctypes.byref(number))
    return number.value


def await_interruption(tid: int, within_s: float) -> None:
    """Returns when `tid` has stopped because of our interrupt; a signal that comes first is passed
    on."""
    deadline = Deadline(f"thread {tid} to stop (is it in a vfork?)", within_s, SubjectFailed)
    while True:
        stop = next_stop(tid)
        if stop is None:
            deadline.pause(_PAUSE_S)
        elif stop.signal == 0:
            raise ProcessLookupError(f"thread {tid} ended")
        elif stop.event == EVENT_STOP:
            return
        else:
            resume(stop)


@contextmanager
def every_thread_stopped(pid: int, within_s: float) -> Iterator[list[Tracee]]:
    """All threads of a running process, also those that are made meanwhile, stopped for the length
    of the block.

    Raises SubjectFailed when they do not stop in time; then some may still be traced, and run on
    when the calling process ends.
    """
    deadline = Deadline(f"all threads of process {pid} to stop", within_s)
    seen: set[int] = set()
    stopped: list[Tracee] = []
    try:
        # A thread that was not stopped yet may have made another: until a pass finds no new one.
        while new := _threads_of(pid) - seen:
            seen |= new
            # All are interrupted first and awaited then, so that they stop at about the same time.
            traced = [tid for tid in sorted(new) if _seize_to_stop(pid, tid)]
            for tid in traced:
                with suppress(ProcessLookupError):
                    await_interruption(tid, deadline.remaining_s)
                    stopped.append(Tracee(tid))
        if not stopped:
            raise SubjectFailed(f"process {pid} has ended")
        yield stopped
    except (ProcessLookupError, FileNotFoundError, ChildProcessError) as error:
        raise SubjectFailed(
            f"process {pid} ended or became another program while it was being stopped"
        ) from error
    finally:
        for tracee in stopped:
            with suppress(ProcessLookupError):
                tracee.detach()


def _threads_of(pid: int) -> set[int]:
    return {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}


def _seize_to_stop(pid: int, tid: int) -> bool:
    try:
        seize(tid)
        interrupt(tid)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        # One that has ended stays in the list until the last one ends.
        if is_ending(pid, tid):
            return False
        raise SubjectFailed(
            f"thread {tid} of process {pid} may not be traced; does a debugger hold it?"
        ) from error
    return True


def stopped_at_exec(pid: int) -> Tracee:
    """A child of ours that called `request_trace_and_death_with_parent` and then exec'ed: stopped
    before its first instruction. Raises SubjectFailed when it ended instead (exec failed)."""
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        raise SubjectFailed(f"process {pid} ended (status {status:#x}) instead of an exec")
    if os.WSTOPSIG(status) != signal.SIGTRAP:
        name = signal.Signals(os.WSTOPSIG(status)).name
        raise SubjectFailed(f"process {pid} got {name} instead of an exec")
    ptrace(_SETOPTIONS, pid, 0, _OPTION_EXITKILL)
    return Tracee(pid)


@contextmanager
def interrupted(pid: int) -> Iterator[Tracee]:
    """The main thread of a running process, stopped for the length of the block; system calls under
    way in it are restarted by the kernel, or end with EINTR as they do for any debugger."""
    try:
        seize(pid)
        interrupt(pid)
        await_interruption(pid, _STOPS_WITHIN_S)
        tracee = Tracee(pid)
        try:
            yield tracee
        finally:
            with suppress(
                ProcessLookupError
            ):  # it ended meanwhile, and an error that says so is on its way
                tracee.detach()
    except (ProcessLookupError, PermissionError) as error:
        raise SubjectFailed(
            f"process {pid} could not be stopped to read its clocks: {error}"
        ) from error
