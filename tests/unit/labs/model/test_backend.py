"""Whole runs of the model against the formulas, and against what real binaries did."""

from __future__ import annotations

from itertools import pairwise

import pytest
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.labs.limits import CSR_FLOOD_MAX

from tests.support.plans import (
    CLIENT,
    NIGHTS,
    ONE_NODE,
    SERVER,
    TWO_NODES,
    failed_world_s,
    issued_world_s,
    plan,
    run,
)

HOUR_S = 3_600
PAUSE = '[[fault]]\nkind = "pause"\nat = "10m"\nlasts = "17m"\ncorrected_after = "25s"\n'
CA_AWAY_AT_RENEWAL = '[[fault]]\nkind = "ca_outage"\nat = "11h57m"\nlasts = "36m"\n'


def freeze(at: str, lasts: str) -> str:
    return f'[[fault]]\nkind = "freeze"\nat = "{at}"\nlasts = "{lasts}"\n'


def step(by: str, at: str = "1h") -> str:
    return f'[[fault]]\nkind = "step"\nat = "{at}"\nby = "{by}"\n'


def at_world_s(history: History, world_s: float) -> list[Event]:
    return [event for event in history if event.world_ns == world_s * NS_PER_S]


# Time


def test_without_faults_certificates_are_renewed_every_half_life() -> None:
    """(L - B) / 2: 11 h 59 min, and no connection fails."""
    history = run(plan(duration="2d"))
    assert issued_world_s(history) == [0, 43_140, 86_280, 129_420, 172_560]
    assert failed_world_s(history) == []


def test_one_pause_makes_every_later_renewal_late_by_its_length() -> None:
    """The report of ztunnel#1481: L = 10 min, 17 min of pause; from then on cycles of 1260 s
    instead of 240."""
    history = run(plan(PAUSE, lifetime="10m", duration="3h"))
    issued = issued_world_s(history)
    assert issued[:3] == [0, 240, 480]
    # Due at 720 s on a clock that did not move for 1020 s; there the first certificate planned on
    # the parted clocks begins.
    assert issued[3:8] == [1_740 + 1_260 * cycle for cycle in range(5)]


def test_one_pause_leaves_eleven_of_every_21_minutes_without_a_valid_certificate() -> None:
    """In each later cycle of 1260 s: good for 600 s after the issue, then an outage of 660 s."""
    history = run(plan(PAUSE, lifetime="10m", duration="3h"))
    failed = failed_world_s(history)
    for issued_s in issued_world_s(history)[3:7]:
        inside = [world_s - issued_s for world_s in failed if issued_s < world_s < issued_s + 1_260]
        assert inside and min(inside) == 601 and max(inside) < 1_260
        attempted = {
            event.world_ns / 1e9: event["ok"] for event in history.of("connection_attempted")
        }
        assert attempted[issued_s] and attempted[issued_s + 1_260]
    certificates = history.of("csr_answered", identity=SERVER)[3:]
    gaps_s = {
        two["not_before_wall_s"] + 120 - one["not_after_wall_s"]
        for one, two in pairwise(certificates)
    }
    assert gaps_s == {660}


def test_nights_of_eight_hours_renew_when_the_real_binary_did() -> None:
    """Measured on ztunnel 1.31.0-rc.0, to the millisecond: four runs of four."""
    history = run(plan(NIGHTS, duration="5d"))
    expected = [0, 43_140, 115_080, 215_820, 374_160]
    assert issued_world_s(history, SERVER) == issued_world_s(history, CLIENT) == expected


def test_nights_of_eight_hours_break_on_the_third_day() -> None:
    """After two nights the clock drift is 16 h, more than (L + B) / 2 = 12 h 01 min; the first two
    days show nothing."""
    history = run(plan(NIGHTS, duration="5d"))
    first = history.of("connection_attempted", ok=False)[0]
    assert first.world_ns == (115_080 + 86_400 + 1) * NS_PER_S
    assert 2 <= first.world_ns / 1e9 / 86_400 < 3
    assert first["error"] == "server certificate expired 1 s ago"


def test_a_frozen_process_renews_when_it_thaws_and_is_on_time_ever_after() -> None:
    """docker pause is the trap: nothing is late, since every clock went on."""
    history = run(plan(freeze("11h", "5h"), duration="3d"))
    assert issued_world_s(history) == [
        0,
        16 * HOUR_S,
        16 * HOUR_S + 43_140,
        16 * HOUR_S + 2 * 43_140,
        16 * HOUR_S + 3 * 43_140,
        16 * HOUR_S + 4 * 43_140,
    ]


def test_a_step_forward_does_what_a_suspend_does() -> None:
    """ztunnel cannot distinguish them: wall ahead of monotonic by 13 h."""
    stepped = run(plan(step("13h"), duration="3d"))
    assert issued_world_s(stepped) == [
        0,
        43_140,
        43_140 * 2 + 13 * HOUR_S,
        43_140 * 3 + 26 * HOUR_S,
    ]


def test_a_step_back_by_more_than_half_a_life_floods_the_authority_and_is_stopped() -> None:
    """Each new certificate is due in the past: without a bound world time would never move
    again."""
    history = run(plan(step("-13h"), duration="1d"))
    ended = history.events[-1]
    assert (ended.kind, ended["reason"], ended.world_ns) == (
        "run_ended",
        "csr_flood",
        43_140 * NS_PER_S,
    )
    assert (
        len([event for event in at_world_s(history, 43_140) if event.kind == "csr_answered"])
        == CSR_FLOOD_MAX + 1
    )


def test_a_step_back_by_less_only_makes_renewals_early() -> None:
    """11 h 58 min leave a minute between one renewal and the next."""
    history = run(plan(step("-11h58m"), duration="13h"))
    assert history.events[-1]["reason"] == "duration"
    assert issued_world_s(history)[1:4] == [43_140, 43_200, 43_260]


def test_a_step_of_one_node_alone_is_seen_by_its_peer() -> None:
    """The east's clock is two days ahead: it finds the west's certificates expired, and the west
    not the east's."""
    history = run(
        plan(
            step("2d") + 'node = "east"\n[authority]\nnode = "west"\n',
            nodes=TWO_NODES,
            duration="2h",
        )
    )
    errors = {event["error"] for event in history.of("connection_attempted", ok=False)}
    assert errors and all(error.startswith("server certificate expired") for error in errors)


# Order


def test_at_one_moment_faults_come_first_then_timers_then_connections() -> None:
    """A renewal that fell due in the freeze comes at its end, and the connection of that moment
    finds it done."""
    history = run(plan(freeze("11h50m", "20m"), duration="1d"))
    kinds = [event.kind for event in at_world_s(history, 12 * HOUR_S + 600)]
    assert kinds == [
        "fault_ended",
        *["csr_answered", "certificate_state"] * 2,
        "connection_attempted",
    ]


def test_a_restart_that_fell_into_a_freeze_comes_after_what_was_overdue() -> None:
    """A frozen process runs on the moment it is thawed, and asks; only then can anybody restart it.
    Seen on a real 1.31.0-rc.0 (timeline drawn from seed 71011)."""
    restart = '[[fault]]\nkind = "restart"\nat = "12h"\n'
    history = run(plan(freeze("11h50m", "20m") + restart, duration="1d"))
    kinds = [event.kind for event in at_world_s(history, 12 * HOUR_S + 600)]
    overdue = kinds.index("csr_answered")
    assert (
        kinds.index("fault_ended")
        < overdue
        < kinds.index("ztunnel_stopped")
        < kinds.index("ztunnel_started")
    )
    assert kinds.count("csr_answered") == 4, "two overdue renewals, two first requests"


def test_a_pause_is_recorded_in_three_events_with_the_clocks_of_its_node() -> None:
    """Began; woke, with the wall clock behind; ended, with the wall clock before and after the
    correction."""
    of = plan(PAUSE, duration="1h")
    began, woke, ended = run(of).of("fault_began", "node_woke", "fault_ended")
    assert [event.world_ns // NS_PER_S for event in (began, woke, ended)] == [600, 1_620, 1_645]
    assert woke.clocks == began.clocks
    assert (
        ended.clocks
        and began.clocks
        and ended["wall_before_ns"] == began.clocks.wall_ns + 25 * NS_PER_S
    )
    assert ended.clocks.since(began.clocks) == ClockReading(
        1_045 * NS_PER_S, 25 * NS_PER_S, 25 * NS_PER_S
    )


def test_two_steps_at_one_moment_are_each_measured_by_itself() -> None:
    """A pause corrected at its wake, and a step right then: neither is credited with the other's
    jump."""
    pause = '[[fault]]\nkind = "pause"\nat = "10m"\nlasts = "10m"\ncorrected_after = "0s"\n'
    history = run(plan(pause + step("1h", at="20m"), duration="1h"))
    jumps_s = [
        (event["fault_kind"], (event.clocks.wall_ns - event["wall_before_ns"]) // NS_PER_S)
        for event in history.of("fault_ended")
        if event.clocks
    ]
    assert jumps_s == [("pause", 600), ("step", 3_600)]
    pause_began, step_began = history.of("fault_began")
    assert step_began.clocks and pause_began.clocks
    assert step_began.clocks.wall_ns - pause_began.clocks.wall_ns == 600 * NS_PER_S


def test_a_fault_of_the_service_has_no_node_and_the_authority_s_clocks() -> None:
    """Its two events frame it."""
    began, ended = run(plan(CA_AWAY_AT_RENEWAL, duration="1d")).of("fault_began", "fault_ended")
    assert began.node is ended.node is None
    assert (
        began.clocks
        and ended.clocks
        and ended.clocks.wall_ns - began.clocks.wall_ns == 36 * 60 * NS_PER_S
    )


# Failing authorities


@pytest.mark.parametrize("behaviour_class", ["A1", "B", "C"])
def test_an_authority_away_at_renewal_is_an_outage_up_to_1_27(behaviour_class: str) -> None:
    """The certificates are dropped with 12 hours of life left, until a try succeeds."""
    history = run(plan(CA_AWAY_AT_RENEWAL, duration="1d", behaviour_class=behaviour_class))
    failed = history.of("connection_attempted", ok=False)
    assert failed and all(43_140 <= event.world_ns / 1e9 <= 45_180 + 182 for event in failed)
    assert failed[0]["error"].startswith(
        "client has no certificate: Unavailable: signing gRPC error"
    )


@pytest.mark.parametrize("behaviour_class", ["D", "E"])
def test_an_authority_away_at_renewal_causes_no_outage_from_1_28_on(behaviour_class: str) -> None:
    """The certificates are kept, and renewed when it is back."""
    history = run(plan(CA_AWAY_AT_RENEWAL, duration="1d", behaviour_class=behaviour_class))
    assert failed_world_s(history) == []
    assert {event["state"] for event in history.of("certificate_state")} == {"Available"}
    assert 45_180 <= issued_world_s(history)[1] <= 45_180 + 180


def test_a_connection_does_not_bring_back_a_dropped_certificate() -> None:
    """State Unavailable is left by the next try only: requests come by the minute, connections or
    not."""
    away = '[[fault]]\nkind = "ca_outage"\nat = "11h57m"\nlasts = "10m"\n'
    history = run(plan(away, duration="13h", behaviour_class="A1"))
    requested = [event.world_ns / 1e9 for event in history.of("csr_answered", identity=CLIENT)]
    assert requested == [0, *(43_140 + 60 * number for number in range(9))]


def test_what_hangs_is_never_requested_again_until_a_restart() -> None:
    """No deadline: the requests of that one moment are lost for good, long after the authority is
    well."""
    hang = '[[fault]]\nkind = "ca_hang"\nat = "11h"\nlasts = "2h"\n'
    restart = '[[fault]]\nkind = "restart"\nat = "30h"\n'
    history = run(plan(hang + restart, duration="2d"))
    assert issued_world_s(history) == [0, 30 * HOUR_S, 30 * HOUR_S + 43_140]
    failed = failed_world_s(history)
    assert min(failed) == 86_401 and max(failed) < 30 * HOUR_S


def test_eight_hung_requests_stop_the_renewals_of_all_identities_of_the_node() -> None:
    """The ninth, whose turn comes when the authority is well again, is never sent."""
    names = ", ".join(f'"default/{number}"' for number in range(7))
    node = ONE_NODE.replace('"default/client"', f'{names}, "default/client"')
    hang = '[[fault]]\nkind = "ca_hang"\nat = "11h"\nlasts = "2h"\n'
    history = run(plan(hang, nodes=node, duration="2d"))
    assert [event["identity"] for event in history.of("csr_answered", outcome="hung")][-1] == CLIENT
    assert [event.world_ns / 1e9 for event in history.of("csr_answered", identity=SERVER)] == [0]


SLOW = '[[fault]]\nkind = "ca_slow"\nat = "11h"\nlasts = "{}"\nanswers_after = "{}"\n'


def test_each_renewal_is_late_by_the_delay_of_a_slow_answer() -> None:
    """Dated when answered: half a life from there to the next, which is requested on time and late
    again."""
    history = run(plan(SLOW.format("2d", "20m"), duration="2d"))
    assert issued_world_s(history, CLIENT) == [
        0,
        43_140 + 1_200,
        2 * (43_140 + 1_200),
        3 * (43_140 + 1_200),
    ]
    taken = [event.world_ns / 1e9 for event in history.of("csr_taken", identity=CLIENT)]
    assert taken == [at - 1_200 for at in issued_world_s(history, CLIENT)[1:]]


def test_eight_slow_requests_hold_back_the_ninth() -> None:
    """It is requested when the first of the eight is answered, and answered at once if the fault is
    over by then."""
    names = ", ".join(f'"default/{number}"' for number in range(7))
    node = ONE_NODE.replace('"default/client"', f'{names}, "default/client"')
    for lasts, answered_s in (("1d", 43_140 + 1_200), ("1h", 43_140 + 600)):
        history = run(plan(SLOW.format(lasts, "10m"), nodes=node, duration="1d"))
        others = {
            event.world_ns for event in history.of("csr_taken") if event["identity"] != SERVER
        }
        assert others == {43_140 * 10**9}
        assert issued_world_s(history, CLIENT)[1] == 43_140 + 600
        assert issued_world_s(history, SERVER)[1] == answered_s


def test_a_restart_and_a_new_root_lose_what_is_under_way() -> None:
    """A ztunnel that restarts requests again; one whose connection was closed retries within
    seconds."""
    restart = '[[fault]]\nkind = "restart"\nat = "12h"\n'
    history = run(plan(SLOW.format("1h10m", "1h") + restart, duration="1d"))
    assert issued_world_s(history, CLIENT)[:2] == [0, 13 * HOUR_S]
    changed = '[[fault]]\nkind = "ca_root_change"\nat = "12h15m"\n'
    history = run(plan(SLOW.format("1h10m", "1h") + changed, duration="1d"))
    assert 12.25 * HOUR_S < issued_world_s(history, CLIENT)[1] < 12.25 * HOUR_S + 2


def test_an_answer_to_a_node_asleep_is_taken_in_when_it_wakes() -> None:
    """Issued in the night, and served from the morning on."""
    night = (
        '[[fault]]\nkind = "suspend"\nnode = "east"\nat = "12h"\nlasts = '
        '"4h"\n[authority]\nnode = "apart"\n'
    )
    history = run(plan(SLOW.format("1d", "1h") + night, nodes=TWO_NODES, duration="1d"))
    assert issued_world_s(history, CLIENT)[1] == 43_140 + HOUR_S
    states = [event.world_ns / 1e9 for event in history.of("certificate_state", identity=CLIENT)]
    assert states[1] == 16 * HOUR_S


def test_a_request_without_an_answer_leaves_it_initializing() -> None:
    """Recorded once; a certificate that comes at once leaves no such state behind."""
    hang = '[[fault]]\nkind = "ca_hang"\nat = "0s"\nlasts = "1h"\n'
    states = [event["state"] for event in run(plan(hang, duration="2h")).of("certificate_state")]
    assert states == ["Initializing", "Initializing"]
    assert {event["state"] for event in run(plan(duration="2h")).of("certificate_state")} == {
        "Available"
    }


def test_an_authority_that_sleeps_refuses_who_is_awake() -> None:
    """The east's renewal falls into the night of the west, where the authority lives; it comes with
    the morning."""
    night = (
        '[authority]\nnode = "west"\n[[fault]]\nkind = "suspend"\nnode = "west"\nat = '
        '"11h"\nlasts = "4h"\n'
    )
    history = run(plan(night, nodes=TWO_NODES, duration="1d"))
    refused = history.of("csr_answered", identity=CLIENT, outcome="refused")
    assert refused and all(11 * HOUR_S <= event.world_ns / 1e9 < 15 * HOUR_S for event in refused)
    assert 15 * HOUR_S <= issued_world_s(history, CLIENT)[1] <= 15 * HOUR_S + 180


# Restarts


def test_a_restart_forgets_the_time_slept() -> None:
    """A new time base: the next renewal is half a life away again."""
    restart = '[[fault]]\nkind = "restart"\nat = "48h"\n'
    history = run(plan(NIGHTS + restart, duration="60h"))
    assert issued_world_s(history) == [0, 43_140, 115_080, 48 * HOUR_S, 48 * HOUR_S + 43_140]


def test_another_pod_gets_a_fresh_certificate_from_a_ztunnel_that_keeps_its_time_base() -> None:
    """At its moment; the sixteen hours slept before it stay in every renewal after it, and no old
    timer fires."""
    in_pod = '[ztunnel]\nmode = "in-pod"\nworkloads = "discovery"\n'
    other_pod = f'[[fault]]\nkind = "pod_restart"\nidentity = "{SERVER}"\nat = "50h"\n'
    history = run(plan(in_pod + NIGHTS + other_pod, duration="4d"))
    late_s = (
        50 * HOUR_S + 43_140 + 24 * HOUR_S
    )  # sixteen hours slept before, and one night of eight on the way
    assert issued_world_s(history) == [0, 43_140, 115_080, 50 * HOUR_S, late_s]
    assert [event["identity"] for event in history.of("pod_replaced")] == [SERVER]
    assert len(history.of("ztunnel_started")) == 1


def test_a_restart_is_recorded_as_a_fault_with_an_end_and_a_start_of_the_process() -> None:
    """In this order, at one moment; then it fetches its certificates."""
    history = run(plan('[[fault]]\nkind = "restart"\nat = "5h"\n', duration="6h"))
    events = [
        event for event in at_world_s(history, 5 * HOUR_S) if event.kind != "connection_attempted"
    ]
    assert [event.kind for event in events[:5]] == [
        "fault_began", "ztunnel_stopped", "ztunnel_started", "fault_ended", "csr_answered"
    ]  # fmt: skip
    assert {event["cause"] for event in history.of("ztunnel_stopped")} == {"restart"}
    assert [event["cause"] for event in history.of("ztunnel_started")] == ["start", "restart"]


def test_a_restart_of_a_sleeping_node_happens_when_it_wakes() -> None:
    """A process that cannot run cannot be restarted."""
    history = run(plan(NIGHTS + '[[fault]]\nkind = "restart"\nat = "20h"\n', duration="1d"))
    assert [event.world_ns / 1e9 for event in history.of("ztunnel_stopped")] == [23 * HOUR_S]
    began = history.of("fault_began", fault_kind="restart")
    assert [event.world_ns / 1e9 for event in began] == [23 * HOUR_S]


def test_timers_of_an_ended_process_do_nothing() -> None:
    """Else every restart would add a second series of renewals to the first."""
    history = run(plan('[[fault]]\nkind = "restart"\nat = "1h"\nevery = "1h"\n', duration="30h"))
    assert issued_world_s(history) == [hour * HOUR_S for hour in range(30)]


# The frame


def test_the_world_starts_with_every_ztunnel_before_the_first_fault() -> None:
    """An authority that is unavailable from the beginning refuses the very first requests."""
    away = '[[fault]]\nkind = "ca_outage"\nat = "0s"\nlasts = "1h"\n'
    history = run(plan(away, duration="3d"))
    assert [event.kind for event in history][:2] == ["run_started", "ztunnel_started"]
    assert history.of("csr_answered")[0]["outcome"] == "refused"


def test_a_run_begins_and_ends_as_promised() -> None:
    """run_started says what was tested; run_ended lies at the end of the plan, and nothing at or
    after it."""
    history = run(plan(duration="1d", behaviour_class="C"))
    first, last = history.events[0], history.events[-1]
    assert first.data == {
        "format": 1, "lab": "model", "version": "1.31.0", "subject": {"kind": "model", "behaviour_class": "C"}
    }  # fmt: skip
    assert (last.kind, last["reason"], last.world_ns) == (
        "run_ended",
        "duration",
        86_400 * NS_PER_S,
    )
    assert history.events[-2].world_ns < last.world_ns


def test_class_a0_gets_certificates_of_a_day_whatever_the_scenario_says() -> None:
    """SECRET_TTL did not exist; the scenario's ten minutes are never requested."""
    history = run(plan(lifetime="10m", duration="23h", behaviour_class="A0"))
    assert issued_world_s(history) == [0, 43_140]


@pytest.mark.parametrize(("behaviour_class", "renews"), [("C", False), ("D", False), ("E", True)])
def test_a_new_root_of_the_authority(behaviour_class: str, renews: bool) -> None:
    """All but E trust the root of their own start: they renew no more, until they restart."""
    change = '[[fault]]\nkind = "ca_root_change"\nat = "1h"\n'
    issued = issued_world_s(run(plan(change, duration="1d", behaviour_class=behaviour_class)))
    assert issued == ([0, 43_140, 86_280] if renews else [0])
    restart = change + '[[fault]]\nkind = "restart"\nat = "2h"\n'
    again = issued_world_s(run(plan(restart, duration="1d", behaviour_class=behaviour_class)))
    assert again == [0, 7_200, 50_340]
