"""`kill -9` of the process that moves clocks, at twenty moments of a run, on a real helper and a
real program: soon afterwards nothing is moved, nothing is stopped, no monotonic clock has gone
back, and the next run can begin."""

from __future__ import annotations

import json
import os
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
from meshwake.system.deadline import Deadline

from tests.conformance.helpers import HelperProcess, await_true, own_copy, python_environment
from tests.conformance.injectors import needs_vdso
from tests.support.processes import state_of
from tests.unit.clocks.movers.test_process import fault, plan

pytestmark = [
    needs_vdso,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it watches execs by fanotify"),
]
MS, HOUR_NS = 10**6, 3600 * 10**9
MOMENTS = range(20)
APART_S = 0.15
FAULTS = (
    fault(0, "suspend", lasts_ns=400 * MS),
    fault(1, "pause", lasts_ns=400 * MS, corrected_after_ns=200 * MS),
    fault(2, "step", by_wall_ns=-HOUR_NS),
)
# Says when its monotonic clock went back; waits by epoll, whose bound is relative.
NEVER_BACK = (
    "import select, time\n"
    "poll, last = select.epoll(), 0\n"
    "while True:\n"
    "    now = time.monotonic_ns()\n"
    "    if now < last: print('back by', last - now, flush=True)\n"
    "    last = now\n"
    "    poll.poll(0.005)\n"
)
OWNER_PROGRAM = """
import sys
from pathlib import Path
from meshwake.clocks.movers import process as process_mover
process_mover.LEASE_S, process_mover.RENEWED_EVERY_S = 1.0, 0.2
from tests.conformance.test_owner_killed import FAULTS, mover_of
mover = mover_of(Path(sys.argv[1]), sys.argv[2])
mover.prepare()
print("begun", flush=True)
for fault in FAULTS:
    mover.move(fault)
mover.release()
"""


class Socket:
    """A NodeChannel to the one helper of the test."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, node: str, request: Mapping[str, Any], within_s: float = 0.0) -> dict[str, Any]:
        """See NodeChannel."""
        from meshwake.clocks.movers.node_helper.client import send

        return send(self._path, json.dumps(request))


def mover_of(path: Path, program: str) -> ProcessMover:
    """A mover for one node, whose only program is `program`."""
    one = plan(*FAULTS).model_copy(update={"nodes": plan().nodes[:1]})
    return ProcessMover(one, Socket(path), rules=lambda plan, node: [Rule(program)], launchers=[])


class Killed:
    """A helper, a program under watch, and an owner to be killed."""

    def __init__(self, directory: Path) -> None:
        self.helper = HelperProcess(directory)
        self.program = own_copy(Path(sys.executable).resolve(), "subject", directory)
        self.helper.take_or_skip(self.program)
        self.helper.ask(do="release")
        self.log = directory / "subject.log"
        with self.log.open("w") as output:
            command = [str(self.program), "-S", "-c", NEVER_BACK]
            self.subject = subprocess.Popen(command, stdout=output, env=python_environment())

    def begin(self) -> subprocess.Popen[str]:
        """An owner that has taken the node and begins with its faults."""
        command = [sys.executable, "-c", OWNER_PROGRAM, str(self.helper.socket), str(self.program)]
        owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        with owner.stdout as words:
            assert words.readline() == "begun\n"
        return owner

    @property
    def is_moved(self) -> bool:
        """Whether the program's clocks go by our page."""
        inside = page_inside(self.subject.pid)
        return inside is not None and inside.in_use

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped."""
        return state_of(self.subject.pid) in "tT"

    def knows(self, pid: int) -> bool:
        """Whether this process is under the helper's page."""
        return pid in [each["pid"] for each in self.helper.ask(do="list")["processes"]]

    def close(self) -> None:
        """Ends all of it."""
        self.subject.send_signal(signal.SIGCONT)
        self.subject.kill()
        self.subject.wait()
        self.helper.close()


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Killed]:
    """See Killed."""
    ready = Killed(tmp_path)
    yield ready
    ready.close()


@pytest.mark.parametrize("moment", MOMENTS)
def test_soon_after_the_owner_was_killed_nothing_is_moved(killed: Killed, moment: int) -> None:
    """At every third moment the helper is killed with it, and started again as kubelet does."""
    owner = killed.begin()
    time.sleep(moment * APART_S)
    owner.kill()
    owner.wait()
    if moment % 3 == 2:
        killed.helper.kill()
        killed.helper.start_again()
    await_true("the clocks are restored", lambda: not killed.is_moved)
    await_true("the program runs", lambda: not killed.is_stopped)
    # A kill before anything was moved is seen only by the silence that follows.
    await_true("the owner is given up", lambda: killed.helper.ask(do="list")["owner"] is None)
    reported = killed.helper.ask(do="list")
    assert reported["rules"] == [] and reported["watch"] is None
    assert reported["offsets"] == {"wall_ns": 0, "monotonic_ns": 0, "boottime_ns": 0}
    assert killed.log.read_text() == "", "the monotonic clock of a program that runs went back"
    following = mover_of(killed.helper.socket, str(killed.program))
    following.prepare()
    assert following.move(FAULTS[0]).fault == FAULTS[0]
    following.release()
    assert not killed.is_moved and killed.log.read_text() == ""


def test_an_owner_that_was_given_up_is_reported_until_the_node_is_taken(killed: Killed) -> None:
    """With what had been moved, also by a helper that was started later."""
    owner = killed.begin()
    await_true(
        "the wall clock is moved",
        lambda: killed.helper.ask(do="list")["offsets"]["monotonic_ns"] < 0,
    )
    owner.kill()
    owner.wait()
    await_true("given up", lambda: killed.helper.ask(do="list")["given_up"] is not None)
    killed.helper.kill()
    killed.helper.start_again()
    given_up = killed.helper.ask(do="list")["given_up"]
    assert "a run of s, process" in given_up["owner"] and "not renewed for 1 s" in given_up["why"]
    assert given_up["offsets"]["monotonic_ns"] < 0 and given_up["released"] == [killed.subject.pid]
    killed.helper.take_or_skip(killed.program)
    assert killed.helper.ask(do="list")["given_up"] is None


def test_an_owner_that_is_there_keeps_the_node_for_longer_than_its_lease(killed: Killed) -> None:
    """It renews while it waits; another owner that requests the node meanwhile neither keeps the
    lease nor gets the node."""
    mover = mover_of(killed.helper.socket, str(killed.program))
    mover.prepare()
    try:
        other = killed.helper.answer(
            {"do": "take", "rules": [{"executable": "x"}], "owner": "another"}
        )
        assert "are moved by a run of s, process" in other["error"]["message"]
        for do in ("release", "renew"):
            assert not killed.helper.answer({"do": do, "owner": "another"})["ok"]
        assert killed.is_moved
    finally:
        mover.release()


def test_readiness_probes_are_no_word_of_the_owner(killed: Killed) -> None:
    """A kubelet that asks every second would have kept the clocks moved for ever."""
    killed.helper.take_or_skip(killed.program, lease_s=1)
    deadline = Deadline("the clocks to be given back", 20)
    while killed.is_moved:
        assert killed.helper.answer({"do": "hello", "owner": None})["ok"]
        assert killed.helper.answer({"do": "list", "owner": None})["ok"]
        deadline.pause(0.1)


def test_an_owner_that_came_too_late_is_given_the_reason(killed: Killed) -> None:
    """It was stopped for longer than its lease: no fault of its is believed to have happened."""
    killed.helper.take_or_skip(killed.program, lease_s=1)
    await_true("given up", lambda: killed.helper.ask(do="list", owner=None)["given_up"] is not None)
    zero = {"wall_ns": 0, "monotonic_ns": 0, "boottime_ns": 0}
    for request in ({"do": "renew"}, {"do": "set", **zero}, {"do": "sleep", "lasts_ns": 1}):
        error = killed.helper.answer(request)["error"]
        assert (
            error["kind"] == "SubjectFailed" and "have been restored, because" in error["message"]
        )


def test_what_a_helper_without_a_memory_left_is_released_by_its_rules(killed: Killed) -> None:
    """Its state file is gone, or of another version: the page is found in the programs that would
    have been taken."""
    killed.helper.take_or_skip(killed.program)
    killed.helper.kill()
    killed.helper.state.write_text('{"boot_id": "of a version before"}')
    killed.helper.start_again()
    assert killed.is_moved and killed.helper.ask(do="list")["owner"] is None
    reported = killed.helper.ask(do="release", rules=[{"executable": str(killed.program)}])
    assert reported["released"] == [killed.subject.pid] and not killed.is_moved


def test_what_began_on_moved_clocks_is_named_when_they_are_restored(killed: Killed) -> None:
    """Its time base is wrong from then on: it must be restarted."""
    killed.helper.take_or_skip(killed.program)
    killed.helper.ask(do="set", wall_ns=HOUR_NS, monotonic_ns=0, boottime_ns=0)
    with subprocess.Popen(
        [str(killed.program), "-S", "-c", NEVER_BACK], env=python_environment()
    ) as later:
        try:
            await_true("caught", lambda: killed.knows(later.pid))
            reported = killed.helper.ask(do="release")
            assert [each["pid"] for each in reported["begun_moved"]] == [later.pid]
        finally:
            later.kill()
