"""The clock of an engine's machine is restored by what really elapsed, at most once, by whichever
process comes first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.clocks.movers.node_access import ClockMeasurement, Way, rights_missing
from meshwake.clocks.movers.restore import (
    Intent,
    Watchdog,
    decide,
    intent_path,
    leftovers,
    locked,
    read_intent,
    restore,
    restore_clock,
    restore_leftovers,
    write_intent,
)
from meshwake.clocks.movers.timesync import TimeSync, find_time_syncs, hold, release
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.system.deadline import Deadline

from tests.support.processes import state_of
from tests.unit.clocks.machines import BOOT_ID, NS, Box, Machine, answer

HOUR_NS = 3600 * NS
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="flock and a shell's /proc"
)


def intent_of(box: Box, **about: object) -> Intent:
    """Of a machine as it is now."""
    machine = box.now
    monotonic_ns = machine.monotonic_ns
    made = Intent(
        boot_id=machine.boot_id,
        wall_ns=monotonic_ns + machine.base_ns,
        monotonic_ns=monotonic_ns,
        boottime_ns=monotonic_ns + machine.slept_ns,
        bases_ns=(machine.base_ns + HOUR_NS,),
        node="worker",
        ways=(box.way,),
        host_way=box.way,
    )
    return made.model_copy(update=about)


def measured(
    intent: Intent, *, base_ns: int, passed_ns: int = 0, slept_ns: int = 0, boot_id: str = BOOT_ID
) -> ClockMeasurement:
    monotonic_ns = intent.monotonic_ns + passed_ns
    boottime_ns = intent.boottime_ns + passed_ns + slept_ns
    return ClockMeasurement(
        boot_id, ClockReading(monotonic_ns + base_ns, monotonic_ns, boottime_ns), 0, 0, 0
    )


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box", Machine())


@given(
    steps=st.lists(st.integers(-48 * HOUR_NS, 48 * HOUR_NS), min_size=1, max_size=4),
    done=st.integers(0, 4),
    passed_ns=st.integers(0, 10 * HOUR_NS),
    slept_ns=st.just(0) | st.integers(2 * NS, 10 * HOUR_NS),
)
@settings(derandomize=True)
def test_it_goes_back_to_the_anchor_wherever_a_crash_came(
    steps: list[int], done: int, passed_ns: int, slept_ns: int
) -> None:
    """However many of the intended steps were carried out, and whatever the machine slept: the same
    right base."""
    anchor = Intent(
        boot_id=BOOT_ID,
        wall_ns=10**18,
        monotonic_ns=10**15,
        boottime_ns=2 * 10**15,
        bases_ns=tuple(10**18 - 10**15 + sum(steps[: at + 1]) for at in range(len(steps))),
        node="n",
        ways=(),
        host_way=None,
    )
    bases = (anchor.base_ns, *anchor.bases_ns)
    now = measured(
        anchor,
        base_ns=bases[min(done, len(steps))] + slept_ns,
        passed_ns=passed_ns,
        slept_ns=slept_ns,
    )
    decision = decide(anchor, now)
    right_ns = anchor.base_ns + slept_ns
    assert decision.base_ns == (None if abs(now.base_ns - right_ns) <= NS // 4 else right_ns)


def test_another_boot_is_left_alone(box: Box) -> None:
    """Its clock was set by its own start."""
    intent = intent_of(box)
    decision = decide(intent, measured(intent, base_ns=intent.bases_ns[0], boot_id="another"))
    assert decision.base_ns is None and "restarted" in decision.why


def test_what_something_else_has_set_is_left_alone(box: Box) -> None:
    """Its base is none of ours."""
    intent = intent_of(box)
    decision = decide(intent, measured(intent, base_ns=intent.base_ns + 600 * NS))
    assert decision.base_ns is None and "something else" in decision.why


def test_a_clock_is_restored_by_a_real_shell_and_twice_is_once(box: Box) -> None:
    """The scripts that run in a node, on a /proc of the machine's own."""
    intent, right_ns = intent_of(box), box.now.base_ns
    box.change(base_ns=right_ns + HOUR_NS)
    assert "restored" in restore_clock(intent, Way(box.way))
    assert abs(box.now.base_ns - right_ns) < NS // 4
    assert restore_clock(intent, Way(box.way)) == "the clock is right" and box.now.sets == 1


@pytest.mark.parametrize("about", [{"deaf": True}, {"dead": True}])
def test_a_clock_that_cannot_be_restored_is_named_with_what_to_do(
    box: Box, about: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that says that it has set it and has not, and one that is gone."""
    monkeypatch.setattr(Way, "run", answer)
    intent = intent_of(box)
    box.now = replace(box.now, base_ns=box.now.base_ns + HOUR_NS, **about)  # type: ignore[arg-type]
    with pytest.raises(SubjectFailed, match=r"could not be restored.*hwclock -s"):
        restore_clock(intent, intent.inside(), pause=lambda _: None)


def test_a_second_way_is_gone_when_the_first_has_gone(tmp_path: Path, box: Box) -> None:
    """The node was removed; a container of its image is as good."""
    gone = Box(tmp_path / "gone", Machine(dead=True))
    intent = intent_of(box, ways=(gone.way, box.way))
    box.change(base_ns=box.now.base_ns + HOUR_NS)
    assert "restored" in restore_clock(intent, intent.inside())


def test_the_whole_way_in_a_real_shell(box: Box) -> None:
    """Time services are found, held and released, rights are read, by the very scripts that
    run in a node."""
    box.change(syncs=((7, "chronyd"), (8, "systemd-timesyn"), (9, "bash")), implicit="Y")
    way = Way(box.way)
    assert rights_missing(way, "worker") is None
    found = find_time_syncs(way)
    assert [(one.name, one.how) for one in found] == [
        ("chronyd", "process"),
        ("systemd-timesyncd.service", "service"),
        ("hv_utils.timesync_implicit", "parameter"),
    ]
    switch = box.directory / "module/hv_utils/parameters/timesync_implicit"
    for one in found:
        hold(way, one)
    assert "kill -s STOP 7" in box.now.signals and switch.read_text().strip() == "N"
    assert release(way, found) == []
    assert "kill -s CONT 7" in box.now.signals and switch.read_text().strip() == "Y"


def test_an_intent_survives_the_disk_and_damage_is_reported(tmp_path: Path, box: Box) -> None:
    """Nothing is guessed about a clock."""
    held = (TimeSync(name="chronyd", how="process", pid=7, started_ticks=9),)
    path, intent = intent_path(tmp_path, BOOT_ID), intent_of(box, held=held)
    assert read_intent(path) is None
    write_intent(path, intent)
    assert read_intent(path) == intent
    path.write_text(path.read_text()[:-9])
    with pytest.raises(LabUnavailable, match="look at that machine's clock yourself"):
        read_intent(path)


def test_one_clock_one_run(tmp_path: Path) -> None:
    """The second is refused at once."""
    path = intent_path(tmp_path, BOOT_ID)
    with (
        locked(path),
        pytest.raises(LabUnavailable, match="another run is moving the clock"),
        locked(path),
    ):
        pytest.fail("two at once")


def test_restore_lets_time_synchronisation_go_on(
    tmp_path: Path, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was held is released, and the intent has gone."""
    monkeypatch.setattr(Way, "run", answer)
    held = (TimeSync(name="chronyd", how="process", pid=7, started_ticks=4018),)
    path = intent_path(tmp_path, BOOT_ID)
    write_intent(path, intent_of(box, held=held))
    box.change(base_ns=box.now.base_ns + HOUR_NS)
    assert "restored" in str(restore(path))
    assert restore(path) is None and not path.exists()
    assert box.now.signals == ("7 4018 CONT",)


def test_leftovers_are_restored_but_not_those_in_work(
    tmp_path: Path, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is going on holds its lock."""
    monkeypatch.setattr(Way, "run", answer)
    path = intent_path(tmp_path, BOOT_ID)
    write_intent(path, intent_of(box))
    box.change(base_ns=box.now.base_ns + HOUR_NS)
    with locked(path):
        assert restore_leftovers(tmp_path) == [] and leftovers(tmp_path) == (path,)
    (message,) = restore_leftovers(tmp_path)
    assert message.startswith(f"{BOOT_ID}: restored") and leftovers(tmp_path) == ()


_HARNESS = """
import sys, time
from pathlib import Path
from meshwake.clocks.movers.restore import Watchdog, locked
path = Path(sys.argv[1])
with locked(path):
    watchdog = Watchdog(path)
    print(watchdog.pid, flush=True)
    time.sleep(600)
"""


def test_the_watchdog_puts_it_back_when_the_harness_is_killed(tmp_path: Path, box: Box) -> None:
    """kill -9: the watchdog alone can."""
    path, right_ns = intent_path(tmp_path, BOOT_ID), box.now.base_ns
    write_intent(path, intent_of(box))
    box.change(base_ns=right_ns + HOUR_NS)
    harness = subprocess.Popen(
        [sys.executable, "-c", _HARNESS, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert harness.stdout is not None
    watchdog = int(harness.stdout.readline())
    try:
        time.sleep(0.2)
        assert path.exists() and box.now.sets == 0
        harness.kill()
        harness.wait()
        _await_end(watchdog)
        assert not path.exists() and abs(box.now.base_ns - right_ns) < NS // 4
    finally:
        harness.stdout.close()


def test_the_watchdog_does_nothing_when_all_is_well(tmp_path: Path, box: Box) -> None:
    """The harness has put it back itself, and the intent has gone."""
    path = intent_path(tmp_path, BOOT_ID)
    watchdog = Watchdog(path)
    watchdog.end()
    assert box.now.sets == 0 and path.with_suffix(".log").read_text() == ""


def _await_end(pid: int) -> None:
    deadline = Deadline("the watchdog to end", 60)
    while state_of(pid) != "Z":
        if deadline.has_passed:
            os.kill(pid, signal.SIGKILL)
            raise deadline.error()
        deadline.sleep(0.05)
