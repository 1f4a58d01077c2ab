"""Every injector, every program, every promise: what docs/injectors.md says is so (Linux; one test
a cell)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.injectors import needs_vdso
from tests.conformance.matrix import CELLS, PAGE, Cell, measure, page, read_seen
from tests.conformance.subjects import Missing

SEEN = read_seen()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs are built, the same for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "popen-gw" in base.name else base) / "programs"
    shared.mkdir(exist_ok=True)
    return shared


@needs_vdso
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.key)
def test_a_promise_is_kept_or_refused_as_the_page_says(cell: Cell, place: Path) -> None:
    """Kept by measurement, or refused by name for the reason that is written there. Never a hang:
    every wait is bounded."""
    try:
        assert measure(cell, place) == SEEN[cell.key]
    except Missing as missing:
        pytest.skip(str(missing))


def test_the_page_is_that_of_what_was_measured() -> None:
    """`make injectors` writes both."""
    assert PAGE.read_text(encoding="utf-8") == page(SEEN)


def test_nothing_on_the_page_is_not_measured() -> None:
    """A cell without a measurement claims nothing, and a measurement without a cell is of a test
    that has gone."""
    assert list(SEEN) == [cell.key for cell in CELLS]
