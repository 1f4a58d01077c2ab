"""The injectors that rewrite a program's vDSO: when it is started (`vdso`), or while it runs
(`attach`).

Both keep the contract of base.py with a page in offset mode (vdso/page.py, vdso/attach.py):
programs run on in real time, and all of them are moved by one store. They reach every program that
reads its clocks by the vDSO, however it was linked.

What they refuse, because a vDSO lasts until the next exec: shells, shell scripts and `env`, whose
work is to execute others. That a program executes another by itself cannot be seen before; `read`
and `move` find out that it is no longer on these clocks. `attach` starts nothing after a move: its
time base would be taken before we attach.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from meshwake.clocks.injectors.base import (
    UNMOVED,
    CannotInject,
    ManagedProcess,
    Start,
    check_no_way_back,
    check_waits,
    popen_dying_with_us,
    sum_of,
)
from meshwake.clocks.injectors.programs import EM_AARCH64, EM_X86_64, Program, find_program, look_at
from meshwake.clocks.injectors.unreachable_waits import (
    UnreachableWaits,
    unreachable_waits,
    wake_epoll_waits,
)
from meshwake.clocks.vdso.attach import attach, detach, page_inside, read_attached
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, read_inside, unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, HarnessFault, SubjectFailed

_MACHINES = {"x86_64": EM_X86_64, "aarch64": EM_AARCH64}


class _OnAPage:
    """What both have: a page, and the programs on it."""

    name = ""

    def __init__(self) -> None:
        reason = unsupported_here()
        if reason is not None:
            raise CannotInject(
                self.name, "this machine", reason, "use lab model, which needs no clocks"
            )
        self._page = ClockPage("offset")
        self._processes: list[ManagedProcess] = []
        self._closed = False

    @property
    def moved(self) -> ClockReading:
        """See Injector."""
        return self._page.get()

    def refusal(self, program: Program, *, with_children: bool = False) -> CannotInject | None:
        """See Injector."""
        if not program.is_64_bit or program.machine != _MACHINES.get(platform.machine()):
            because, instead = (
                "it is built for another processor than this one",
                "use a program built for this machine",
            )
        elif program.executes_others or with_children:
            because = (
                "a vDSO lasts until the next exec: the programs that it executes would be on "
                "true time"
            )
            instead = f"{program.instead}, or use --injector faketime"
        else:
            return None
        return CannotInject(self.name, program.name, because, instead)

    def check(self, by: ClockReading) -> None:
        """See Injector."""
        check_no_way_back(by)

    def move(self, by: ClockReading) -> None:
        """See Injector."""
        self.check(by)
        programs = [one for one in self._processes if one.poll() is None]
        check_waits(self.name, by, programs)
        programs = [one for one in programs if self._is_on_page(one)]
        self._page.set(sum_of(self.moved, by))
        if by.monotonic_ns or by.boottime_ns:
            for one in programs:
                wake_epoll_waits(one.pid)

    def unreachable_waits(self, process: ManagedProcess) -> UnreachableWaits:
        """See Injector."""
        return unreachable_waits(process.pid, self.moved)

    def close(self) -> None:
        """See Injector."""
        for one in self._processes:
            one.end()
        self._processes.clear()
        if not self._closed:
            self._page.close()
        self._closed = True

    def _refuse(self, start: Start) -> Path:
        path = find_program(start.command[0])
        refused = self.refusal(look_at(path), with_children=start.with_children)
        if refused is not None:
            raise refused
        return path

    def _is_on_page(self, process: ManagedProcess) -> bool:
        """False when it has ended. Raises SubjectFailed when it lives, on other clocks."""
        inside = page_inside(process.pid)
        if inside is not None and inside.in_use and inside.inode == self._page.inode:
            return True

        # A process that is ending has no page either: its memory goes before its status comes.
        if process.has_ended:
            return False
        raise SubjectFailed(
            f"process {process.pid} ({process.name}) is not on these clocks any more: it "
            "has executed another program, or was detached by another; name that program "
            "itself, or use --injector faketime"
        )

    def _read_on_page(
        self, process: ManagedProcess, read: Callable[[Launched], ClockReading]
    ) -> ClockReading:
        if process.launched is None:
            raise HarnessFault("a program that was neither started nor attached here")
        if not self._is_on_page(process):
            raise SubjectFailed(f"process {process.pid} ({process.name}) has ended")
        return read(process.launched)


class VdsoInjector(_OnAPage):
    """`vdso`: see the module. What it starts dies with the thread that started it."""

    name = "vdso"

    def start(self, start: Start) -> ManagedProcess:
        """See Injector."""
        path = self._refuse(start)
        kept = [os.dup(number) for number in (start.input, start.output, start.error)]

        def connect() -> None:
            for ignored in (
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):  # by Python; a program would inherit that
                signal.signal(ignored, signal.SIG_DFL)
            for number, file in enumerate(kept):
                os.dup2(file, number)

        try:
            launched = launch(
                [str(path), *start.command[1:]],
                self._page,
                environment=dict(os.environ if start.environment is None else start.environment),
                directory=start.directory.absolute(),
                log=Path(os.devnull),
                before_exec=connect,
            )
        finally:
            for file in kept:
                os.close(file)
        process = ManagedProcess(launched.pid, path.name, is_ours=True, launched=launched)
        self._processes.append(process)
        return process

    def attach(self, pid: int) -> ManagedProcess:
        """See Injector: never."""
        raise CannotInject(self.name, f"process {pid}", "it runs already", "use --injector attach")

    def read(self, process: ManagedProcess) -> ClockReading:
        """See Injector."""
        return self._read_on_page(process, read_inside)


class AttachInjector(_OnAPage):
    """`attach`: see the module."""

    name = "attach"

    def start(self, start: Start) -> ManagedProcess:
        """Starts it on the kernel's clocks and attaches at once: its first readings are of those,
        so this is refused after a move."""
        path = self._refuse(start)
        if self.moved != UNMOVED:
            raise CannotInject(
                self.name,
                path.name,
                "these clocks were moved before, and it would take its time base on the "
                "kernel's, before it is attached",
                "use --injector vdso",
            )
        popen = popen_dying_with_us(path, start, None)
        try:
            process = self._attached(popen.pid, path.name, popen)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        return process

    def attach(self, pid: int) -> ManagedProcess:
        """See Injector. What an earlier injector has moved stays moved: `moved` includes it."""
        found = offsets_inside(pid)
        if found != UNMOVED and not self._processes:
            self._page.set(found)
        name = (
            Path(f"/proc/{pid}/comm").read_text().strip()
            if Path(f"/proc/{pid}/comm").exists()
            else "gone"
        )
        return self._attached(pid, name, None)

    def detach(self, process: ManagedProcess) -> bool:
        """The clocks of the program are the kernel's again; False when they were so already."""
        self._processes.remove(process)
        return detach(process.pid)

    def read(self, process: ManagedProcess) -> ClockReading:
        """See Injector."""
        return self._read_on_page(process, read_attached)

    def _attached(
        self, pid: int, name: str, popen: subprocess.Popen[bytes] | None
    ) -> ManagedProcess:
        process = ManagedProcess(
            pid, name, is_ours=popen is not None, launched=attach(pid, self._page), popen=popen
        )
        self._processes.append(process)
        return process


def offsets_inside(pid: int) -> ClockReading:
    """By how much the clocks of a running process are moved by a page of ours that it has; nothing
    when it has none. Raises CannotInject for a process that may not be read."""
    try:
        Path(f"/proc/{pid}/maps").open("rb").close()
    except PermissionError as error:
        raise CannotInject(
            AttachInjector.name, f"process {pid}", "it is another user's", "be that user, or root"
        ) from error
    except FileNotFoundError as error:
        raise BadInput(f"there is no process {pid}; 'pgrep -f NAME' finds one") from error
    inside = page_inside(pid)
    if inside is None or not inside.in_use:
        return UNMOVED
    file = os.memfd_create("meshwake-copy")
    with suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        os.pwrite(file, os.pread(memory.fileno(), 4096, inside.base), 0)
    copy = ClockPage.of_file(file)
    try:
        return copy.get()
    finally:
        copy.close()
