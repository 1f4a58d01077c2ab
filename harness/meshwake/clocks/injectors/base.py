"""The contract of the injectors: what every way of moving a program's clocks promises, on one page.

Problem: there are several ways to show a program another time, each reaches other programs, and
each fails silently in a way of its own: the program simply goes on with the machine's clocks, or
hangs. Idea: an injector is the clocks of one node and the programs on them.
It promises five things, and what it cannot keep for a program or a move it refuses by name
(`CannotInject`), before anything is started or moved, and says what to use instead.

    wall       after `move` every program shows the wall clock moved by what was requested, and no clock
               that was not requested
    wait       after a `move` of the monotonic clock a wait that has come due ends, and one that has
               not goes on
    child      a process that a program forks is on the same clocks, and what it executes too if
               that was requested
    restart    a program that is started after a `move` takes its time base from the moved clocks:
               it has no drift
    inside     `read` returns the three clocks as the program itself sees them, measured and not
               computed

    injector   how                                                    module
    vdso       clock functions rewritten when a program is started    injectors/vdso.py,
                                                                      vdso/page.py
    attach     the same in a program that runs already                injectors/vdso.py,
                                                                      vdso/attach.py
    faketime   libfaketime preloaded                                  faketime.py

docs/injectors.md has injector x program x promise as measured by
tests/conformance/test_injectors.py. Other ways of moving clocks move those of a machine, not of a
program: movers/base.py. The process lab keeps to vdso/page.py itself, since there time stops
between two events, and needs more than an offset.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meshwake.clocks.injectors.programs import Program
from meshwake.clocks.injectors.unreachable_waits import BECAUSE, UnreachableWaits, unreached
from meshwake.clocks.vdso.page import Launched
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import seconds
from meshwake.core.errors import BadInput, LabUnavailable, SubjectFailed
from meshwake.system.deadline import Deadline
from meshwake.system.libc import die_with_parent
from meshwake.system.process_stat import is_ending

UNMOVED = ClockReading(0, 0, 0)
_POLL_EVERY_S = 0.002
_ENDS_WITHIN_S = 10.0


class CannotInject(LabUnavailable):
    """This way of moving clocks cannot do what is requested; nothing was started, and nothing was
    moved."""

    def __init__(self, injector: str, what: str, because: str, instead: str) -> None:
        super().__init__(f"injector {injector}: {what}: {because}; {instead}")
        self.injector, self.because, self.instead = injector, because, instead


@dataclass(frozen=True)
class Start:
    """What is to be started. `with_children`: what it executes is to live on the same clocks too.
    `environment` None: ours. The numbers are open files, which become its streams; it does not
    inherit any other."""

    command: tuple[str, ...]
    with_children: bool = False
    environment: Mapping[str, str] | None = None
    directory: Path = Path()
    input: int = 0
    output: int = 1
    error: int = 2


@dataclass
class ManagedProcess:
    """A program on the clocks of an injector. What the injector started (`is_ours`) dies with it;
    what ran already goes on."""

    pid: int
    name: str
    is_ours: bool
    launched: Launched | None = None
    popen: subprocess.Popen[bytes] | None = None
    code: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """How it ended: its exit code, -N for signal N; None: it lives. 0 for what is not
        ours: only its parent gets its status."""
        if self.popen is not None:
            self.code = self.popen.poll()
            return self.code

        # A status can be collected once.
        if self.code is not None:
            return self.code

        if not self.is_ours:
            self.code = 0 if is_ending(self.pid) else None
            return self.code
        found, status = os.waitpid(self.pid, os.WNOHANG)
        if found:
            self.code = os.waitstatus_to_exitcode(status)
        return self.code

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, also where `poll` has no status of it yet."""
        return self.poll() is not None or is_ending(self.pid)

    def wait(self, within_s: float) -> int:
        """Its end. Raises SubjectFailed when it does not come in time."""
        deadline = Deadline(f"the end of process {self.pid}", within_s)
        while (code := self.poll()) is None:
            if deadline.has_passed:
                raise SubjectFailed(
                    f"process {self.pid} ({self.name}) did not end within {within_s} s"
                )
            deadline.sleep(_POLL_EVERY_S)
        return code

    def end(self) -> None:
        """Kills what the injector started, and collects its status."""
        if self.is_ours and self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(_ENDS_WITHIN_S)


class Injector(Protocol):
    """The clocks of one node, and the programs on them. All of one thread."""

    name: str

    @property
    def moved(self) -> ClockReading:
        """By how much each clock is ahead of the kernel's: the sum of all moves."""

    def refusal(self, program: Program, *, with_children: bool = False) -> CannotInject | None:
        """Why a program cannot be started on these clocks, as its file shows; None when it can.
        Touches nothing."""

    def check(self, by: ClockReading) -> None:
        """Raises CannotInject, or BadInput, for a move that is refused whatever the programs do."""

    def start(self, start: Start) -> ManagedProcess:
        """Starts a program; every reading from its first instruction on is of these clocks
        (`attach`: see there). Raises CannotInject before anything was started, BadInput when there
        is no such program, and SubjectFailed, with nothing left running, when it could not be
        brought to run in bounded time."""

    def attach(self, pid: int) -> ManagedProcess:
        """Puts a process that runs already on these clocks. Raises CannotInject, or what `attach`
        does."""

    def move(self, by: ClockReading) -> None:
        """Moves all clocks at one moment, for every program on them, and makes threads whose
        monotonic clock was moved read it. Raises CannotInject when a clock cannot be moved so,
        or a thread waits in a way that a move does not reach (unreachable_waits.py), BadInput when
        monotonic would go back; then nothing was moved."""

    def unreachable_waits(self, process: ManagedProcess) -> UnreachableWaits:
        """Threads of a program that sleep too long, because they began to wait after a move, for a
        time that the kernel judges by its own clock (`move` cannot know of it). To be called while
        waiting for a program."""

    def read(self, process: ManagedProcess) -> ClockReading:
        """The clocks as the program sees them. Raises CannotInject where that cannot be measured
        from outside, SubjectFailed when the program is not on these clocks (it executed another).
        """

    def close(self) -> None:
        """Idempotent. Programs that were started here end; the others go on as they are."""


def check_no_way_back(by: ClockReading) -> None:
    """See `Injector.check`: what none of them does."""
    if by.monotonic_ns < 0 or by.boottime_ns < 0:
        raise BadInput(
            "monotonic and boottime never go back in a running program; only the wall "
            "clock may be set back"
        )


def check_waits(name: str, by: ClockReading, programs: Sequence[ManagedProcess]) -> None:
    """See `Injector.move`: what all of them refuse because of what a program does just now."""
    for one in programs:
        for wait in unreached(one.pid, by):
            what = f"process {one.pid} ({one.name}), thread {wait.tid}, which waits {wait.how}"
            raise CannotInject(
                name, what, BECAUSE, "a real suspend of a guest reaches every wait (lab machine)"
            )


def popen_dying_with_us(
    path: Path, start: Start, environment: dict[str, str] | None
) -> subprocess.Popen[bytes]:
    """An ordinary start; the kernel kills it when the thread that calls this ends."""
    us = os.getpid()
    return subprocess.Popen(
        [str(path), *start.command[1:]],
        stdin=start.input,
        stdout=start.output,
        stderr=start.error,
        env=start.environment if environment is None else environment,
        cwd=start.directory,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(us),  # noqa: PLW1509  # one call to the kernel, no locks
    )


def sum_of(moved: ClockReading, by: ClockReading) -> ClockReading:
    """Both moves."""
    return ClockReading(*(one + other for one, other in zip(moved, by, strict=True)))


def in_words(by: ClockReading) -> str:
    """wall +28800.000 s, monotonic +0.000 s, boottime +28800.000 s."""
    clocks = zip(("wall", "monotonic", "boottime"), by, strict=True)
    return ", ".join(f"{clock} {seconds(value_ns):+.3f} s" for clock, value_ns in clocks)
