"""The guard through weeks of random sleeps; the three months of the issue are `meshwake
guard-trial`."""

from __future__ import annotations

import pytest
from meshwake.analysis.guard_trial import fewest_restarts, random_months, try_guard
from meshwake.analysis.matrix import plan_for
from meshwake.cli.app import run_command
from meshwake.core.versions import newest
from meshwake.fixes import FIXES

DAYS = 21


@pytest.mark.slow(reason="weeks of random sleeps")
@pytest.mark.parametrize("seed", [11, 12])
def test_the_guard_keeps_its_promises(seed: int) -> None:
    """No outage beyond five waking minutes, no restart that was not needed, hardly more than the
    least possible."""
    trial = try_guard(random_months(seed, DAYS), newest(), seed, DAYS)
    assert trial.passed, trial
    assert trial.sleeps > 10
    assert trial.longest_with_authority_s <= 300
    assert 0 < trial.fewest <= trial.restarts <= trial.fewest + 3


def test_same_seed_same_months() -> None:
    assert random_months(5, DAYS) == random_months(5, DAYS)
    assert random_months(5, DAYS) != random_months(6, DAYS)


def test_perfect_foresight_restarts_too() -> None:
    """The least possible is not zero: without any restart these weeks are broken."""
    bare = plan_for(FIXES["none"], random_months(11, DAYS), newest(), seed=11)
    assert fewest_restarts(bare)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["guard-trial", "--days", "6", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "recovers_within  HOLDS" in out
    assert "the least possible" in out


def test_the_command_refuses_a_lab_that_there_is_none_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["guard-trial", "--lab", "moon"]) == 3
    assert "expected one of model, process" in capsys.readouterr().err
