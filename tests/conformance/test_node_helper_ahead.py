"""The helper of a node where time is skipped: clocks that are ahead, programs that wait, and what
becomes of them."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from meshwake.core.clock_reading import ClockReading, drift_ns

from tests.conformance.helpers import await_true, own_copy
from tests.conformance.injectors import needs_vdso
from tests.conformance.test_node_helper import HOUR_NS, SECOND_NS, Bench, Subject, is_near

pytestmark = [
    needs_vdso,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it watches execs by fanotify"),
]
AHEAD = ClockReading(24 * HOUR_NS, 24 * HOUR_NS, 24 * HOUR_NS)
# Waits in epoll for a time by its monotonic clock, as tokio does, and says when that has come.
WAITS_AN_HOUR = (
    "import select, time; until = time.monotonic() + 3600; waiting = select.epoll()\n"
    "while time.monotonic() < until: waiting.poll(until - time.monotonic())\n"
    "print('due', flush=True)\nwaiting.poll()"
)
SPINS = "while True: pass"


class Ahead(Bench):
    """A Bench with two programs: one as ztunnel, and one as istiod, which keeps its monotonic
    clock."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.keeper = own_copy(Path(sys.executable).resolve(), f"keeper-{os.getpid()}", directory)

    def take(self, *, ends: bool = True, lease_s: float = 300) -> None:
        """Both; skips where execs cannot be watched."""
        self.helper.take_or_skip(self.program)
        rules = [
            {"executable": str(self.program)},
            {"executable": str(self.keeper), "keeps_monotonic": True},
        ]
        self.helper.ask(do="take", rules=rules, launchers=[], lease_s=lease_s, ends=ends)

    def start_keeper(self) -> Subject:
        """The one that keeps its monotonic clock."""
        own, self.program = self.program, self.keeper
        try:
            return self.start()
        finally:
            self.program = own

    def run(self, code: str) -> Subject:
        """Another program under the first rule."""
        subject = Subject(
            [str(self.program), "-S", "-c", code], self.directory / f"log{len(self.subjects)}"
        )
        self.subjects.append(subject)
        return subject

    def set(self, offsets: ClockReading, *, wake: bool = False) -> None:
        """The offsets of the node."""
        self.helper.ask(do="set", kick=wake, **offsets._asdict())


@pytest.fixture
def ahead(tmp_path: Path) -> Iterator[Ahead]:
    """See Ahead."""
    ready = Ahead(tmp_path)
    yield ready
    ready.close()


def test_a_keeper_keeps_its_monotonic_clock(ahead: Ahead) -> None:
    """Its own timers do not fire all at once; wall and boottime are those of the node. Also when it
    is restarted."""
    asks, keeper = ahead.start(), ahead.start_keeper()
    ahead.take()
    ahead.set(AHEAD)
    assert is_near(ahead.clocks(asks), AHEAD)
    assert is_near(ahead.clocks(keeper), AHEAD._replace(monotonic_ns=0))
    assert is_near(ahead.start_keeper().base, AHEAD._replace(monotonic_ns=0))
    assert is_near(ahead.start().base, AHEAD)


def test_without_leave_to_end_programs_no_monotonic_clock_is_taken_ahead(ahead: Ahead) -> None:
    """It could only be released by going backwards."""
    ahead.start()
    ahead.take(ends=False)
    answer = ahead.helper.answer({"do": "set", **AHEAD._asdict()})
    assert not answer["ok"] and "at most 0" in answer["error"]["message"]


def test_a_program_that_is_woken_does_what_has_fallen_due(ahead: Ahead) -> None:
    """An hour by its monotonic clock passes at once; without being woken it would wait on by the
    kernel's."""
    subject = ahead.run(WAITS_AN_HOUR)
    ahead.take()
    assert ahead.helper.ask(do="still", within_s=10)["busy"] == ""
    ahead.set(ClockReading(2 * HOUR_NS, 2 * HOUR_NS, 2 * HOUR_NS), wake=True)
    await_true("its timer to fire", lambda: "due" in subject.log.read_text())


def test_a_program_that_works_is_named(ahead: Ahead) -> None:
    """Within the bound; when it has ended, the node is still."""
    ahead.run(SPINS)
    ahead.take()
    reported = ahead.helper.ask(do="still", within_s=0.3)
    assert str(ahead.program) in reported["busy"]
    ahead.subjects[0].end()
    ahead.start()
    await_true(
        "the node to be still", lambda: ahead.helper.ask(do="still", within_s=1)["busy"] == ""
    )


def test_a_connection_that_was_lost_is_waited_for_within_a_bound(ahead: Ahead) -> None:
    """It comes back after a moment, or not at all: then it is not waited for any longer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            f"import select, socket; s = socket.create_connection(('127.0.0.1', {port})); "
            "select.epoll().poll()"
        )
        ahead.take()
        rules = [{"executable": str(ahead.program), "streams_to_port": port}]
        ahead.helper.ask(do="take", rules=rules, launchers=[], lease_s=300, ends=True)
        ahead.run(code)
        connection, _ = server.accept()
        await_true(
            "the node to be still", lambda: ahead.helper.ask(do="still", within_s=1)["busy"] == ""
        )
        connection.close()
        assert (
            f"lost a connection to port {port}"
            in ahead.helper.ask(do="still", within_s=0.5)["busy"]
        )
        assert ahead.helper.ask(do="still", within_s=5)["busy"] == ""


def test_what_is_ahead_is_ended_and_what_is_restarted_is_right(ahead: Ahead) -> None:
    """No clock goes back for a program that runs; and the next one is not caught."""
    asks, keeper = ahead.start(), ahead.start_keeper()
    ahead.take()
    ahead.set(AHEAD)
    reported = ahead.helper.ask(do="release")
    assert [each["pid"] for each in reported["ended"]] == [keeper.process.pid, asks.process.pid], (
        "the keeper comes first"
    )
    assert reported["failed"] == {}
    assert asks.process.wait(10) == keeper.process.wait(10) == -9
    assert is_near(ahead.start().base, ClockReading(0, 0, 0))


def test_what_is_not_ahead_lives_on(ahead: Ahead) -> None:
    """Nothing has been skipped yet."""
    asks = ahead.start()
    ahead.take()
    reported = ahead.helper.ask(do="release")
    assert reported["ended"] == [] and reported["released"] == [asks.process.pid]
    assert asks.process.poll() is None


def test_a_lease_that_runs_out_ends_what_is_ahead(ahead: Ahead) -> None:
    """At once with a keeper; without one, later."""
    asks = ahead.start_keeper()
    ahead.take(lease_s=1)
    ahead.set(AHEAD)
    assert asks.process.wait(30) == -9
    given_up = ahead.helper.ask(do="list")["given_up"]
    assert [each["pid"] for each in given_up["ended"]] == [asks.process.pid]


def test_a_helper_that_was_killed_finds_both_pages_and_ends_what_is_ahead(ahead: Ahead) -> None:
    """kill -9 of the helper: nothing moves; its successor knows what it has to do."""
    asks, keeper = ahead.start(), ahead.start_keeper()
    ahead.take()
    ahead.set(AHEAD)
    ahead.helper.kill()
    ahead.helper.start_again()
    assert is_near(ahead.clocks(asks), AHEAD)
    assert is_near(ahead.clocks(keeper), AHEAD._replace(monotonic_ns=0))
    assert len(ahead.helper.ask(do="release")["ended"]) == 2


def test_a_stranger_s_program_that_is_ahead_is_ended_and_not_released(
    ahead: Ahead, tmp_path: Path
) -> None:
    """A helper whose state is lost releases by rules."""
    asks = ahead.start()
    ahead.take()
    ahead.set(AHEAD)
    ahead.helper.kill()
    ahead.helper.state.unlink()
    ahead.helper.start_again()
    reported = ahead.helper.ask(do="release", rules=[{"executable": str(ahead.program)}])
    assert [each["pid"] for each in reported["ended"]] == [asks.process.pid]


def test_a_wake_makes_up_for_what_was_skipped_meanwhile(ahead: Ahead) -> None:
    """A night of eight hours: monotonic goes on from where it stopped, wall and boottime have gone
    on."""
    asks = ahead.start()
    ahead.take()
    ahead.set(AHEAD)
    before = ahead.clocks(asks)
    ahead.helper.ask(do="sleep", lasts_ns=HOUR_NS, at_wake=None)
    assert asks.state == "T"
    night = 8 * HOUR_NS
    time.sleep(0.3)
    offsets = ClockReading(
        AHEAD.wall_ns + night, AHEAD.monotonic_ns - SECOND_NS // 10, AHEAD.boottime_ns + night
    )
    ahead.helper.ask(do="wake", **offsets._asdict())
    await_true("it to run on", lambda: asks.state != "T")
    after = ahead.clocks(asks)
    assert drift_ns(before, after) == pytest.approx(night + SECOND_NS // 10, abs=SECOND_NS // 2)
    assert after.monotonic_ns >= before.monotonic_ns


def test_a_wake_turns_no_clock_back(ahead: Ahead) -> None:
    """By more than it was stopped for; nor does a release while it sleeps leave it stopped."""
    asks = ahead.start()
    ahead.take()
    ahead.set(AHEAD)
    ahead.helper.ask(do="sleep", lasts_ns=HOUR_NS, at_wake=None)
    offsets = AHEAD._replace(monotonic_ns=AHEAD.monotonic_ns - HOUR_NS)
    answer = ahead.helper.answer({"do": "wake", **offsets._asdict()})
    assert not answer["ok"] and "would go back" in answer["error"]["message"]
    assert [each["pid"] for each in ahead.helper.ask(do="release")["ended"]] == [asks.process.pid]


def test_a_program_that_was_not_caught_at_its_start_is_named(ahead: Ahead) -> None:
    """Its time base is of the kernel's clocks."""
    rules = [{"executable": str(ahead.program)}]
    ahead.take()
    ahead.helper.ask(do="take", rules=rules, launchers=[], lease_s=300, ends=True)
    ahead.set(AHEAD)
    late = own_copy(ahead.program, f"late-{os.getpid()}", ahead.directory)
    subject = Subject(
        [str(late), "-S", "-c", "import select; select.epoll().poll()"], ahead.directory / "late"
    )
    ahead.subjects.append(subject)
    late.rename(ahead.program)
    await_true(
        "it to be named", lambda: bool(ahead.helper.ask(do="still", within_s=0.1)["refused"])
    )
