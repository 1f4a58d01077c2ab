"""Many runs in the formats of CI systems: JUnit XML, and Markdown for the summary of a GitHub
job."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from meshwake.checks.format import dated, lasting, moment
from meshwake.core.outcome import OutcomeKind
from meshwake.report.result import Summary

_SIGNS = {
    OutcomeKind.AS_EXPECTED.value: "\N{WHITE HEAVY CHECK MARK}",
    OutcomeKind.SURPRISE.value: "\N{CROSS MARK}",
    OutcomeKind.UNKNOWN.value: "\N{BLACK QUESTION MARK ORNAMENT}",
    "refused": "\N{WHITE RIGHT-POINTING TRIANGLE}",
}
# What XML 1.0 cannot say at all, not even escaped.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def junit_xml(runs: Sequence[tuple[Summary, float]]) -> str:
    """One test case a run, with its real seconds. A surprise and an unknown are failures, a refusal
    is skipped, what stopped a run otherwise is an error."""
    suite = ET.Element("testsuite", name="meshwake", tests=str(len(runs)))
    totals = dict.fromkeys(("failure", "skipped", "error"), 0)
    for summary, real_s in runs:
        name = f"{summary.scenario}[{summary.lab}-{summary.version}]"
        case = ET.SubElement(
            suite, "testcase", classname="meshwake", name=_xml(name), time=f"{real_s:.3f}"
        )
        kind = _kind(summary.outcome)
        if kind is not None:
            totals[kind] += 1
            element = ET.SubElement(case, kind, message=_xml(f"{summary.outcome}: {summary.why}"))
            element.text = f"evidence: {summary.run}" if summary.run else None
    suite.set("failures", str(totals["failure"]))
    suite.set("skipped", str(totals["skipped"]))
    suite.set("errors", str(totals["error"]))
    suite.set("time", f"{sum(real_s for _, real_s in runs):.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _kind(outcome: str) -> str | None:
    if outcome == OutcomeKind.AS_EXPECTED.value:
        return None
    if outcome in (OutcomeKind.SURPRISE.value, OutcomeKind.UNKNOWN.value):
        return "failure"
    return "skipped" if outcome == "refused" else "error"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def markdown(summaries: Sequence[Summary]) -> str:
    """A table, those that need a look first."""
    good = sum(summary.outcome == OutcomeKind.AS_EXPECTED.value for summary in summaries)
    lines = [
        f"### meshwake: {good} of {len(summaries)} as expected",
        "",
        "| | scenario | lab | ztunnel | outcome | outage, awake | first failure |",
        "|---|---|---|---|---|---|---|",
        *(
            _line(each)
            for each in sorted(
                summaries, key=lambda each: each.outcome == OutcomeKind.AS_EXPECTED.value
            )
        ),
    ]
    return "\n".join(lines) + "\n"


def _line(summary: Summary) -> str:
    outcome = summary.outcome
    if outcome != OutcomeKind.AS_EXPECTED.value and summary.why:
        outcome += f": {summary.why}"
    outage = (
        "-"
        if summary.outage_ns is None
        else lasting(summary.outage_ns)
        if summary.outage_ns
        else "none"
    )
    first = "-"
    if summary.first_failure_world_ns is not None:
        first = dated(moment(summary.first_failure_world_ns), summary.dates_from_wall_s)
    sign = _SIGNS.get(summary.outcome, "\N{WARNING SIGN}")
    cells = (sign, f"`{summary.scenario}`", summary.lab, summary.version, outcome, outage, first)
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
