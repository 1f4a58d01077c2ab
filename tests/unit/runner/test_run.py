"""What a run leaves behind, and how one that was saved is judged again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import (
    ExitCode,
    HarnessError,
    HarnessFault,
    LabUnavailable,
    SubjectFailed,
)
from meshwake.core.outcome import OutcomeKind
from meshwake.core.scenario import read_scenario
from meshwake.core.store import runs_dir
from meshwake.report.result import result
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import check_run, run_case

from tests.support.scenarios import SURPRISING, UNKNOWN, write
from tests.unit.runner.conftest import BOTH_LABS, ON_MODEL, FakeLab, case_of, scenario_of
from tests.unit.ztunnel.test_binaries import put


def test_as_expected_leaves_nothing_behind() -> None:
    """Unless it was asked for."""
    saved = run_case(case_of(), ON_MODEL)
    assert saved.outcome.kind is OutcomeKind.AS_EXPECTED
    assert saved.path is None
    assert not runs_dir().exists()


@pytest.mark.parametrize(
    ("text", "kind"), [(SURPRISING, OutcomeKind.SURPRISE), (UNKNOWN, OutcomeKind.UNKNOWN)]
)
def test_a_surprise_and_an_unknown_are_kept(text: str, kind: OutcomeKind) -> None:
    """With everything that is needed to judge them again."""
    saved = run_case(case_of(text), ON_MODEL)
    assert saved.outcome.kind is kind
    assert sorted(path.name for path in saved.kept_at.iterdir()) == [
        "history.jsonl",
        "logs",
        "plan.json",
        "repeat.txt",
        "result.json",
    ]


def test_judged_again_it_says_the_same() -> None:
    """`meshwake check` of a run made today."""
    saved = run_case(case_of(SURPRISING), ON_MODEL)
    again = check_run(saved.kept_at)
    assert again.outcome == saved.outcome
    assert result(again) == result(saved)
    assert again.repeat == saved.repeat == case_of(SURPRISING).repeat_command


def test_the_command_that_repeats_a_run_makes_the_same_plan(tmp_path: Path) -> None:
    """Typed without a change; also of a run that is not kept."""
    path = write(tmp_path / "my scenarios", SURPRISING)
    options = Options(lab="model", istio=("1.27.9",), seed=7, as_class="E")
    first = run_case(choose(read_scenario(path), options)[0], options)
    assert run_command([*shlex.split(first.repeat)[1:], "--keep-run"]) == ExitCode.SURPRISE
    again = check_run(runs_dir() / "small" / "latest")
    assert again.plan.sha256 == first.plan.sha256
    assert "--as-class E" in again.repeat and "'" in again.repeat


def test_a_run_saved_before_commands_were_recorded_has_none() -> None:
    """And one of a scenario that no file holds, as a test with the fixture makes it."""
    saved = run_case(case_of(SURPRISING), ON_MODEL)
    (saved.kept_at / "repeat.txt").unlink()
    assert check_run(saved.kept_at).repeat == ""
    made_by_a_test = choose(scenario_of(SURPRISING, path="test_of_mine"), ON_MODEL)[0]
    assert made_by_a_test.repeat_command == ""


def test_same_seed_same_bytes() -> None:
    """Two runs of one plan on the model have the same history, byte for byte."""
    options = Options(lab="model", keep_run=True)
    one, two = (
        (run_case(case_of(SURPRISING, options), options).kept_at / "history.jsonl").read_bytes()
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize(
    "error", [SubjectFailed("ztunnel ended with 101"), HarnessFault("the world was not quiet")]
)
def test_evidence_of_a_failure_is_kept(
    error: HarnessError, labs: Callable[[FakeLab], None], empty_cache: Path
) -> None:
    """Whoever must act finds the logs."""
    put(empty_cache, "1.30.1")
    fake = FakeLab()
    fake.error = error
    labs(fake)
    with pytest.raises(type(error)) as raised:
        run_case(case_of(BOTH_LABS, Options()), Options())
    assert raised.value.evidence is not None
    assert raised.value.evidence.is_dir()


def test_an_unforeseen_error_is_a_fault_of_ours(
    labs: Callable[[FakeLab], None], empty_cache: Path
) -> None:
    """It ends as exit 5, with its traceback in the directory of the run."""
    put(empty_cache, "1.30.1")
    fake = FakeLab()
    fake.error = ZeroDivisionError("by zero")
    labs(fake)
    with pytest.raises(
        HarnessFault, match="this is a fault of meshwake: ZeroDivisionError: by zero"
    ) as raised:
        run_case(case_of(BOTH_LABS, Options()), Options())
    assert raised.value.evidence is not None
    assert "ZeroDivisionError" in (raised.value.evidence / "logs" / "traceback.txt").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LabUnavailable("port 15008 is taken")])
def test_nothing_is_left_when_nothing_was_learned(
    error: BaseException, labs: Callable[[FakeLab], None], empty_cache: Path
) -> None:
    """After ^C, and where the lab could not start."""
    put(empty_cache, "1.30.1")
    fake = FakeLab()
    fake.error = error
    labs(fake)
    with pytest.raises(type(error)):
        run_case(case_of(BOTH_LABS, Options()), Options())
    assert not runs_dir().exists()
