"""Forecasts made in the middle of generated runs, against what then happened: on the model here, on
real ztunnels in tests/agreement/test_forecasts.py and, fifty of them, in tests/bench/forecast.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import forecasts, plans


@pytest.mark.parametrize("seed", range(50))
def test_what_is_forecast_happens(seed: int, tmp_path: Path) -> None:
    """The next renewal and the next break, within two seconds of world time."""
    case = forecasts.case(seed)
    history = plans.run(case.plan)
    assert forecasts.wall_is_whole(case, history)
    assert forecasts.compare(case, history, tmp_path).off_s <= forecasts.WITHIN_S


def test_the_cases_are_of_all_kinds(tmp_path: Path) -> None:
    """Breaks and none, with a sleep ahead and without."""
    cases = [forecasts.case(seed) for seed in range(50)]
    breaks = [
        forecasts.compare(case, plans.run(case.plan), tmp_path / str(case.seed)).breaks
        for case in cases
    ]
    assert 10 <= sum(breaks) <= 40
    assert 10 <= sum(case.sleep_ns > 0 for case in cases) <= 40
