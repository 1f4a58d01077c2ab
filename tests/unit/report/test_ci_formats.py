from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from meshwake.report.ci_formats import github_annotations, junit_xml, markdown
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


BROKEN = Summary(
    "nights",
    "model",
    "1.31.0-rc.0",
    "surprise",
    1,
    1,
    "traffic_flows is BROKEN, expected HOLDS",
    Path("runs/nights"),
    headline="BROKEN: 1 d of 2 d without mTLS, first on day 1 at 07:58 (known for 1.31, "
    "istio/ztunnel#1481)",
    judged="surprise (a regression: traffic_flows is BROKEN, expected HOLDS)",
    repeat="meshwake run scenarios/nights.toml --lab model --istio 1.31.0-rc.0 --seed 0",
    file="scenarios/nights.toml",
)


def test_a_junit_case_says_what_happened_and_how_to_repeat_it() -> None:
    """As properties of every run, and in the message and the text of a failure."""
    case = parsed(junit_xml([(BROKEN, 0.5)]))[0][0]
    listed = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert listed == {
        "headline": BROKEN.headline,
        "judged": BROKEN.judged,
        "repeat": BROKEN.repeat,
        "evidence": "runs/nights",
    }
    failure = next(case.iter("failure"))
    assert failure.get("message") == f"{BROKEN.headline}; {BROKEN.judged}"
    assert failure.text == f"repeat: {BROKEN.repeat}\nevidence: runs/nights"


def test_github_shows_what_needs_a_look_at_its_file() -> None:
    """An error for a surprise, a warning for an unknown; nothing may end the line or its
    properties early."""
    lines = github_annotations([GOOD, REFUSED, BROKEN, UNSURE, FAILED])
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::error"]
    first = lines[0]
    assert first.startswith(
        "::error file=scenarios/nights.toml,title=meshwake%3A nights on model 1.31.0-rc.0::BROKEN: "
    )
    assert f"%0Arepeat: {BROKEN.repeat}%0Aevidence: runs/nights" in first
    assert "\n" not in "".join(lines)


def test_the_table_begins_with_what_needs_a_look() -> None:
    """And no message can break its columns."""
    lines = markdown([GOOD, BAD]).splitlines()
    assert lines[0] == "### meshwake: 2 runs: 1 as expected, 1 not as expected"
    assert "bad\\|one" in lines[4]
    assert "it &lt;broke>" in lines[4]
    assert "`fine`" in lines[5]


def test_a_table_of_several_fixes_names_them() -> None:
    """Else their rows look the same; and an annotation says which of them broke."""
    guarded = replace(GOOD, fix="wake-guard", goal="holds")
    alone = replace(GOOD, fix="none", goal="holds", outcome="surprise", headline="BROKEN: all")
    lines = markdown([guarded, alone]).splitlines()
    assert lines[2] == (
        "| | scenario | lab | ztunnel | fix | outcome | outage, awake | first failure |"
    )
    assert lines[3].count("---") == lines[2].count("|") - 1
    assert "| none |" in lines[4] and "| wake-guard |" in lines[5]
    assert " with wake-guard::" in github_annotations([replace(alone, fix="wake-guard")])[0]
    assert " with " not in github_annotations([alone])[0].partition("::BROKEN")[0]


@pytest.mark.parametrize("summary", [GOOD, BAD, UNSURE, REFUSED, FAILED])
def test_every_row_has_seven_cells(summary: Summary) -> None:
    """As many as there are headings."""
    row = markdown([summary]).splitlines()[4].replace("\\|", "")
    assert row.count("|") == 8
