"""The matrix, run once for all who ask about it."""

from __future__ import annotations

import pytest
from meshwake.analysis.fault_catalogue import FAULTS, scenario_for
from meshwake.analysis.matrix import MatrixRow, matrix
from meshwake.core.versions import newest
from meshwake.fixes import FIXES

Matrix = dict[tuple[str, str], MatrixRow]


@pytest.fixture(scope="session")
def whole_matrix() -> Matrix:
    """Every row, by fix and fault."""
    rows = matrix(FIXES, {name: scenario_for(world) for name, world in FAULTS.items()}, newest())
    return {(row.fix, row.fault): row for row in rows}
