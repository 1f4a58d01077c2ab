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
    whole_s = 0.0
    for summary, real_s in runs:
        _add_case(suite, summary, real_s)
        whole_s += real_s
    suite.set("failures", str(len(suite.findall("*/failure"))))
    suite.set("skipped", str(len(suite.findall("*/skipped"))))
    suite.set("errors", str(len(suite.findall("*/error"))))
    suite.set("time", f"{whole_s:.3f}")

    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ET.Element, summary: Summary, real_s: float) -> None:
    """One run. What came out as expected has no element of its own."""
    # As pytest names the case.
    name = f"{summary.scenario}[{summary.lab}-{summary.version}{_fix(summary, '-')}]"
    case = ET.SubElement(
        suite, "testcase", classname="meshwake", name=_xml(name), time=f"{real_s:.3f}"
    )
    _add_properties(case, summary)
    kind = _kind(summary.outcome)
    if kind is None:
        return
    element = ET.SubElement(case, kind, message=_xml(_message(summary)))
    element.text = _xml("\n".join(_next_steps(summary))) or None


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
    if not summary.goal or summary.fix == "none":
        return ""
    return f"{before}{summary.fix}"


def _add_properties(case: ET.Element, summary: Summary) -> None:
    listed = properties(summary)
    if not listed:
        return
    parent = ET.SubElement(case, "properties")
    for name, value in listed:
        ET.SubElement(parent, "property", name=name, value=_xml(value))


def _message(summary: Summary) -> str:
    """What happens to the mesh, and what that is against the expectations."""
    if not summary.headline:
        return f"{summary.outcome}: {summary.why}"
    return f"{summary.headline}; {summary.judged}"


def _next_steps(summary: Summary) -> list[str]:
    """What a person does next: the command, and the folder to look into."""
    lines: list[str] = []
    if summary.repeat:
        lines.append(f"repeat: {summary.repeat}")
    if summary.run:
        lines.append(f"evidence: {summary.run}")
    return lines


def github_annotations(summaries: Iterable[Summary]) -> list[str]:
    """Lines for the log of a GitHub job, which shows them at the scenario file: an error for a
    surprise and for what failed, a warning for an unknown."""
    kinds = {OutcomeKind.SURPRISE.value: "error", OutcomeKind.UNKNOWN.value: "warning"}

    # What a lab refused is not a defect of the change that the job is about.
    silent = {OutcomeKind.AS_EXPECTED.value, "refused"}
    shown = [each for each in summaries if each.outcome not in silent]
    return [_annotation(kinds.get(each.outcome, "error"), each) for each in shown]


def _annotation(kind: str, summary: Summary) -> str:
    """One workflow command of GitHub: `::error file=...,title=...::text`."""
    subject = f"{summary.lab} {summary.version}{_fix(summary, ' with ')}"
    title = f"meshwake: {summary.scenario} on {subject}"
    where = f"title={_in_property(title)}"

    # A scenario that was not read from a file has no place to show it at.
    if summary.file:
        where = f"file={_in_property(summary.file)},{where}"
    text = "\n".join([_message(summary), *_next_steps(summary)])
    return f"::{kind} {where}::{_in_message(text)}"


def refusal_annotation(message: str) -> str:
    """The same for input that was refused and a lab that is missing: the job fails without a run."""
    return f"::error title=meshwake::{_in_message(message)}"


def _in_message(text: str) -> str:
    """As GitHub's workflow commands want it."""
    # The percent sign first: it begins the escapes of the other two.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _in_property(text: str) -> str:
    return _in_message(text).replace(":", "%3A").replace(",", "%2C")


def _kind(outcome: str) -> str | None:
    """The element of JUnit for an outcome."""
    if outcome == OutcomeKind.AS_EXPECTED.value:
        return None

    # Not a skip: a property that could not be shown must not make a job green.
    if outcome in (OutcomeKind.SURPRISE.value, OutcomeKind.UNKNOWN.value):
        return "failure"
    if outcome == "refused":
        return "skipped"
    return "error"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def markdown(summaries: Sequence[Summary]) -> str:
    """A table, those that need a look first."""
    with_fix = differ_in_fix(summaries)
    headings = ["scenario", "lab", "ztunnel"]
    if with_fix:
        headings.append("fix")
    headings += ["outcome", "outage, awake", "first failure"]
    lines = [
        f"### meshwake: {tally(summaries)}",
        "",
        # The column of signs has no heading.
        f"| | {' | '.join(headings)} |",
        "|---" * (len(headings) + 1) + "|",
    ]

    # False sorts first; among themselves both kinds keep their order.
    by_need = sorted(summaries, key=lambda each: each.outcome == OutcomeKind.AS_EXPECTED.value)
    lines += [_line(each, with_fix=with_fix) for each in by_need]
    return "\n".join(lines) + "\n"


def _line(summary: Summary, *, with_fix: bool) -> str:
    outcome = summary.outcome
    if outcome != OutcomeKind.AS_EXPECTED.value:
        if summary.judged:
            outcome = summary.judged
        # It did not run, so that it was not judged.
        elif summary.why:
            outcome = f"{outcome}: {summary.why}"
    first = "-"
    if summary.first_failure_world_ns is not None:
        first = dated(moment(summary.first_failure_world_ns), summary.dates)

    sign = _SIGNS.get(summary.outcome, "\N{WARNING SIGN}")
    cells = [sign, f"`{summary.scenario}`", summary.lab, summary.version]
    if with_fix:
        cells.append(summary.fix)
    cells += [outcome, _outage(summary), first]
    return f"| {' | '.join(map(_cell, cells))} |"


def _outage(summary: Summary) -> str:
    if summary.outage_ns is None:
        return "-"  # the case did not run
    if summary.outage_ns == 0:
        return "none"
    return lasting(summary.outage_ns)


def _cell(text: str) -> str:
    # A bar would end the cell, a line end the table, and < would begin HTML.
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
