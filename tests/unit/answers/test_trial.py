"""The guard through weeks of random sleeps; the three months of the issue are `meshwake guard-trial`."""

from __future__ import annotations

import pytest

from harness.answers.matrix import plan_for
from harness.answers.trial import fewest_restarts, months, try_guard
from harness.fixes import FIXES
from harness.versions import newest

DAYS = 21


@pytest.mark.parametrize("seed", [11, 12])
def test_the_guard_keeps_its_promises(seed: int) -> None:
    """No outage beyond five waking minutes, no restart that was not needed, hardly more than the least possible."""
    trial = try_guard(months(seed, DAYS), newest(), seed, DAYS)
    assert trial.passed, trial
    assert trial.sleeps > 10
    assert trial.longest_with_authority_s <= 300
    assert 0 < trial.fewest <= trial.restarts <= trial.fewest + 3


def test_same_seed_same_months() -> None:
    assert months(5, DAYS) == months(5, DAYS)
    assert months(5, DAYS) != months(6, DAYS)


def test_somebody_who_knows_the_future_restarts_too() -> None:
    """The least possible is no trivial number: without any restart these weeks are broken."""
    bare = plan_for(FIXES["none"], months(11, DAYS), newest(), seed=11)
    assert fewest_restarts(bare)
