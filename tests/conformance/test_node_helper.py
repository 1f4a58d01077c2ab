"""The helper of a node against real programs: what runs, what is started later, what becomes of it
when it dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.clocks.movers.process import ProcessMover
from meshwake.clocks.vdso.attach import page_inside
from meshwake.core.clock_reading import ClockReading, drift_ns

from tests.conformance.helpers import OWNER, HelperProcess, await_true, own_copy, python_environment
from tests.conformance.injectors import WITHIN_S, await_text, kernel_clocks, needs_vdso
from tests.support.processes import state_of
from tests.unit.clocks.movers.test_process import fault, plan

pytestmark = [
    needs_vdso,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it watches execs by fanotify"),
]
HOUR_NS, SECOND_NS = 3600 * 10**9, 10**9
NEAR_NS = 5 * SECOND_NS
# Its first readings, then for ever nothing.
PRINTS_ITS_BASE = (
    "import time; w, m = time.time_ns(), time.monotonic_ns()\n"
    "print('base', w, m, time.clock_gettime_ns(7), flush=True)\n"
    "import select; select.epoll().poll()"
)


class Subject:
    """A program that prints its time base."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, env=python_environment())

    @property
    def base(self) -> ClockReading:
        """What it read first."""
        return ClockReading(*(int(word) for word in await_text(self.log, 1)[0].split()[1:]))

    @property
    def state(self) -> str:
        """R, S, T ... (proc(5))."""
        return state_of(self.process.pid)

    def end(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()


class Bench:
    """A helper, and a program of its own to be taken and started again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.helper = HelperProcess(directory)
        self.program = own_copy(Path(sys.executable).resolve(), f"subject-{os.getpid()}", directory)
        self.subjects: list[Subject] = []

    def start(self, *before: str) -> Subject:
        """The program, by way of `before`."""
        command = [*before, str(self.program), "-S", "-c", PRINTS_ITS_BASE]
        subject = Subject(command, self.directory / f"log{len(self.subjects)}")
        self.subjects.append(subject)
        return subject

    def move_wall(self, by_ns: int) -> None:
        """A suspend, as offsets."""
        self.helper.ask(do="set", wall_ns=by_ns, monotonic_ns=0, boottime_ns=by_ns)

    def clocks(self, subject: Subject) -> ClockReading:
        """Measured inside."""
        read = self.helper.ask(do="read", pid=subject.process.pid)["readings"]
        return ClockReading(**read[0]["clocks"])

    def how(self, subject: Subject) -> str | None:
        """How the helper came to it."""
        found = [
            p for p in self.helper.ask(do="list")["processes"] if p["pid"] == subject.process.pid
        ]
        return str(found[0]["how"]) if found else None

    def close(self) -> None:
        """Ends all of it."""
        for subject in self.subjects:
            subject.process.send_signal(signal.SIGCONT)
            subject.end()
        self.helper.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """See Bench."""
    ready = Bench(tmp_path)
    yield ready
    ready.close()


def is_near(reading: ClockReading, offsets: ClockReading) -> bool:
    """Whether it is the kernel's time plus offsets."""
    apart = reading.since(kernel_clocks()).since(offsets)
    return all(abs(apart_ns) < NEAR_NS for apart_ns in apart)


def test_a_running_program_is_taken_moved_and_given_back(bench: Bench) -> None:
    """The whole way of one suspend."""
    subject = bench.start()
    assert is_near(subject.base, ClockReading(0, 0, 0))
    bench.helper.take_or_skip(bench.program)
    assert bench.how(subject) == "attached"
    before = bench.clocks(subject)
    bench.move_wall(HOUR_NS)
    after = bench.clocks(subject)
    assert drift_ns(before, after) == pytest.approx(HOUR_NS, abs=SECOND_NS // 5)
    reported = bench.helper.ask(do="release")
    assert reported["released"] == [subject.process.pid] and reported["failed"] == {}
    inside = page_inside(subject.process.pid)
    assert inside is not None and not inside.in_use


def test_a_restart_under_a_moved_clock_starts_with_no_drift(bench: Bench) -> None:
    """Caught at its exec: the very first readings are of the moved clocks, so its time base has
    drift 0. Five times."""
    bench.start()
    bench.helper.take_or_skip(bench.program)
    bench.move_wall(8 * HOUR_NS)
    for _ in range(5):
        again = bench.start()
        assert is_near(again.base, ClockReading(8 * HOUR_NS, 0, 8 * HOUR_NS))
        # 8 h if its base were of the kernel. The three clocks are read one after the other, and a
        # busy machine has interrupted that for 12 ms.
        assert abs(drift_ns(again.base, bench.clocks(again))) < SECOND_NS
        assert bench.how(again) == "caught"
        again.end()
    assert bench.helper.ask(do="list")["watch"]["missed"] == 0


def test_a_file_system_that_has_the_number_of_one_that_has_gone_is_watched_too(
    bench: Bench,
) -> None:
    """The overlay of a new container has the number of an old one's, and its files of the same
    image too: an Envoy that was started in the sixth Gateway was not caught."""
    where, original = bench.directory / "container", bench.program
    where.mkdir()
    bench.program = where / original.name
    bench.helper.take_or_skip(bench.program)
    numbers = set()
    for _ in range(3):
        if subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", str(where)], check=False, capture_output=True
        ).returncode:
            pytest.skip("needs the right to mount a file system")
        try:
            shutil.copy(original, bench.program)
            status = bench.program.stat()
            numbers.add((status.st_dev, status.st_ino))
            first = bench.start()  # who marks the file for those to come
            bench.helper.ask(do="read")
            again = bench.start()
            assert (bench.how(first) is not None, bench.how(again)) == (True, "caught")
            first.end()
            again.end()
        finally:
            subprocess.run(["umount", "--lazy", str(where)], check=True)
    assert len(numbers) < 3, "no number came again, so nothing was tried"


def how_and_end(bench: Bench) -> list[str]:
    """How each program was reached. They are no children of ours, so they are ended before anything
    is claimed: one that was left would be found, by its name, by every later test."""
    processes = bench.helper.ask(do="list")["processes"]
    for process in processes:
        os.kill(process["pid"], signal.SIGKILL)
    return [process["how"] for process in processes]


def test_what_a_launcher_starts_is_caught_whatever_the_way(bench: Bench) -> None:
    """As a container runtime does: forks, executes itself, forks again, executes a file that is
    not marked."""
    runtime = own_copy(Path("/bin/sh").resolve(), "runtime", bench.directory)
    bench.helper.take_or_skip(
        Path("/nothing/that/is/there", bench.program.name), launchers=(runtime,)
    )
    rules = [{"executable": bench.program.name}]
    reported = bench.helper.ask(do="take", rules=rules, launchers=[str(runtime)], lease_s=300)
    assert reported["watch"]["launchers"] == [str(runtime)]
    bench.move_wall(8 * HOUR_NS)
    nested = f'(({runtime} -c \'("$0" -S -c "$1"; true)\' "$0" "$3"; true)); true'
    subject = bench.start(str(runtime), "-c", nested)
    assert is_near(subject.base, ClockReading(8 * HOUR_NS, 0, 8 * HOUR_NS))
    assert how_and_end(bench) == ["caught"]


def test_a_runtime_that_is_wrapped_in_another_program_is_followed(bench: Bench) -> None:
    """The marked file executes the real runtime under another name, which executes the container's
    program."""
    wrapper = own_copy(Path("/bin/sh").resolve(), "runtime", bench.directory)
    real = own_copy(Path("/bin/sh").resolve(), "runtime.real", bench.directory)
    bench.helper.take_or_skip(
        Path("/nothing/that/is/there", bench.program.name), launchers=(wrapper,)
    )
    rules = [{"executable": bench.program.name}]
    bench.helper.ask(do="take", rules=rules, launchers=[str(wrapper)], lease_s=300)
    bench.move_wall(8 * HOUR_NS)
    nested = f'exec {real} -c \'("$0" -S -c "$1"; true)\' "$0" "$3"'
    subject = bench.start(str(wrapper), "-c", nested)
    assert is_near(subject.base, ClockReading(8 * HOUR_NS, 0, 8 * HOUR_NS))
    assert how_and_end(bench) == ["caught"]


def test_a_program_that_is_not_meant_is_let_through(bench: Bench) -> None:
    """The same file under a rule that asks for another control group."""
    bench.helper.take_or_skip(bench.program)
    rules = [{"executable": str(bench.program), "cgroup": "no-such-container"}]
    bench.helper.ask(do="take", rules=rules, launchers=[], lease_s=300)
    bench.move_wall(HOUR_NS)
    subject = bench.start()
    assert is_near(subject.base, ClockReading(0, 0, 0))
    assert bench.how(subject) is None


def test_killed_and_started_again_it_finds_everything(bench: Bench) -> None:
    """kill -9: programs keep their moved clocks; the next helper has page, rules and watch again."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program)
    bench.move_wall(8 * HOUR_NS)
    assert is_near(subject.base, ClockReading(0, 0, 0))
    bench.helper.kill()
    bench.helper.start_again()
    assert bench.how(subject) == "found"
    assert is_near(bench.clocks(subject), ClockReading(8 * HOUR_NS, 0, 8 * HOUR_NS))
    again = bench.start()
    assert is_near(again.base, ClockReading(8 * HOUR_NS, 0, 8 * HOUR_NS))
    assert set(bench.helper.ask(do="release")["released"]) == {
        subject.process.pid,
        again.process.pid,
    }


def test_offsets_outlive_a_moment_without_any_program(bench: Bench) -> None:
    """All programs gone and the helper killed: what is started next is under the same clocks."""
    first = bench.start()
    bench.helper.take_or_skip(bench.program)
    bench.move_wall(8 * HOUR_NS)
    first.end()
    bench.helper.kill()
    bench.helper.start_again()
    assert bench.helper.ask(do="list")["offsets"]["wall_ns"] == 8 * HOUR_NS


def test_an_exec_that_waits_goes_on_when_the_helper_is_killed(bench: Bench) -> None:
    """The helper is stopped, so the exec waits; killed, it releases it. Nothing hangs."""
    bench.start()
    bench.helper.take_or_skip(bench.program)
    bench.helper.process.send_signal(signal.SIGSTOP)
    waits = Subject(
        ["/bin/sh", "-c", f"exec {bench.program} -S -c 'print(1, flush=True)'"],
        bench.directory / "waits",
    )
    try:
        syscall = Path(f"/proc/{waits.process.pid}/syscall")
        await_true("the exec waits", lambda: syscall.read_text().startswith("59 "))
        assert waits.log.read_text() == ""
        bench.helper.kill()
        assert waits.process.wait(WITHIN_S) == 0
    finally:
        waits.end()
    assert waits.log.read_text() == "1\n"


def test_a_sleep_holds_programs_and_sets_monotonic_back(bench: Bench) -> None:
    """A suspend in real time: stopped meanwhile; then monotonic has not counted it, wall and
    boottime have."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program)
    before = bench.clocks(subject)
    at_wake = {"wall_ns": 0, "monotonic_ns": -SECOND_NS, "boottime_ns": 0}
    bench.helper.ask(do="sleep", lasts_ns=SECOND_NS, at_wake=at_wake)
    await_true("asleep", lambda: subject.state == "T")
    refused = bench.helper.answer({"do": "set", "wall_ns": 0, "monotonic_ns": 0, "boottime_ns": 0})
    assert "asleep" in refused["error"]["message"]
    await_true("awake", lambda: not bench.helper.ask(do="list")["asleep"])
    after = bench.clocks(subject)
    await_true("held no longer, and back in its wait", lambda: subject.state == "S")
    assert drift_ns(before, after) == pytest.approx(SECOND_NS, abs=SECOND_NS // 5)
    assert after.since(before).monotonic_ns >= 0


def test_a_sleep_ends_though_the_helper_was_killed(bench: Bench) -> None:
    """Nothing stays stopped: the guardian of the sleep wakes it, and the next helper knows of it."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program)
    at_wake = {"wall_ns": 0, "monotonic_ns": -SECOND_NS, "boottime_ns": 0}
    bench.helper.ask(do="sleep", lasts_ns=SECOND_NS, at_wake=at_wake)
    await_true("asleep", lambda: subject.state == "T")
    bench.helper.kill()
    await_true("awake", lambda: subject.state != "T")
    bench.helper.start_again()
    assert bench.helper.ask(do="list")["offsets"]["monotonic_ns"] == -SECOND_NS
    assert is_near(bench.clocks(subject), ClockReading(0, -SECOND_NS, 0))


def test_a_sleep_whose_guardian_was_killed_is_ended_by_the_helper(bench: Bench) -> None:
    """Before its time it is a freeze: the clocks of its end would go back."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program)
    at_wake = {"wall_ns": 0, "monotonic_ns": -60 * SECOND_NS, "boottime_ns": 0}
    bench.helper.ask(do="sleep", lasts_ns=60 * SECOND_NS, at_wake=at_wake)
    await_true("asleep", lambda: subject.state == "T")
    children = (
        Path(f"/proc/{bench.helper.process.pid}/task/{bench.helper.process.pid}/children")
        .read_text()
        .split()
    )
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    await_true("awake", lambda: subject.state == "S")
    assert is_near(bench.clocks(subject), ClockReading(0, 0, 0))


def test_forgotten_it_releases(bench: Bench) -> None:
    """No request comes for as long as the lease: all clocks are the kernel's again."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program, lease_s=1)
    bench.move_wall(HOUR_NS)

    def given_back() -> bool:
        inside = page_inside(subject.process.pid)
        return inside is not None and not inside.in_use

    await_true("released", given_back)


def test_sigterm_releases(bench: Bench) -> None:
    """A DaemonSet that is deleted leaves nothing behind."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program)
    bench.helper.close()
    inside = page_inside(subject.process.pid)
    assert inside is not None and not inside.in_use
    assert not bench.helper.socket.exists()


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        ({"do": "dance"}, "BadInput", "known are hello, take"),
        ({"do": "list", "version": 1}, "BadInput", "protocol version 1"),
        ({"do": "take", "rules": []}, "BadInput", "at least one"),
        (
            {"do": "take", "rules": [{"executable": "x", "image": "y"}]},
            "BadInput",
            "executable, cgroup",
        ),
        ({"do": "take", "rules": [{"executable": "x"}], "lease_s": 0}, "BadInput", "lease_s 0"),
        (
            {"do": "set", "wall_ns": 1.5, "monotonic_ns": 0, "boottime_ns": 0},
            "BadInput",
            "whole numbers",
        ),
        ({"do": "set", "wall_ns": 0, "monotonic_ns": 1, "boottime_ns": 0}, "BadInput", "at most 0"),
        (
            {"do": "set", "wall_ns": 0, "monotonic_ns": -1, "boottime_ns": 0},
            "BadInput",
            "would go back",
        ),
        ({"do": "sleep", "lasts_ns": -1}, "BadInput", "lasts_ns -1"),
        (
            {
                "do": "sleep",
                "lasts_ns": 5,
                "at_wake": {"wall_ns": 0, "monotonic_ns": -6, "boottime_ns": 0},
            },
            "BadInput",
            "would go back",
        ),
        ({"do": "sleep", "lasts_ns": 5}, "SubjectFailed", "nothing that could sleep"),
        ({"do": "read", "pid": 1}, "SubjectFailed", "not under this node's clocks"),
    ],
)
def test_bad_requests_are_refused_by_name(
    tmp_path: Path, request_: dict[str, object], kind: str, words: str
) -> None:
    """Nothing is done, and the helper lives."""
    helper = HelperProcess(tmp_path)
    rule = {"executable": "/nothing/that/is/there/subject", "cgroup": None}
    try:
        helper.ask(do="take", rules=[rule], launchers=[], lease_s=300)
        answer = helper.answer(request_)
        assert not answer["ok"]
        assert answer["error"]["kind"] == kind and words in answer["error"]["message"]
        reported = helper.ask(do="list")
        assert reported["processes"] == [] and reported["rules"] == [
            Rule(str(rule["executable"]))._asdict()
        ]
    finally:
        helper.close()


def test_a_start_is_not_held_long(bench: Bench) -> None:
    """A restart is held for milliseconds, not for seconds, while the helper also answers requests."""
    bench.start()
    bench.helper.take_or_skip(bench.program)
    began = time.monotonic()
    started = [bench.start() for _ in range(5)]
    bench.helper.ask(do="read")
    assert all(subject.base for subject in started)
    assert time.monotonic() - began < WITHIN_S / 2


def test_the_mover_carries_out_faults_by_a_real_helper(bench: Bench) -> None:
    """Suspend, then pause, then a step back, of one node: measured in the program, and everything
    given back."""
    subject = bench.start()
    bench.helper.take_or_skip(bench.program)
    faults = (
        fault(0, "suspend", lasts_ns=SECOND_NS // 2),
        fault(1, "pause", lasts_ns=SECOND_NS // 2, corrected_after_ns=SECOND_NS // 10),
        fault(2, "step", by_wall_ns=-HOUR_NS),
    )

    class Channel:
        def send(
            self, node: str, request: Mapping[str, Any], within_s: float = 0.0
        ) -> dict[str, Any]:
            return bench.helper.answer(request)

    rules = [Rule(str(bench.program))]
    mover = ProcessMover(
        plan(*faults), Channel(), rules=lambda plan, node: rules, launchers=[], owner=OWNER
    )
    mover.prepare()
    drifts = [
        drift_ns(moved.before.clocks, moved.after.clocks) for moved in map(mover.move, faults)
    ]
    assert drifts == pytest.approx([SECOND_NS // 2, SECOND_NS // 2, -HOUR_NS], abs=SECOND_NS // 5)
    mover.release()
    inside = page_inside(subject.process.pid)
    assert inside is not None and not inside.in_use


def test_a_monotonic_clock_never_goes_back_for_a_program_that_was_found_late(bench: Bench) -> None:
    """Started while no helper was watching (as after a crash of it), with a clock that is ahead of
    the moved one: named, and left alone."""
    bench.start()
    bench.helper.take_or_skip(bench.program)
    at_wake = {"wall_ns": 0, "monotonic_ns": -SECOND_NS, "boottime_ns": 0}
    bench.helper.ask(do="sleep", lasts_ns=SECOND_NS, at_wake=at_wake)
    await_true("awake", lambda: not bench.helper.ask(do="list")["asleep"])
    bench.helper.kill()
    later = bench.start()
    assert is_near(later.base, ClockReading(0, 0, 0))
    bench.helper.start_again()
    await_true("it to be named", lambda: bool(bench.helper.ask(do="read")["failed"]))
    assert bench.how(later) is None
    (refused,) = bench.helper.ask(do="list")["refused"]
    assert refused["pid"] == later.process.pid and "would go back" in refused["why"]


GUARDS_WAIT = (
    "import sys, time; sys.path[:0] = sys.argv[1:]\n"
    "from meshwake.guard.__main__ import StopFlag\n"
    "ended = StopFlag()\n"
    "while not ended.wait(0.5): print('looked', time.monotonic_ns(), flush=True)\n"
)


def test_the_guards_pause_between_looks_is_right_on_a_moved_clock(bench: Bench) -> None:
    """An absolute bound would lie behind the kernel's clock, and the guard would look without a
    pause."""
    command = [str(bench.program), "-c", GUARDS_WAIT, *(path for path in sys.path if path)]
    guard = Subject(command, bench.directory / "guard")
    bench.subjects.append(guard)
    await_text(guard.log, 1)
    bench.helper.take_or_skip(bench.program)
    at_wake = {"wall_ns": 0, "monotonic_ns": -2 * SECOND_NS, "boottime_ns": 0}
    bench.helper.ask(do="sleep", lasts_ns=2 * SECOND_NS, at_wake=at_wake)
    await_true("awake", lambda: not bench.helper.ask(do="list")["asleep"])
    before = len(guard.log.read_text().splitlines())
    time.sleep(3)
    assert 1 <= len(guard.log.read_text().splitlines()) - before <= 7
