"""What a person reads: nothing wider than 100 columns, nothing lost without colour, nothing cut
off."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from meshwake.checks import judge
from meshwake.core.history import History
from meshwake.core.run import Run
from meshwake.report.result import Summary, summarise
from meshwake.report.terminal import plain, run_detail, show, summary_table
from rich.console import Console
from rich.table import Table

from tests.support.histories import SERVER, Formula, World, fault, ns, plan

NIGHTS = fault("suspend", "15h", lasts="8h", every="24h")
EXPECTED = {"renewals_on_time": "BROKEN", "traffic_flows": "HOLDS", "alert_before_outage": "HOLDS"}
LONG = Summary(
    "a_scenario_whose_author_had_much_to_say_about_it",
    "process",
    "1.31.0-rc.0",
    "as expected",
    ns("27d4h"),
)


def a_week() -> Run:
    """Seven nights of sleep, with the expectation that traffic flows."""
    world = Formula(World(plan([NIGHTS], duration="7d", expectations=EXPECTED))).world
    history = world.history()
    return Run(world.plan, history, judge(world.plan, history))


def words(text: str) -> str:
    """`text` with its lines joined, as one reads it."""
    return " ".join(text.split())


def test_a_table_over_many_runs() -> None:
    """One line a run, with the numbers of the run in a person's words."""
    week = summarise(replace(a_week(), path=Path("runs/nightly_sleep/1")))
    fine = Summary(
        "nothing_happens", "model", "1.31.0", "as expected", 0, None, "all 4 expectations met"
    )
    lines = plain(summary_table([week, fine])).splitlines()
    heading, _, first, second = (words(line) for line in lines[1:5])
    assert heading == "scenario lab ztunnel outcome outage first failure"
    assert first == "by_hand model 1.31.0 surprise 1 d 16 h day 2 07:58"
    assert second == "nothing_happens model 1.31.0 as expected none -"


def test_what_was_unexpected_is_explained_below_the_table() -> None:
    """The reason and the place of the evidence; of what came out as expected nothing more is
    printed."""
    week = summarise(replace(a_week(), path=Path("runs/nightly_sleep/1")))
    text = plain(summary_table([week, LONG]))
    assert "by_hand (model 1.31.0): surprise (a regression: traffic_flows is BROKEN" in text
    assert "  BROKEN: 1 d 16 h of 7 d without mTLS, first on day 2 at 07:58" in text
    assert "  evidence: runs/nightly_sleep/1" in text
    assert text.count("evidence") == 1


def test_fixes_that_are_compared_have_a_column() -> None:
    """And a goal is reached or missed."""
    rows = [
        Summary("week", "model", "1.31.0", outcome, fix=fix, goal="holds", judged="j", headline="h")
        for outcome, fix in (("surprise", "none"), ("as expected", "wake-guard"))
    ]
    lines = [words(line) for line in plain(summary_table(rows)).splitlines()]
    assert "scenario lab ztunnel fix outcome outage first failure" in lines
    assert "week model 1.31.0 none missed - -" in lines
    assert "week model 1.31.0 wake-guard reached - -" in lines


def test_a_case_that_did_not_run_has_no_numbers() -> None:
    """A refusal shows in the table with its reason, not as a run without outage."""
    refused = Summary("nightly_sleep", "process", "1.31.0", "refused", why="no ztunnel binary")
    text = plain(summary_table([refused]))
    assert "nightly_sleep process 1.31.0 refused - -" in words(text)
    assert "nightly_sleep (process 1.31.0): refused: no ztunnel binary" in text


@pytest.mark.parametrize("width", [100, 80])
def test_nothing_is_wider_than_requested_nor_cut_off(width: int) -> None:
    """Long names go on in the next line."""
    rows = [LONG, summarise(replace(a_week(), path=Path("runs") / ("x" * 120)))]
    for text in (
        plain(summary_table(rows), width),
        plain(run_detail(a_week(), verbose=True), width),
    ):
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
    assert "x" * 120 in plain(summary_table(rows), width).replace("\n", "").replace(" ", "")


def test_the_detail_of_a_run_says_everything_in_words() -> None:
    """Verdict, what was expected, because of what, and where to look."""
    text = plain(run_detail(a_week()))
    answer, outcome, title, starts, *_ = text.splitlines()
    assert answer == "BROKEN: 1 d 16 h of 7 d without mTLS, first on day 2 at 07:58"
    assert outcome.startswith("outcome: surprise (a regression: traffic_flows")
    assert title == "by_hand on model, ztunnel 1.31.0, 7 d: Written by hand"
    assert starts == "day 0 00:00 is Fri 2027-01-15 08:00 UTC, when every ztunnel was started"
    assert "HOLDS   clock_fault_happened  (as expected)" in text
    assert "BROKEN  renewals_on_time  (as expected)" in text
    assert "BROKEN  traffic_flows  (surprise: expected HOLDS)" in text
    assert "UNKNOWN alert_before_outage  (unknown: expected HOLDS)" in text
    assert "BROKEN  recovers_within  (nothing expected)" in text
    assert "expected HOLDS, because the test says so" in text
    assert (
        "default/client could not reach default/server from day 2 07:58:03 until day 2 11:57:02"
        in words(text)
    )


def test_verbose_adds_renewals_and_clock_faults() -> None:
    """The tables are there when requested, and name in a word what was never done."""
    assert "Renewals" not in plain(run_detail(a_week()))
    text = words(plain(run_detail(a_week(), verbose=True)))
    assert f"{SERVER} day 0 11:59:00 day 0 23:58:00 day 1 07:58:00 8 h" in text
    assert "suspend laptop day 0 15:00:00 8 h 8 h 0 s 8 h" in text
    world = World(plan([NIGHTS], duration="16h", expectations=EXPECTED)).start()
    world.issue(SERVER, "0s")
    history = world.history(killed_at="15h")
    text = words(
        plain(run_detail(Run(world.plan, history, judge(world.plan, history)), verbose=True))
    )
    assert f"{SERVER} day 0 00:00:00 day 0 11:59:00 never -" in text
    assert "not ended not ended not ended" in text


def test_a_damaged_history_is_shown_as_far_as_it_goes() -> None:
    """Findings that say what is wrong are worth showing; the tables say why they are missing."""
    week = a_week()
    damaged = History(
        [replace(event, data={**event.data, "identities": None}) for event in week.history]
    )
    text = words(
        plain(run_detail(Run(week.plan, damaged, judge(week.plan, damaged)), verbose=True))
    )
    assert (
        "UNKNOWN certificates_were_issued (unknown: expected HOLDS) could not be judged: TypeError"
        in text
    )
    assert "renewals and clock faults cannot be shown: 'NoneType' object is not iterable" in text


def test_a_stream_that_is_not_a_terminal_gets_plain_ascii() -> None:
    """No colour, no padding, nothing that a log of unknown encoding cannot hold."""
    stream = io.StringIO()
    show(Console(file=stream, width=300), run_detail(a_week(), verbose=True))
    show(Console(file=stream, width=300), summary_table([LONG]))
    text = stream.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    assert all(line == line.rstrip() and len(line) <= 100 for line in text.splitlines())


def test_a_terminal_gets_colour_and_no_more_than_100_columns() -> None:
    """Colour repeats what the words say."""
    stream = io.StringIO()
    show(
        Console(file=stream, width=300, force_terminal=True, color_system="standard"),
        summary_table([LONG]),
    )
    assert "\x1b[32mas expected" in stream.getvalue()


def test_what_is_in_brackets_is_shown() -> None:
    """Rich would take it for markup: a reason names an extra, as in meshwake[process]."""
    table = Table("lab", "why")
    table.add_row("process", "pip install 'meshwake[process]'")
    assert "pip install 'meshwake[process]'" in plain(table)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    show(console, table)
    assert isinstance(console.file, io.StringIO)
    assert "meshwake[process]" in console.file.getvalue()
