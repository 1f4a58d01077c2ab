"""The matrix, run once for all who ask about it."""

from __future__ import annotations

import pytest

from harness.answers.faults import FAULTS, scenario_for
from harness.answers.matrix import Row, matrix
from harness.fixes import FIXES
from harness.versions import newest

Matrix = dict[tuple[str, str], Row]


@pytest.fixture(scope="session")
def whole_matrix() -> Matrix:
    """Every row, by fix and fault."""
    rows = matrix(FIXES, {name: scenario_for(world) for name, world in FAULTS.items()}, newest())
    return {(row.fix, row.fault): row for row in rows}
