"""The generated pages are those of this code: same rows, and what they say of our own clocks is
what those do."""

from __future__ import annotations

import re

import pytest
from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.machine import measure, timers
from meshwake.labs.machine.measure import ROWS, Measured, Row, page

from tests.support.paths import DOCS

START = ClockReading(10**18, 0, 0)
NEAR_S = 1.5


def rows_of(name: str) -> dict[str, list[str]]:
    """First cell to the others, of the table in a page."""
    lines = re.findall(r"^\| (.*) \|$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {cells[0]: cells[1:] for cells in (line.split(" | ") for line in lines[1:])}


def shown(cell: str) -> list[float]:
    return [float(value) for value in cell.split(" / ")]


def virtually(row: Row) -> list[float]:
    clock = NodeClock(START)
    assert row.virtual is not None
    row.virtual(clock)
    return [value / NS_PER_S for value in clock.now.since(START)]


def test_the_page_of_clocks_has_every_row() -> None:
    """And no other."""
    assert list(rows_of("clocks-measured.md")) == [row.name for row in ROWS]


@pytest.mark.parametrize("row", [row for row in ROWS if row.virtual], ids=lambda row: row.name)
def test_kernel_virtual_node_and_vdso_agree(row: Row) -> None:
    """What was measured in a kernel is what the virtual node says today, to a second and a half."""
    kernel, virtual, vdso = rows_of("clocks-measured.md")[row.name]
    assert shown(virtual) == pytest.approx(virtually(row), abs=0.06)
    assert shown(vdso) == shown(virtual)
    assert shown(kernel) == pytest.approx(virtually(row), abs=NEAR_S)


@pytest.mark.parametrize("name", ["clocks-measured.md", "timers.md"])
def test_words_around_the_tables_are_those_of_the_code(name: str) -> None:
    """A page is not edited by hand."""
    module = measure if name.startswith("clocks") else timers
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text.startswith(module._HEAD)
    assert text.endswith(module._TAIL)


def test_a_page_says_none_where_a_scenario_has_no_such_fault() -> None:
    """And no minus nought."""
    row = Row("a fault", ())
    text = page([Measured(row, ClockReading(-1, 2 * NS_PER_S, 0), None, None)], "6.1.0-1-amd64")
    assert "| a fault | +0.0 / +2.0 / +0.0 | none | none |" in text
    assert "Kernel of the guest: 6.1." in text
