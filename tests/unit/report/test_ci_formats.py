from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from meshwake.report.ci_formats import junit_xml, markdown
from meshwake.report.result import Summary

GOOD = Summary("fine", "model", "1.31.0", "as expected", 0, None, "all 2 expectations met")
BAD = Summary(
    "bad|one",
    "model",
    "1.31.0",
    "surprise",
    60_000_000_000,
    5,
    "it <broke>\x00 | really",
    Path("runs/bad"),
)
UNSURE = Summary("unsure", "model", "1.31.0", "unknown", why="too short")
REFUSED = Summary("refused", "process", "1.31.0", "refused", why="no binary")
FAILED = Summary("failed", "process", "1.31.0", "error", why="it hung")


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  we wrote it ourselves


def test_each_ending_has_its_element() -> None:
    """failure, skipped and error; what came out as expected has none."""
    root = parsed(junit_xml([(each, 0.5) for each in (GOOD, BAD, UNSURE, REFUSED, FAILED)]))
    suite = root[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped", "errors")} == {
        "tests": "5",
        "failures": "2",
        "skipped": "1",
        "errors": "1",
    }
    assert [[child.tag for child in case] for case in suite] == [
        [],
        ["failure"],
        ["failure"],
        ["skipped"],
        ["error"],
    ]
    assert suite.get("time") == "2.500"


def test_what_xml_cannot_say_does_not_break_it() -> None:
    """A message may hold anything that a program printed."""
    failure = parsed(junit_xml([(BAD, 0)]))[0][0][0]
    assert failure.get("message") == "surprise: it <broke>\N{REPLACEMENT CHARACTER} | really"
    assert failure.text == "evidence: runs/bad"


def test_the_table_begins_with_what_needs_a_look() -> None:
    """And no message can break its columns."""
    lines = markdown([GOOD, BAD]).splitlines()
    assert lines[0] == "### meshwake: 1 of 2 as expected"
    assert "bad\\|one" in lines[4]
    assert "it &lt;broke>" in lines[4]
    assert "`fine`" in lines[5]


@pytest.mark.parametrize("summary", [GOOD, BAD, UNSURE, REFUSED, FAILED])
def test_every_row_has_seven_cells(summary: Summary) -> None:
    """As many as there are headings."""
    row = markdown([summary]).splitlines()[4].replace("\\|", "")
    assert row.count("|") == 8
