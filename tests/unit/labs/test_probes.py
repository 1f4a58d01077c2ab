from __future__ import annotations

from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S
from meshwake.core.plan import Plan
from meshwake.labs.probes import ProbeSchedule

from tests.support.plans import CLIENT, SERVER, TWO_NODES, plan

PAIR = (CLIENT, SERVER)
HOUR_S = 3_600


def attempts_world_s(schedule: ProbeSchedule, until_s: int) -> list[float]:
    """World times before `until_s` at which the schedule has something tried."""
    found = []
    while (world_ns := schedule.next_world_ns()) is not None and world_ns < until_s * NS_PER_S:
        if schedule.take(world_ns):
            found.append(world_ns / 1e9)
    return found


def schedule_of(of: Plan) -> ProbeSchedule:
    return ProbeSchedule(of, clocks_of(of))


def issue(
    schedule: ProbeSchedule, of: Plan, serial: str, at_s: int, valid_s: int, identity: str = SERVER
) -> None:
    begins_s = of.starts_wall_s + at_s
    schedule.certificate_issued(
        identity, serial, begins_s - 120, begins_s + valid_s, at_s * NS_PER_S
    )


def test_without_events_the_schedule_is_that_of_the_scenario() -> None:
    """Every ten minutes, from the beginning."""
    assert attempts_world_s(schedule_of(plan()), 3 * 600) == [0, 600, 1_200]


def test_nothing_is_tried_at_the_end_or_after_it() -> None:
    """The last attempt lies within the run."""
    assert attempts_world_s(schedule_of(plan(duration="20m")), 10 * HOUR_S) == [0, 600]


def test_the_expiry_of_a_certificate_is_looked_at_as_soon_as_it_shows() -> None:
    """notAfter itself is still valid, so the first invalid second is the next."""
    of = plan()
    schedule = schedule_of(of)
    issue(schedule, of, "1", at_s=100, valid_s=1_000)
    assert attempts_world_s(schedule, 1_500) == [0, 100, 600, 1_101, 1_200]


def test_the_expiry_of_a_certificate_that_was_replaced_is_of_no_interest() -> None:
    """Else every certificate of a healthy week would cost two attempts that show nothing."""
    of = plan()
    schedule = schedule_of(of)
    issue(schedule, of, "1", at_s=100, valid_s=1_000)
    issue(schedule, of, "2", at_s=500, valid_s=10_000)
    assert 1_101 not in attempts_world_s(schedule, 2_000)


def test_expiry_is_awaited_on_the_clock_of_the_peer() -> None:
    """The server's clock, an hour ahead, sees the client's certificate expire an hour earlier."""
    of = plan('[[fault]]\nkind = "step"\nat = "1s"\nby = "1h"\nnode = "west"', nodes=TWO_NODES)
    schedule = schedule_of(of)
    issue(schedule, of, "1", at_s=0, valid_s=2 * HOUR_S, identity=CLIENT)
    assert HOUR_S + 1 in attempts_world_s(schedule, 2 * HOUR_S)


def test_a_certificate_of_the_future_is_tried_when_the_peer_gets_there() -> None:
    """The issuer's clock is ahead: the peer refuses until its own clock has passed notBefore."""
    of = plan()
    schedule = schedule_of(of)
    schedule.certificate_issued(CLIENT, "1", of.starts_wall_s + 333, of.starts_wall_s + 9_999, 0)
    assert attempts_world_s(schedule, 600) == [0, 333]


def test_nothing_is_tried_while_an_end_sleeps_and_it_is_tried_after_the_wake() -> None:
    """A night from 15 h to 23 h has no attempts; at the wake there is one."""
    of = plan(
        '[[fault]]\nkind = "suspend"\nat = "15h"\nlasts = "8h"\nnode = "west"', nodes=TWO_NODES
    )
    times = attempts_world_s(schedule_of(of), 24 * HOUR_S)
    assert not [at for at in times if 15 * HOUR_S <= at < 23 * HOUR_S]
    assert 23 * HOUR_S in times


def test_a_pause_is_followed_at_the_wake_and_at_the_correction() -> None:
    """In between the wall clock is behind, which may be an outage of its own."""
    of = plan('[[fault]]\nkind = "pause"\nat = "100s"\nlasts = "50s"\ncorrected_after = "25s"')
    assert attempts_world_s(schedule_of(of), 400) == [0, 150, 175]


def test_a_fault_of_the_service_concerns_every_pair() -> None:
    """A fault without a node is the authority's."""
    of = plan('[[fault]]\nkind = "ca_outage"\nat = "100s"\nlasts = "50s"')
    assert attempts_world_s(schedule_of(of), 400) == [0, 100, 150]


def test_a_fault_elsewhere_concerns_no_pair() -> None:
    """A third node sleeps: no pair has it."""
    third = TWO_NODES + '[[node]]\nname = "north"\nidentities = ["default/other"]\n'
    of = plan(
        '[[fault]]\nkind = "suspend"\nat = "100s"\nlasts = "50s"\nnode = "north"', nodes=third
    )
    assert attempts_world_s(schedule_of(of), 500) == [0]


def test_a_started_ztunnel_is_tried() -> None:
    """And only by the pairs that it serves."""
    schedule = schedule_of(plan())
    schedule.ztunnel_started((SERVER,), 100 * NS_PER_S)
    schedule.ztunnel_started(("default/stranger",), 200 * NS_PER_S)
    assert attempts_world_s(schedule, 400) == [0, 100]


def test_a_pair_due_twice_at_one_time_is_tried_once() -> None:
    """A regular and another attempt at the same time are one connection."""
    schedule = schedule_of(plan())
    schedule.ztunnel_started((CLIENT, SERVER), 600 * NS_PER_S)
    schedule.ztunnel_started((SERVER,), 600 * NS_PER_S)
    assert schedule.take(600 * NS_PER_S) == [PAIR]
    assert schedule.take(600 * NS_PER_S) == []


def test_a_certificate_that_a_step_back_makes_invalid_is_tried_when_it_is_valid_again() -> None:
    """Issued at 100 s and dated back by 120 s; the step at 105 s sets the peer's clock back by 300
    s."""
    of = plan('[[fault]]\nkind = "step"\nat = "105s"\nby = "-300s"\n')
    schedule = schedule_of(of)
    issue(schedule, of, "1", at_s=100, valid_s=HOUR_S)
    assert 105 in attempts_world_s(schedule_of(of), 110)
    assert 280 in attempts_world_s(schedule, 300)


def test_a_certificate_that_expired_is_tried_again_after_a_step_back_too() -> None:
    """Forward by two hours it is expired; back by two hours it is good, until it expires once more."""
    steps = "".join(
        f'[[fault]]\nkind = "step"\nat = "{at}"\nby = "{by}"\n'
        for at, by in (("10m", "2h"), ("20m", "-2h"))
    )
    of = plan(steps)
    schedule = schedule_of(of)
    issue(schedule, of, "1", at_s=100, valid_s=HOUR_S)
    tried = attempts_world_s(schedule, 2 * HOUR_S)
    assert {600, 1_200, 100 + HOUR_S + 1} <= set(tried)


def test_the_end_of_the_time_to_recover_is_tried() -> None:
    """Five minutes after a fault an outage is excused no longer; with an attempt an hour no check
    would know."""
    of = plan('[[fault]]\nkind = "step"\nat = "10s"\nby = "1h"\n')
    assert 311 in attempts_world_s(schedule_of(of), 400)


def test_a_certificate_that_was_lost_is_tried_at_once() -> None:
    """Releases before 1.28 drop a good certificate when a renewal fails."""
    schedule = schedule_of(plan())
    schedule.certificate_lost(SERVER, 50 * NS_PER_S)
    assert attempts_world_s(schedule, 600) == [0, 50]
