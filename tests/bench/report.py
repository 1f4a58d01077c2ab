"""The report of a week, next to judging the same week: build time, size, and what a year of one
node costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from meshwake.checks import judge
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.core.run import Run
from meshwake.report.html.content import data, page
from meshwake.report.html.folder import write_report
from meshwake.runner.execution import execute

from tests.bench.model import nightly_sleep
from tests.bench.numbers import MIB, Number, hand_over, seconds_of

ROUNDS = 5


def measure(plan: Plan, rounds: int) -> list[Number]:
    """Pages of one run, made again each round: a history remembers what was derived from it."""
    history = execute(plan).history
    findings = judge(plan, history)
    runs = [Run(plan, History(history), findings) for _ in range(rounds)]
    page_s = median(seconds_of(lambda one=one: (page(one, "x"), data(one, "x"))) for one in runs)  # type: ignore[misc]
    judging_s = median(seconds_of(lambda: judge(plan, History(history))) for _ in range(rounds))
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as place:
        whole_s = seconds_of(lambda: write_report(Path(place) / "report", [runs[0]]))
        files = [file for file in (Path(place) / "report").rglob("*") if file.is_file()]
        size, library = (
            sum(file.stat().st_size for file in files),
            max(file.stat().st_size for file in files),
        )
    own = size - library
    return [
        Number("report", "page_s_per_week", page_s, "s", page_s / judging_s, "judging it"),
        Number("report", "folder_s", whole_s, "s", whole_s / page_s, "page_s_per_week"),
        Number("report", "folder_mib", size / MIB, "MiB", library / size, "plotly.js in it"),
        Number(
            "report",
            "own_kib_per_run",
            own / 1024,
            "KiB",
            own / len(history.to_text()),
            "the history",
        ),
    ]


if __name__ == "__main__":
    hand_over(measure(nightly_sleep(), ROUNDS))
