"""What was expected of a run, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from meshwake.report.html.sentence import sentence

from tests.support.scenarios import SURPRISING, UNKNOWN, small
from tests.unit.report.runs import ISSUE_1481, modelled, recorded

CURED = small(('verdict = "holds"', 'verdict = "broken"'))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (small(), "As expected: the one expectation met."),
        (
            SURPRISING,
            "Not as expected, a regression: \u201cConnections always work\u201d is BROKEN, "
            "expected HOLDS.",
        ),
        (
            CURED,
            "Not as expected, a cure: \u201cConnections always work\u201d is HOLDS, expected BROKEN.",
        ),
        (
            UNKNOWN,
            "Unknown: \u201cA certificate that is still valid is kept\u201d could not be judged: "
            "the authority refused no renewal of an identity that still held a valid certificate.",
        ),
    ],
    ids=["as expected", "regression", "cure", "unknown"],
)
def test_the_claim_is_quoted_and_not_its_name(text: str, words: str) -> None:
    """Readers of a page need not know the names of checks."""
    assert sentence(modelled(text)) == words


def test_what_rests_on_a_failed_assumption() -> None:
    """The reason comes with it."""
    run = recorded(ISSUE_1481)
    cut = replace(run, plan=run.plan.model_copy(update={"expectations": ()}))
    assert sentence(cut) == "Unknown: no [[expect]] of the scenario covers version 1.31.0-rc.0."
