"""The picture says what the history says: no more, no less, and nothing twice."""

from __future__ import annotations

import pytest
from meshwake.analysis.fault_catalogue import FAULTS, scenario_for
from meshwake.analysis.matrix import plan_for
from meshwake.checks import judge
from meshwake.checks.facts.certificates import certificates, renewals
from meshwake.checks.facts.spans import Spans
from meshwake.checks.facts.traffic import failures, outages
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.core.run import Run
from meshwake.core.versions import newest
from meshwake.fixes import FIXES
from meshwake.report import tracks
from meshwake.report.html.content import facts
from meshwake.report.tracks import Bar, Mark, Track, node_tracks
from meshwake.runner.execution import execute

from tests.support.histories import CLIENT, LAPTOP, SERVER, Formula, World, fault, ns, plan
from tests.unit.report.runs import ISSUE_1481, NIGHTS, RECORDED, recorded

NAMES = sorted(path.name for path in RECORDED.iterdir() if path.is_dir())


def nights(*faults: dict[str, object], duration: str = "7d") -> tuple[Plan, History]:
    world = Formula(World(plan(list(faults), duration=duration))).world
    return world.plan, world.history()


def length(track: Track, state: str) -> int:
    return Spans(
        (bar.from_world_ns, bar.to_world_ns) for bar in track.bars if bar.state == state
    ).total_ns


def own_tracks(node: tracks.NodeTracks) -> list[tracks.Track]:
    """Those of ztunnel's certificates. Of a gateway's only the issues are known, not when one was
    due (tracks.py)."""
    return [
        track for track in node.tracks_of("certificate") if not track.label.endswith("(gateway)")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_bars_of_a_certificate_cover_its_life_and_nothing_else(name: str) -> None:
    """From each issue to the end of the certificate, without gap or overlap."""
    run = recorded(name)
    for node in node_tracks(run.plan, run.history):
        for track in own_tracks(node):
            held = certificates(run.history)[track.label]
            wanted = sum(one.until_world_ns - one.issued_world_ns for one in held)
            assert sum(bar.to_world_ns - bar.from_world_ns for bar in track.bars) == wanted
            assert all(
                a.to_world_ns <= b.from_world_ns
                for a, b in zip(track.bars, track.bars[1:], strict=False)
            )


@pytest.mark.parametrize("name", NAMES)
def test_marks_are_the_renewals_of_the_history(name: str) -> None:
    """One for each that was done, at its moment."""
    run = recorded(name)
    drawn = sorted(
        mark.world_ns
        for node in node_tracks(run.plan, run.history)
        for track in own_tracks(node)
        for mark in track.marks
        if mark.kind == tracks.RENEWED
    )
    assert drawn == sorted(
        one.done_world_ns
        for one in renewals(run.plan, run.history)
        if one.done_world_ns is not None
    )


@pytest.mark.parametrize("name", NAMES)
def test_red_is_as_long_as_the_outages(name: str) -> None:
    """Time asleep is not an outage, and is not drawn as one."""
    run = recorded(name)
    nodes = node_tracks(run.plan, run.history)
    red = sum(
        length(track, tracks.FAILS) for node in nodes for track in node.tracks_of("connections")
    )
    assert red == sum(out.span[1] - out.span[0] for out in outages(run.plan, run.history))


def test_expired_from_the_second_after_not_after_until_the_renewal() -> None:
    """The numbers of the issue: expired 11 of every 21 minutes."""
    run = recorded(ISSUE_1481)
    track = node_tracks(run.plan, run.history)[0].tracks_of("certificate")[0]
    spans = [
        (bar.from_world_ns // NS_PER_S, bar.to_world_ns // NS_PER_S)
        for bar in track.bars
        if bar.state == tracks.EXPIRED
    ]
    assert spans[:3] == [(2845, 2940), (3541, 4200), (4801, 5460)]


def test_a_pause_is_drawn_from_three_clocks() -> None:
    """Paused, all three fall behind the world; the wall clock comes back, 25 s late, and the drift
    remains."""
    run = recorded(ISSUE_1481)
    node = node_tracks(run.plan, run.history)[0]
    at = dict(zip(node.clocks.world_ns, node.clocks.lags_ns, strict=True))
    end_of_pause = at[ns("47m")]
    assert [round(lag / NS_PER_S) for lag in end_of_pause] == [-1020, -1020, -1020]
    last = node.clocks.lags_ns[-1]
    assert [round(lag / NS_PER_S) for lag in last] == [0, -1020, -1020]
    assert node.drift_end_ns == ns("17m")


def test_a_suspend_leaves_boottime_with_the_world() -> None:
    """What distinguishes a suspend from a pause."""
    run_plan, history = nights(fault("suspend", "15h", lasts="8h"), duration="2d")
    lags = node_tracks(run_plan, history)[0].clocks.lags_ns[-1]
    assert lags == (0, -ns("8h"), 0)


def test_points_on_a_straight_line_are_left_out() -> None:
    """A week of attempts every ten minutes needs two points a night, and the two ends."""
    run = recorded(NIGHTS)
    assert len(node_tracks(run.plan, run.history)[0].clocks.world_ns) == 16


def test_expired_asleep_is_distinguished() -> None:
    """A machine that sleeps serves no client."""
    run_plan, history = nights(fault("suspend", "13h", lasts="30h"))
    track = node_tracks(run_plan, history)[0].tracks_of("certificate")[0]
    asleep = node_tracks(run_plan, history)[0].asleep
    assert length(track, tracks.EXPIRED_ASLEEP) > 0
    for bar in track.bars:
        within = any(
            from_ns <= bar.from_world_ns and bar.to_world_ns <= to_ns for from_ns, to_ns in asleep
        )
        assert within or bar.state != tracks.EXPIRED_ASLEEP
        assert not within or bar.state != tracks.EXPIRED


def test_steps_restarts_and_alerts_are_marks() -> None:
    """What has no length is not lost."""
    world = World(plan([fault("step", "5h", by="-13h"), fault("restart", "9h")], duration="1d"))
    world.start()
    world.issue(SERVER, at="0s")
    world.attempt(at="1h", ok=True)
    history = world.history()
    track = node_tracks(world.plan, history)[0].tracks_of("faults")[0]
    assert [(mark.kind, mark.text) for mark in track.marks if mark.kind == tracks.STEPPED] == [
        (tracks.STEPPED, "step by -13 h")
    ]


def test_gateways_have_a_lane_and_their_restarts_a_mark() -> None:
    """A weekend with the guard: ztunnel and the gateway are restarted, and both were expired on
    Monday."""
    monday = plan_for(FIXES["wake-guard"], scenario_for(FAULTS["weekend"]), newest())
    history = execute(monday).history
    node = node_tracks(monday, history)[0]
    gateway = next(track for track in node.tracks if track.label == "ingress/gateway (gateway)")
    assert length(gateway, tracks.EXPIRED_ASLEEP) > 0
    issued = history.of("csr_answered", identity="ingress/gateway", outcome="issued")
    assert [mark.world_ns for mark in gateway.marks] == [event.world_ns for event in issued]
    restarts = [
        mark.text for mark in node.tracks_of("faults")[0].marks if mark.kind == tracks.RESTARTED
    ]
    assert "gateway ingress restarted: wake-guard" in restarts


def test_a_lane_of_too_many_bars_is_drawn_coarser_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ends and its red stay in their places."""
    monkeypatch.setattr(tracks, "BARS_MAX", 10)
    monkeypatch.setattr(tracks, "MARKS_MAX", 10)
    bars = tuple(Bar(at, at + 1, tracks.FRESH, "a") for at in range(0, 1_000, 2))
    marks = tuple(Mark(at, tracks.FAILED, "x") for at in range(100))
    track = tracks._bounded(Track("a", "certificate", bars, marks), 1_000)
    assert len(track.bars) <= 10
    assert len(track.marks) == 10
    assert (track.bars[0].from_world_ns, track.bars[-1].to_world_ns) == (0, 999)
    assert track.merged == len(bars) - len(track.bars) + 90


def test_facts_have_the_same_labels_whatever_happened() -> None:
    """Two runs can be compared side by side."""
    run = recorded(NIGHTS)
    quiet_plan, quiet = nights(duration="1d")
    fine = Run(quiet_plan, quiet, judge(quiet_plan, quiet))
    busy = {fact.label: fact.value for fact in facts(run, node_tracks(run.plan, run.history))}
    calm = {fact.label: fact.value for fact in facts(fine, node_tracks(quiet_plan, quiet))}
    assert list(busy) == list(calm)
    assert busy["First failure"] == "day 2 07:58"
    assert calm["Outage while awake"] == "none"
    assert len(failures(quiet_plan, quiet)) == 0


def test_a_node_without_clocks_has_no_story() -> None:
    """A history that broke off at once."""
    world = World(plan())
    history = History(world.history().events[:1])
    assert node_tracks(world.plan, history) == ()
    assert CLIENT in world.plan.nodes[0].identities
    assert world.plan.nodes[0].name == LAPTOP
