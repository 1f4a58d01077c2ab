"""Forecasts made in the middle of runs of a real ztunnel, against what then really happened. Fifty
of them: `python -m tests.bench.forecast`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agreement.conftest import binary_of
from tests.bench import forecast
from tests.support import forecasts

# One of each way in which the clock drift is known; breaks and none; with a sleep ahead and
# without.
SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_real_ztunnel_does_what_was_predicted(seed: int, tmp_path: Path) -> None:
    """The next renewal and the next break, within two seconds of world time."""
    ztunnel = binary_of("1.31.0-rc.0")
    case = forecasts.case(seed, lab="process")
    history = forecast.run(case.plan, ztunnel, tmp_path / "logs")
    assert forecasts.compare(case, history, tmp_path / "saved").off_s <= forecasts.WITHIN_S
