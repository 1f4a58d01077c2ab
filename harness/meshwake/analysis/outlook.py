"""What a recorded month would have been with a fix, in one line: a run on the model for each.

as it is: 80 h a week · weekly restart: 32 h · wake guard: none
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwake.analysis.matrix import WEEK_NS, MatrixRow, matrix
from meshwake.analysis.matrix_table import lasting_words
from meshwake.core.scenario import Scenario
from meshwake.core.versions import Release

# Nothing, what most people deploy, and what holds.
COMPARED = ("none", "weekly-restart", "wake-guard")


def outlook(scenario: Scenario, release: Release, fixes: Sequence[str] = COMPARED) -> str:
    """Awake time without connection a week (in all, of a shorter history), as it is and with each
    of `fixes`. A fix of the scenario itself is replaced. Raises BadInput when the scenario cannot
    run on the model."""
    rows = matrix(fixes, {scenario.name: scenario}, release)
    weeks = scenario.duration / WEEK_NS
    parts = [f"{_deployed(row)}: {_lost(row, weeks)}" for row in rows]
    return " · ".join(parts)


def _deployed(row: MatrixRow) -> str:
    """A fix in words."""
    if row.fix == "none":
        return "as it is"
    return row.fix.replace("-", " ")


def _lost(row: MatrixRow, weeks: float) -> str:
    """A run that was cut short, or that shows nothing, has no hours to compare."""
    if row.flooded:
        return "renews without a pause"
    if row.verdict == "UNKNOWN":
        return "unknown"

    # Three days of a journal are not made into a week: the other four may have been unlike them.
    per, count = ("a week", 1.0) if weeks >= 1 else ("in all", weeks)
    lost = lasting_words(row.outage_s_per_week * count)

    # Once is enough for the line: the first part says what all of its numbers are per.
    is_first = row.fix == "none"
    if is_first and row.outage_s_per_week:
        return f"{lost} {per}"
    return lost
