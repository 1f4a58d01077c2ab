"""What every lab promises, one body a promise, for people who write a lab (docs/labs.md).

    from meshwake.testing.conformance import LabConformance

    class TestMyLab(LabConformance):
        lab = MyLab()

pytest then runs every promise on that lab. The labs of meshwake keep the same ones, by the same
bodies (tests/conformance/test_labs.py). Needs `pip install 'meshwake[pytest]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from meshwake.checks import judge
from meshwake.checks.facts.clocks import clock_faults
from meshwake.core.durations import NS_PER_S
from meshwake.core.faults import FaultKind
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan
from meshwake.labs import Lab, Toolbox
from meshwake.testing.plans import TWO_NODES, plan

HOUR_S = 3600


class ClockFaultExample(NamedTuple):
    """A fault as a scenario has it, and by how many seconds wall, monotonic and boottime move from
    its beginning to its end."""

    name: str
    kind: FaultKind
    toml: str
    moved_s: tuple[int, int, int]


# One after the other, each with an hour of peace before it, so that one run can have them all. The
# step ahead comes last: behind it certificates have expired.
CLOCK_FAULT_EXAMPLES = (
    ClockFaultExample("suspend", "suspend", 'at = "1h"\nlasts = "8h"', (8 * HOUR_S, 0, 8 * HOUR_S)),
    ClockFaultExample(
        "pause", "pause", 'at = "10h"\nlasts = "17m"\ncorrected_after = "25s"', (1045, 25, 25)
    ),
    ClockFaultExample(
        "pause corrected at once",
        "pause",
        'at = "11h"\nlasts = "17m"\ncorrected_after = "0s"',
        (1020, 0, 0),
    ),
    ClockFaultExample("step back", "step", 'at = "12h"\nby = "-90s"', (-90, 0, 0)),
    ClockFaultExample(
        "drift",
        "drift",
        'at = "13h"\nlasts = "4h"\nrate = 1.025',
        (4 * HOUR_S + 360, 4 * HOUR_S, 4 * HOUR_S),
    ),
    ClockFaultExample("freeze", "freeze", 'at = "18h"\nlasts = "17m"', (1020, 1020, 1020)),
    ClockFaultExample("step forward", "step", 'at = "19h"\nby = "13h"', (13 * HOUR_S, 0, 0)),
)
_AFTER_ALL_OF_THEM = "20h"


@dataclass(frozen=True)
class RunningLab:
    """A lab and how exact it is: `near_ns` is how late something may happen and how far a clock may
    be off, `starts_within_ns` the world time until all processes have started. `cannot`: kinds of
    faults that it refuses."""

    name: str
    lab: Lab
    toolbox: Toolbox
    near_ns: int = 0
    starts_within_ns: int = 0
    cannot: tuple[FaultKind, ...] = ()

    def skip_where_missing(self) -> RunningLab:
        """Itself; the test is skipped with the lab's reason where it cannot run on this machine."""
        if reasons := self.lab.missing(self.toolbox.ztunnel):
            pytest.skip(reasons[0])
        return self

    def is_near(self, world_ns: int, planned_ns: int) -> bool:
        """Whether something happened when it was planned. Never before."""
        return 0 <= world_ns - planned_ns <= self.near_ns

    def run(self, body: str, **options: Any) -> tuple[Plan, History]:
        """A plan with the tables of `body` (meshwake.testing.plans), and the history that the lab
        made of it. Skips where the lab refuses a fault that it cannot do."""
        planned = plan(body, lab=self.name, **options)
        self._skip_where_refused(planned)
        assert self.lab.refusals(planned) == [], "add to `cannot` what the lab refuses on purpose"
        recorder = Recorder()
        self.lab.run(planned, self.toolbox, recorder)
        return planned, recorder.history

    def _skip_where_refused(self, planned: Plan) -> None:
        """What a lab cannot do it refuses by name, as "fault 1: ..."; it leaves nothing out."""
        refused = [fault for fault in planned.faults if fault.kind in self.cannot]
        if not refused:
            return
        reasons = self.lab.refusals(planned)
        for fault in refused:
            assert any(f"fault {fault.index}" in reason for reason in reasons), (
                f"fault {fault.index} ({fault.kind}) is in `cannot`: expected a refusal that "
                f"begins with 'fault {fault.index}: ', the lab has {reasons}"
            )
        pytest.skip(reasons[0])


class LabConformance:
    """The promises of a lab. Subclass it, and set `lab`; the rest has defaults."""

    lab: Lab
    # Of the lab, in its plans and in run_started.
    name = "own"
    # The binary under test, where the lab needs one.
    ztunnel: Path | None = None
    near_ns = 0
    starts_within_ns = 0
    cannot: tuple[FaultKind, ...] = ()
    # The run of all clock faults, by the name of the lab.
    _runs: ClassVar[dict[str, tuple[Plan, History]]]

    def __init_subclass__(cls) -> None:
        cls._runs = {}

    @pytest.fixture
    def running(self, tmp_path: Path) -> RunningLab:
        """The lab, with a directory for its logs."""
        return RunningLab(
            name=self.name,
            lab=self.lab,
            toolbox=Toolbox(self.ztunnel, tmp_path / "logs"),
            near_ns=self.near_ns,
            starts_within_ns=self.starts_within_ns,
            cannot=self.cannot,
        ).skip_where_missing()

    def test_a_history_has_a_beginning_and_an_end(self, running: RunningLab) -> None:
        """run_started with what was tested comes first, run_ended last, every ztunnel starts, and
        time never goes back."""
        planned, history = running.run("", duration="2h")
        first, last = history.events[0], history.events[-1]
        named = (first.kind, first["lab"], first["version"])
        assert named == ("run_started", running.name, planned.version)
        assert first["subject"]["kind"]

        # "duration": the plan's end, and not a stop before it.
        assert (last.kind, last["reason"]) == ("run_ended", "duration")
        assert running.is_near(last.world_ns, planned.duration_ns)
        started = {
            identity for event in history.of("ztunnel_started") for identity in event["identities"]
        }
        assert started == {"default/client", "default/server"}
        times_ns = [event.world_ns for event in history]
        assert times_ns == sorted(times_ns)

    @pytest.mark.parametrize("example", CLOCK_FAULT_EXAMPLES, ids=lambda example: example.name)
    def test_a_clock_fault_moves_the_clocks_that_it_says(
        self, running: RunningLab, example: ClockFaultExample
    ) -> None:
        """As measured in the subject; to the nanosecond where the lab moves the clocks. All these
        faults are in one run, since some labs take their time to start."""
        # Alone, so that the refusal is checked: it skips, or fails.
        if example.kind in running.cannot:
            running.run(_tables([example]), duration=_AFTER_ALL_OF_THEM)
        possible = [one for one in CLOCK_FAULT_EXAMPLES if one.kind not in running.cannot]
        planned, history = self._run_of(possible, running)
        fault = clock_faults(planned, history)[possible.index(example)]
        moved_ns = [seconds * NS_PER_S for seconds in example.moved_s]
        assert fault.measured is not None
        assert list(fault.measured) == pytest.approx(moved_ns, abs=running.near_ns)
        assumption = next(
            finding
            for finding in judge(planned, history)
            if finding.check == "clock_fault_happened"
        )
        assert assumption.verdict is Verdict.HOLDS

    def _run_of(
        self, examples: Sequence[ClockFaultExample], running: RunningLab
    ) -> tuple[Plan, History]:
        if running.name not in self._runs:
            run = running.run(_tables(examples), duration=_AFTER_ALL_OF_THEM)
            self._runs[running.name] = run
        return self._runs[running.name]

    def test_one_node_sleeps_and_the_other_does_not(self, running: RunningLab) -> None:
        """A fault of one node is none of the other's."""
        planned, history = running.run(
            '[[fault]]\nkind = "suspend"\nnode = "east"\nat = "1h"\nlasts = "8h"\n'
            '[[fault]]\nkind = "step"\nnode = "west"\nat = "10h"\nby = "1h"',
            nodes=TWO_NODES,
            duration="12h",
        )
        east, west = clock_faults(planned, history)
        slept_ns = (8 * HOUR_S * NS_PER_S, 0, 8 * HOUR_S * NS_PER_S)
        stepped_ns = (HOUR_S * NS_PER_S, 0, 0)
        assert east.measured == pytest.approx(slept_ns, abs=running.near_ns)
        assert west.measured == pytest.approx(stepped_ns, abs=running.near_ns)
        began = history.of("fault_began", fault=1)[0]
        assert began.clocks is not None

        # West, hours after the sleep of east: by its own clock no more than the world's time.
        not_slept_ns = (planned.starts_wall_s + 10 * HOUR_S) * NS_PER_S
        assert began.clocks.wall_ns == pytest.approx(not_slept_ns, abs=running.near_ns)

    def test_a_restart_ends_every_ztunnel_of_its_node_and_starts_it(
        self, running: RunningLab
    ) -> None:
        """Between the beginning and the end of the fault, which takes no world time."""
        _, history = running.run('[[fault]]\nkind = "restart"\nat = "1h"', duration="2h")
        kinds_of_all = [event.kind for event in history]

        # The starts at the beginning of the run are outside of these two.
        first, last = kinds_of_all.index("fault_began"), kinds_of_all.index("fault_ended")
        events = history.events[first:last]
        during = [event for event in events if event.kind.startswith("ztunnel")]
        kinds = [event.kind for event in during]
        stopped, started = kinds.count("ztunnel_stopped"), kinds.count("ztunnel_started")
        assert stopped == started == len(kinds) // 2 > 0
        assert {event["cause"] for event in during} == {"restart"}
        assert all(running.is_near(event.world_ns, HOUR_S * NS_PER_S) for event in during)

    def test_a_restart_during_a_sleep_happens_at_the_wake(self, running: RunningLab) -> None:
        """A restart that is planned for the night happens at the wake."""
        _, history = running.run(
            '[[fault]]\nkind = "suspend"\nat = "1h"\nlasts = "8h"\n[[fault]]\nkind = '
            '"restart"\nat = "3h"',
            duration="12h",
        )
        started = history.of("ztunnel_started", cause="restart")
        assert started
        assert all(running.is_near(event.world_ns, 9 * HOUR_S * NS_PER_S) for event in started)

    def test_connections_are_attempted_when_both_ends_are_awake(self, running: RunningLab) -> None:
        """From the beginning, on the schedule, and not while an end sleeps; at the wake again."""
        _, history = running.run(
            '[[fault]]\nkind = "suspend"\nnode = "west"\nat = "55m"\nlasts = "2h"',
            nodes=TWO_NODES,
            duration="4h",
        )
        times_ns = [event.world_ns for event in history.of("connection_attempted")]

        # The wake is outside of a range: an attempt at that very moment is one of those expected.
        asleep_s = range(55 * 60, 55 * 60 + 2 * HOUR_S)

        # The first comes when all ztunnels have been started, which takes its time in a guest.
        assert min(times_ns) <= running.starts_within_ns
        for expected_s in (600, 1200, asleep_s.stop, 3 * HOUR_S):
            expected_ns = expected_s * NS_PER_S
            assert any(running.is_near(each, expected_ns) for each in times_ns), expected_s
        assert not [each for each in times_ns if each // NS_PER_S in asleep_s]


def _tables(examples: Sequence[ClockFaultExample]) -> str:
    return "\n".join(f'[[fault]]\nkind = "{one.kind}"\n{one.toml}' for one in examples)
