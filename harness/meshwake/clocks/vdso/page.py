"""The clocks of one process, moved by rewriting its vDSO (Linux; x86-64, ARM64): no root, no kernel
module, no preload.

Problem: ztunnel must see a night of sleep: its wall clock jumps, its monotonic clock does not.
Libraries that are preloaded hang in programs with a static jemalloc (ztunnel 1.31 and newer), time
namespaces do not cover the wall clock, and the machine's own clock is not ours to touch.

Idea: a program learns the time by calling functions on a page that the kernel maps into it, the
vDSO. We start the program traced, and when it is stopped at its exec, before its first instruction
(ztunnel takes its time base at once: later is too late), we map one page of shared memory into it
(`ClockPage`: a table of times and the code of code_x86_64.py) and make the vDSO's clock functions
jump there. From then on the clocks of *all* processes that share the page are moved by one store of
ours, with no system call and without stopping them. (A program that runs already gets the page from
attach.py.)

Limits: programs that ask the kernel by raw system calls; deadlines that a program computes from a
moved clock and hands to the kernel as absolute times (measured: glibc's condition variables,
clock_nanosleep with TIMER_ABSTIME) are judged by the kernel's own clock. In fixed mode keep the
monotonic clock ahead of the real one, so that such waits are too long and never end at once. What a
child of the program exec's has a fresh vDSO and the true time.
"""

from __future__ import annotations

import mmap
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meshwake.clocks.vdso.architecture import X86_64, architecture_here
from meshwake.clocks.vdso.code_x86_64 import (
    BOOTTIME_IDS,
    CLOCK_BOOTTIME,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CODE_OFFSET,
    IN_FORCE_OFFSET,
    KIND_OFFSET,
    KINDS,
    MONOTONIC_IDS,
    TABLE_BYTES,
    WALL_IDS,
    Mode,
)
from meshwake.clocks.vdso.image import PAGE_BYTES, Vdso, this_architecture, vdso_of
from meshwake.clocks.vdso.ptrace import (
    Tracee,
    interrupted,
    request_trace_and_death_with_parent,
    stopped_at_exec,
)
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import LabUnavailable, SubjectFailed

# The name of the memory file, as /proc/PID/maps shows it: "/memfd:meshwake-clocks (deleted)".
PAGE_NAME = "meshwake-clocks"
# include/uapi/asm-generic/mman-common.h: MAP_SHARED, and MAP_FIXED_NOREPLACE: an error where
# something is mapped already, which MAP_FIXED would replace.
_MAP_SHARED_FIXED_NOREPLACE = 0x1 | 0x10_0000
# clock_gettime returns an int; the upper half of the register is whatever it was.
_INT_MASK = 0xFFFF_FFFF
# struct timespec: seconds and nanoseconds, 64 bits each.
_TIMESPEC = struct.Struct("<qq")
# One store of an aligned word is seen whole or not at all, on both architectures: no reader sees
# half of an offset.
_WORD_BYTES = 8
_TRACING_FORBIDDEN = "a child process may not be traced"


def unsupported_here() -> str | None:
    """Why vDSOs cannot be rewritten on this machine, or None."""
    if sys.platform != "linux":
        return f"rewriting a vDSO needs Linux, this is {sys.platform}; use a Linux VM or container"
    if architecture_here() is None:
        return f"rewriting a vDSO is written for x86_64 and aarch64, this is {platform.machine()}"
    return None


def attaching_unsupported_here() -> str | None:
    """Why the clocks of a program that runs already cannot be taken over on this machine
    (attach.py), or None."""
    if unsupported_here() is None and architecture_here() is not X86_64:
        return (
            f"running programs can be taken over on x86_64 only, and this is {platform.machine()}"
        )
    return unsupported_here()


class ClockPage:
    """The page that a group of processes (those of one node) reads its clocks from. They have it
    read-only; the file is closed in them before they run.

    In fixed mode it must be `set` before a program starts; in offset mode it begins with no offset,
    and may be `set` while programs run.
    """

    def __init__(self, mode: Mode) -> None:
        self._open(mode, os.memfd_create(PAGE_NAME))
        self._page[CODE_OFFSET : CODE_OFFSET + len(self.code.code)] = self.code.code
        self._page[KIND_OFFSET : KIND_OFFSET + len(KINDS[mode])] = KINDS[mode]

    @classmethod
    def of_file(cls, file: int) -> ClockPage:
        """The page that is in `file`, made by another process; it keeps the offsets it has.
        `file` is ours then. Raises LabUnavailable when it is not a page in offset mode of this very
        code."""
        page = cls.__new__(cls)
        page._open("offset", file)
        code = page.code.code
        kind = page._page[KIND_OFFSET : KIND_OFFSET + len(KINDS["offset"])]

        # The same kind with other code is that of another version.
        if kind != KINDS["offset"] or page._page[CODE_OFFSET : CODE_OFFSET + len(code)] != code:
            page.close()
            raise LabUnavailable(
                "the clock page found is not one in offset mode made by this version of meshwake"
            )
        return page

    def _open(self, mode: Mode, file: int) -> None:
        self.mode: Mode | Literal["kernel"] = mode
        self._set_last: ClockReading | None = None
        self.code = this_architecture().assemble(mode)
        self.file = file
        os.ftruncate(file, PAGE_BYTES)
        self._page = mmap.mmap(file, PAGE_BYTES)

        # Writes through this view are single stores of 64 bits (struct.pack_into writes byte after
        # byte).
        self._words = memoryview(self._page).cast("q")

    @property
    def inode(self) -> int:
        """Distinguishes this page from others in /proc/PID/maps."""
        return os.fstat(self.file).st_ino

    def set(self, clocks: ClockReading) -> None:
        """Fixed mode: the clocks now show this. Offset mode: this is added to the kernel's clocks,
        all at once."""
        # In offset mode the table that is not in force is written: it begins at 0 or TABLE_BYTES.
        in_force = self._words[IN_FORCE_OFFSET // _WORD_BYTES]
        table = in_force if self.mode == "fixed" else TABLE_BYTES - in_force
        words, first = self._words, table // _WORD_BYTES
        for clock_ids, value_ns in zip(
            (WALL_IDS, MONOTONIC_IDS, BOOTTIME_IDS), clocks, strict=True
        ):
            for clock_id in clock_ids:
                words[first + clock_id] = value_ns

        # One store of 64 bits puts the whole table in force.
        words[IN_FORCE_OFFSET // _WORD_BYTES] = table
        if self.mode == "fixed":  # such a page is ours alone
            self._set_last = clocks

    def get(self) -> ClockReading:
        """What was `set` last."""
        if self._set_last is not None:
            return self._set_last
        table = self._words[IN_FORCE_OFFSET // _WORD_BYTES] // _WORD_BYTES
        return ClockReading(
            *(
                self._words[table + clock_id]
                for clock_id in (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME)
            )
        )

    def close(self) -> None:
        """Closes our view of it; processes that have it keep it."""
        self._words.release()
        self._page.close()
        os.close(self.file)


@dataclass(frozen=True)
class Launched:
    """A running process whose clocks are on a page of ours: a child of ours, to be waited for by
    us, or (attach.py) any other. `stack_address` is the top of a stack of ours in it; without one,
    calls of ours use its own."""

    pid: int
    page: ClockPage
    clock_gettime_address: int
    trap_address: int
    stack_address: int | None = None


def launch(
    command: Sequence[str],
    page: ClockPage,
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    before_exec: Callable[[], None] = lambda: None,
) -> Launched:
    """Starts `command` under the clocks of `page`, from its very first instruction; output goes to
    `log`.

    `before_exec` runs in the child (to enter a namespace). The process dies with the calling
    thread. Raises LabUnavailable when this system does not allow it, SubjectFailed when the program
    cannot be executed.
    """
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, page, environment, directory, log, before_exec, parent_pid)
    if page.mode == "kernel":
        return Launched(pid, page, 0, 0)
    try:
        return _install(stopped_at_exec(pid), page)
    except SubjectFailed as error:
        output = _tail(log)
        if _TRACING_FORBIDDEN in output:
            raise LabUnavailable(
                "this system forbids tracing a child process; in a container allow it with "
                "--cap-add SYS_PTRACE, "
                "or with a seccomp profile that permits ptrace"
            ) from error
        raise SubjectFailed(f"{command[0]} could not be started: {output or error}") from error
    except OSError as error:
        _kill(pid)
        raise LabUnavailable(
            f"this system forbids writing to a traced child process ({error}); "
            "is the kernel booted with proc_mem.force_override=never?"
        ) from error
    except LabUnavailable:
        _kill(pid)
        raise


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _become(
    command: Sequence[str],
    page: ClockPage,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    before_exec: Callable[[], None],
    parent_pid: int,
) -> None:
    """The child's side of `launch`; never returns."""
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.setsid()
        before_exec()
        os.chdir(directory)
        if page.mode == "kernel":
            os.execve(command[0], list(command), dict(environment))  # noqa: S606
        os.set_inheritable(page.file, True)
        try:
            request_trace_and_death_with_parent(parent_pid)
        except OSError as error:
            raise OSError(_TRACING_FORBIDDEN) from error
        os.execve(command[0], list(command), dict(environment))  # noqa: S606
    except BaseException as error:  # noqa: BLE001  # a child that must not return, whatever happened
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(127)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-500:] if log.exists() else ""


def _install(tracee: Tracee, page: ClockPage) -> Launched:
    """Maps the page, which the stopped process has inherited, and sends its vDSO's clock functions
    there."""
    vdso = vdso_of(tracee.pid)
    base = map_page(tracee, vdso, page.file, vdso.free_pages(1))
    tracee.system_call(vdso.gadget, "close", page.file)
    for address, jump in vdso.jumps(page.code, base).items():
        tracee.write(address, jump)
    tracee.detach()
    return Launched(tracee.pid, page, vdso.clock_gettime, base + page.code.trap_offset)


def map_page(tracee: Tracee, vdso: Vdso, file: int, address: int) -> int:
    """Maps the page that is open as `file` in the stopped process, there to be read and executed,
    at `address`."""
    base = tracee.system_call(
        vdso.gadget,
        "mmap",
        address,
        PAGE_BYTES,
        mmap.PROT_READ | mmap.PROT_EXEC,
        _MAP_SHARED_FIXED_NOREPLACE,
        file,
        0,
    )
    if base < 0:
        raise LabUnavailable(
            f"the clock page could not be mapped into process {tracee.pid}: {os.strerror(-base)}; "
            "is executable shared memory forbidden here (SELinux execmem, vm.memfd_noexec)?"
        )
    return base


def read_inside(process: Launched) -> ClockReading:
    """The three clocks as the running process itself sees them: it is made to call its own clock
    function.

    This is how the harness knows that a fault has reached its subject, rather than believing that
    it did. On the kernel's own clocks (clocks/guest/kernel_page.py) every process of that kernel
    sees the same, so it is not interrupted.
    """
    if process.page.mode == "kernel":
        return process.page.get()
    with interrupted(process.pid) as tracee:
        return ClockReading(
            *(
                _call_clock(tracee, process, clock)
                for clock in (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME)
            )
        )


def _call_clock(tracee: Tracee, process: Launched, clock_id: int) -> int:
    buffer = tracee.scratch(_TIMESPEC.size, process.stack_address)
    status = tracee.call(
        process.clock_gettime_address, process.trap_address, buffer, clock_id, buffer
    )
    if status & _INT_MASK:
        raise SubjectFailed(
            f"clock_gettime({clock_id}) inside process {process.pid} returned {status}"
        )
    seconds, nanoseconds = _TIMESPEC.unpack(tracee.read(buffer, _TIMESPEC.size))
    return int(seconds * NS_PER_S + nanoseconds)
