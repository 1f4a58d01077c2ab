"""Many runs in the formats of CI systems: JUnit XML, Markdown for the summary of a GitHub job, and
annotations for its log."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from meshwake.checks.format import dated, lasting, moment
from meshwake.core.outcome import OutcomeKind
from meshwake.report.result import Summary
from meshwake.report.tally import differ_in_fix, tally

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
        # As pytest names the case.
        name = f"{summary.scenario}[{summary.lab}-{summary.version}{_fix(summary, '-')}]"
        case = ET.SubElement(
            suite, "testcase", classname="meshwake", name=_xml(name), time=f"{real_s:.3f}"
        )
        _add_properties(case, summary)
        kind = _kind(summary.outcome)
        if kind is not None:
            totals[kind] += 1
            element = ET.SubElement(case, kind, message=_xml(_message(summary)))
            element.text = _xml("\n".join(_next_steps(summary))) or None
    suite.set("failures", str(totals["failure"]))
    suite.set("skipped", str(totals["skipped"]))
    suite.set("errors", str(totals["error"]))
    suite.set("time", f"{sum(real_s for _, real_s in runs):.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def properties(summary: Summary) -> list[tuple[str, str]]:
    """What a JUnit file says of a run in addition to its outcome; nothing of what did not run."""
    if not summary.headline:
        return []
    named = (
        ("headline", summary.headline),
        ("judged", summary.judged),
        ("repeat", summary.repeat),
        ("evidence", str(summary.run or "")),
    )
    return [(name, value) for name, value in named if value]


def _fix(summary: Summary, before: str) -> str:
    """The fix, with `before` in front of it, where several may have been compared; else ""."""
    return f"{before}{summary.fix}" if summary.goal and summary.fix != "none" else ""


def _add_properties(case: ET.Element, summary: Summary) -> None:
    listed = properties(summary)
    if listed:
        parent = ET.SubElement(case, "properties")
        for name, value in listed:
            ET.SubElement(parent, "property", name=name, value=_xml(value))


def _message(summary: Summary) -> str:
    """What happens to the mesh, and what that is against the expectations."""
    if not summary.headline:
        return f"{summary.outcome}: {summary.why}"
    return f"{summary.headline}; {summary.judged}"


def _next_steps(summary: Summary) -> list[str]:
    lines = [f"repeat: {summary.repeat}"] if summary.repeat else []
    return [*lines, f"evidence: {summary.run}"] if summary.run else lines


def github_annotations(summaries: Iterable[Summary]) -> list[str]:
    """Lines for the log of a GitHub job, which shows them at the scenario file: an error for a
    surprise and for what failed, a warning for an unknown."""
    kinds = {OutcomeKind.SURPRISE.value: "error", OutcomeKind.UNKNOWN.value: "warning"}
    # What a lab refused is not a defect of the change that the job is about.
    silent = {OutcomeKind.AS_EXPECTED.value, "refused"}
    shown = [each for each in summaries if each.outcome not in silent]
    return [_annotation(kinds.get(each.outcome, "error"), each) for each in shown]


def _annotation(kind: str, summary: Summary) -> str:
    subject = f"{summary.lab} {summary.version}{_fix(summary, ' with ')}"
    title = f"meshwake: {summary.scenario} on {subject}"
    placed = {"file": summary.file, "title": title}
    where = ",".join(f"{key}={_in_property(value)}" for key, value in placed.items() if value)
    text = "\n".join([_message(summary), *_next_steps(summary)])
    return f"::{kind} {where}::{_in_message(text)}"


def _in_message(text: str) -> str:
    """As GitHub's workflow commands want it."""
    # The percent sign first: it begins the escapes of the other two.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _in_property(text: str) -> str:
    return _in_message(text).replace(":", "%3A").replace(",", "%2C")


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
    with_fix = differ_in_fix(summaries)
    subject = ["scenario", "lab", "ztunnel", *(["fix"] if with_fix else [])]
    headings = ["", *subject, "outcome", "outage, awake", "first failure"]
    lines = [
        f"### meshwake: {tally(summaries)}",
        "",
        "|" + "|".join(f" {heading} " if heading else " " for heading in headings) + "|",
        "|" + "---|" * len(headings),
    ]
    # False sorts first; among themselves both kinds keep their order.
    by_need = sorted(summaries, key=lambda each: each.outcome == OutcomeKind.AS_EXPECTED.value)
    lines += [_line(each, with_fix=with_fix) for each in by_need]
    return "\n".join(lines) + "\n"


def _line(summary: Summary, *, with_fix: bool) -> str:
    outcome = summary.outcome
    if outcome != OutcomeKind.AS_EXPECTED.value:
        outcome = summary.judged or (f"{outcome}: {summary.why}" if summary.why else outcome)
    first = "-"
    if summary.first_failure_world_ns is not None:
        first = dated(moment(summary.first_failure_world_ns), summary.dates)
    sign = _SIGNS.get(summary.outcome, "\N{WARNING SIGN}")
    subject = (f"`{summary.scenario}`", summary.lab, summary.version)
    fix = (summary.fix,) if with_fix else ()
    cells = (sign, *subject, *fix, outcome, _outage(summary), first)
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _outage(summary: Summary) -> str:
    if summary.outage_ns is None:
        return "-"  # the case did not run
    return lasting(summary.outage_ns) if summary.outage_ns else "none"


def _cell(text: str) -> str:
    # A bar would end the cell, a line end the table, and < would begin HTML.
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
