"""Ways of moving the clocks of something, behind one face: what it shows when its node's clock says
so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest
from meshwake.clocks.vdso.attach import attach, read_attached
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, read_inside, unsupported_here
from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.system.deadline import Deadline

# Ahead of the machine's own monotonic clock, as in the process lab.
START = ClockReading(1_799_049_600 * 10**9, 10**18, 10**18)
SLEEPS_FOR_EVER = "import select; select.epoll().poll()"
# A program of Python takes 20 s to start on a machine with a load of 20.
WITHIN_S = 60.0


class Injector(Protocol):
    """Something whose clocks can be moved."""

    def show(self, clock: NodeClock) -> ClockReading:
        """Moves its clocks to what `clock` shows, and reads them where they are used."""


class Virtual:
    """The model's own clock, read directly."""

    def show(self, clock: NodeClock) -> ClockReading:
        return clock.now


class RewrittenVdso:
    """A running Python program with its vDSO rewritten, made to read its own clocks."""

    def __init__(self, directory: Path) -> None:
        self.page = ClockPage("fixed")
        self.page.set(START)
        self.process: Launched = start_python(SLEEPS_FOR_EVER, self.page, directory)

    def show(self, clock: NodeClock) -> ClockReading:
        self.page.set(clock.now)
        return read_inside(self.process)

    def close(self) -> None:
        end(self.process)
        self.page.close()


class AttachedVdso:
    """A running Python program that was attached to after its start. The kernel's clocks run on
    below its own: what it shows, less what was moved, lies between what the kernel's showed before
    and after the reading. (Rounded to 10 ms instead, it was off by one such on a busy machine.)"""

    def __init__(self) -> None:
        self.page = ClockPage("offset")
        self._program = subprocess.Popen([sys.executable, "-S", "-c", SLEEPS_FOR_EVER])
        self._process = attach(self._program.pid, self.page)

    def show(self, clock: NodeClock) -> ClockReading:
        self.page.set(clock.now.since(START))
        before = kernel_clocks()
        inside = read_attached(self._process)
        after = kernel_clocks()
        own = inside.since(self.page.get())
        assert all(a <= b <= c for a, b, c in zip(before, own, after, strict=True)), (
            before,
            own,
            after,
        )
        return ClockReading(
            *(start + moved for start, moved in zip(START, self.page.get(), strict=True))
        )

    def close(self) -> None:
        self._program.kill()
        self._program.wait()
        self.page.close()


def kernel_clocks() -> ClockReading:
    """The clocks of this machine, which are never moved."""
    return ClockReading(
        time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    )


def start_python(program: str, page: ClockPage, directory: Path) -> Launched:
    """A Python program on the clocks of `page`, its output in directory/log."""
    return launch(
        [sys.executable, "-S", "-c", program],
        page,
        environment=dict(os.environ),
        directory=directory,
        log=directory / "log",
    )


def end(process: Launched) -> None:
    """Kills it and takes its status."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(process.pid, 0)


def await_text(log: Path, lines: int) -> list[str]:
    """The first `lines` lines of `log`, as soon as the last of them is whole: with PYTHONUNBUFFERED
    a program writes a line word by word, and its first word was taken for all of it now and then.
    """
    deadline = Deadline(f"{lines} lines in {log}", WITHIN_S)
    while (text := log.read_text()).count("\n") < lines:
        deadline.pause(0.002, seen=repr(text))
    return text.splitlines()[:lines]


needs_vdso = pytest.mark.skipif(unsupported_here() is not None, reason=str(unsupported_here()))
