"""Which waits a move of the clocks does not reach: derived from what the kernel shows of a waiting
thread."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from meshwake.clocks.injectors.base import CannotInject
from meshwake.clocks.injectors.unreachable_waits import unreached, wake_epoll_waits
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import ExitCode
from meshwake.core.resources import SOURCES
from meshwake.system.deadline import wait_until
from meshwake.system.libc import TFD_TIMER_ABSTIME

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's files are those of Linux"
)
H = 3600 * 10**9
AWAKE, STEP, SUSPEND = ClockReading(H, H, H), ClockReading(H, 0, 0), ClockReading(H, 0, H)
WITHIN_S = 20.0
_TIMERFD = """
import os, time
from meshwake.system.libc import timerfd_create, timerfd_settime
file = timerfd_create({clock})
timerfd_settime(file, {flags}, int({due}))
print("waits", flush=True)
os.read(file, 8)
"""


@contextmanager
def waiting(program: str) -> Iterator[int]:
    """A program that waits, or is about to."""
    process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def await_true(what: str, there: Callable[[], bool]) -> None:
    wait_until(there, what, WITHIN_S, every_s=0.002)


def in_a_call(pid: int, numbers: tuple[str, ...]) -> bool:
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in numbers


SAYS = "import select, threading, time; print('waits', flush=True); "


@pytest.mark.parametrize(
    ("program", "how", "by"),
    [
        (SAYS + "time.sleep(3600)", "clock_nanosleep until a time of the monotonic clock", AWAKE),
        (SAYS + "select.select([], [], [], 3600)", "in (select|pselect6) for 3600", AWAKE),
        (SAYS + "p = select.poll(); p.poll(3600000)", "in p?poll for 3600", AWAKE),
        (
            SAYS + "threading.Event().wait(3600)",
            "futex until a time of the (monotonic|wall) clock",
            AWAKE,
        ),
        (_TIMERFD.format(clock=1, flags=0, due=3600), "a timerfd for 3[56]", AWAKE),
        (
            _TIMERFD.format(clock=0, flags=TFD_TIMER_ABSTIME, due="int(time.time()) + 3600"),
            "timerfd until a time of the wall",
            STEP,
        ),
        (
            _TIMERFD.format(clock=7, flags=TFD_TIMER_ABSTIME, due=10**6),
            "timerfd until a time of the boottime clock",
            SUSPEND,
        ),
    ],
)
def test_what_the_kernel_judges_is_named(program: str, how: str, by: ClockReading) -> None:
    """By the call, and by what it waits for."""
    with waiting(program) as pid:
        await_true(how, lambda: bool(unreached(pid, by)))
        (wait,) = unreached(pid, by)
        assert wait.tid == pid
        assert re.search(how, wait.how), wait.how


@pytest.mark.parametrize(
    ("program", "by"),
    [
        (SAYS + "time.sleep(3600)", STEP),
        (SAYS + "time.sleep(3600)", SUSPEND),
        (SAYS + "select.epoll().poll(3600)", AWAKE),
        (SAYS + "threading.Event().wait()", AWAKE),
        (SAYS + "select.poll().poll()", AWAKE),
        (SAYS + "select.select([], [], [], 3600)", STEP),
        (_TIMERFD.format(clock=1, flags=0, due=3600), STEP),
        (SAYS + "time.sleep(3600)", ClockReading(0, 0, 0)),
    ],
)
def test_what_a_move_reaches_or_leaves_alone_is_not_named(program: str, by: ClockReading) -> None:
    """Event loops; waits without an end; clocks that are not moved."""
    with waiting(program) as pid:
        await_true("it waits in a call", lambda: not in_a_call(pid, ("running", "-1")))
        assert unreached(pid, by) == []


def test_a_wait_that_was_interrupted_is_still_known() -> None:
    """The kernel shows it as restart_syscall with the arguments of the first call."""
    with waiting(SAYS + "p = select.poll(); p.poll(3600000)") as pid:
        await_true("it polls", lambda: bool(unreached(pid, AWAKE)))
        os.kill(pid, signal.SIGSTOP)
        await_true("stopped", lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T")
        os.kill(pid, signal.SIGCONT)
        await_true("it polls again", lambda: bool(unreached(pid, AWAKE)))
        assert "poll for 3600" in unreached(pid, AWAKE)[0].how


def test_a_wake_up_ends_a_wait_in_an_event_loop_and_leaves_a_stopped_process_alone() -> None:
    """Python's epoll reads its clock after EINTR; a foreign stop is not undone."""
    with waiting(SAYS + "select.epoll().poll(3600)") as pid:
        await_true("it waits", lambda: in_a_call(pid, ("232", "281", "22")))
        before = (
            Path(f"/proc/{pid}/status").read_text().split("voluntary_ctxt_switches:")[1].split()[0]
        )
        wake_epoll_waits(pid)
        await_true(
            "it has run",
            lambda: (
                Path(f"/proc/{pid}/status")
                .read_text()
                .split("voluntary_ctxt_switches:")[1]
                .split()[0]
                != before
            ),
        )
        os.kill(pid, signal.SIGSTOP)
        await_true("stopped", lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T")
        wake_epoll_waits(pid)
        assert Path(f"/proc/{pid}/stat").read_text().split()[2] == "T"


def test_a_process_that_has_ended_waits_for_nothing() -> None:
    """And is not woken."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert unreached(process.pid, AWAKE) == []
    wake_epoll_waits(process.pid)


def test_errors_of_the_injectors_are_of_the_harness() -> None:
    """A refusal is for the owner of the machine, with its exit code."""
    error = CannotInject("vdso", "a program", "because", "use another")
    assert error.exit_code is ExitCode.LAB_UNAVAILABLE
    assert str(error) == "injector vdso: a program: because; use another"
