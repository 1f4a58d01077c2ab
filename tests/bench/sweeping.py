"""Sweeps: weeks of a machine per second, with one worker and with one a core, next to the model
alone."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshwake.analysis.sweep import (
    SweepSpec,
    open_result_store,
    parts,
    simulate_part,
    spec_of,
    sweep,
)
from meshwake.analysis.workers import cores, on_this_machine
from meshwake.core.versions import newest

from tests.bench.model import nightly_sleep, run
from tests.bench.numbers import Number, hand_over, seconds_of
from tests.bench.use import own_peak_bytes

FIXES = (
    "none",
    "weekly-restart",
    "daily-restart",
    "secret-ttl-720h",
    "sleep-hook",
    "boottime",
    "wall-polling",
    "wake-guard",
)
MACHINES = 80


def question() -> SweepSpec:
    """Eight fixes on laptops for a week, in parts small enough for every core."""
    spec = spec_of(["office-laptop"], FIXES, [86_400], [newest().version], MACHINES, 7, 1)
    return replace(spec, machines_a_part=10)


def measure() -> list[Number]:
    """One worker, then one a core; what spawning them costs is in it, as it is for a user."""
    spec = question()
    weeks = spec.machines * len(spec.fixes)
    simulate_part(next(parts(spec)))  # what is read once is read before
    one_s = seconds_of(lambda: _swept(spec, 1))
    model_s = seconds_of(lambda: [run(nightly_sleep()) for _ in range(20)]) / 20
    numbers = [
        _number(
            "weeks_per_s_1_worker", weeks / one_s, "/s", weeks / one_s * model_s, "model alone"
        ),
        _number("ms_per_week", one_s / weeks * 1e3, "ms", one_s / weeks / model_s, "model alone"),
        _number("peak_mib", (own_peak_bytes() or 0) / 2**20, "MiB"),
    ]
    if cores() > 1:
        all_s = seconds_of(lambda: _swept(spec, cores()))
        numbers.append(
            _number(
                f"weeks_per_s_{cores()}_workers", weeks / all_s, "/s", one_s / all_s, "1 worker"
            )
        )
    return numbers


def _swept(spec: SweepSpec, jobs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as place:
        return sweep(
            spec, open_result_store(Path(place), spec), on_this_machine(jobs), lambda done, of: None
        )


def _number(
    key: str, value: float, unit: str, ratio: float | None = None, peer: str = ""
) -> Number:
    return Number("sweep", key, value, unit, ratio, peer)


if __name__ == "__main__":
    hand_over(measure())
