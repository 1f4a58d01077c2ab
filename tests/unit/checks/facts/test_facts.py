"""What is derived from a history is what happened in it: certificates, renewals, outages, clock
faults."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.checks.facts.certificates import (
    certificates,
    holdings,
    life_drift_ns,
    lives,
    renewals,
)
from meshwake.checks.facts.clocks import clock_faults, fault_spans
from meshwake.checks.facts.traffic import failures, outages
from meshwake.core.plan import Plan

from tests.support.histories import (
    CLIENT,
    LAPTOP,
    SERVER,
    STARTS_WALL_S,
    Formula,
    World,
    fault,
    ns,
    plan,
)

NIGHTS = fault("suspend", "15h", lasts="8h", every="24h")
ISSUE_1481 = fault("pause", "5m", lasts="17m", corrected_after="25s")


def by_formula(of: Plan) -> World:
    """A world as the unpatched ztunnel makes it."""
    return Formula(World(of)).world


def test_renewals_of_nightly_sleep_are_those_of_real_binaries() -> None:
    """24 h certificates, 8 h nights: the times measured on 1.31.0-rc.0, four runs of four; a fifth
    is overdue."""
    world = by_formula(plan([NIGHTS], duration="5d"))
    done_s = [
        one.done_world_s for one in renewals(world.plan, world.history()) if one.identity == SERVER
    ]
    assert done_s == [43140.0, 115080.0, 215820.0, 374160.0, None]


def test_renewals_of_issue_1481() -> None:
    """10 m certificates, one pause of 17 m: from the second cycle after it every renewal is 1020 s
    late."""
    world = by_formula(plan([ISSUE_1481], duration="3h", lifetime="10m"))
    late_s = [one.late_s for one in renewals(world.plan, world.history()) if one.identity == SERVER]
    assert late_s == [0.0, *[1020.0] * 8, None]


def test_outages_of_issue_1481() -> None:
    """... and of every 21 minutes 11 are an outage, known to the two seconds that a probe waits."""
    world = by_formula(plan([ISSUE_1481], duration="3h", lifetime="10m"))
    found = outages(world.plan, world.history())[1:-1]
    assert all(659 <= one.to_world_s - one.from_world_s <= 660 for one in found)
    assert {two.to_world_s - one.to_world_s for one, two in pairwise(found)} == {1260}


def test_first_outage_of_nightly_sleep() -> None:
    """24 h certificates, 8 h nights: the first outage is on the third day, when the clock drift is
    16 h, for 3 h 59 m."""
    world = by_formula(plan([NIGHTS], duration="3d"))
    first = failures(world.plan, world.history())[0]
    assert (first.from_world_ns, first.to_world_ns) == (ns("2d7h58m3s"), ns("2d11h57m2s"))


def test_due_is_the_middle_to_the_half_second() -> None:
    """A validity of an odd number of seconds has its middle between two of them."""
    world = World(plan(duration="1d")).start()
    world.issue(SERVER, "0s", lifetime="10m1s")
    (certificate,) = certificates(world.history())[SERVER]
    assert certificate.due_world_ns == ns("4m500ms")


def test_the_first_certificate_of_a_process_is_not_a_renewal() -> None:
    """After a restart ztunnel asks because it has none, not because one fell due."""
    world = World(plan(duration="1d")).start().start("1h", cause="weekly-restart")
    first, second = world.issue(SERVER, "0s"), world.issue(SERVER, "1h")
    history = world.history()
    assert [one.serial for one in certificates(history)[SERVER]] == [
        first["serial"],
        second["serial"],
    ]
    assert [one.certificate.serial for one in renewals(world.plan, history)] == [second["serial"]]


def test_a_renewal_that_never_came_is_listed() -> None:
    """Due before the end and not done: no time of doing, no lateness."""
    world = World(plan(duration="13h")).start()
    world.issue(SERVER, "0s")
    (missing,) = renewals(world.plan, world.history())
    assert (missing.due_world_s, missing.done_world_s, missing.late_s) == (43140.0, None, None)


def test_a_renewal_that_a_restart_forestalled_is_none() -> None:
    """A process that ended before its certificate fell due owes no renewal; one that ended later
    does."""
    for at, owed in (("11h", []), ("12h", [None])):
        world = World(plan(duration="12h30m")).start().start(at, cause="weekly-restart")
        world.issue(SERVER, "0s")
        world.issue(SERVER, at)
        assert [one.done_world_s for one in renewals(world.plan, world.history())] == owed


def test_a_renewal_that_failed_for_good_is_listed() -> None:
    """ztunnel dropped the certificate when it could not renew it: it is owed all the same."""
    world = World(plan(duration="1d")).start()
    world.issue(SERVER, "0s")
    world.state(SERVER, "11h", "Unavailable: signing gRPC error")
    assert [one.late_s for one in renewals(world.plan, world.history())] == [None]


def test_why_a_certificate_is_held_no_longer() -> None:
    """Replaced, dropped, stopped, or still held at the end."""
    world = World(plan(duration="1d")).start().start("6h", cause="restart")
    for at in ("0s", "2h", "5h", "7h"):
        world.issue(SERVER, at)
    world.state(SERVER, "4h", "Unavailable: signing gRPC error")
    kept = certificates(world.history())[SERVER]
    assert [(one.until, one.until_world_ns) for one in kept] == [
        ("replaced", ns("2h")),
        ("dropped", ns("4h")),
        ("stopped", ns("6h")),
        ("end", ns("1d")),
    ]


def test_an_answer_after_the_end_of_its_ztunnel_reached_no_process() -> None:
    """What the authority issues to a process that has ended is not held."""
    world = World(plan(duration="1d")).start()
    world.add(ns("1h"), "ztunnel_stopped", LAPTOP, process=SERVER, cause="killed")
    world.issue(SERVER, "2h")
    assert SERVER not in certificates(world.history())


def test_the_wall_of_an_issue_is_that_of_the_holder() -> None:
    """A node that is 5 minutes ahead of the authority sees its certificate issued 5 minutes
    later."""
    houses = {"ahead": (CLIENT,), "true": (SERVER,)}
    world = World(
        plan([fault("step", "1h", node="ahead", by="5m")], duration="1d", nodes=houses)
    ).start()
    world.issue(CLIENT, "2h")
    world.issue(SERVER, "2h")
    known = certificates(world.history())
    assert known[CLIENT][0].issued_wall_ns - known[SERVER][0].issued_wall_ns == ns("5m")


def test_what_only_ztunnel_shows_is_held_too() -> None:
    """A certificate of another authority counts from the moment it is shown until the next one
    is."""
    world = World(plan(duration="1d")).start()
    world.show(SERVER, "1h", STARTS_WALL_S + 10_000)
    world.issue(SERVER, "3h")
    shown, issued = holdings(world.history())
    assert (shown.serial, shown.from_world_ns, shown.to_world_ns) == ("ffff", ns("1h"), ns("3h"))
    assert issued.from_world_ns == ns("3h")


def test_what_ztunnel_shows_ends_with_it() -> None:
    """A certificate shown is held by the process that showed it, as long as that runs."""
    world = World(plan(duration="1d")).start().start("2h", cause="restart")
    world.show(SERVER, "1h", STARTS_WALL_S + 10_000)
    (shown,) = holdings(world.history())
    assert (shown.life.started.world_ns, shown.to_world_ns) == (0, ns("2h"))


def test_what_was_issued_is_not_counted_twice() -> None:
    """That ztunnel shows what the authority issued adds nothing, unless it had been replaced by
    then."""
    world = World(plan(duration="1d")).start()
    first = world.issue(SERVER, "0s")
    world.state(SERVER, "1m", "Available", of=first)
    world.issue(SERVER, "3h")
    assert len(holdings(world.history())) == 2
    world.state(SERVER, "4h", "Available", of=first)
    assert len(holdings(world.history())) == 3


def test_a_life_ends_with_the_next_of_its_name() -> None:
    """A process killed without a word has ended when its successor starts."""
    world = World(plan(duration="1d")).start()
    world.add(
        ns("2h"), "ztunnel_started", LAPTOP, process=SERVER, identities=[SERVER], cause="crash"
    )
    found = [life.until_world_ns for life in lives(world.history()) if life.process == SERVER]
    assert found == [ns("2h"), ns("1d")]


def test_a_certificate_goes_with_the_process_that_held_it() -> None:
    """Whether its successor has the same name and other workloads, or the same workload and another
    name."""
    for name, identity in ((SERVER, CLIENT), ("other", SERVER)):
        world = World(plan(duration="1d")).start()
        world.issue(SERVER, "0s")
        world.add(
            ns("2h"), "ztunnel_started", LAPTOP, process=name, identities=[identity], cause="crash"
        )
        (held,) = certificates(world.history())[SERVER]
        assert (held.until, held.until_world_ns) == ("stopped", ns("2h"))


def test_drift_of_a_life_begins_at_its_start() -> None:
    """J is all the sleep since ztunnel started, and none from before."""
    world = World(plan([NIGHTS], duration="3d")).start().start("26h", cause="restart")
    world.attempt("60h")
    history = world.history()
    before, after = (life for life in lives(history) if life.process == SERVER)
    assert life_drift_ns(history, before, ns("24h")) == ns("8h")
    assert life_drift_ns(history, after, ns("60h")) == ns("8h")


def test_an_outage_is_cut_by_sleep() -> None:
    """No connection is missed on a machine that sleeps; before and after count."""
    world = World(plan([NIGHTS], duration="1d"))
    world.attempts(good=("23h30m",), bad=("14h", "14h30m", "23h10m"))
    found = [(one.from_world_s, one.to_world_s) for one in outages(world.plan, world.history())]
    assert found == [(14 * 3600, 15 * 3600), (23 * 3600, 23.5 * 3600)]


def test_an_outage_without_an_end_lasts_until_the_end() -> None:
    """A pair that never got through again was out to the last."""
    world = World(plan(duration="2h")).attempts(bad=("1h",))
    (failing,) = failures(world.plan, world.history())
    assert (failing.to_world_ns, failing.recovered) == (ns("2h"), False)


attempt_minutes = st.dictionaries(st.integers(0, 1439), st.booleans())


@given(attempt_minutes, st.lists(st.tuples(st.integers(0, 1200), st.integers(1, 200)), max_size=3))
def test_outages_cover_failures_and_no_success(
    tried: dict[int, bool], sleeps: list[tuple[int, int]]
) -> None:
    """Every failed attempt made awake lies in an outage, no good one does, and no outage in
    sleep."""
    some: list[dict[str, Any]] = []
    for at_m, lasts_m in sorted(sleeps):
        if not some or at_m > int(some[-1]["at"][:-1]) + int(some[-1]["lasts"][:-1]):
            some.append(fault("suspend", f"{at_m}m", lasts=f"{lasts_m}m"))
    world = World(plan(some, duration="1d"))
    clock = world.clocks[LAPTOP]
    tried = {minute: ok for minute, ok in tried.items() if clock.processes_run(ns(f"{minute}m"))}
    for minute, ok in tried.items():
        world.attempt(f"{minute}m", ok)
    found = outages(world.plan, world.history())
    for minute, ok in tried.items():
        assert any(one.span[0] <= ns(f"{minute}m") < one.span[1] for one in found) == (not ok)
    assert all(
        clock.processes_run(begins) and clock.processes_run(ends - 1)
        for begins, ends in (o.span for o in found)
    )


@pytest.mark.parametrize(
    ("one", "moved"),
    [
        (fault("suspend", "1h", lasts="8h"), ("8h", "0s", "8h")),
        (fault("pause", "1h", lasts="17m", corrected_after="25s"), ("17m25s", "25s", "25s")),
        (fault("step", "1h", by="-13h"), ("-13h", "0s", "0s")),
        (fault("drift", "1h", lasts="10h", rate=(41, 40)), ("10h15m", "10h", "10h")),
        (fault("freeze", "1h", lasts="17m"), ("17m", "17m", "17m")),
    ],
)
def test_clock_faults_are_measured(one: dict[str, Any], moved: tuple[str, str, str]) -> None:
    """Wall, monotonic and boottime move as the kind of the fault says, from its beginning to its
    end."""
    world = World(plan([one], duration="1d"))
    (found,) = clock_faults(world.plan, world.history())
    assert found.measured == tuple(ns(part) for part in moved)
    assert found.planned_ns == ns(one.get("by") or one["lasts"])


def test_a_clock_fault_that_never_ended_is_not_measured() -> None:
    """It is listed, without numbers that were not read."""
    world = World(plan([fault("suspend", "1h", lasts="8h")], duration="1d"))
    history = world.history(killed_at="2h")
    assert [found.measured for found in clock_faults(world.plan, history)] == [None]
    assert [span.ended for span in fault_spans(history)] == [None]


def test_facts_are_derived_once() -> None:
    """Every check asks for the same facts of a history; it gets the same objects."""
    history = by_formula(plan([NIGHTS])).history()
    assert certificates(history) is certificates(history)
