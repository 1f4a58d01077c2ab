"""Many runs in one line."""

from __future__ import annotations

import pytest
from meshwake.report.result import Summary
from meshwake.report.tally import tally


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        (["as expected"] * 31 + ["refused"] * 3, "34 runs: 31 as expected, 3 refused"),
        (["as expected"] * 5, "5 runs, all as expected"),
        (["as expected"], "1 run: 1 as expected"),
        (
            ["error", "surprise", "unknown"],
            "3 runs: 1 not as expected, 1 unknown, 1 stopped by an error",
        ),
        (["refused"] * 2, "2 runs, all refused"),
        ([], "0 runs"),
    ],
)
def test_a_refusal_is_not_a_failure(outcomes: list[str], words: str) -> None:
    """Every outcome is counted by its own name."""
    assert tally([Summary("any", "model", "1.31.0", outcome) for outcome in outcomes]) == words
