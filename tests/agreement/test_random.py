"""Timelines that nobody thought of, on the model and on a real ztunnel. MESHWAKE_SEEDS=0:500 draws others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.pipeline import Options, Saved, choose, run_case
from harness.scenario import parse_scenario
from tests.agreement.conftest import binary_of, cached_versions
from tests.agreement.timelines import random_scenario

# tokio's timers have whole milliseconds and are rounded up; a wall clock that runs at 1.5 has others.
WITHIN_S = 0.002
FIRST, BEYOND = (int(word) for word in os.environ.get("MESHWAKE_SEEDS", "0:4").split(":"))


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence of these runs goes where pytest keeps it."""
    monkeypatch.setenv("MESHWAKE_RUNS", str(tmp_path / "runs"))


def on(lab: str, seed: int, version: str) -> Saved:
    options = Options(lab=lab, istio=(version,))
    scenario = parse_scenario(random_scenario(seed), f"seed_{seed}.toml", f"seed_{seed}")
    return run_case(choose(scenario, options)[0], options)


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


@pytest.mark.parametrize("seed", range(FIRST, BEYOND))
def test_model_and_binary_agree_on_a_timeline_drawn_at_random(seed: int) -> None:
    """Every verdict, every renewal and every outage; where retries are drawn by chance inside ztunnel, the verdicts."""
    if not cached_versions():
        pytest.skip("no ztunnel in the cache (meshwake doctor says where it belongs)")
    version = cached_versions()[-1]
    binary_of(version)
    model, real = on("model", seed, version), on("process", seed, version)
    ours, theirs = ({row["check"]: row["verdict"] for row in saved.result["findings"]} for saved in (model, real))
    assert ours == theirs, random_scenario(seed)
    by_chance = any(
        event["outcome"] != "issued" for saved in (model, real) for event in saved.history.of("csr_answered")
    )
    flooded = any(saved.history.of("run_ended", reason="csr_flood") for saved in (model, real))
    if by_chance or flooded:
        return
    for rows, times in (("renewals", ("issued_world_s", "done_world_s")), ("outages", ("from_world_s", "to_world_s"))):
        names = ("node", "identity") if rows == "renewals" else ()
        assert_near(numbers(model.result[rows], names, times), numbers(real.result[rows], names, times))
