"""Many runs in one line: how many there are, and how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from meshwake.checks.format import count
from meshwake.core.outcome import OutcomeKind
from meshwake.report.result import Summary

# In this order: what needs no look, what does, and what never ran. A refusal is not a failure.
_COUNTABLE = {
    OutcomeKind.AS_EXPECTED.value: "as expected",
    OutcomeKind.SURPRISE.value: "not as expected",
    OutcomeKind.UNKNOWN.value: "unknown",
    "refused": "refused",
    "error": "stopped by an error",
}


def tally(summaries: Sequence[Summary]) -> str:
    """'34 runs: 31 as expected, 3 refused'; '5 runs, all as expected'."""
    runs = count(len(summaries), "run")
    found = Counter(summary.outcome for summary in summaries)
    if len(found) == 1 and len(summaries) > 1:
        return f"{runs}, all {_COUNTABLE[next(iter(found))]}"
    parts = [f"{found[outcome]} {words}" for outcome, words in _COUNTABLE.items() if found[outcome]]
    return f"{runs}: {', '.join(parts)}" if parts else runs


def differ_in_fix(summaries: Sequence[Summary]) -> bool:
    """Whether one scenario ran with several fixes, so that a table has to name them."""
    with_fix = [row for row in summaries if row.fix]
    cases = {(row.scenario, row.lab, row.version) for row in with_fix}
    cases_by_fix = {(row.scenario, row.lab, row.version, row.fix) for row in with_fix}
    return len(cases) < len(cases_by_fix)
