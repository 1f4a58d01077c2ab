"""What was expected of a run, in a sentence for people who do not know the names of checks. What
happens to the mesh comes before it (headline.py)."""

from __future__ import annotations

from meshwake.checks import TITLES
from meshwake.core.outcome import Comparison, OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.report.headline import surprise


def sentence(run: Run) -> str:
    """The outcome of `run` with its reason."""
    outcome = run.outcome
    if outcome.kind is OutcomeKind.AS_EXPECTED:
        return f"As expected: {outcome.why}."
    if outcome.kind is OutcomeKind.SURPRISE:
        return _not_as_expected(run)
    return _unknown(run)


def _not_as_expected(run: Run) -> str:
    rows = _rows(run, OutcomeKind.SURPRISE)
    first, named = rows[0], surprise(run)
    kind = f", {named}" if named else ""
    more = f"; {len(rows) - 1} more below" if len(rows) > 1 else ""
    return (
        f"Not as expected{kind}: \N{LEFT DOUBLE QUOTATION MARK}{TITLES[first.finding.check]}"
        f"\N{RIGHT DOUBLE QUOTATION MARK} is {first.finding.verdict}, "
        f"expected {first.expected}{more}."
    )


def _unknown(run: Run) -> str:
    for finding in run.findings:
        if finding.is_assumption and finding.verdict is not Verdict.HOLDS:
            return f"Unknown: nothing could be judged, because {finding.because}."
    rows = _rows(run, OutcomeKind.UNKNOWN)
    if not rows:
        return f"Unknown: {run.outcome.why}."
    finding = rows[0].finding
    return (
        f"Unknown: \N{LEFT DOUBLE QUOTATION MARK}{TITLES[finding.check]}"
        f"\N{RIGHT DOUBLE QUOTATION MARK} could not be judged: {finding.because}."
    )


def _rows(run: Run, kind: OutcomeKind) -> list[Comparison]:
    return [row for row in run.outcome.comparisons if row.kind is kind]
