"""The order in which every lab does what a plan says."""

from __future__ import annotations

from harness.clocks.virtual import clocks_of
from harness.durations import NS_PER_S
from harness.labs.agenda import Turn, agenda
from tests.unit.labs.plans import plan

HOUR_NS = 3600 * NS_PER_S


def turns(faults: str) -> list[tuple[int, Turn]]:
    of = plan(faults, duration="10h")
    return [(each.world_ns // HOUR_NS, each.turn) for each in agenda(of, clocks_of(of))]


def fault(text: str) -> str:
    return f"\n[[fault]]\n{text}\n"


def test_a_pause_begins_wakes_and_ends() -> None:
    assert turns(fault('kind = "pause"\nat = "1h"\nlasts = "2h"\ncorrected_after = "1h"')) == [
        (1, Turn.BEGIN),
        (3, Turn.WAKE),
        (4, Turn.END),
    ]


def test_what_ends_comes_before_what_begins_whatever_the_order_in_the_file() -> None:
    later = fault('kind = "suspend"\nat = "3h"\nlasts = "1h"')
    earlier = fault('kind = "suspend"\nat = "1h"\nlasts = "2h"')
    expected = [(1, Turn.BEGIN), (3, Turn.END), (3, Turn.BEGIN), (4, Turn.END)]
    assert turns(later + earlier) == turns(earlier + later) == expected


def test_a_step_ends_after_its_own_beginning() -> None:
    assert turns(fault('kind = "step"\nat = "1h"\nby = "1h"')) == [(1, Turn.BEGIN), (1, Turn.END_AT_ONCE)]


def test_a_restart_during_sleep_happens_at_the_wake() -> None:
    asleep = fault('kind = "suspend"\nat = "1h"\nlasts = "4h"')
    restart = fault('kind = "restart"\nat = "2h"')
    assert turns(asleep + restart) == [(1, Turn.BEGIN), (5, Turn.END), (5, Turn.RESTART_BY_FAULT)]


def test_nothing_is_left_for_after_the_end() -> None:
    assert turns(fault('kind = "suspend"\nat = "9h"\nlasts = "4h"')) == [(9, Turn.BEGIN)]
