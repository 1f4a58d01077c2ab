"""Lab model: days per second, next to the event loop that it uses, which is measured in the same
breath."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from statistics import median
from typing import Any

import simpy
from meshwake.checks import judge
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.core.resolve import resolve
from meshwake.core.scenario import read_scenario
from meshwake.labs import Toolbox, load_lab
from meshwake.runner.choose import choose
from meshwake.runner.options import Options

from tests.bench.numbers import DAY_S, MIB, NIGHTLY_SLEEP, Number, hand_over, seconds_of
from tests.support.paths import REPOSITORY

ROUNDS = 9
_MIXED_STEP_NS = 7_919  # any step will do: the loop does not look at it


def nightly_sleep() -> Plan:
    """The week that everything is measured by."""
    return resolve(choose(read_scenario(NIGHTLY_SLEEP), Options(lab="model"))[0])


def run(plan: Plan) -> History:
    """`plan` on the model, recorded in memory only."""
    recorder = Recorder()
    load_lab("model").run(plan, Toolbox(None, Path()), recorder)
    return recorder.history


def measure(plan: Plan, rounds: int) -> list[Number]:
    """The speed of `plan`, as the median of some rounds. Model and bare loop take turns, so that
    whatever disturbs the machine disturbs both."""
    moments, history = _count_moments(plan), run(plan)
    taken = [
        (seconds_of(lambda: run(plan)), seconds_of(lambda: run_bare_loop(moments)))
        for _ in range(rounds)
    ]
    model_s, bare_s = (median(column) for column in zip(*taken, strict=True))
    judging_s = median(seconds_of(lambda: judge(plan, History(history))) for _ in range(rounds))
    days, best_s = plan.duration_ns / NS_PER_S / DAY_S, min(model for model, _ in taken)
    loop = "simpy alone"
    return [
        _number("days_per_s", days / model_s, "/s", days / model_s * DAY_S, "real time"),
        _number("best_days_per_s", days / best_s, "/s", model_s / best_s, "the median"),
        _number("moments_per_s", moments / model_s, "/s", bare_s / model_s, loop),
        _number("bare_loop_moments_per_s", moments / bare_s, "/s", 1.0, loop),
        _number("events_per_s", len(history) / model_s, "/s", len(history) / moments, "moments"),
        _number("judging_s_per_week", judging_s * 7 / days, "s", judging_s / model_s, "running it"),
    ]


def measure_memory() -> list[Number]:
    """Peak of a process that runs a week, next to one that only imports the same."""
    idle_mib, week_mib = _peak_mib("idle"), _peak_mib("week")
    same = "imports alone"
    return [
        _number("peak_mib", week_mib, "MiB", week_mib / idle_mib, same),
        _number(
            "peak_above_idle_mib",
            week_mib - idle_mib,
            "MiB",
            (week_mib - idle_mib) / idle_mib,
            same,
        ),
    ]


def run_bare_loop(moments: int) -> None:
    """simpy alone: one process that waits as many times as the model has moments."""
    env = simpy.Environment(0)

    def wait() -> Generator[simpy.Event, Any, Any]:
        for _ in range(moments):
            yield env.timeout(_MIXED_STEP_NS)

    env.process(wait())
    env.run()


def _count_moments(plan: Plan) -> int:
    """How many steps the model's event loop takes: it reports its progress at each."""
    steps: list[int] = []
    load_lab("model").run(plan, Toolbox(None, Path(), steps.append), Recorder())
    return len(steps)


def _peak_mib(what: str) -> float:
    command = [sys.executable, "-m", "tests.bench.use", what]
    return (
        int(
            subprocess.run(
                command, cwd=REPOSITORY, capture_output=True, text=True, check=True
            ).stdout
        )
        / MIB
    )


def _number(key: str, value: float, unit: str, ratio: float, peer: str) -> Number:
    return Number("model", key, value, unit, ratio, peer)


if __name__ == "__main__":
    hand_over(
        [*measure(nightly_sleep(), ROUNDS), *(measure_memory() if sys.platform != "win32" else [])]
    )
