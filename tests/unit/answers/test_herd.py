from __future__ import annotations

import pytest

from harness.answers.herd import ISTIOD_STREAMS_A_SECOND, Herd, drawn, herd, most_within


@pytest.fixture(scope="module")
def by_fix() -> dict[str, Herd]:
    """Sixty nodes that wake together."""
    return {fix: herd(60, fix, 0) for fix in ("none", "sleep-hook", "wake-guard")}


def test_restarting_all_asks_for_all_at_once(by_fix: dict[str, Herd]) -> None:
    """More in one second than istiod admits; but everybody is well at once."""
    assert by_fix["sleep-hook"].most_in_1_s == 60 > ISTIOD_STREAMS_A_SECOND
    assert by_fix["sleep-hook"].good_in_5_min == 1


def test_the_fault_asks_for_little_and_nobody_is_well(by_fix: dict[str, Herd]) -> None:
    """Renewals come as late as the machine slept."""
    assert by_fix["none"].most_in_1_s <= 2
    assert by_fix["none"].good_in_1_h < 0.3


def test_the_guard_never_asks_for_more_than_istiod_admits(by_fix: dict[str, Herd]) -> None:
    """One node after another."""
    assert 0 < by_fix["wake-guard"].most_in_1_s <= ISTIOD_STREAMS_A_SECOND
    assert by_fix["wake-guard"].good_in_1_h > by_fix["none"].good_in_1_h


def test_counting_in_a_window() -> None:
    """Half open: what lies a whole window later is not in it."""
    assert most_within([], 10) == 0
    assert most_within([0, 5, 9, 10, 11], 10) == 4
    assert drawn([0, 1, 9]) == " .@"
    assert drawn([0, 0]) == "  "
