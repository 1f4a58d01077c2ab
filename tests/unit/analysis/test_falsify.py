"""The falsifier: what it finds breaks, is the least that does, and is the same again for the same
seed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from meshwake.analysis import falsify as search
from meshwake.analysis.falsify import (
    document_of,
    falsify,
    make_target,
    neighbours,
    save,
    smallest,
)
from meshwake.checks import judge
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.outcome import Finding, OutcomeKind, Verdict
from meshwake.core.scenario import read_scenario, scenario_of
from meshwake.core.versions import newest
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.runner.timelines import DEFAULT_KINDS, KINDS, Move, Timeline, describe, timelines

CHECK = "recovers_within"


@given(timelines(KINDS))
@settings(max_examples=40, deadline=None)
def test_every_timeline_is_a_scenario(timeline: Timeline) -> None:
    """No overlaps, nothing after the end, not more attempts than a real binary can make."""
    scenario = scenario_of(document_of(timeline, "none", CHECK), "x", "x")
    assert len(scenario.fault) == len(timeline)
    assert scenario.duration // scenario.traffic.every <= search.ATTEMPTS_MAX


@given(timelines(DEFAULT_KINDS))
@settings(max_examples=60, deadline=None)
def test_the_smallest_has_no_smaller_neighbour(timeline: Timeline) -> None:
    """Whatever breaks: here half a day asleep in all, and a restart somewhere."""

    def breaks(drawn: Timeline) -> bool:
        asleep = sum(move.lasts for move in drawn if move.kind in ("suspend", "pause"))
        return asleep >= 722 and any(move.kind == "restart" for move in drawn)

    drawn = (*timeline, Move("suspend", 3, lasts=900), Move("restart", 4))
    least = smallest(drawn, breaks, lambda: True)
    assert breaks(least)
    assert not any(breaks(smaller) for smaller in neighbours(least))
    assert sum(move.lasts for move in least) == 722


def test_neighbours_leave_out_and_shorten() -> None:
    """One move less, where the others move up or stay; one number a quarter less; nothing below the
    least."""
    pair = (Move("suspend", 4, lasts=100), Move("step", 1, by=8, backward=True))
    found = list(neighbours(pair))
    assert (Move("step", 105, by=8, backward=True),) in found
    assert (Move("step", 1, by=8, backward=True),) in found
    assert (Move("suspend", 4, lasts=75), pair[1]) in found
    assert (pair[0], Move("step", 1, by=6, backward=True)) in found
    assert list(neighbours((Move("restart", 1),))) == []


def test_two_sleeps_are_tried_as_one() -> None:
    """One of 12 h 2 m says more than a minute and 12 h 1 m."""
    two = (Move("suspend", 1, lasts=1), Move("suspend", 9, lasts=721))
    assert (Move("suspend", 1, lasts=722),) in list(neighbours(two))


def breaks(question: search.FalsifyTarget, timeline: Timeline) -> bool:
    return question.finding(timeline).verdict is Verdict.BROKEN


@pytest.fixture(scope="module")
def found() -> search.FalsifyResult:
    """The search against a ztunnel as released."""
    return falsify(make_target("none", CHECK, newest(), seed=3), budget_s=60)


@pytest.mark.slow(reason="a search")
def test_what_was_found_is_the_least(found: search.FalsifyResult) -> None:
    """One sleep, one minute too long: half a life of a day dated back by two minutes, and two to
    the next attempt."""
    assert found.timeline is not None and found.minimal
    assert len(found.timeline) == 1
    question = found.question
    assert breaks(question, found.timeline)
    assert not any(breaks(question, smaller) for smaller in neighbours(found.timeline))


@pytest.mark.slow(reason="two searches")
def test_the_same_seed_finds_the_same(found: search.FalsifyResult) -> None:
    """How long it took does not matter."""
    again = falsify(make_target("none", CHECK, newest(), seed=3), budget_s=60)
    assert (again.timeline, again.tried) == (found.timeline, found.tried)


@pytest.mark.slow(reason="a search, and runs of what it found")
def test_it_is_written_as_a_scenario_that_comes_out_as_it_says(
    found: search.FalsifyResult, tmp_path: Path
) -> None:
    """Read back, run as any other, on the model of the newest release and of the oldest."""
    path = save(found, tmp_path)
    assert tomllib.loads(path.read_text())["expect"]
    for istio in ((), ("1.18.0",)):
        options = Options(lab="model", istio=istio)
        saved = run_case(choose(read_scenario(path), options)[0], options)
        assert saved.outcome.kind is OutcomeKind.AS_EXPECTED, saved.outcome.why
    verdicts = {one.check: one.verdict for one in judge(saved.plan, saved.history)}
    assert verdicts[CHECK] is Verdict.BROKEN


def clock_that_jumps() -> Iterator[float]:
    yield 0.0
    yield 0.0
    while True:
        yield 100.0


@pytest.mark.slow(reason="a search to its end")
def test_nothing_found_is_reported_as_such() -> None:
    """After the budget, with how much was tried."""
    ticks = clock_that_jumps()
    ended = falsify(
        make_target("wall-polling", CHECK, newest()), budget_s=60, clock=lambda: next(ticks)
    )
    assert ended.timeline is None
    assert ended.tried > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--fix", "prayer"],
            "invalid value 'prayer' for --fix: expected one of none, weekly-restart",
        ),
        (["--fix", "none", "--property", "luck"], "invalid value 'luck' for --property"),
        (
            ["--fix", "none", "--faults", "earthquake"],
            "invalid value 'earthquake' for --faults: expected one of suspend",
        ),
        (["--fix", "none", "--budget", "60"], "expected a duration such as"),
        (["--fix", "none", "--budget", "-5s"], "expected more than 0"),
        (["--fix", "none", "--lab", "kind"], "expected one of model, process"),
        (["--fix", "none", "--ztunnel", "z"], "lab model runs no binary"),
    ],
)
def test_bad_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is searched, with what is allowed."""
    assert run_command(["falsify", *arguments]) == ExitCode.BAD_INPUT
    assert words in capsys.readouterr().err


@pytest.mark.slow(reason="a search")
def test_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys that were promised; exit 1 for a find."""
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "no-binaries"))
    arguments = [
        "falsify",
        "--fix",
        "sleep-hook",
        "--faults",
        "pause",
        "--output",
        str(tmp_path),
        "--json",
    ]
    assert run_command(arguments) == ExitCode.SURPRISE
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() >= {"fix", "property", "found", "scenario_file", "events", "tried"}
    assert printed["found"] is True
    assert [event["kind"] for event in printed["events"]] == ["pause"]
    assert Path(printed["scenario_file"]).is_file()
    assert "no ztunnel binary in the cache" in printed["not_confirmed_because"]


def test_words_for_a_person() -> None:
    """What is the same, once."""
    night = Move("suspend", 60, lasts=361)
    assert describe((night, night)) == "2 x suspend 6 h 1 m"
    assert (
        describe((Move("step", 1, by=12, backward=True), Move("restart", 1)))
        == "step -12 m, then restart"
    )
    assert describe((Move("drift", 1, lasts=60, rate_off=25),)) == "drift 1 h at 1.025"


def test_what_was_found_in_our_guard_is_mended() -> None:
    """A sleep and a step back that cancel out in the clock drift: a certificate that is not valid
    yet is noticed all the same."""
    question = make_target("wake-guard", CHECK, newest())
    assert not breaks(
        question, (Move("suspend", 1, lasts=12), Move("step", 719, by=12, backward=True))
    )


@pytest.mark.slow(reason="searches with a budget")
def test_a_timeline_in_which_nothing_can_be_judged_is_neither_broken_nor_a_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An assumption that fails makes UNKNOWN of everything, and that is counted by itself."""
    failing = {
        "clock_fault_happened": lambda plan, history: Finding("x", Verdict.BROKEN, "not measured")
    }
    monkeypatch.setattr("meshwake.checks.ASSUMPTIONS", failing)
    ticks = iter(range(10_000))
    found = search.falsify(
        search.make_target("none", "recovers_within", newest()),
        6,
        clock=lambda: float(next(ticks)),
    )
    assert found.timeline is None
    assert found.unknown == found.tried > 0
