from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core import versions
from meshwake.core.errors import ExitCode
from meshwake.core.outcome import OutcomeKind
from meshwake.core.scenario import read_scenario
from meshwake.runner.choose import Chooser, choose
from meshwake.runner.corpus import scenario_files
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.support.paths import SCENARIOS

FILES = scenario_files([SCENARIOS])
IN_REAL_TIME = (
    "nightly_sleep",
    "one_long_suspend",
    "ztunnel_1481",
    "forward_step",
    "nothing_happens",
)
HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_says_where_it_comes_from_and_why(path: Path) -> None:
    """A title, a public source, and a reason for each expectation that is more than a word."""
    scenario = read_scenario(path)
    assert scenario.source is not None
    assert scenario.source.startswith("https://")
    assert all(len(row.because.split()) >= 3 for row in scenario.expect)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_expects_something_of_every_release(path: Path) -> None:
    """No release is left without an expectation, and none has two for one check."""
    every = Options(lab="model", istio=tuple(row.version for row in versions.releases()))
    for case in Chooser(every).cases(read_scenario(path)):
        assert case.expectations, f"nothing is expected of {case.version}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_week_of_attempts_is_enough(path: Path) -> None:
    """The process lab makes every attempt for real: about a thousand on the schedule, two pairs at
    most."""
    scenario = read_scenario(path)
    assert len(scenario.traffic.pairs) <= 2
    assert scenario.duration // scenario.traffic.every <= 1_010


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_real_time_of_a_scenario_is_minutes(path: Path) -> None:
    """Where a lab cannot skip time: short certificates, two hours at most; and the scenarios that
    need it have it."""
    scenario = read_scenario(path)
    if scenario.real_time is None:
        assert scenario.name not in IN_REAL_TIME
        return
    assert scenario.real_time.duration <= 2 * HOUR_NS
    assert scenario.real_time.lifetime <= HOUR_NS // 6


def test_the_canary_must_break() -> None:
    """There is one, and it expects nothing but BROKEN."""
    canaries = [path for path in FILES if path.parent.name == "canary"]
    assert canaries
    for path in canaries:
        assert {row.verdict for row in read_scenario(path).expect} == {"broken"}


def test_names_are_unique() -> None:
    """The name of a scenario is its directory of runs."""
    assert len({path.stem for path in FILES}) == len(FILES)


def test_the_example_of_the_readme_comes_out_as_it_says(tmp_path: Path) -> None:
    """What a reader copies runs, and as expected."""
    text = (
        (SCENARIOS / "README.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    )
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    assert run_command(["run", str(path), "--lab", "model"]) == ExitCode.AS_EXPECTED


@pytest.mark.parametrize("real_time", [False, True], ids=["skipped", "real_time"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_comes_out_as_expected_on_the_model(path: Path, real_time: bool) -> None:
    """With its own numbers and with those of [real_time]: the physics is the same."""
    scenario, options = read_scenario(path), Options(lab="model", real_time=real_time)
    if real_time and scenario.real_time is None:
        return
    saved = run_case(choose(scenario, options)[0], options)
    assert saved.outcome.kind is OutcomeKind.AS_EXPECTED, saved.outcome.why
