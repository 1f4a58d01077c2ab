"""What a check found, what was expected of it, and what follows from the two.

Unknown is never a pass: a check whose assumptions failed is UNKNOWN, and an outcome with an
unexpected UNKNOWN is `unknown`. Only a finding that an expectation names, and that differs from it,
makes a `surprise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshwake.core.errors import ExitCode
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import Plan, PlannedExpectation


class Verdict(StrEnum):
    """What one check finds in one history."""

    HOLDS = "HOLDS"
    BROKEN = "BROKEN"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Evidence:
    """Where in the history the reason for a verdict lies: world time, and what a person should see
    there."""

    world_s: float
    text: str
    data: MutableJsonObject


@dataclass(frozen=True)
class Finding:
    """One verdict with its reason in a sentence and its evidence. `is_assumption`:
    without it nothing else can be judged (ASSUMPTIONS in checks/__init__.py)."""

    check: str
    verdict: Verdict
    because: str
    evidence: tuple[Evidence, ...] = ()
    is_assumption: bool = False


class OutcomeKind(StrEnum):
    """Findings against expectations."""

    AS_EXPECTED = "as expected"
    SURPRISE = "surprise"
    UNKNOWN = "unknown"


EXIT_CODES = {
    OutcomeKind.AS_EXPECTED: ExitCode.AS_EXPECTED,
    OutcomeKind.SURPRISE: ExitCode.SURPRISE,
    OutcomeKind.UNKNOWN: ExitCode.UNKNOWN,
}


@dataclass(frozen=True)
class Comparison:
    """One finding next to what was expected of it (None: nothing was expected of this check)."""

    finding: Finding
    expected: Verdict | None
    expected_because: str | None

    @property
    def kind(self) -> OutcomeKind:
        """How finding and expectation relate; where nothing was expected, nothing can surprise."""
        if self.expected is None or self.finding.verdict == self.expected:
            return OutcomeKind.AS_EXPECTED
        if self.finding.verdict is Verdict.UNKNOWN:
            return OutcomeKind.UNKNOWN
        return OutcomeKind.SURPRISE


@dataclass(frozen=True)
class Outcome:
    """All comparisons of one run and the sum of them."""

    comparisons: tuple[Comparison, ...]
    kind: OutcomeKind
    why: str

    @property
    def exit_code(self) -> ExitCode:
        """0, 1 or 2 (harness/meshwake/core/errors.py)."""
        return EXIT_CODES[self.kind]


def compare(plan: Plan, findings: tuple[Finding, ...]) -> Outcome:
    """The outcome of `findings` under the expectations of `plan`. Assumptions are always expected
    to hold."""
    expected: dict[str, PlannedExpectation] = {row.check: row for row in plan.expectations}
    comparisons = []
    for finding in findings:
        row = expected.pop(finding.check, None)
        if row is not None:
            comparisons.append(Comparison(finding, Verdict(row.verdict), row.because))
        elif finding.is_assumption:
            comparisons.append(
                Comparison(finding, Verdict.HOLDS, "nothing can be judged without it")
            )
        else:
            comparisons.append(Comparison(finding, None, None))
    if expected:
        raise ValueError(
            f"no finding for {', '.join(expected)}: judge() must run every check that is expected"
        )
    return Outcome(tuple(comparisons), *_sum_up(plan, comparisons))


def _sum_up(plan: Plan, comparisons: list[Comparison]) -> tuple[OutcomeKind, str]:
    if not plan.expectations:
        return OutcomeKind.UNKNOWN, f"no [[expect]] of the scenario covers version {plan.version}"
    failed = _failed_assumption(comparisons)
    if failed is not None:
        return OutcomeKind.UNKNOWN, f"{failed.check}: {failed.because}"
    # A surprise counts more than an unknown, wherever in the list it is.
    for kind in (OutcomeKind.SURPRISE, OutcomeKind.UNKNOWN):
        for row in comparisons:
            if row.kind is kind:
                verdict = row.finding.verdict
                return kind, f"{row.finding.check} is {verdict}, expected {row.expected}"
    count = len(plan.expectations)
    met = "the one expectation met" if count == 1 else f"all {count} expectations met"
    return OutcomeKind.AS_EXPECTED, met


def _failed_assumption(comparisons: list[Comparison]) -> Finding | None:
    """The first assumption that does not hold."""
    for row in comparisons:
        if row.finding.is_assumption and row.finding.verdict is not Verdict.HOLDS:
            return row.finding
    return None
