"""Samples with bytes changed, cut, doubled, mixed and moved: each is a scenario, or a sentence with
what to do. Nothing else may come of a damaged file.

MESHWAKE_MUTATIONS says how many of each sample are tried (8 without it), MESHWAKE_SEED with which
seed (1).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from meshwake.cli.import_sleep import import_sleep
from meshwake.core.errors import BadInput

from tests.unit.importers.test_journals import JOURNALS
from tests.unit.mutations import chance, many, mutated

SAMPLES = sorted(JOURNALS.iterdir())


@pytest.mark.slow(reason="eight damaged files for each sample")
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_damaged_file_is_a_scenario_or_a_sentence(sample: Path, tmp_path: Path) -> None:
    """Never a traceback: whatever else is raised here is a fault of ours."""
    random = chance(sample.name)
    damaged = tmp_path / "damaged"
    for _ in range(many(8)):
        damaged.write_bytes(mutated(sample.read_bytes(), random, SAMPLES))
        with suppress(BadInput):
            import_sleep([damaged], output=tmp_path / "mine.toml")
