"""What every lab promises, one body a promise: on the model, on the process lab around a fake
ztunnel, and on the machine lab with a real one, where QEMU, a kernel and a ztunnel are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from meshwake.checks import judge
from meshwake.checks.facts.clocks import clock_faults
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan
from meshwake.labs import IN_REAL_TIME, LAB_MODULES, Toolbox, load_lab
from meshwake.ztunnel import binaries

from tests.support.fake_ztunnel import write_fake_ztunnel
from tests.support.plans import TWO_NODES, plan

H = 3600

# A fault, and by how many seconds wall, monotonic and boottime move from its beginning to its end.
FAULTS = [
    pytest.param('kind = "suspend"\nlasts = "8h"', (8 * H, 0, 8 * H), id="suspend"),
    pytest.param(
        'kind = "pause"\nlasts = "17m"\ncorrected_after = "25s"', (1045, 25, 25), id="pause"
    ),
    pytest.param(
        'kind = "pause"\nlasts = "17m"\ncorrected_after = "0s"',
        (1020, 0, 0),
        id="pause corrected at once",
    ),
    pytest.param('kind = "step"\nby = "13h"', (13 * H, 0, 0), id="step forward"),
    pytest.param('kind = "step"\nby = "-90s"', (-90, 0, 0), id="step back"),
    pytest.param(
        'kind = "drift"\nlasts = "4h"\nrate = 1.025', (4 * H + 360, 4 * H, 4 * H), id="drift"
    ),
    pytest.param('kind = "freeze"\nlasts = "17m"', (1020, 1020, 1020), id="freeze"),
]


# How far a time may be from the plan. Model and process lab move clocks to the nanosecond. In a
# guest everything takes its time, and its kernel reads how long it slept from a clock of whole
# seconds.
NEAR_NS = {"model": 0, "process": 0, "machine": 3 * NS_PER_S}
STARTS_WITHIN_NS = {"model": 0, "process": 0, "machine": 60 * NS_PER_S}


def subject_for(lab: str, directory: Path) -> Path | None:
    """The ztunnel to run in `lab`: a fake one, the newest real one in the cache, or none."""
    if lab == "process":
        return write_fake_ztunnel(directory, at_tick="pass")
    if lab == "machine":
        return next((binary.path for binary in reversed(binaries.cached())), None)
    return None


class Running:
    """A lab, and what it needs to run here."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.lab, self._directory = name, load_lab(name), directory
        self.near_ns, self.starts_within_ns = NEAR_NS[name], STARTS_WITHIN_NS[name]
        self._ztunnel = subject_for(name, directory)
        if reasons := self.lab.missing(self._ztunnel):
            pytest.skip(reasons[0])

    def is_near(self, world_ns: int, planned_ns: int) -> bool:
        """Whether something happened when it was planned. Never before."""
        return 0 <= world_ns - planned_ns <= self.near_ns

    def run(self, body: str, **options: Any) -> tuple[Plan, History]:
        """A plan with the tables of `body`, and the history that the lab made of it."""
        of = plan(body, **options).model_copy(update={"lab": self.name})
        assert self.lab.refusals(of) == []
        recorder = Recorder()
        self.lab.run(of, Toolbox(self._ztunnel, self._directory / "logs"), recorder)
        return of, recorder.history


@pytest.fixture(params=sorted(set(LAB_MODULES) - set(IN_REAL_TIME)))
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Running:
    """Every lab that can skip time; tests/unit/labs/kind holds the other to the same promises, on a
    cluster that is simulated."""
    return Running(request.param, tmp_path)


def test_a_history_has_a_beginning_and_an_end(running: Running) -> None:
    """run_started with what was tested comes first, run_ended last, every ztunnel starts, and time
    never goes back."""
    of, history = running.run("", duration="2h")
    first, last = history.events[0], history.events[-1]
    assert (first.kind, first["lab"], first["version"]) == ("run_started", running.name, of.version)
    assert first["subject"]["kind"]
    assert (last.kind, last["reason"]) == ("run_ended", "duration")
    assert running.is_near(last.world_ns, of.duration_ns)
    started = {
        identity for event in history.of("ztunnel_started") for identity in event["identities"]
    }
    assert started == {"default/client", "default/server"}
    assert [event.world_ns for event in history] == sorted(event.world_ns for event in history)


@pytest.mark.parametrize(("fault", "moved_s"), FAULTS)
def test_a_clock_fault_moves_the_clocks_that_it_says(
    running: Running, fault: str, moved_s: tuple[int, int, int]
) -> None:
    """As measured in the subject; to the nanosecond where the lab moves the clocks."""
    of, history = running.run(f'[[fault]]\nat = "1h"\n{fault}', duration="12h")
    (measured,) = clock_faults(of, history)
    moved = [seconds * NS_PER_S for seconds in moved_s]
    assert measured.measured is not None
    assert list(measured.measured) == pytest.approx(moved, abs=running.near_ns)
    assumption = next(
        finding for finding in judge(of, history) if finding.check == "clock_fault_happened"
    )
    assert assumption.verdict is Verdict.HOLDS


def test_one_node_sleeps_and_the_other_does_not(running: Running) -> None:
    """A fault of one node is none of the other's."""
    of, history = running.run(
        '[[fault]]\nkind = "suspend"\nnode = "east"\nat = "1h"\nlasts = "8h"\n'
        '[[fault]]\nkind = "step"\nnode = "west"\nat = "10h"\nby = "1h"',
        nodes=TWO_NODES,
        duration="12h",
    )
    east, west = clock_faults(of, history)
    slept, stepped = (8 * H * NS_PER_S, 0, 8 * H * NS_PER_S), (H * NS_PER_S, 0, 0)
    assert east.measured == pytest.approx(slept, abs=running.near_ns)
    assert west.measured == pytest.approx(stepped, abs=running.near_ns)
    began = history.of("fault_began", fault=1)[0]
    assert began.clocks is not None
    not_slept_ns = (of.starts_wall_s + 10 * H) * NS_PER_S
    assert began.clocks.wall_ns == pytest.approx(not_slept_ns, abs=running.near_ns)


def test_a_restart_ends_every_ztunnel_of_its_node_and_starts_it(running: Running) -> None:
    """Between the beginning and the end of the fault, which takes no world time."""
    _, history = running.run('[[fault]]\nkind = "restart"\nat = "1h"', duration="2h")
    events = list(history)
    first = next(at for at, event in enumerate(events) if event.kind == "fault_began")
    last = next(at for at, event in enumerate(events) if event.kind == "fault_ended")
    during = [event for event in events[first : last + 1] if event.kind.startswith("ztunnel")]
    kinds = [event.kind for event in during]
    assert kinds.count("ztunnel_stopped") == kinds.count("ztunnel_started") == len(kinds) // 2 > 0
    assert {event["cause"] for event in during} == {"restart"}
    assert all(running.is_near(event.world_ns, H * NS_PER_S) for event in during)


def test_a_restart_during_a_sleep_happens_at_the_wake(running: Running) -> None:
    """A restart that is planned for the night happens at the wake."""
    _, history = running.run(
        '[[fault]]\nkind = "suspend"\nat = "1h"\nlasts = "8h"\n[[fault]]\nkind = '
        '"restart"\nat = "3h"',
        duration="12h",
    )
    started = history.of("ztunnel_started", cause="restart")
    assert started
    assert all(running.is_near(event.world_ns, 9 * H * NS_PER_S) for event in started)


def test_connections_are_attempted_when_both_ends_are_awake(running: Running) -> None:
    """From the beginning, on the schedule, and not while an end sleeps; at the wake again."""
    _, history = running.run(
        '[[fault]]\nkind = "suspend"\nnode = "west"\nat = "55m"\nlasts = "2h"',
        nodes=TWO_NODES,
        duration="4h",
    )
    times_ns = [event.world_ns for event in history.of("connection_attempted")]
    asleep_s = range(55 * 60, 55 * 60 + 2 * H)
    # The first comes when all ztunnels have been started, which takes its time in a guest.
    assert min(times_ns) <= running.starts_within_ns
    for expected_s in (600, 1200, asleep_s.stop, 3 * H):
        assert any(running.is_near(each, expected_s * NS_PER_S) for each in times_ns), expected_s
    assert not [each for each in times_ns if each // NS_PER_S in asleep_s]
