"""Real programs on moved clocks: what they read, when their waits end, and what a restart sees
(Linux)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage, read_inside
from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.errors import SubjectFailed
from meshwake.system.deadline import wait_until

from tests.conformance.injectors import (
    SLEEPS_FOR_EVER,
    START,
    WITHIN_S,
    await_text,
    end,
    needs_vdso,
    start_python,
)

pytestmark = needs_vdso
NS_PER_S = 10**9
HOUR_NS = 3600 * NS_PER_S


@pytest.fixture
def page() -> Iterator[ClockPage]:
    """Clocks that stay at START."""
    clocks = ClockPage("fixed")
    clocks.set(START)
    yield clocks
    clocks.close()


def await_asleep(process: WatchedProcess, monotonic_now_ns: int) -> None:
    """Until every thread sleeps in the kernel, and has from one look to the next, as the lab wants
    it."""
    wait_until(
        lambda: bool(process.asleep(monotonic_now_ns) and process.still_asleep()),
        f"{process.name} to sleep",
        WITHIN_S,
        every_s=0.001,
    )


def test_a_program_reads_moved_clocks_from_its_first_instruction(
    page: ClockPage, tmp_path: Path
) -> None:
    """Every function that Python has for the time shows the page, and nothing of the machine's own
    time."""
    program = (
        "import time; print(time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(7), "
        "int(time.time()))"
    )
    process = start_python(program, page, tmp_path)
    try:
        words = await_text(tmp_path / "log", 1)[0].split()
    finally:
        end(process)
    assert [int(word) for word in words] == [*START, START.wall_ns // NS_PER_S]


def test_what_is_read_inside_is_what_the_program_reads(page: ClockPage, tmp_path: Path) -> None:
    """Our way of asking a process for its time gives what the process itself sees, and leaves it as
    it was."""
    process = start_python(SLEEPS_FOR_EVER, page, tmp_path)
    try:
        assert read_inside(process) == START
        later = ClockReading(
            START.wall_ns + HOUR_NS, START.monotonic_ns, START.boottime_ns + HOUR_NS
        )
        page.set(later)
        assert [read_inside(process) for _ in range(3)] == [later] * 3
    finally:
        end(process)


def test_a_restart_starts_with_no_drift(page: ClockPage, tmp_path: Path) -> None:
    """A program started after a night of sleep takes its time base from the moved clocks: drift 0."""
    page.set(
        ClockReading(
            START.wall_ns + 8 * HOUR_NS, START.monotonic_ns, START.boottime_ns + 8 * HOUR_NS
        )
    )
    process = start_python(
        "import time; print(time.time_ns(), time.monotonic_ns())", page, tmp_path
    )
    try:
        wall_ns, monotonic_ns = (int(word) for word in await_text(tmp_path / "log", 1)[0].split())
    finally:
        end(process)
    base = ClockReading(wall_ns, monotonic_ns, page.get().boottime_ns)
    assert drift_ns(base, page.get()) == 0
    assert base.wall_ns == START.wall_ns + 8 * HOUR_NS


WAITS_AN_HOUR = """
import select, time
poller, due = select.epoll(), time.monotonic() + 3600
while time.monotonic() < due:
    poller.poll(max(due - time.monotonic(), 0))
print('the hour is over', flush=True)
poller.poll()
"""


def test_a_wait_ends_when_its_clock_says_so_and_not_before(page: ClockPage, tmp_path: Path) -> None:
    """The deadline of a wait is found; an hour's wait ends when monotonic has moved by an hour, not
    when wall has."""
    process = start_python(WAITS_AN_HOUR, page, tmp_path)
    watched = WatchedProcess(process.pid, "waiter")
    try:
        await_asleep(watched, START.monotonic_ns)
        assert watched.due_monotonic_ns() == START.monotonic_ns + HOUR_NS
        page.set(
            ClockReading(
                START.wall_ns + 8 * HOUR_NS, START.monotonic_ns, START.boottime_ns + 8 * HOUR_NS
            )
        )
        watched.wake(START.monotonic_ns)
        await_asleep(watched, START.monotonic_ns)
        assert watched.due_monotonic_ns() == START.monotonic_ns + HOUR_NS
        assert (tmp_path / "log").read_text() == ""
        page.set(
            ClockReading(
                START.wall_ns + 9 * HOUR_NS,
                START.monotonic_ns + HOUR_NS,
                START.boottime_ns + 9 * HOUR_NS,
            )
        )
        watched.wake(START.monotonic_ns + HOUR_NS)
        assert await_text(tmp_path / "log", 1) == ["the hour is over"]
        await_asleep(watched, START.monotonic_ns + HOUR_NS)
        assert watched.due_monotonic_ns() is None
    finally:
        watched.close()
        end(process)


def test_a_process_that_ran_between_two_passes_was_not_asleep_all_the_time(
    page: ClockPage, tmp_path: Path
) -> None:
    """What makes one moment of many looks: asleep before and asleep after is not enough when it has
    run in between."""
    marks = tmp_path / "marks"
    program = (
        "import signal\n"
        "def answer(*_): open('marks', 'a').write('x')\n"
        "signal.signal(signal.SIGUSR1, answer)\n"
        "while True: signal.pause()"
    )
    process = start_python(program, page, tmp_path)
    watched = WatchedProcess(process.pid, "answerer")
    try:
        await_asleep(watched, START.monotonic_ns)
        assert watched.still_asleep()
        os.kill(process.pid, signal.SIGUSR1)
        wait_until(marks.exists, "an answer", WITHIN_S, every_s=0.001)
        assert not watched.still_asleep()
        await_asleep(watched, START.monotonic_ns)
        assert watched.still_asleep()
    finally:
        watched.close()
        end(process)


def test_a_stopped_process_does_not_count_as_waiting(page: ClockPage, tmp_path: Path) -> None:
    """What is stopped stays stopped until it is resumed, and then goes on."""
    process = start_python("import time\nwhile True: time.time()", page, tmp_path)
    watched = WatchedProcess(process.pid, "spinner")
    try:
        watched.stop()
        state = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        assert state == "T"
        watched.resume()
        assert not any(watched.asleep(0) for _ in range(5))
    finally:
        watched.close()
        end(process)


def ends_by_itself(program: str) -> Callable[[ClockPage, Path], None]:
    """Starts a program and looks after it until it is noticed that it has ended."""

    def run(page: ClockPage, directory: Path) -> None:
        process = start_python(program, page, directory)
        watched = WatchedProcess(process.pid, "mayfly")
        try:
            for _ in range(10_000):
                watched.check_alive()
                time.sleep(0.001)
        finally:
            watched.close()
            end(process)

    return run


def test_an_end_is_noticed_and_described(page: ClockPage, tmp_path: Path) -> None:
    """A subject that ends by itself is an error that says how it ended."""
    with pytest.raises(SubjectFailed, match=r"mayfly ended by itself \(exit code 7\)"):
        ends_by_itself("raise SystemExit(7)")(page, tmp_path)


def test_a_program_that_is_not_there_is_named(page: ClockPage, tmp_path: Path) -> None:
    """A command that cannot be executed is an error with the reason, not a hang."""
    from meshwake.clocks.vdso.page import launch

    with pytest.raises(SubjectFailed, match="/no/such/program could not be started.*No such file"):
        launch(["/no/such/program"], page, environment={}, directory=tmp_path, log=tmp_path / "log")


def test_a_stopped_program_can_be_read_and_does_not_notice(page: ClockPage, tmp_path: Path) -> None:
    """A timer due at the moment of falling asleep fires after the wake, though its clock was read
    in between."""
    process = start_python(WAITS_AN_HOUR, page, tmp_path)
    watched = WatchedProcess(process.pid, "sleeper")
    try:
        await_asleep(watched, START.monotonic_ns)
        watched.stop()
        due = ClockReading(
            START.wall_ns + HOUR_NS, START.monotonic_ns + HOUR_NS, START.boottime_ns + HOUR_NS
        )
        page.set(due)
        assert [read_inside(process) for _ in range(3)] == [due] * 3
        assert (tmp_path / "log").read_text() == ""
        watched.resume()
        assert await_text(tmp_path / "log", 1) == ["the hour is over"]
    finally:
        watched.close()
        end(process)
