"""The user's own suspend command is run, and believed in nothing: what it did is read from the
clocks."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.base import Moment
from meshwake.clocks.movers.command import CommandMover, command_refusals
from meshwake.clocks.movers.node_access import CommandResult, NoAnswer, Way
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import LabUnavailable, SubjectFailed

from tests.support.paths import REPOSITORY
from tests.unit.clocks.machines import NS, Box, Machine, answer
from tests.unit.labs.kind.runs import TWO_NODES, plan

J_NS = 17 * 60 * NS
SUSPEND = '[[fault]]\nkind = "suspend"\nnode = "*"\nat = "5m"\nlasts = "17m"\n'
PAUSE = '[[fault]]\nkind = "pause"\nnode = "*"\nat = "5m"\nlasts = "17m"\ncorrected_after = "25s"\n'
# A command that is a suspend: the machine's clocks afterwards are those of one that slept so long.
SLEEPS = """
import os, sys
from dataclasses import replace
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.clocks.machines import Box
box, slept_ns = Box(Path({box!r})), int(sys.argv[1]) * 10**9
assert os.environ["MESHWAKE_SECONDS"] == sys.argv[1]
box.change({change})
"""
SUSPENDED = "base_ns=box.now.base_ns + slept_ns, slept_ns=slept_ns"


class Ours:
    """A machine of our own that did not sleep."""

    def boot_id(self) -> str:
        return "ours"

    def clocks(self) -> ClockReading:
        return ClockReading(time.time_ns(), time.monotonic_ns(), time.monotonic_ns())


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(Way, "run", answer)
    return Box(tmp_path / "box", Machine())


def mover_of(
    box: Box, of: Any, change: str = SUSPENDED, *, nodes: tuple[str, ...] = ("vm",), **about: Any
) -> Any:
    program = box.directory / "suspend.py"
    program.write_text(SLEEPS.format(root=str(REPOSITORY), box=str(box.directory), change=change))
    command = f"{sys.executable} -S {program} {{seconds}}"
    names = {node: f"container-of-{node}" for node in nodes}
    return CommandMover(of, Way(box.way), names, command, own=Ours(), pause=lambda _: None, **about)


def at_once(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
    """The correction is due now."""


def test_a_suspend_is_measured_and_world_time_goes_on_by_it(box: Box) -> None:
    """Wall and boottime went on, monotonic did not, and neither did ours."""
    of = plan(SUSPEND, nodes=TWO_NODES)
    mover = mover_of(box, of, nodes=("east", "west"))
    mover.prepare()
    both = [mover.move(fault, at_once) for fault in of.faults]
    for moved in both:
        parted = moved.clocks_moved
        assert abs(parted.wall_ns - parted.monotonic_ns - J_NS) < NS
        assert abs(parted.boottime_ns - parted.monotonic_ns - J_NS) < NS
        assert abs(moved.skipped_world_ns - J_NS) < 2 * NS and moved.woke is None
    assert box.now.slept_ns == J_NS
    mover.release()


def test_a_pause_is_looked_at_again_after_its_correction(box: Box) -> None:
    """The wall clock is behind at the wake; who puts it right is the machine's own affair."""
    of = plan(PAUSE)
    mover = mover_of(box, of, "boot_id=box.now.boot_id")
    mover.prepare()

    def corrected(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
        assert until_monotonic_ns == woke.real_monotonic_ns + 25 * NS
        box.change(base_ns=box.now.base_ns + J_NS)

    moved = mover.move(of.faults[0], corrected)
    assert moved.woke is not None
    assert abs(moved.clocks_moved.wall_ns - moved.clocks_moved.monotonic_ns - J_NS) < NS


def test_a_command_after_which_nothing_has_parted_did_not_suspend(box: Box) -> None:
    """It printed nothing and succeeded: `docker pause` does as much."""
    of = plan(SUSPEND)
    mover = mover_of(box, of, "boot_id=box.now.boot_id")
    mover.prepare()
    with pytest.raises(
        SubjectFailed, match=r"parted by [+-]0.0\d\d s only: that machine did not sleep"
    ):
        mover.move(of.faults[0], at_once)


@pytest.mark.parametrize(
    ("program", "spare_s", "message"),
    [
        ("import sys; sys.exit('no such VM')", 60.0, "ended with 1: .*no such VM"),
        ("import time; time.sleep(60)", -1019.6, "did not end within 0 s"),
    ],
)
def test_a_command_that_fails_is_the_end_of_the_run(
    box: Box, program: str, spare_s: float, message: str
) -> None:
    """With its own last words, or the deadline that it missed."""
    of = plan(SUSPEND)
    mover = mover_of(box, of, spare_s=spare_s)
    (box.directory / "suspend.py").write_text(program)
    with pytest.raises(SubjectFailed, match=message):
        mover.move(of.faults[0], at_once)


def test_a_machine_that_has_just_woken_is_given_time(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nodes cannot be entered at once."""
    of = plan(SUSPEND)
    mover = mover_of(box, of)
    mover.prepare()
    calls: list[int] = []

    def later(way: Way, node: str, argv: Any, within_s: float) -> CommandResult:
        calls.append(1)
        if 1 < len(calls) < 5:
            raise NoAnswer("docker exec: no answer")
        return answer(way, node, argv, within_s)

    monkeypatch.setattr(Way, "run", later)
    assert mover.move(of.faults[0], at_once).skipped_world_ns > 0
    assert len(calls) == 5


def test_nodes_on_several_kernels_cannot_sleep_at_one_moment(tmp_path: Path, box: Box) -> None:
    """One command, one machine."""
    other = Box(tmp_path / "other", Machine(boot_id="another"))

    class Several:
        def run(self, node: str, argv: Any, within_s: float) -> CommandResult:
            return answer(Way(box.way if node == "one" else other.way), node, argv, within_s)

    mover = CommandMover(
        plan(SUSPEND, nodes=TWO_NODES),
        Several(),
        {"east": "one", "west": "two"},
        "true",
        own=Ours(),
    )
    with pytest.raises(LabUnavailable, match="east, west run on 2 kernels"):
        mover.prepare()


REFUSED = [
    ("'", "cannot be split into words"),
    ("", "is empty"),
    ("no-such-program-here {seconds}", "no program 'no-such-program-here' on PATH"),
]


@pytest.mark.parametrize(("command", "message"), REFUSED)
def test_a_command_that_is_none_is_refused_before_anything(command: str, message: str) -> None:
    """By name."""
    assert message in "".join(command_refusals(plan(SUSPEND), command))


def test_it_sets_no_clock_and_suspends_no_node_alone() -> None:
    """Refused by name."""
    step = '[[fault]]\nkind = "step"\nnode = "*"\nat = "5m"\nby = "-2m"\n'
    (message,) = command_refusals(plan(step), "true")
    assert message.startswith("[fault 0] step:")
    (message,) = command_refusals(plan(PAUSE.replace('"25s"', '"never"')), "true")
    assert "stays behind" in message and "--clock engine or process" in message
    (message,) = command_refusals(plan(SUSPEND.replace('"*"', '"east"'), nodes=TWO_NODES), "true")
    assert "suspend of node east alone" in message
    assert command_refusals(plan(SUSPEND), "true") == []
