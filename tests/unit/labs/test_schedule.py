"""The order in which every lab does what a plan says."""

from __future__ import annotations

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S
from meshwake.core.planned_faults import PlannedFault
from meshwake.fixes import Deployment, PlannedRestart
from meshwake.guard.watch import View
from meshwake.labs.schedule import Phase, Schedule, planned_actions

from tests.support.plans import plan

HOUR_NS = 3600 * NS_PER_S


def phases(faults: str) -> list[tuple[int, Phase]]:
    of = plan(faults, duration="10h")
    return [(each.world_ns // HOUR_NS, each.phase) for each in planned_actions(of, clocks_of(of))]


def fault(text: str) -> str:
    return f"\n[[fault]]\n{text}\n"


def test_a_pause_begins_wakes_and_ends() -> None:
    assert phases(fault('kind = "pause"\nat = "1h"\nlasts = "2h"\ncorrected_after = "1h"')) == [
        (1, Phase.BEGIN),
        (3, Phase.WAKE),
        (4, Phase.END),
    ]


def test_what_ends_comes_before_what_begins_whatever_the_order_in_the_file() -> None:
    later = fault('kind = "suspend"\nat = "3h"\nlasts = "1h"')
    earlier = fault('kind = "suspend"\nat = "1h"\nlasts = "2h"')
    expected = [(1, Phase.BEGIN), (3, Phase.END), (3, Phase.BEGIN), (4, Phase.END)]
    assert phases(later + earlier) == phases(earlier + later) == expected


def test_a_step_ends_after_its_own_beginning() -> None:
    assert phases(fault('kind = "step"\nat = "1h"\nby = "1h"')) == [
        (1, Phase.BEGIN),
        (1, Phase.END_SAME_INSTANT),
    ]


def test_a_restart_during_sleep_happens_at_the_wake() -> None:
    asleep = fault('kind = "suspend"\nat = "1h"\nlasts = "4h"')
    restart = fault('kind = "restart"\nat = "2h"')
    assert phases(asleep + restart) == [
        (1, Phase.BEGIN),
        (5, Phase.END),
        (5, Phase.RESTART_BY_FAULT),
    ]


def test_nothing_is_left_for_after_the_end() -> None:
    assert phases(fault('kind = "suspend"\nat = "9h"\nlasts = "4h"')) == [(9, Phase.BEGIN)]


# Fixes that look


class Looker:
    """Looks every hour, and at its second look has a node restarted half an hour later."""

    def __init__(self) -> None:
        self.looked: list[int] = []

    def next_look_world_ns(self, after_world_ns: int) -> int | None:
        return HOUR_NS if after_world_ns < 0 else after_world_ns + HOUR_NS

    def look(self, view: View) -> list[PlannedRestart]:
        self.looked.append(view.world_ns // HOUR_NS)
        if len(self.looked) != 2:
            return []
        return [PlannedRestart(view.world_ns + HOUR_NS // 2, "laptop", "looker")]


class Keeping:
    """An executor that only notes its calls, by the clock of the test."""

    def __init__(self) -> None:
        self.world_ns = 0
        self.done: list[tuple[float, str]] = []

    def restart(self, node: str, cause: str) -> None:
        self.done.append((self.world_ns / HOUR_NS, f"{cause} restarts {node}"))

    restart_applications = restart_proxies = restart

    def begin(self, fault: PlannedFault) -> None:
        self.done.append((self.world_ns / HOUR_NS, f"{fault.kind} begins"))

    def end(self, fault: PlannedFault) -> None:
        self.done.append((self.world_ns / HOUR_NS, f"{fault.kind} ends"))


def test_polls_are_scheduled_and_so_are_the_restarts_they_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At one moment a poll comes last: it observes what has happened."""
    looker, world = Looker(), Keeping()
    monkeypatch.setattr(
        "meshwake.labs.schedule.deploy", lambda plan, clocks: Deployment((), (looker,))
    )
    of = plan(fault('kind = "freeze"\nat = "2h"\nlasts = "1h"'), duration="4h")
    schedule = Schedule(of, clocks_of(of))
    while (next_ns := schedule.next_world_ns()) is not None:
        world.world_ns = next_ns
        schedule.run_due(world, next_ns)  # type: ignore[arg-type]
    assert looker.looked == [1, 2, 3]
    assert world.done == [(2, "freeze begins"), (2.5, "looker restarts laptop"), (3, "freeze ends")]
