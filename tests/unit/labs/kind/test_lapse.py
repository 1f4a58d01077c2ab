"""A run that skips idle time: the same verdicts and renewals as the model, in minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from meshwake.checks import judge
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import OutcomeKind, Verdict, compare
from meshwake.core.plan import Plan, PlannedCluster, PlannedFix
from meshwake.core.resolve import resolve
from meshwake.core.scenario import read_scenario
from meshwake.kubernetes.api import Pod
from meshwake.labs import Toolbox
from meshwake.labs.kind.refusals import refusals
from meshwake.labs.model.lab import LAB as MODEL_LAB
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.options import Options

from tests.support.paths import SCENARIOS
from tests.unit.cluster.simulated import SimulatedCluster
from tests.unit.labs.kind.lapse import SimulatedLapse, lapsed, took_s
from tests.unit.labs.kind.runs import CLIENT, ONE_NODE, TWO_NODES, plan, verdicts
from tests.unit.labs.kind.test_lab import environment_of
from tests.unit.labs.kind.test_lab import run as run_lab
from tests.unit.labs.kind.test_scenarios import FOR_KIND

WITHIN_NS = 2 * NS_PER_S


def case_of(path: Path, version: str) -> Case:
    """The case as lab kind would run it, with the expectations that apply."""
    (case,) = Chooser(Options(lab="model", istio=(version,))).cases(read_scenario(path))
    return replace(case, lab="kind", cluster=PlannedCluster(clock="process", lapse=True))


def renewals(history: History, until_world_ns: int) -> dict[str, list[int]]:
    """When each identity was given a certificate, in world time; the one at the start is not among
    them."""
    found: dict[str, list[int]] = {}
    for event in history.of("csr_answered", outcome="issued"):
        found.setdefault(event["identity"], []).append(event.world_ns)
    return {
        name: [world_ns for world_ns in each[1:] if world_ns < until_world_ns]
        for name, each in found.items()
    }


def on_the_model(of: Plan) -> History:
    recorder = Recorder()
    MODEL_LAB.run(of, Toolbox(None, Path()), recorder)
    return recorder.history


@pytest.mark.parametrize("version", ["1.27.9", "1.31.0"])
@pytest.mark.parametrize("path", FOR_KIND, ids=lambda path: path.stem)
def test_every_scenario_comes_out_as_expected_with_its_own_numbers(
    path: Path, version: str
) -> None:
    """Certificates of a day, weeks of time: in minutes of real time, and renewed when the model
    renews."""
    of = resolve(case_of(path, version))
    history, mover = lapsed(of)
    outcome = compare(of, judge(of, history))
    assert outcome.kind is OutcomeKind.AS_EXPECTED, outcome.why
    assert took_s(mover) < 20 * 60
    if not any(fault.kind in ("ca_outage", "restart") for fault in of.faults):
        until_ns = of.duration_ns - WITHIN_NS
        theirs = renewals(on_the_model(of), until_ns)
        for identity, ours in renewals(history, until_ns).items():
            assert ours == pytest.approx(theirs[identity], abs=WITHIN_NS)


def test_a_quiet_day_is_a_few_leaps() -> None:
    """From one connection to the next, and into the renewal."""
    of = plan(duration="12h").model_copy(
        update={"lifetime_s": 86_400, "attempt_every_ns": 3600 * NS_PER_S}
    )
    history, mover = lapsed(of)
    assert len(mover.leaps) < 40 and took_s(mover) < 60
    assert verdicts(of, history)["traffic_flows"] is Verdict.HOLDS


def test_a_night_alone_takes_no_longer_than_its_leap() -> None:
    """Where every node sleeps nothing happens, so no connection that could not be tried is waited
    for."""
    of = plan('[[fault]]\nkind = "suspend"\nat = "1h"\nlasts = "8h"\n', duration="10h")
    _, mover = lapsed(of)
    assert max(mover.leaps) > 7.9 * 3600 * NS_PER_S


ONE_SLEEPS = '[[fault]]\nkind = "{}"\nnode = "west"\nat = "5m"\nlasts = "9m"\n{}'


@pytest.mark.parametrize(
    ("kind", "more", "drift_s", "boottime_s"),
    [
        ("suspend", "", 540, 540),
        ("pause", 'corrected_after = "1m"\n', 540, 0),
        ("freeze", "", 0, 0),
    ],
)
def test_the_clocks_of_a_fault_are_what_its_kind_does(
    kind: str, more: str, drift_s: int, boottime_s: int
) -> None:
    """Measured at both ends, while the other node lives on in leaps."""
    of = plan(ONE_SLEEPS.format(kind, more), nodes=TWO_NODES, duration="40m")
    history, _ = lapsed(of)
    (began,), (ended,) = history.of("fault_began"), history.of("fault_ended")
    assert began.clocks is not None and ended.clocks is not None
    moved = ended.clocks.since(began.clocks)
    assert (moved.wall_ns - moved.monotonic_ns) / NS_PER_S == pytest.approx(drift_s, abs=0.01)
    assert (moved.boottime_ns - moved.monotonic_ns) / NS_PER_S == pytest.approx(
        boottime_s, abs=0.01
    )
    assert verdicts(of, history)["clock_fault_happened"] is Verdict.HOLDS
    assert began.world_ns / NS_PER_S == pytest.approx(300, abs=2)
    assert ended.world_ns / NS_PER_S == pytest.approx(840 + (60 if kind == "pause" else 0), abs=2)

    # When the model renews: that a renewal came before the end of the fault was true also of a
    # freeze during which no clock went on (seed 57).
    until_ns = of.duration_ns - WITHIN_NS
    ours, theirs = renewals(history, until_ns), renewals(on_the_model(of), until_ns)
    assert ours[CLIENT] == pytest.approx(theirs[CLIENT], abs=WITHIN_NS)
    assert any(began.world_ns < world_ns < ended.world_ns for world_ns in ours[CLIENT])


TWO_FREEZE = """
    [[fault]]
    kind  = "freeze"
    node  = "north"
    at    = "5m"
    lasts = "20m"
    [[fault]]
    kind  = "freeze"
    node  = "west"
    at    = "15m"
    lasts = "20m"
"""


def test_faults_of_two_nodes_overlap() -> None:
    """Seed 57: the second began when the first was over, and the run lasted that much longer."""
    # The authority is on the first node, which is not frozen.
    third = '[[node]]\nname = "north"\nidentities = ["default/third"]\n'
    of = plan(TWO_FREEZE, nodes=TWO_NODES + third, duration="50m")
    history, _ = lapsed(of)
    began_s = [event.world_ns / NS_PER_S for event in history.of("fault_began")]
    ended_s = [event.world_ns / NS_PER_S for event in history.of("fault_ended")]
    assert began_s == pytest.approx([300, 900], abs=2)
    assert ended_s == pytest.approx([1500, 2100], abs=2)
    (end,) = history.of("run_ended")
    assert end.world_ns / NS_PER_S == pytest.approx(3000, abs=2)
    assert verdicts(of, history) == verdicts(of, on_the_model(of))


@pytest.mark.parametrize("kind", ["suspend", "pause", "freeze"])
def test_a_restart_on_a_node_that_sleeps_comes_at_its_wake(kind: str) -> None:
    """Seed 55: the new ztunnel began in the sleep, and was late after it."""
    more = 'corrected_after = "1m"\n' if kind == "pause" else ""
    faults = ONE_SLEEPS.format(kind, more) + '[[fault]]\nkind = "restart"\nnode = "*"\nat = "10m"\n'
    of = plan(faults, nodes=TWO_NODES, duration="40m")
    history, _ = lapsed(of)
    started_s = {
        event.node: event.world_ns / NS_PER_S
        for event in history.of("ztunnel_started", cause="restart")
    }
    assert started_s == {
        "east": pytest.approx(600, abs=20),
        "west": pytest.approx(840, abs=20),
    }
    woke_ns = next(
        event.world_ns
        for event in (*history.of("node_woke"), *history.of("fault_ended"))
        if event["fault_kind"] == kind
    )
    (west,) = [each for each in history.of("ztunnel_stopped") if each.node == "west"]
    assert west.world_ns >= woke_ns

    # Wake and restart are due at one time: no connection comes between them.
    tried_ns = [event.world_ns for event in history.of("connection_attempted")]
    assert not [each for each in tried_ns if woke_ns <= each < west.world_ns]


def test_a_step_sets_the_wall_clock_and_nothing_else() -> None:
    """Backwards too."""
    of = plan('[[fault]]\nkind = "step"\nat = "5m"\nby = "-2m"\n', nodes=ONE_NODE)
    history, _ = lapsed(of)
    (ended,) = history.of("fault_ended")
    assert (
        ended.clocks is not None
        and ended["wall_before_ns"] - ended.clocks.wall_ns == 120 * NS_PER_S
    )
    assert verdicts(of, history)["clock_fault_happened"] is Verdict.HOLDS


def test_during_an_outage_of_istiod_time_goes_on_in_small_leaps() -> None:
    """So that ztunnel tries again nearly when it should; every refusal is in the history."""
    of = resolve(case_of(SCENARIOS / "ca_away_at_renewal.toml", "1.31.0"))
    history, _ = lapsed(of)
    refused = history.of("csr_answered", outcome="refused")
    on_model = on_the_model(of).of("csr_answered", outcome="refused")
    assert len(on_model) / 2 < len(refused) < len(on_model) * 2


def test_a_certificate_that_never_comes_is_not_waited_for_for_ever() -> None:
    """istiod is there and does not sign: the bound is passed, and the run goes on to its end."""
    of = plan(duration="40m")
    history, mover = lapsed(of, signs=False)
    assert history.of("csr_answered", outcome="refused")
    assert history.of("run_ended", reason="duration") and took_s(mover) < 20 * 60


def test_no_connection_meets_a_restart_that_takes_its_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan has it take none, and time leaps to where both are due: it is tried when the next
    one runs."""
    of = plan('[[fault]]\nkind = "restart"\nat = "10m"\n', duration="20m")
    down_until_ns = [0]
    pods, end_pod, error = (
        SimulatedCluster.pods,
        SimulatedCluster.end_pod,
        SimulatedCluster._connection_error,
    )

    def ends(cluster: SimulatedCluster, pod: Pod) -> None:
        end_pod(cluster, pod)
        down_until_ns[0] = cluster.now_ns + 10 * NS_PER_S

    def is_down(cluster: SimulatedCluster) -> bool:
        return cluster.now_ns < down_until_ns[0]

    def listed(cluster: SimulatedCluster, namespace: str, labels: Any) -> list[Pod]:
        return (
            []
            if labels == {"app": "ztunnel"} and is_down(cluster)
            else pods(cluster, namespace, labels)
        )

    def fails(cluster: SimulatedCluster, source: str, destination: str) -> str | None:
        return "no resolver" if is_down(cluster) else error(cluster, source, destination)

    monkeypatch.setattr(SimulatedCluster, "end_pod", ends)
    monkeypatch.setattr(SimulatedCluster, "pods", listed)
    monkeypatch.setattr(SimulatedCluster, "_connection_error", fails)
    history, _ = lapsed(of)
    assert [event["cause"] for event in history.of("ztunnel_started")] == ["start", "restart"]
    assert not history.of("connection_attempted", ok=False)


def test_a_whole_run_says_first_that_clocks_are_taken_ahead(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And that programs are restarted for it; it goes through the lab as every run does."""
    of = resolve(case_of(SCENARIOS / "forward_step.toml", "1.31.0"))
    environment = environment_of(of)
    environment.mover_made = mover = SimulatedLapse(environment.real)
    history = run_lab(environment)
    assert compare(of, judge(of, history)).kind is OutcomeKind.AS_EXPECTED
    assert mover.released and mover.leaps
    err = capsys.readouterr().err
    assert "taken ahead by up to 3d, and those programs are started again at the end" in err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"duration_ns": 100 * 86_400 * NS_PER_S},
            "the API server's certificate, which lives a year; at most 90d",
        ),
        (
            {"fix": PlannedFix(name="log-watchdog")},
            "kubelet dates that in real time",
        ),
    ],
)
def test_what_cannot_be_where_time_is_skipped_is_refused_by_name(
    changed: dict[str, Any], words: str
) -> None:
    """Each with what to do instead."""
    of = plan().model_copy(
        update={"cluster": PlannedCluster(clock="process", lapse=True), **changed}
    )
    assert words in "\n".join(refusals(of))


def test_weeks_are_not_refused_where_time_is_skipped() -> None:
    """In real time two hours are the most."""
    of = plan(duration="30d").model_copy(
        update={"cluster": PlannedCluster(clock="process", lapse=True)}
    )
    assert refusals(of) == []
