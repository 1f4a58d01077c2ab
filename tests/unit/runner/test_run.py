"""What a run leaves behind, and how one that was saved is judged again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from meshwake.core.errors import (
    HarnessError,
    HarnessFault,
    LabUnavailable,
    SubjectFailed,
)
from meshwake.core.outcome import OutcomeKind
from meshwake.core.store import runs_dir
from meshwake.report.result import result
from meshwake.runner.options import Options
from meshwake.runner.run import check_run, run_case

from tests.support.scenarios import SURPRISING, UNKNOWN
from tests.unit.runner.conftest import BOTH_LABS, ON_MODEL, FakeLab, case_of
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
        "result.json",
    ]


def test_judged_again_it_says_the_same() -> None:
    """`meshwake check` of a run made today."""
    saved = run_case(case_of(SURPRISING), ON_MODEL)
    again = check_run(saved.kept_at)
    assert again.outcome == saved.outcome
    assert result(again) == result(saved)


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
