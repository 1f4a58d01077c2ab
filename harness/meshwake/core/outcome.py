"""What a check found, what was expected of it, and what follows from the two.

Unknown is never a pass: a check whose assumptions failed is UNKNOWN, and an outcome with an
unexpected UNKNOWN is `unknown`. Only a finding that an expectation names, and that differs from it,
makes a `surprise`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from meshwake.core.errors import ExitCode
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import Plan, PlannedExpectation
from meshwake.core.scenario import CheckName


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
    without it nothing else can be judged (ASSUMPTIONS in checks/__init__.py). `rest`: the places
    that `evidence` only counts; not part of what a run's result says."""

    check: str
    verdict: Verdict
    because: str
    evidence: tuple[Evidence, ...] = ()
    is_assumption: bool = False
    rest: tuple[Evidence, ...] = field(default=(), compare=False, repr=False)


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
        verdict = self.finding.verdict
        if self.expected is None:
            return OutcomeKind.AS_EXPECTED

        # UNKNOWN too can be what was expected.
        if verdict == self.expected:
            return OutcomeKind.AS_EXPECTED

        # A check that could not judge has not found the opposite of what was expected.
        if verdict is Verdict.UNKNOWN:
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
    """The outcome of `findings` under the expectations of `plan`, or under its goal. Assumptions
    are always expected to hold."""
    rows = plan.expectations if plan.goal is None else _goal_holds(findings)
    expected: dict[str, PlannedExpectation] = {row.check: row for row in rows}
    comparisons = [_comparison(finding, expected.pop(finding.check, None)) for finding in findings]

    # What is left was expected and not judged: a check that did not run must not look like one
    # that passed.
    if expected:
        raise ValueError(
            f"no finding for {', '.join(expected)}: judge() must run every check that is expected"
        )

    kind, why = _sum_up(plan, comparisons)
    return Outcome(tuple(comparisons), kind, why)


def _comparison(finding: Finding, row: PlannedExpectation | None) -> Comparison:
    if row is not None:
        return Comparison(finding, Verdict(row.verdict), row.because)
    if finding.is_assumption:
        return Comparison(finding, Verdict.HOLDS, "nothing can be judged without it")
    return Comparison(finding, None, None)


def _goal_holds(findings: tuple[Finding, ...]) -> tuple[PlannedExpectation, ...]:
    """The goal `holds`: what a mesh must keep, whatever the scenario expects.

    Connections recover, the authority is not flooded, and no valid certificate is thrown away,
    where a refused renewal gave an occasion. A machine that wakes with an expired certificate
    cannot help it, so an outage that ends in time is allowed, and with it the certificate.
    """
    verdicts = {finding.check: finding.verdict for finding in findings}
    checks: list[CheckName] = ["recovers_within", "ca_not_flooded"]

    # UNKNOWN here means that no renewal was refused while a certificate was valid: no occasion.
    if verdicts.get("valid_certificate_kept") is not Verdict.UNKNOWN:
        checks.append("valid_certificate_kept")

    traffic = verdicts.get("traffic_flows")
    # Expected only to make the outcome unknown: without traffic nothing shows that a mesh holds.
    if traffic is Verdict.UNKNOWN:
        checks.append("traffic_flows")

    # Where connections failed for a while, the expired certificate is the reason, and
    # recovers_within judges whether it ended in time.
    if traffic is Verdict.HOLDS:
        checks.append("no_expired_certificate_served")

    return tuple(
        PlannedExpectation(check=check, verdict="HOLDS", because="the goal is that the mesh holds")
        for check in checks
    )


def _sum_up(plan: Plan, comparisons: list[Comparison]) -> tuple[OutcomeKind, str]:
    """What all comparisons come to, and why."""
    if not plan.expectations and plan.goal is None:
        return OutcomeKind.UNKNOWN, f"no [[expect]] of the scenario covers version {plan.version}"

    # First of all, also before surprises: a fault that did not happen surprises with everything.
    for row in comparisons:
        finding = row.finding
        holds = finding.verdict is Verdict.HOLDS
        if finding.is_assumption and not holds:
            return OutcomeKind.UNKNOWN, f"{finding.check}: {finding.because}"

    # A surprise counts more than an unknown, wherever in the list it is.
    for kind in (OutcomeKind.SURPRISE, OutcomeKind.UNKNOWN):
        for row in comparisons:
            if row.kind is kind:
                finding = row.finding
                return kind, f"{finding.check} is {finding.verdict}, expected {row.expected}"

    return OutcomeKind.AS_EXPECTED, _all_met(plan)


def _all_met(plan: Plan) -> str:
    """How an outcome without surprise is reported."""
    if plan.goal is not None:
        return "the mesh holds"
    count = len(plan.expectations)
    if count == 1:
        return "the one expectation met"
    return f"all {count} expectations met"
