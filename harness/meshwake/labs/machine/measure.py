"""What each clock fault does to the clocks: in a real kernel, in our virtual node, on a rewritten
vDSO. Measured.

`meshwake clocks` writes docs/clocks-measured.md from it. One guest, no ztunnel. Time is not
skipped: the machine's battery-backed clock (which a kernel reads to learn how long it slept) goes
on in real time.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from meshwake.clocks.guest.init import GuestRequest
from meshwake.clocks.guest.qemu import GuestCost, Machine, run_guest
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, read_inside
from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject, list_at, text_at
from meshwake.labs.machine.image import assemble, base_part
from meshwake.labs.machine.kernel import Kernel, find_kernel

MEMORY_MB = 512
# Ahead of the machine's own monotonic clock, as in the process lab.
_START = ClockReading(1_799_049_600 * NS_PER_S, 10**18, 10**18)
_H, _S = 3600 * NS_PER_S, NS_PER_S
_WAITS_FOR_EVER = "import signal; signal.pause()"


@dataclass(frozen=True)
class Row:
    """One fault: what the guest does for it, and what a virtual node does for the same; None: it
    has no word for it."""

    name: str
    steps: tuple[JsonObject, ...]
    virtual: Callable[[NodeClock], None] | None = None


def _pass(clock: NodeClock, lasts_ns: int) -> None:
    clock.advance_to(clock.now_world_ns + lasts_ns)


def _idle(lasts_ns: int) -> JsonObject:
    return {"do": "idle", "lasts_ns": lasts_ns}


ROWS = (
    Row("3 s awake", (_idle(3 * _S),), lambda clock: _pass(clock, 3 * _S)),
    Row(
        "suspend to RAM for 8 h",
        ({"do": "suspend", "lasts_ns": 8 * _H},),
        lambda clock: clock.suspend(8 * _H),
    ),
    Row(
        "the machine stopped for 17 min, and not corrected yet",
        ({"do": "pause", "lasts_ns": 17 * 60 * _S},),
        lambda clock: None,
    ),
    Row(
        "then the wall clock set from the machine's own clock",
        ({"do": "set_from_rtc"},),
        lambda clock: clock.step(17 * 60 * _S),
    ),
    Row(
        "wall clock stepped by +13 h",
        ({"do": "step", "by_wall_ns": 13 * _H},),
        lambda clock: clock.step(13 * _H),
    ),
    Row(
        "wall clock stepped by -13 h",
        ({"do": "step", "by_wall_ns": -13 * _H},),
        lambda clock: clock.step(-13 * _H),
    ),
    Row(
        "wall clock 25 ms ahead every second for 4 s, as a guest agent does",
        tuple(
            step for _ in range(4) for step in (_idle(_S), {"do": "step", "by_wall_ns": _S // 40})
        ),
        lambda clock: clock.drift(4 * _S, Fraction("1.025")),
    ),
    Row(
        "4 s at a tick 5 % longer, as chrony corrects (adjtimex)",
        (
            {"do": "tick", "microseconds": 10_500},
            _idle(4 * _S),
            {"do": "tick", "microseconds": 10_000},
        ),
    ),
    Row("4 s of slewing by the kernel (adjtime)", ({"do": "slew", "by_us": 2000}, _idle(4 * _S))),
    Row(
        "suspend to idle for 10 min (s2idle; this kernel's idle driver)",
        ({"do": "s2idle", "lasts_ns": 600 * _S},),
    ),
)


@dataclass(frozen=True)
class Measured:
    """How far wall, monotonic and boottime moved for one row, in each of the three worlds."""

    row: Row
    kernel: ClockReading
    virtual: ClockReading | None
    vdso: ClockReading | None


def needed_kernel() -> Kernel:
    """The kernel for guests. Raises LabUnavailable when there is none."""
    kernel = find_kernel()
    if kernel is None:
        raise LabUnavailable(
            "no Linux kernel for guests; run meshwake fetch-kernel, or see docs/machine.md"
        )
    return kernel


def run_steps(
    steps: list[JsonObject], directory: Path, **machine: Any
) -> tuple[list[ClockReading], GuestCost]:
    """What each step did to the clocks of a guest that has only them to look after. Raises as
    run_guest does."""
    moved: list[ClockReading] = []
    cost = run_request(
        {"do": "clocks", "steps": steps},
        directory,
        lambda message: moved.extend(_moved(message)),
        **machine,
    )
    return moved, cost


def run_request(
    request: GuestRequest,
    directory: Path,
    take: Callable[[JsonObject], None],
    parts: tuple[Path, ...] = (),
    **machine: Any,
) -> GuestCost:
    """Runs a guest without the lab in it. Raises SubjectFailed when it says that it failed."""
    kernel = needed_kernel()
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / "guest.cpio"
    assemble([base_part(kernel, with_lab=False), *parts], request, image)
    failed: list[str] = []

    def receive(message: JsonObject) -> None:
        if "failed" in message:
            failed.append(text_at(message, "failed", "message"))
        take(message)

    options = {"memory_mb": MEMORY_MB} | machine
    try:
        cost = run_guest(Machine(kernel.image, image, **options), directory, receive)
    finally:
        image.unlink(missing_ok=True)
    if failed:
        raise SubjectFailed(f"in the guest: {failed[0]}")
    return cost


def reading_in(message: JsonObject, key: str) -> ClockReading:
    """Wall, monotonic and boottime, as a guest sends them: a list of three numbers."""
    return ClockReading(*(int(str(number)) for number in list_at(message, key)))


def _moved(message: JsonObject) -> list[ClockReading]:
    if "measured" not in message:
        return []
    return [reading_in(message, "after").since(reading_in(message, "before"))]


def measure(directory: Path) -> list[Measured]:
    """Every row, in a guest in real time, on a virtual node, and inside a program on a rewritten
    vDSO."""
    steps = [step for row in ROWS for step in row.steps]
    moved, _ = run_steps(steps, directory, skip_idle=False)
    found = []
    at = 0

    # One guest does the steps of all rows, one after the other: a boot takes longer than they do.
    for row in ROWS:
        parts = moved[at : at + len(row.steps)]
        at += len(row.steps)
        kernel = ClockReading(*map(sum, zip(*parts, strict=True)))
        found.append(Measured(row, kernel, *_elsewhere(row, directory)))
    return found


def _elsewhere(row: Row, directory: Path) -> tuple[ClockReading | None, ClockReading | None]:
    if row.virtual is None:
        return None, None
    clock = NodeClock(_START)
    row.virtual(clock)
    return clock.now.since(_START), _inside_a_program(clock.now, directory)


def _inside_a_program(clocks: ClockReading, directory: Path) -> ClockReading:
    page = ClockPage("fixed")
    page.set(_START)
    command = [sys.executable, "-S", "-c", _WAITS_FOR_EVER]
    program = launch(
        command, page, environment={}, directory=directory, log=directory / "program.log"
    )
    try:
        before = read_inside(program)
        page.set(clocks)
        return read_inside(program).since(before)
    finally:
        _end(program)
        page.close()


def _end(program: Launched) -> None:
    # The program is our own child (launch), and waits for ever.
    with suppress(ProcessLookupError):
        os.kill(program.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(program.pid, 0)


# --- The page -------------------------------------------------------------------------------------

_HEAD = """\
# Measured: what a clock fault does to the clocks of a kernel

Written by `meshwake clocks`; do not edit. Each cell: how far wall (CLOCK_REALTIME), monotonic
(CLOCK_MONOTONIC) and boottime (CLOCK_BOOTTIME) moved from just before to just after, in seconds.
*Kernel*: read inside a QEMU guest whose kernel was really suspended, stopped or set. *Virtual*: our
`NodeClock`. *vDSO*: read inside a running program on the clock page of the process lab. "none": a
scenario has no such fault.

"""
_TAIL = """
What follows from it:

* A suspend moves wall and boottime together, and not monotonic: the virtual node and the vDSO show
  the same. The kernel reads the length of its sleep from a clock of whole seconds, so it may be a
  second off.
* When a machine is stopped, none of its clocks counts that time; only the wall clock is ever
  corrected. Boottime is not.
* A rate (`adjtimex`, as chrony and ntpd correct) changes wall, monotonic and boottime alike, so a
  timer goes with it and the clocks do not diverge: 4 s here are 4 s on all three, and took 5 % less
  of real time. What makes them diverge is a wall clock that is *set*, a little at a time: the fault
  `drift`. The kernel's own slewing is at most 0.5 ms a second, on all three too.
* s2idle on this kernel only idles: without an idle driver that stops timekeeping, monotonic runs
  on. To a timer it is not a suspend, and the machine lab refuses it as one. On a laptop whose
  driver stops timekeeping, it is like suspend to RAM.
"""


def page(measured: list[Measured], kernel_release: str) -> str:
    """docs/clocks-measured.md."""
    lines = [
        _HEAD,
        f"Kernel of the guest: {_series(kernel_release)}.\n\n",
        "| fault | kernel | virtual | vDSO |\n",
    ]
    lines.append("|---|---|---|---|\n")
    lines += [
        f"| {one.row.name} | {_cell(one.kernel)} | {_cell(one.virtual)} | {_cell(one.vdso)} |\n"
        for one in measured
    ]
    return "".join(lines) + _TAIL


def _series(release: str) -> str:
    return ".".join(release.split(".")[:2])


def _cell(moved: ClockReading | None) -> str:
    if moved is None:
        return "none"
    # A few nanoseconds back would be shown as -0.0.
    return " / ".join(f"{value / NS_PER_S:+.1f}".replace("-0.0", "+0.0") for value in moved)


def write_page(output: Path) -> list[Measured]:
    """Measures, and writes the page."""
    with tempfile.TemporaryDirectory(prefix="meshwake-clocks-") as directory:
        measured = measure(Path(directory))
    output.write_text(page(measured, needed_kernel().release), encoding="utf-8")
    return measured
