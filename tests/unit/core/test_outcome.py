"""Verdict: findings against expectations. Unknown is never a pass, and only what was named can
surprise."""

from __future__ import annotations

import itertools

import pytest
from meshwake.core.errors import ExitCode
from meshwake.core.outcome import Finding, Outcome, OutcomeKind, Verdict, compare

from tests.support.histories import plan

HOLDS, BROKEN, UNKNOWN = Verdict.HOLDS, Verdict.BROKEN, Verdict.UNKNOWN
FLOWS = "traffic_flows"


def outcome(
    expected: dict[str, str], found: dict[str, Verdict], assumption: Verdict = HOLDS
) -> Outcome:
    """The outcome of one assumption and of `found` under `expected`."""
    findings = [
        Finding("clock_fault_happened", assumption, "the clocks say so", is_assumption=True)
    ]
    findings += [Finding(check, verdict, "seen") for check, verdict in found.items()]
    return compare(plan(expectations=expected), tuple(findings))


@pytest.mark.parametrize(("expected", "found"), list(itertools.product(Verdict, Verdict)))
def test_one_expectation(expected: Verdict, found: Verdict) -> None:
    """Equal is as expected, also UNKNOWN; else UNKNOWN is unknown, and anything else a surprise."""
    seen = outcome({FLOWS: expected}, {FLOWS: found})
    if expected == found:
        assert (seen.kind, seen.exit_code) == (OutcomeKind.AS_EXPECTED, ExitCode.AS_EXPECTED)
    elif found is UNKNOWN:
        assert (seen.kind, seen.exit_code) == (OutcomeKind.UNKNOWN, ExitCode.UNKNOWN)
    else:
        assert (seen.kind, seen.exit_code) == (OutcomeKind.SURPRISE, ExitCode.SURPRISE)
        assert seen.why == f"traffic_flows is {found}, expected {expected}"


@pytest.mark.parametrize("assumption", [BROKEN, UNKNOWN])
@pytest.mark.parametrize(("expected", "found"), list(itertools.product(Verdict, Verdict)))
def test_without_its_assumption_nothing_is_known(
    assumption: Verdict, expected: Verdict, found: Verdict
) -> None:
    """A run whose fault did not happen is unknown whatever else was found: failed is not
    reproduced."""
    seen = outcome({FLOWS: expected}, {FLOWS: found}, assumption)
    assert seen.kind is OutcomeKind.UNKNOWN
    assert seen.why == "clock_fault_happened: the clocks say so"


def test_the_assumption_is_named_at_any_place() -> None:
    """The reason is the assumption that failed, not the first finding that is not HOLDS."""
    late = Finding(
        "traffic_was_attempted", BROKEN, "no connection was attempted", is_assumption=True
    )
    seen = compare(plan(expectations={FLOWS: "BROKEN"}), (Finding(FLOWS, BROKEN, "seen"), late))
    assert seen.why == "traffic_was_attempted: no connection was attempted"


def test_no_expectation_for_this_version_is_unknown() -> None:
    """A run of which nothing was expected proves nothing, however good it looks."""
    seen = outcome({}, {FLOWS: HOLDS})
    assert seen.kind is OutcomeKind.UNKNOWN
    assert "no [[expect]] of the scenario covers version 1.31.0" in seen.why


def test_what_is_not_expected_cannot_surprise() -> None:
    """A check without an expectation is shown and decides nothing."""
    seen = outcome(
        {FLOWS: "HOLDS"}, {FLOWS: HOLDS, "ca_not_flooded": BROKEN, "recovers_within": UNKNOWN}
    )
    assert seen.kind is OutcomeKind.AS_EXPECTED
    assert [row.expected for row in seen.comparisons] == [HOLDS, HOLDS, None, None]


def test_a_surprise_outweighs_an_unknown() -> None:
    """Where both occur, the exit code is that of the surprise, in any order."""
    for checks in itertools.permutations([(FLOWS, BROKEN), ("ca_not_flooded", UNKNOWN)]):
        seen = outcome({FLOWS: "HOLDS", "ca_not_flooded": "HOLDS"}, dict(checks))
        assert seen.kind is OutcomeKind.SURPRISE
        assert seen.why.startswith(FLOWS)


def test_an_expectation_that_no_check_answers_is_an_error() -> None:
    """A check that was not run cannot be taken for one that passed."""
    with pytest.raises(ValueError, match="no finding for recovers_within"):
        outcome({FLOWS: "HOLDS", "recovers_within": "HOLDS"}, {FLOWS: HOLDS})


def test_each_comparison_knows_why_it_was_expected() -> None:
    """The reason given by the scenario is next to the finding; an assumption brings its own."""
    assumption, flows = outcome({FLOWS: "HOLDS"}, {FLOWS: BROKEN}).comparisons
    assert (flows.kind, flows.expected_because) == (OutcomeKind.SURPRISE, "the test says so")
    assert (assumption.expected, assumption.expected_because) == (
        HOLDS,
        "nothing can be judged without it",
    )
