"""Clocks of running programs taken over and given back: no impossible reading, no program
harmed (Linux)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from meshwake.clocks.vdso.attach import attach, detach, page_inside, read_attached
from meshwake.clocks.vdso.image import vdso_of
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.system.deadline import wait_until

from tests.conformance.injectors import (
    START,
    WITHIN_S,
    await_text,
    end,
    kernel_clocks,
    needs_vdso,
    start_python,
)

pytestmark = needs_vdso
HOUR_NS = 3600 * 10**9
READS = 100_000

# Each thread reads both clocks until `stop` exists, then says how often; a clock that goes back
# ends it with an error.
PYTHON_SPINS = """
import os, sys, threading, time
def spin():
    reads, wall, monotonic = 0, time.time_ns(), time.monotonic_ns()
    while reads < int(sys.argv[2]) or not os.path.exists('stop'):
        for _ in range(1000):
            w, m = time.time_ns(), time.monotonic_ns()
            if w < wall or m < monotonic or w > wall + 2 * 3600 * 10**9 or m > monotonic + 60 * 10**9:
                print('impossible', wall, w, monotonic, m, flush=True)
                os._exit(1)
            wall, monotonic, reads = w, m, reads + 1
    os.write(1, b'read %d\\n' % reads)
threads = [threading.Thread(target=spin) for _ in range(int(sys.argv[1]))]
print('spinning', flush=True)
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
GO_SPINS = """
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

func spin(least int, done *sync.WaitGroup) {
	defer done.Done()
	reads, start := 0, time.Now()
	wall, monotonic := start.UnixNano(), time.Duration(0)
	for {
		for i := 0; i < 1000; i++ {
			now := time.Now()
			w, m := now.UnixNano(), now.Sub(start)
			if w < wall || m < monotonic || w > wall+2*3600*1e9 || m > monotonic+time.Minute {
				fmt.Println("impossible", wall, w, monotonic, m)
				os.Exit(1)
			}
			wall, monotonic, reads = w, m, reads+1
			if i == 500 {
				_ = make([]byte, 1<<16) // work for the garbage collector, which stops threads by signals
			}
		}
		if _, err := os.Stat("stop"); err == nil && reads >= least {
			break
		}
	}
	fmt.Println("read", reads)
}

func main() {
	threads, _ := strconv.Atoi(os.Args[1])
	least, _ := strconv.Atoi(os.Args[2])
	var done sync.WaitGroup
	done.Add(threads)
	fmt.Println("spinning")
	for i := 0; i < threads; i++ {
		go spin(least, &done)
	}
	done.Wait()
}
"""


class Spinner:
    """A program whose threads read clocks all the time."""

    def __init__(self, command: list[str], threads: int, directory: Path) -> None:
        self.directory, self.threads = directory, threads
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(threads), str(READS)], cwd=directory, stdout=log
            )
        await_text(directory / "log", 1)

    def check_readings(self) -> None:
        """Each thread has read its clocks often enough, and none has seen what cannot be."""
        (self.directory / "stop").touch()
        assert self.process.wait(WITHIN_S * 3) == 0, (self.directory / "log").read_text()
        lines = (self.directory / "log").read_text().splitlines()[1:]
        assert len(lines) == self.threads
        assert all(line.startswith("read ") and int(line.split()[1]) >= READS for line in lines), (
            lines
        )


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static Go program."""
    if shutil.which("go") is None:
        pytest.skip("needs a Go toolchain to make a Go program")
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(GO_SPINS)
    own = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
        "GOTOOLCHAIN": "local",
    }
    made = subprocess.run(
        ["go", "build", "-o", "spins", "main.go"],
        cwd=place,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"the Go toolchain made no program: {made.stderr[-300:]}")
    return place / "spins"


@pytest.fixture(params=["python", "python, 4 threads", "go, 4 threads"])
def spinner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spinner]:
    """Programs that would notice."""
    if request.param.startswith("go"):
        command = [str(request.getfixturevalue("go_program"))]
    else:
        command = [sys.executable, "-S", "-c", PYTHON_SPINS]
    running = Spinner(command, 4 if "4" in request.param else 1, tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture
def page() -> Iterator[ClockPage]:
    """No offset yet."""
    clocks = ClockPage("offset")
    yield clocks
    clocks.close()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that does nothing, and has reported it: a test that looked for its epoll among its
    files instead met one that the starting interpreter had just closed."""
    program = "import select; waits = select.epoll(); print('waits', flush=True); waits.poll()"
    with (tmp_path / "sleeper").open("w") as log:
        process = subprocess.Popen([sys.executable, "-S", "-c", program], stdout=log)
    try:
        await_text(tmp_path / "sleeper", 1)
        yield process
    finally:
        process.kill()
        process.wait()


def await_true(what: str, there: Callable[[], bool]) -> None:
    wait_until(there, what, WITHIN_S, every_s=0.005)


def test_threads_that_read_clocks_notice_nothing_but_the_move(
    spinner: Spinner, page: ClockPage
) -> None:
    """Attached while all threads read their clocks; then moved forward in many small steps: nothing
    ever goes back."""
    pid = spinner.process.pid
    before = kernel_clocks()
    process = attach(pid, page)
    inside = read_attached(process)
    assert all(a <= b <= c for a, b, c in zip(before, inside, kernel_clocks(), strict=True))
    for step in range(1, 1001):
        page.set(ClockReading(step * HOUR_NS // 1000, 0, step * HOUR_NS // 1000))
    assert read_attached(process).wall_ns - time.time_ns() == pytest.approx(HOUR_NS, abs=10**9)
    spinner.check_readings()


def test_fifty_times_attached_and_given_back(spinner: Spinner, page: ClockPage) -> None:
    """Whatever its threads do meanwhile; in the end its vDSO is the kernel's, and there is one
    page, not fifty."""
    pid = spinner.process.pid
    for _ in range(50):
        attach(pid, page)
        assert detach(pid)
    assert vdso_of(pid).image == vdso_of(os.getpid()).image
    assert Path(f"/proc/{pid}/maps").read_text().count("meshwake-clocks") == 1
    assert not detach(pid)
    spinner.check_readings()


def test_what_is_attached_is_recognised(sleeper: subprocess.Popen[bytes], page: ClockPage) -> None:
    """Attached twice is attached once; the page can be found in the process, and opened there, by
    another process."""
    assert page_inside(sleeper.pid) is None
    first = attach(sleeper.pid, page)
    assert attach(sleeper.pid, page) == first
    inside = page_inside(sleeper.pid)
    assert inside is not None
    assert inside.in_use and inside.inode == page.inode
    page.set(ClockReading(HOUR_NS, 0, HOUR_NS))
    try:
        file = os.open(inside.map_file(sleeper.pid), os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        pytest.skip("needs root of the machine to open another process's maps")
    found = ClockPage.of_file(file)
    assert found.get() == page.get()
    found.set(ClockReading(2 * HOUR_NS, 0, 0))
    assert page.get() == ClockReading(2 * HOUR_NS, 0, 0)
    found.close()


def test_a_page_of_an_earlier_helper_is_replaced(
    sleeper: subprocess.Popen[bytes], page: ClockPage
) -> None:
    """Who attaches last moves the clocks."""
    earlier = ClockPage("offset")
    attach(sleeper.pid, earlier)
    earlier.set(ClockReading(HOUR_NS, 0, 0))
    process = attach(sleeper.pid, page)
    assert abs(read_attached(process).wall_ns - time.time_ns()) < 10**9
    earlier.close()


def test_no_file_is_left_open_in_the_process(
    sleeper: subprocess.Popen[bytes], page: ClockPage
) -> None:
    """Its list of open files is what it was."""
    before = sorted(entry.name for entry in Path(f"/proc/{sleeper.pid}/fd").iterdir())
    attach(sleeper.pid, page)
    assert sorted(entry.name for entry in Path(f"/proc/{sleeper.pid}/fd").iterdir()) == before


def test_a_stopped_program_can_be_attached_and_stays_stopped(
    sleeper: subprocess.Popen[bytes], page: ClockPage
) -> None:
    """Job control is not ours to change."""
    os.kill(sleeper.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{sleeper.pid}/stat")
    await_true("stopped", lambda: " T " in stat.read_text())
    process = attach(sleeper.pid, page)
    page.set(ClockReading(HOUR_NS, 0, 0))
    assert read_attached(process).wall_ns - time.time_ns() == pytest.approx(HOUR_NS, abs=10**9)
    await_true("stopped again", lambda: " T " in stat.read_text())


def test_a_fork_has_the_page_and_an_exec_has_not(tmp_path: Path, page: ClockPage) -> None:
    """A child that is forked keeps the moved clocks; what it exec's starts on the kernel's."""
    program = (
        "import os, sys, time\n"
        "sys.stdin.readline()\n"
        "if os.fork() == 0:\n"
        "    print('forked', time.time_ns(), flush=True)\n"
        "    os.execv(sys.executable, [sys.executable, '-S', '-c',\n"
        "        'import time; print(\"execed\", time.time_ns(), flush=True)'])\n"
        "os.wait()"
    )
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=log
        )
    try:
        attach(process.pid, page)
        page.set(ClockReading(HOUR_NS, 0, HOUR_NS))
        process.communicate(b"go\n", WITHIN_S)
    finally:
        process.kill()
        process.wait()
    shown = {
        line.split()[0]: int(line.split()[1]) - time.time_ns()
        for line in await_text(tmp_path / "log", 2)
    }
    assert shown["forked"] == pytest.approx(HOUR_NS, abs=20 * 10**9)
    assert shown["execed"] == pytest.approx(0, abs=20 * 10**9)


def test_clocks_that_another_process_moved_are_left_alone(tmp_path: Path, page: ClockPage) -> None:
    """A program of the process lab, in fixed time, is refused by name."""
    fixed = ClockPage("fixed")
    fixed.set(START)
    process = start_python("import select; select.epoll().poll()", fixed, tmp_path)
    try:
        with pytest.raises(LabUnavailable, match="moved by another program"):
            attach(process.pid, page)
        assert page_inside(process.pid) is not None
    finally:
        end(process)
        fixed.close()


def test_what_is_not_there_is_an_error(page: ClockPage) -> None:
    """An ended process cannot be attached."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    with pytest.raises(SubjectFailed):
        attach(process.pid, page)


def test_a_process_that_a_debugger_holds_is_refused_and_lives(
    sleeper: subprocess.Popen[bytes], page: ClockPage
) -> None:
    """Only one tracer at a time; ours gives way."""
    from meshwake.clocks.vdso.ptrace import interrupted

    with interrupted(sleeper.pid), pytest.raises(SubjectFailed, match="does a debugger hold it"):
        attach(sleeper.pid, page)
    assert attach(sleeper.pid, page).pid == sleeper.pid


def test_a_process_in_namespaces_of_its_own(tmp_path: Path, page: ClockPage) -> None:
    """As in a container: it sees neither our files nor our processes, and shares the page all the
    same."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("needs unshare and root")
    command = [unshare, "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
    with (tmp_path / "log").open("w") as log:
        outer = subprocess.Popen(
            [
                *command,
                sys.executable,
                "-S",
                "-c",
                "import select; print(1, flush=True); select.epoll().poll()",
            ],
            stdout=log,
        )
    try:
        await_text(tmp_path / "log", 1)
        inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        process = attach(inner, page)
        page.set(ClockReading(HOUR_NS, 0, HOUR_NS))
        assert read_attached(process).wall_ns - time.time_ns() == pytest.approx(HOUR_NS, abs=10**9)
        assert detach(inner)
    finally:
        outer.kill()
        outer.wait()
