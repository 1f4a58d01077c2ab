"""The first program of an ARM64 guest: the clocks of real programs moved there, each promise with
what was seen.

Printed on the console, one line of JSON for each promise, after the word CLAIM; then the machine is
turned off.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, "/meshwake/site")

from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.code_x86_64 import Mode
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, read_inside
from meshwake.core.clock_reading import ClockReading
from meshwake.system.libc import mount, power_off

HOUR_NS = 3_600 * 10**9
STARTS = ClockReading(1_800_000_000 * 10**9, 10**18, 10**18)
WITHIN_S = 60.0
PYTHON = os.path.realpath(sys.executable)
SHOW = (
    "import time; print(time.time_ns(), time.monotonic_ns(), "
    "time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)"
)
WAITS = """
import select, time
poller, due = select.epoll(), time.monotonic() + 3600
while time.monotonic() < due:
    poller.poll(due - time.monotonic())
print("ended at", time.time_ns(), flush=True)
time.sleep(1000)
"""
TALKS = "import sys\nfor line in sys.stdin:\n    pass\n"


@contextmanager
def running(
    mode: Mode, *command: str, page: ClockPage | None = None
) -> Iterator[tuple[Launched, Path]]:
    """A program on a page of its own, which in fixed mode begins at STARTS."""
    page = page or ClockPage(mode)
    if mode == "fixed":
        page.set(STARTS)
    log = Path(f"/tmp/log-{time.monotonic_ns()}")  # noqa: S108  # of the guest
    launched = launch(command, page, environment={}, directory=Path("/"), log=log)
    try:
        yield launched, log
    finally:
        os.kill(launched.pid, 9)
        os.waitpid(launched.pid, 0)


def printed(log: Path, lines: int = 1) -> list[str]:
    """What it has printed, when that many lines are there."""
    give_up = time.monotonic() + WITHIN_S
    while (text := log.read_text() if log.exists() else "").count("\n") < lines:
        if time.monotonic() > give_up:
            raise TimeoutError(f"{lines} lines were awaited, there are {text!r}")
        time.sleep(0.01)
    return text.splitlines()


def fixed_from_the_first_instruction() -> str:
    with running("fixed", PYTHON, "-S", "-c", SHOW) as (_, log):
        shown = [int(word) for word in printed(log)[0].split()]
    assert shown == list(STARTS), shown
    return f"python shows {shown}"


def a_static_program_is_reached() -> str:
    with running("fixed", "/bin/busybox", "date", "-u", "+%s") as (_, log):
        shown = printed(log)[0]
    assert shown == str(STARTS.wall_ns // 10**9), shown
    return f"busybox (static) shows {shown}"


def offsets_are_added_to_the_kernel_s_time() -> str:
    page = ClockPage("offset")
    page.set(ClockReading(8 * HOUR_NS, 0, 8 * HOUR_NS))
    with running("offset", PYTHON, "-S", "-c", SHOW, page=page) as (_, log):
        before = (time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        shown = [int(word) for word in printed(log)[0].split()]
    apart_s = [(one - two) / 1e9 for one, two in zip(shown, before, strict=True)]
    assert all(
        abs(one - two) < WITHIN_S for one, two in zip(apart_s, (28_800, 0, 28_800), strict=True)
    ), apart_s
    return f"ahead of the kernel's by {apart_s} s"


def read_from_inside_and_moved_while_it_runs() -> str:
    with running("fixed", PYTHON, "-S", "-c", WAITS) as (launched, _):
        time.sleep(1.0)
        first = read_inside(launched)
        slept = ClockReading(
            STARTS.wall_ns + 8 * HOUR_NS, STARTS.monotonic_ns, STARTS.boottime_ns + 8 * HOUR_NS
        )
        launched.page.set(slept)
        second = read_inside(launched)
    assert (first, second) == (STARTS, slept), (first, second)
    return f"wall and boottime moved by {(second.wall_ns - first.wall_ns) / 1e9} s, monotonic by 0"


def idle_time_is_skipped() -> str:
    with running("fixed", PYTHON, "-S", "-c", WAITS) as (launched, log):
        watched = WatchedProcess(launched.pid, "waits")
        give_up = time.monotonic() + WITHIN_S
        while not (
            watched.asleep(STARTS.monotonic_ns)
            and watched.still_asleep()
            and watched.due_monotonic_ns()
        ):
            assert time.monotonic() < give_up, "it was never seen to wait"
            time.sleep(0.05)
        due_ns = watched.due_monotonic_ns()
        assert due_ns == STARTS.monotonic_ns + HOUR_NS, due_ns
        began_s = time.monotonic()
        launched.page.set(
            ClockReading(STARTS.wall_ns + HOUR_NS, due_ns, STARTS.boottime_ns + HOUR_NS)
        )
        watched.wake(due_ns)
        ended = printed(log)[0]
        took_s = time.monotonic() - began_s
        watched.close()
    assert ended == f"ended at {STARTS.wall_ns + HOUR_NS}", ended
    return f"a wait of an hour in epoll_pwait ended in {took_s:.2f} s"


def it_dies_with_who_started_it() -> str:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        page = ClockPage("fixed")
        page.set(STARTS)
        log = Path("/tmp/log-child")  # noqa: S108  # of the guest
        one = launch(
            [PYTHON, "-S", "-c", WAITS], page, environment={}, directory=Path("/"), log=log
        )
        os.write(writes, str(one.pid).encode())
        time.sleep(1000)
    pid = int(os.read(reads, 20))
    os.kill(child, 9)
    os.waitpid(child, 0)
    give_up = time.monotonic() + WITHIN_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < give_up:
        try:
            os.waitpid(pid, os.WNOHANG)  # we are process 1 and inherit it
        except ChildProcessError:
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "it lives on"
    return "killed with its starter"


CLAIMS: tuple[Callable[[], str], ...] = (
    fixed_from_the_first_instruction,
    a_static_program_is_reached,
    offsets_are_added_to_the_kernel_s_time,
    read_from_inside_and_moved_while_it_runs,
    idle_time_is_skipped,
    it_dies_with_who_started_it,
)


def main() -> None:
    """Each claim, and whether it held."""
    for place, kind in (
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "devtmpfs"),
        ("/tmp", "tmpfs"),  # noqa: S108  the guest's own
    ):
        Path(place).mkdir(exist_ok=True)
        with suppress(OSError):  # the kernel may have mounted it already
            mount(kind, place)
    console = os.open("/dev/console", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(console, number)
    machine = {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    sys.stdout.write(f"MACHINE {json.dumps(machine)}\n")
    for claim in CLAIMS:
        try:
            answer = {"claim": claim.__name__, "held": True, "seen": claim()}
        except BaseException:  # noqa: BLE001  # whatever it was, the host must receive it
            answer = {"claim": claim.__name__, "held": False, "seen": traceback.format_exc()}
        sys.stdout.write(f"CLAIM {json.dumps(answer)}\n")
        sys.stdout.flush()
    sys.stdout.write("DONE\n")
    sys.stdout.flush()
    time.sleep(0.5)
    power_off()


if __name__ == "__main__":
    main()
