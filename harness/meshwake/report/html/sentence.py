"""What was expected of a run, in a sentence for people who do not know the names of checks. What
happens to the mesh comes before it (headline.py)."""

from __future__ import annotations

from meshwake.checks import TITLES
from meshwake.checks.format import dated
from meshwake.core.outcome import Comparison, Finding, OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.report.headline import GOAL_WORDS, surprise


def sentence(run: Run) -> str:
    """The outcome of `run` with its reason, and its moments as dates where people know them so."""
    return dated(_sentence(run), run.plan.dates)


def _sentence(run: Run) -> str:
    outcome = run.outcome
    if outcome.kind is OutcomeKind.AS_EXPECTED:
        return f"{_begins(run)}: {outcome.why}."
    if outcome.kind is OutcomeKind.SURPRISE:
        return _not_as_expected(run)
    return _unknown(run)


def _begins(run: Run) -> str:
    """What came of the expectations, or of the goal."""
    if run.plan.goal is not None:
        return f"Goal '{run.plan.goal}' {GOAL_WORDS[run.outcome.kind]}"
    words = {
        OutcomeKind.AS_EXPECTED: "As expected",
        OutcomeKind.SURPRISE: "Not as expected",
        OutcomeKind.UNKNOWN: "Unknown",
    }
    begins = words[run.outcome.kind]
    named = surprise(run)
    # Of an UNKNOWN run it is not known what a surprise in it means.
    if named is not None and run.outcome.kind is OutcomeKind.SURPRISE:
        begins += f", {named}"
    return begins


def _not_as_expected(run: Run) -> str:
    """The first surprise; the page lists the others below."""
    first, *others = _rows(run, OutcomeKind.SURPRISE)
    text = (
        f"{_begins(run)}: {_quoted(first.finding)} is {first.finding.verdict}, "
        f"expected {first.expected}"
    )
    if others:
        text += f"; {len(others)} more below"
    return f"{text}."


def _unknown(run: Run) -> str:
    """Why nothing is known: an assumption failed, a check could not judge, or the run broke off."""
    for finding in run.findings:
        if finding.is_assumption and finding.verdict is not Verdict.HOLDS:
            return f"{_begins(run)}: nothing could be judged, because {finding.because}."
    # A run whose expectations all came out can still be unknown as a whole: it broke off.
    rows = _rows(run, OutcomeKind.UNKNOWN)
    if not rows:
        return f"{_begins(run)}: {run.outcome.why}."
    finding = rows[0].finding
    return f"{_begins(run)}: {_quoted(finding)} could not be judged: {finding.because}."


def _quoted(finding: Finding) -> str:
    """What a check claims."""
    title = TITLES[finding.check]
    return f"\N{LEFT DOUBLE QUOTATION MARK}{title}\N{RIGHT DOUBLE QUOTATION MARK}"


def _rows(run: Run, kind: OutcomeKind) -> list[Comparison]:
    return [row for row in run.outcome.comparisons if row.kind is kind]
