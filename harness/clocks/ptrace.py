"""A process held still, its registers and memory in our hands (Linux, x86-64).

Two uses, both rare and short: when a program has been exec'ed and has not run yet (vdso.py puts its code in), and to
ask a running program for the time *from inside*, by making it call its own clock function.

Only the thread that attached may speak to the tracee; every function here is called from one thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from harness.errors import SubjectFailed

_TRACEME, _CONT, _GETREGS, _SETREGS, _DETACH = 0, 7, 12, 13, 17
_SETOPTIONS, _SEIZE, _INTERRUPT = 0x4200, 0x4206, 0x4207
_OPTION_EXITKILL = 0x100000
_WALL = 0x40000000
_PR_SET_PDEATHSIG = 1
_STOPS_ON_THE_WAY_MAX = 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

_REGISTER_NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)


class _Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in _REGISTER_NAMES.split()]


def _ptrace(request: int, pid: int, address: int = 0, data: Any = None) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace request {request:#x} on process {pid}: {os.strerror(number)}")


def request_trace_and_death_with_parent(parent_pid: int) -> None:
    """In a forked child, before exec: stop at the exec, and die when the parent dies, by whatever cause."""
    die_with_parent(parent_pid)
    _ptrace(_TRACEME, 0)


def die_with_parent(parent_pid: int) -> None:
    """The kernel kills this process when the thread that started it ends; also when it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


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
            raise OSError(f"process {self.pid}: only part of {len(data)} bytes written at {address:#x}")

    def system_call(self, gadget: int, number: int, *arguments: int) -> int:
        """Makes the process do one system call; `gadget` is an address in it that holds `syscall; int3`."""
        registers = self._registers()
        call = _Registers.from_buffer_copy(registers)
        call.rip, call.rax, call.orig_rax = gadget, number, -1 & 0xFFFFFFFFFFFFFFFF
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments, strict=False):
            setattr(call, name, value & 0xFFFFFFFFFFFFFFFF)
        return self._run_to_trap(call, registers)

    def call(self, function: int, return_to: int, stack_bytes: int, *arguments: int) -> int:
        """Makes the process call `function`; `return_to` is an address that holds a breakpoint. `stack_bytes` below
        its stack pointer (and the red zone) are left free for the callee's results: see `scratch`."""
        registers = self._registers()
        call = _Registers.from_buffer_copy(registers)
        call.rip, call.orig_rax = function, -1 & 0xFFFFFFFFFFFFFFFF
        call.rsp = self.scratch(stack_bytes) - 8
        self.write(call.rsp, return_to.to_bytes(8, "little"))
        for name, value in zip(("rdi", "rsi", "rdx"), arguments, strict=False):
            setattr(call, name, value & 0xFFFFFFFFFFFFFFFF)
        return self._run_to_trap(call, registers)

    def scratch(self, size: int) -> int:
        """An aligned address on its stack, below everything in use, with `size` bytes of room."""
        return int((self._registers().rsp - 256 - size) & ~0xF)

    def detach(self) -> None:
        """Lets it run, untraced."""
        os.close(self._memory)
        _ptrace(_DETACH, self.pid)

    def _registers(self) -> _Registers:
        registers = _Registers()
        _ptrace(_GETREGS, self.pid, 0, ctypes.byref(registers))
        return registers

    def _run_to_trap(self, call: _Registers, restore: _Registers) -> int:
        _ptrace(_SETREGS, self.pid, 0, ctypes.byref(call))
        for _ in range(_STOPS_ON_THE_WAY_MAX):
            _ptrace(_CONT, self.pid)
            if _wait_for_stop(self.pid, "the end of an injected call") == 0:
                break
        else:
            raise SubjectFailed(f"process {self.pid} stops again and again during an injected call")
        result = ctypes.c_longlong(self._registers().rax).value
        _ptrace(_SETREGS, self.pid, 0, ctypes.byref(restore))
        return result


def _wait_for_stop(pid: int, awaited: str) -> int:
    """Returns the ptrace event of the stop: 0 for a breakpoint, else for example that of a group stop, which a process
    that a freezer has stopped reports once more while it is made to run."""
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        raise SubjectFailed(f"process {pid} ended (status {status:#x}) while {awaited} was awaited")
    if os.WSTOPSIG(status) not in (signal.SIGTRAP, signal.SIGSTOP):
        name = signal.Signals(os.WSTOPSIG(status)).name
        raise SubjectFailed(f"process {pid} got {name} while {awaited} was awaited")
    return status >> 16


def stopped_at_exec(pid: int) -> Tracee:
    """A child of ours that called `request_trace_and_death_with_parent` and then exec'ed: stopped before its first
    instruction. Raises SubjectFailed when it ended instead (exec failed)."""
    _wait_for_stop(pid, "its exec")
    _ptrace(_SETOPTIONS, pid, 0, _OPTION_EXITKILL)
    return Tracee(pid)


@contextmanager
def interrupted(pid: int) -> Iterator[Tracee]:
    """The main thread of a running process, stopped for the length of the block; system calls under way in it are
    restarted by the kernel, or end with EINTR as they do for any debugger."""
    try:
        _ptrace(_SEIZE, pid)
        _ptrace(_INTERRUPT, pid)
        _wait_for_stop(pid, "its interruption")
        tracee = Tracee(pid)
        try:
            yield tracee
        finally:
            with suppress(ProcessLookupError):  # it ended meanwhile, and an error that says so is on its way
                tracee.detach()
    except (ProcessLookupError, PermissionError) as error:
        raise SubjectFailed(f"process {pid} could not be asked for its time: {error}") from error
