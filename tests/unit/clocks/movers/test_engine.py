"""The clock of the engine's machine is moved only where that does no harm, and is measured, and
restored back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.base import Moment
from meshwake.clocks.movers.engine import EngineMover, EngineWays
from meshwake.clocks.movers.node_access import Way
from meshwake.clocks.movers.restore import intent_path, locked, read_intent
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.plan import Plan

from tests.unit.clocks.machines import BOOT_ID, NS, Box, Machine, answer
from tests.unit.labs.kind.runs import TWO_NODES, plan

J_NS = 17 * 60 * NS
PAUSE = '[[fault]]\nkind = "pause"\nnode = "*"\nat = "5m"\nlasts = "17m"\ncorrected_after = "25s"\n'
STEP = '[[fault]]\nkind = "step"\nnode = "*"\nat = "5m"\nby = "-2m"\n'
NODES = {"here": "worker", "there": "worker2"}


class Ours:
    """This machine, as far as the mover sees it; `file` says by how much its wall clock was
    moved."""

    def __init__(self, file: Path | None = None, boot: str = "ours") -> None:
        self._file, self._boot = file, boot

    def boot_id(self) -> str:
        return self._boot

    def clocks(self) -> ClockReading:
        moved_ns = J_NS if self._file is not None and self._file.exists() else 0
        return ClockReading(time.time_ns() + moved_ns, time.monotonic_ns(), time.monotonic_ns())


class NoGuard:
    """In the place of the watchdog; test_restore.py is about that."""

    ended = 0

    def __init__(self, path: Path) -> None:
        assert path.exists(), "the intent comes first"

    def end(self) -> None:
        NoGuard.ended += 1


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """The same scripts in a real shell are what test_restore.py runs."""
    monkeypatch.setattr(Way, "run", answer)
    return Box(tmp_path / "box", Machine())


def mover_of(box: Box, of: Plan, *, nodes: tuple[str, ...] = ("vm",), **about: Any) -> EngineMover:
    ways = EngineWays(nodes=(box.way,), host=box.way)
    names = {node: f"container-of-{node}" for node in nodes}
    about = {"own": Ours(), "guard": NoGuard, "pause": lambda _: None, **about}
    return EngineMover(of, ways, names, box.directory / "clocks", **about)


def at_once(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
    """The correction is due now."""


def test_a_pause_leaves_the_wall_behind_and_then_puts_it_right(box: Box) -> None:
    """Pattern B: world time jumps, no clock does; then the wall clock alone goes forward."""
    of = plan(PAUSE)
    mover, woken = mover_of(box, of), []
    mover.prepare()
    base_ns = box.now.base_ns

    def meanwhile(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
        assert (skipped_world_ns, until_monotonic_ns) == (J_NS, woke.real_monotonic_ns + 25 * NS)
        assert box.now.base_ns == base_ns
        woken.append(woke)

    moved = mover.move(of.faults[0], meanwhile)
    assert [moved.woke] == woken and moved.skipped_world_ns == J_NS
    assert abs(box.now.base_ns - base_ns - J_NS) < NS // 10
    parted_ns = moved.clocks_moved.wall_ns - moved.clocks_moved.monotonic_ns
    assert abs(parted_ns - J_NS) < NS // 2
    assert abs(moved.clocks_moved.boottime_ns - moved.clocks_moved.monotonic_ns) < NS // 10
    assert (
        moved.wall_before_ns is not None
        and moved.after.clocks.wall_ns - moved.wall_before_ns >= J_NS
    )
    mover.release()
    assert abs(box.now.base_ns - base_ns) < NS // 2


def test_a_step_back_is_measured_and_undone(box: Box) -> None:
    """Two minutes back, and two minutes forward at the end."""
    of = plan(STEP)
    mover, base_ns = mover_of(box, of), box.now.base_ns
    mover.prepare()
    moved = mover.move(of.faults[0], at_once)
    assert moved.woke is None and moved.skipped_world_ns == 0
    assert abs(box.now.base_ns - base_ns + 120 * NS) < NS // 2
    mover.read("vm")
    mover.release()
    mover.release()
    assert abs(box.now.base_ns - base_ns) < NS // 2 and box.now.sets == 2


def test_nodes_of_one_machine_are_moved_once(box: Box) -> None:
    """Two faults of the plan, one movement."""
    of = plan(PAUSE, nodes=TWO_NODES)
    mover = mover_of(box, of, nodes=("east", "west"))
    mover.prepare()
    both = [mover.move(fault, at_once) for fault in of.faults]
    assert len(both) == 2 and box.now.sets == 1
    assert [moved.fault.node for moved in both] == [fault.node for fault in of.faults]
    mover.release()


def test_a_pause_that_nothing_corrects_steps_nothing(box: Box) -> None:
    """World time jumps, and no clock does."""
    of = plan(PAUSE.replace('"25s"', '"never"'))
    mover = mover_of(box, of)
    mover.prepare()
    base_ns = box.now.base_ns
    moved = mover.move(of.faults[0], at_once)
    assert moved.skipped_world_ns == J_NS and box.now.base_ns == base_ns and box.now.sets == 0
    mover.release()


def test_refusals_name_what_it_cannot_do(box: Box) -> None:
    """A suspend would move boottime, and one node alone has no clock of its own."""
    suspend = '[[fault]]\nkind = "suspend"\nnode = "*"\nat = "5m"\nlasts = "17m"\n'
    (message,) = mover_of(box, plan()).refusals(plan(suspend))
    assert message.startswith("[fault 0] suspend:") and 'kind = "pause"' in message
    alone = PAUSE.replace('"*"', '"east"')
    (message,) = mover_of(box, plan()).refusals(plan(alone, nodes=TWO_NODES))
    assert "pause of node east alone" in message and "--clock process" in message
    assert mover_of(box, plan()).refusals(plan(PAUSE, nodes=TWO_NODES)) == []


GUARDS = [
    pytest.param({"boot_id": "ours"}, r"own kernel \(its boot id is ours", id="our own kernel"),
    pytest.param(
        {"ahead_ns": 0},
        r"it says it is another boot, and its monotonic",
        id="our own kernel that lies",
    ),
    pytest.param({"capabilities": 0xA80425FB}, r"no CAP_SYS_TIME", id="no right"),
    pytest.param({"uid_map": "0 1000 65536"}, r"rootless", id="rootless"),
    pytest.param(
        {"syncs": ((7, "lima-guestagent"),)},
        r"lima-guestagent.*cannot be held",
        id="cannot be held",
    ),
    pytest.param({"dead": True}, r"No such container", id="gone"),
]


@pytest.mark.parametrize(("about", "message"), GUARDS)
def test_a_guard_refuses_and_nothing_was_touched(
    box: Box, about: dict[str, Any], message: str
) -> None:
    """Neither a clock, nor a time synchronisation, nor anything on our disk."""
    box.change(**about)
    with pytest.raises(LabUnavailable, match=message):
        mover_of(box, plan(PAUSE)).prepare()
    assert box.now.sets == 0 and box.now.signals == ()
    assert list((box.directory / "clocks").glob("*.json")) == []


def test_our_own_clock_when_allowed(box: Box) -> None:
    """--allow-own-clock is the one way past the guard."""
    box.change(boot_id="ours")
    mover = mover_of(box, plan(STEP), allow_own_clock=True)
    mover.prepare()
    mover.move(plan(STEP).faults[0], at_once)
    mover.release()
    assert box.now.sets == 2


def test_an_engine_that_hid_that_it_is_ours_is_undone_at_once(tmp_path: Path, box: Box) -> None:
    """It reported another boot and another monotonic clock, and then our own wall clock moved."""
    file = tmp_path / "our-clock"
    box.change(moves_ours=str(file))
    of, base_ns = plan(PAUSE), box.now.base_ns
    mover = mover_of(box, of, own=Ours(file))
    mover.prepare()
    with pytest.raises(SubjectFailed, match="moved this machine's own by"):
        mover.move(of.faults[0], at_once)
    assert (
        abs(box.now.base_ns - base_ns) < NS // 2
        and not intent_path(box.directory / "clocks", BOOT_ID).exists()
    )


@pytest.mark.parametrize("lie", ["deaf", "resynced"])
def test_an_engine_that_says_it_set_the_clock_is_not_believed(box: Box, lie: str) -> None:
    """Measured inside, three times."""
    of = plan(PAUSE)
    mover = mover_of(box, of)
    mover.prepare()
    box.change(**{lie: True})
    with pytest.raises(
        SubjectFailed, match=r"was set 3 times by \+1020.0 s.*it moved by [+-]0.0 s"
    ):
        mover.move(of.faults[0], at_once)
    mover.release()
    assert box.now.sets == 3


def test_the_clock_is_set_from_outside_during_a_run(box: Box) -> None:
    """The next look ends the run."""
    mover = mover_of(box, plan(PAUSE))
    mover.prepare()
    assert mover.read("vm").wall_ns > 0
    box.change(base_ns=box.now.base_ns - 30 * NS)
    with pytest.raises(SubjectFailed, match=r"is -(29.9|30.0) s from where it was put"):
        mover.read("vm")
    mover.release()
    assert box.now.sets == 0


def test_time_synchronisation_is_held_for_the_time_of_the_run(box: Box) -> None:
    """systemd's by systemd, others by a signal, Hyper-V's by its switch."""
    box.change(syncs=((7, "chronyd"), (8, "systemd-timesyn")), implicit="Y")
    mover = mover_of(box, plan(PAUSE))
    mover.prepare()
    assert list(box.now.signals) == ["7 4018 STOP", "stop systemd-timesyncd.service", "N"]
    intent = read_intent(intent_path(box.directory / "clocks", BOOT_ID))
    assert intent is not None and len(intent.held) == 3
    mover.release()
    assert list(box.now.signals[3:]) == ["7 4018 CONT", "start systemd-timesyncd.service", "Y"]


def test_what_a_crash_left_is_restored_first(box: Box) -> None:
    """The intent of the harness that was killed is what the clock goes back to."""
    of, base_ns = plan(PAUSE), box.now.base_ns
    crashed = mover_of(box, of)
    crashed.prepare()
    crashed.move(of.faults[0], at_once)
    assert crashed._ready is not None
    crashed._ready.lock.close()  # its process has ended, and no watchdog was there
    fresh = mover_of(box, of)
    fresh.prepare()
    assert abs(box.now.base_ns - base_ns) < NS // 2
    fresh.release()


def test_two_runs_do_not_share_a_clock(box: Box) -> None:
    """The second is refused, and the first goes on."""
    first = mover_of(box, plan(PAUSE))
    first.prepare()
    with pytest.raises(LabUnavailable, match="another run is moving the clock"):
        mover_of(box, plan(PAUSE)).prepare()
    first.release()


def test_a_clock_that_cannot_be_restored_leaves_its_intent(box: Box) -> None:
    """For the watchdog and the next command; and a second release reports nothing."""
    of = plan(STEP)
    mover = mover_of(box, of)
    mover.prepare()
    mover.move(of.faults[0], at_once)
    box.change(dead=True)
    ended = NoGuard.ended
    with pytest.raises(SubjectFailed, match="could not be restored"):
        mover.release()
    path = intent_path(box.directory / "clocks", BOOT_ID)
    assert path.exists() and NoGuard.ended == ended + 1
    with locked(path):
        pass
    mover.release()


def test_what_should_have_been_refused_is_our_fault(box: Box) -> None:
    """A suspend that came through."""
    of = plan('[[fault]]\nkind = "suspend"\nnode = "*"\nat = "5m"\nlasts = "17m"\n')
    mover = mover_of(box, of)
    with pytest.raises(HarnessFault, match="should have been refused"):
        mover.move(of.faults[0], at_once)
