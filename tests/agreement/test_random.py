"""Timelines that nobody thought of, on the model and on a real ztunnel. MESHWAKE_SEEDS=0:500 draws others."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.agreement.conftest import VERSIONS, binary_of, run_text, times_are_fixed, verdicts
from tests.agreement.timelines import random_scenario

# tokio's timers have whole milliseconds and are rounded up; a wall clock that runs at 1.5 has others.
WITHIN_S = 0.002
COMPARED = (
    ("renewals", ("node", "identity"), ("issued_world_s", "done_world_s")),
    ("outages", (), ("from_world_s", "to_world_s")),
)
FIRST, BEYOND = (int(word) for word in os.environ.get("MESHWAKE_SEEDS", "2:4").split(":"))


def numbers(rows: list[dict[str, Any]], names: tuple[str, ...], times: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Rows as tuples that can be sorted and compared: what is never done comes last."""
    return sorted(
        (*(row[name] for name in names), *(float("inf") if row[time] is None else row[time] for time in times))
        for row in rows
    )


def assert_near(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for one, two in zip(mine, other, strict=True):
            assert one == (pytest.approx(two, abs=WITHIN_S) if isinstance(two, float) else two)


@pytest.mark.parametrize("version", VERSIONS[-1:])
@pytest.mark.parametrize("seed", range(FIRST, BEYOND))
def test_model_and_binary_agree_on_a_timeline_drawn_at_random(seed: int, version: str) -> None:
    """Every verdict, every renewal and every outage; where retries are drawn by chance inside ztunnel, the verdicts."""
    binary_of(version)
    model, real = run_text(random_scenario(seed), f"seed_{seed}", version)
    assert verdicts(model) == verdicts(real), random_scenario(seed)
    if not times_are_fixed(model, real):
        return
    for rows, names, times in COMPARED:
        assert_near(numbers(model.result[rows], names, times), numbers(real.result[rows], names, times))
