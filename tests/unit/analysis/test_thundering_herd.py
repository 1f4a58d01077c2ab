from __future__ import annotations

import pytest
from meshwake.analysis.thundering_herd import (
    FIXES_SHOWN,
    ISTIOD_STREAMS_A_SECOND,
    HerdResult,
    bar_line,
    markdown,
    most_within,
    simulate_herd,
)
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode

from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def by_fix() -> dict[str, HerdResult]:
    """Sixty nodes that wake together."""
    return {fix: simulate_herd(60, fix, 0) for fix in ("none", "sleep-hook", "wake-guard")}


def test_restarting_all_asks_for_all_at_once(by_fix: dict[str, HerdResult]) -> None:
    """More in one second than istiod admits; but everybody is well at once."""
    assert by_fix["sleep-hook"].most_in_1_s == 60 > ISTIOD_STREAMS_A_SECOND
    assert by_fix["sleep-hook"].good_in_5_min == 1


def test_the_fault_sends_few_requests_and_no_node_is_well(by_fix: dict[str, HerdResult]) -> None:
    """Renewals come as late as the machine slept."""
    assert by_fix["none"].most_in_1_s <= 2
    assert by_fix["none"].good_in_1_h < 0.3


def test_the_guard_never_asks_for_more_than_istiod_admits(by_fix: dict[str, HerdResult]) -> None:
    """One node after another."""
    assert 0 < by_fix["wake-guard"].most_in_1_s <= ISTIOD_STREAMS_A_SECOND
    assert by_fix["wake-guard"].good_in_1_h > by_fix["none"].good_in_1_h


@pytest.mark.slow(reason="herds of sixty nodes")
def test_several_turns_are_quicker_and_ask_for_no_more_than_istiod_admits() -> None:
    """Six at a time: a minute or two each for ten rounds; the looks of a fleet are spread over its
    guards' period."""
    one, six = simulate_herd(60, "wake-guard", 0), simulate_herd(60, "wake-guard", 0, turns=6)
    assert six.good_in_5_min > 2 * one.good_in_5_min
    assert six.good_in_1_h == 1
    assert 1 < six.most_in_10_s <= 6
    assert six.requests == 60


def test_turns_are_about_the_guard(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else takes turns, and only a herd is large enough."""
    assert (
        run_command(["sweep", "--herd", "3", "--turns", "2", "--fix", "none"]) == ExitCode.BAD_INPUT
    )
    assert "--turns 2: is about wake-guard" in capsys.readouterr().err
    assert run_command(["sweep", "--turns", "2"]) == ExitCode.BAD_INPUT
    assert run_command(["sweep", "--herd", "3", "--turns", "6000"]) == ExitCode.BAD_INPUT
    assert "a number from 1 to 5000" in capsys.readouterr().err


@pytest.mark.slow(reason="herds of a hundred nodes")
def test_the_table_of_the_docs_says_what_the_program_says() -> None:
    """Its rows of ten and of a hundred nodes; the larger ones take minutes."""
    page = (DOCS / "sweeps.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- herd -->\n")[2].partition("<!-- /herd -->")[0].splitlines()
    small = [line for line in listed[2:] if line.split()[1] in ("10", "100")]
    assert len(small) == 9
    found = [simulate_herd(nodes, fix, 0) for nodes in (10, 100) for fix in FIXES_SHOWN]
    found.append(simulate_herd(100, "wake-guard", 0, turns=5))
    lines = markdown(found).splitlines()
    assert lines[:2] == listed[:2]
    assert sorted(lines[2:]) == sorted(small)


def test_counting_in_a_window() -> None:
    """Half open: what lies a whole window later is not in it."""
    assert most_within([], 10) == 0
    assert most_within([0, 5, 9, 10, 11], 10) == 4
    assert bar_line([0, 1, 9]) == " .@"
    assert bar_line([0, 0]) == "  "
