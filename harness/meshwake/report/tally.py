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
        (outcome,) = found
        return f"{runs}, all {_COUNTABLE[outcome]}"

    parts: list[str] = []
    for outcome, words in _COUNTABLE.items():
        if found[outcome]:
            parts.append(f"{found[outcome]} {words}")
    if not parts:
        return runs
    return f"{runs}: {', '.join(parts)}"


def differ_in_fix(summaries: Sequence[Summary]) -> bool:
    """Whether one scenario ran with several fixes, so that a table has to name them."""
    fixes: dict[tuple[str, str, str], str] = {}
    for row in summaries:
        # What stopped before it had a plan has no fix, not even "none".
        if not row.fix:
            continue
        case = (row.scenario, row.lab, row.version)
        if fixes.setdefault(case, row.fix) != row.fix:
            return True
    return False
