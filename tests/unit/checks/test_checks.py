"""Every check has a history that it breaks on, one on which it holds, and one that it cannot judge,
where there is such."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, get_args

import pytest
from meshwake.checks import ASSUMPTIONS, CHECKS, TITLES, judge
from meshwake.core.history import History
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan
from meshwake.core.scenario import CheckName

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

HOLDS, BROKEN, UNKNOWN = Verdict.HOLDS, Verdict.BROKEN, Verdict.UNKNOWN
SUSPEND = fault("suspend", "15h", lasts="8h")
NIGHTS = fault("suspend", "15h", lasts="8h", every="24h")


def found(name: str, world: World, killed_at: str | None = None) -> Finding:
    """What the check `name` says of the history of `world`, assumptions left aside."""
    return (CHECKS | ASSUMPTIONS)[name](world.plan, world.history(killed_at))


def a_day(faults: list[dict[str, Any]] | None = None, duration: str = "1d") -> World:
    """A world whose ztunnels run and were given certificates at the start."""
    world = World(plan(faults, duration=duration)).start()
    world.issue(CLIENT, "0s")
    world.issue(SERVER, "0s")
    return world


def test_every_check_is_the_module_of_its_name() -> None:
    """What a scenario may expect is what is judged, and a finding names its check."""
    assert tuple(CHECKS) == get_args(CheckName)
    for name, check in (CHECKS | ASSUMPTIONS).items():
        assert check(a_day().plan, a_day().history()).check == name


def test_every_check_says_in_a_sentence_what_it_claims() -> None:
    """Pages show it to people who do not know the names."""
    assert list(TITLES) == [*ASSUMPTIONS, *CHECKS]
    for name, title in TITLES.items():
        assert title[0].isupper() and " " in title and "_" not in title, name


# --- The assumptions


def test_a_run_without_clock_faults_assumes_none() -> None:
    """Nothing was to happen to the clocks, and nothing had to."""
    assert found("clock_fault_happened", a_day()).verdict is HOLDS


EVERY_KIND = [
    SUSPEND,
    fault("pause", "1h", lasts="17m", corrected_after="25s"),
    fault("step", "1h", by="-13h"),
    fault("step", "1h", by="13h"),
    fault("drift", "1h", lasts="10h", rate=(41, 40)),
    fault("drift", "1h", lasts="30h", rate=(41, 40)),
    fault("freeze", "1h", lasts="17m"),
]


@pytest.mark.parametrize("one", EVERY_KIND, ids=lambda one: str(one["kind"]))
def test_a_clock_fault_that_happened(one: dict[str, Any]) -> None:
    """Each kind of fault is known by what it does to the three clocks."""
    assert found("clock_fault_happened", a_day([one])).verdict is HOLDS


@pytest.mark.parametrize("one", EVERY_KIND, ids=lambda one: str(one["kind"]))
def test_a_clock_fault_that_never_began(one: dict[str, Any]) -> None:
    """A fault that was planned and left no trace did not happen."""
    world = World(plan([one], duration="1d"), faults_happen=False).start()
    finding = found("clock_fault_happened", world)
    assert finding.verdict is BROKEN
    assert "was planned and never began" in finding.because


@pytest.mark.parametrize(
    ("planned", "instead"),
    [
        # The trap: a container is frozen and its clocks run on.
        (SUSPEND, fault("freeze", "15h", lasts="8h")),
        (SUSPEND, fault("pause", "15h", lasts="8h", corrected_after="0s")),
        (fault("pause", "1h", lasts="17m"), fault("suspend", "1h", lasts="17m")),
        (fault("pause", "1h", lasts="17m"), fault("freeze", "1h", lasts="17m")),
        (fault("step", "1h", by="13h"), fault("step", "1h", by="12h")),
        (fault("step", "1h", by="2s"), fault("step", "1h", by="500ms")),
        (fault("drift", "1h", lasts="10h", rate=(41, 40)), fault("freeze", "1h", lasts="10h")),
        (fault("drift", "1h", lasts="30h", rate=(41, 40)), fault("freeze", "1h", lasts="30h")),
        (fault("freeze", "1h", lasts="17m"), fault("suspend", "1h", lasts="17m")),
        (fault("freeze", "1h", lasts="17m"), fault("freeze", "1h", lasts="1m")),
    ],
    ids=lambda one: str(one["kind"]),
)
def test_another_fault_than_planned(planned: dict[str, Any], instead: dict[str, Any]) -> None:
    """A fault whose clocks moved otherwise than its kind does not count as that fault."""
    world = a_day([instead])
    world.attempt("23h59m")
    finding = ASSUMPTIONS["clock_fault_happened"](plan([planned], duration="1d"), world.history())
    assert finding.verdict is BROKEN


@pytest.mark.parametrize(
    ("planned", "measured"), [("13h", "12h53m"), ("2s", "2500ms"), ("-13h", "-13h7m")]
)
def test_a_clock_is_read_a_moment_later(planned: str, measured: str) -> None:
    """Off by up to one in a hundred, or by a second, is still the fault that was planned."""
    history = a_day([fault("step", "1h", by=measured)]).history()
    finding = ASSUMPTIONS["clock_fault_happened"](
        plan([fault("step", "1h", by=planned)], duration="1d"), history
    )
    assert finding.verdict is HOLDS


@pytest.mark.parametrize(("seen", "verdict"), [("243s", HOLDS), ("257s", BROKEN), ("236s", BROKEN)])
def test_a_freeze_is_seen_to_end_a_moment_later(seen: str, verdict: Verdict) -> None:
    """As a cluster's is, by exec into its nodes; one that was much longer, or shorter at all, was
    another."""
    history = a_day([fault("freeze", "1h", lasts=seen)]).history()
    planned = plan([fault("freeze", "1h", lasts="4m")], duration="1d")
    assert ASSUMPTIONS["clock_fault_happened"](planned, history).verdict is verdict


def test_a_drift_with_other_faults_in_it() -> None:
    """While a machine sleeps its wall clock does not drift, and what it slept comes on top."""
    some = [
        fault("drift", "1h", lasts="20h", rate=(41, 40)),
        fault("suspend", "2h", lasts="8h"),
        fault("step", "12h", by="-3h"),
    ]
    assert found("clock_fault_happened", a_day(some)).verdict is HOLDS
    assert (
        found("clock_fault_happened", a_day([some[0] | {"lasts": "40h"}, *some[1:]])).verdict
        is HOLDS
    )


def test_a_fault_that_never_ended_did_not_happen() -> None:
    """Its end was due, and was not seen."""
    world = World(plan([SUSPEND], duration="2d"), faults_happen=False).start()
    world.add(ns("15h"), "fault_began", LAPTOP, fault=0, fault_kind="suspend")
    assert "never ended" in found("clock_fault_happened", world).because


def test_a_run_stopped_early_owes_no_later_fault() -> None:
    """A storm of requests ended the run; what was planned for afterwards is not missed."""
    world = World(
        plan([fault("step", "1h", by="-13h"), SUSPEND], duration="1d"), faults_happen=True
    )
    world.end("12h", reason="csr_flood")
    assert found("clock_fault_happened", world).verdict is HOLDS


def test_every_identity_needs_a_certificate() -> None:
    """One workload without any is enough to judge nothing; ztunnel's own word counts as well as the
    authority's."""
    world = World(plan(duration="1d")).start()
    world.issue(CLIENT, "0s")
    finding = found("certificates_were_issued", world)
    assert (finding.verdict, finding.because) == (BROKEN, f"{SERVER} never got a certificate")
    world.show(SERVER, "1m", STARTS_WALL_S + 60)
    assert found("certificates_were_issued", world).verdict is HOLDS


def test_a_refusal_is_not_a_certificate() -> None:
    """An authority that answered everybody with no issued nothing."""
    world = World(plan(duration="1d")).start()
    for identity in (CLIENT, SERVER):
        world.answer(identity, "0s")
    assert found("certificates_were_issued", world).verdict is BROKEN


def test_every_pair_must_have_tried() -> None:
    """A pair that never called cannot have noticed anything."""
    world = World(plan(duration="1d", pairs=((CLIENT, SERVER), (SERVER, CLIENT))))
    world.attempt("1h")
    assert found("traffic_was_attempted", world).verdict is BROKEN
    world.attempt("2h", pair=(SERVER, CLIENT))
    assert found("traffic_was_attempted", world).verdict is HOLDS


# --- no_expired_certificate_served

EXPIRED = "no_expired_certificate_served"


def test_an_expired_certificate_is_seen() -> None:
    """From the moment of its notAfter until the next one, with the clock drift where the machine
    slept."""
    world = a_day([SUSPEND], duration="2d")
    for identity in (CLIENT, SERVER):
        world.issue(identity, "28h")
    finding = found(EXPIRED, world)
    assert finding.verdict is BROKEN
    assert finding.because.startswith(
        f"{CLIENT} served an expired certificate for 4 h, first at day 1 00:00 (clock drift 8 h); 2 "
        "certificates"
    )
    assert finding.evidence[0].data | {"serial": ""} == {
        "identity": CLIENT,
        "serial": "",
        "from_world_s": 86_400.0,
        "to_world_s": 100_800.0,
        "expired_s": 14_400.0,
    }


@pytest.mark.parametrize(
    ("after", "verdict"), [("24h", HOLDS), ("24h999ms", HOLDS), ("24h1s", BROKEN)]
)
def test_strictly_not_for_a_second(after: str, verdict: Verdict) -> None:
    """A certificate replaced at its notAfter is fine; a second later is not."""
    world = a_day(duration="2d")
    for identity in (CLIENT, SERVER):
        world.issue(identity, after)
        world.issue(identity, "40h")
    assert found(EXPIRED, world).verdict is verdict


def test_expired_in_its_sleep_does_no_harm() -> None:
    """A certificate that ran out in the night and was replaced at the wake was never served."""
    world = a_day([fault("suspend", "20h", lasts="8h")], duration="2d")
    for identity in (CLIENT, SERVER):
        world.issue(identity, "28h")
    assert found(EXPIRED, world).verdict is HOLDS


@pytest.mark.parametrize("how", ["dropped", "stopped"])
def test_a_dropped_certificate_is_not_served(how: str) -> None:
    """A ztunnel without a certificate serves no expired one, and a ztunnel that does not run serves
    none either."""
    world = a_day(duration="2d")
    for identity in (CLIENT, SERVER):
        if how == "dropped":
            world.state(identity, "20h", "Unavailable: signing gRPC error")
        else:
            world.add(ns("20h"), "ztunnel_stopped", LAPTOP, process=identity, cause="killed")
    assert found(EXPIRED, world).verdict is HOLDS


def test_the_wall_clock_of_the_holder_decides() -> None:
    """On a node whose clock was set an hour ahead a certificate is past its notAfter an hour before
    the end."""
    assert found(EXPIRED, a_day([fault("step", "1h", by="1h")])).verdict is BROKEN
    assert found(EXPIRED, a_day([fault("step", "1h", by="-1h")], duration="25h")).verdict is HOLDS


def test_a_step_back_makes_it_valid_again() -> None:
    """Only the time counts during which the node's own clock was past notAfter."""
    world = a_day([fault("step", "1h", by="24h"), fault("step", "2h", by="-24h")])
    finding = found(EXPIRED, world)
    assert [place.data["expired_s"] for place in finding.evidence] == [3600.0, 3600.0]


def test_what_ztunnel_itself_shows_is_believed() -> None:
    """Available with a notAfter that is past: ztunnel says it serves what is expired."""
    world = a_day()
    world.show(SERVER, "2h", STARTS_WALL_S + 3600)
    (place,) = found(EXPIRED, world).evidence
    assert (place.data["serial"], place.data["from_world_s"]) == ("ffff", 7200.0)


def test_where_none_was_held_nothing_is_known() -> None:
    """No certificate, no verdict."""
    assert found(EXPIRED, World(plan()).start()).verdict is UNKNOWN


# --- renewals_on_time

ON_TIME = "renewals_on_time"


@pytest.mark.parametrize(
    ("renewed", "verdict"),
    [
        ("11h57m", BROKEN),
        ("11h58m", HOLDS),
        ("11h59m", HOLDS),
        ("12h", HOLDS),
        ("12h1s", BROKEN),
        ("23h", BROKEN),
    ],
)
def test_a_minute_early_or_late(renewed: str, verdict: Verdict) -> None:
    """Due is 11 h 59 m after the issue of a 24 h certificate dated back by 2 m."""
    world = a_day(duration="23h30m")
    for identity in (CLIENT, SERVER):
        world.issue(identity, renewed)
    assert found(ON_TIME, world).verdict is verdict


def test_what_fell_due_in_the_night_is_due_at_the_wake() -> None:
    """Sleep is not lateness; a minute after the wake it begins to be."""
    for renewed, verdict in (("20h1m", HOLDS), ("20h1m1s", BROKEN)):
        world = a_day([fault("suspend", "11h", lasts="9h")])
        for identity in (CLIENT, SERVER):
            world.issue(identity, renewed)
        assert found(ON_TIME, world).verdict is verdict


def test_a_late_renewal_says_how_late_and_why() -> None:
    """The sentence has the identity, the awake time, the moment and the clock drift."""
    world = a_day([fault("suspend", "1h", lasts="8h")])
    for identity in (CLIENT, SERVER):
        world.issue(identity, "19h59m")
    finding = found(ON_TIME, world)
    assert finding.because == (
        f"{CLIENT} renewed its certificate 8 h late (awake time), at day 0 19:59 (clock drift 8 h); "
        "2 of 2 renewals late, by up to 8 h"
    )
    assert finding.evidence[0].data["late_s"] == 28_800.0


@pytest.mark.parametrize(
    ("client", "server", "words"),
    [
        ("11h", "11h30m", "2 of 2 renewals early, by up to 59 m"),
        ("11h", "11h59m", "1 of 2 renewals early, by up to 59 m"),
        ("11h", "13h59m", "1 of 2 renewals late, by up to 2 h; 1 early, by up to 59 m"),
    ],
)
def test_how_many_renewals_are_early_and_late(client: str, server: str, words: str) -> None:
    """Each with the worst of them."""
    world = a_day(duration="14h")
    world.issue(CLIENT, client)
    world.issue(SERVER, server)
    assert found(ON_TIME, world).because.endswith(f"; {words}")


def test_a_renewal_that_never_came_is_late() -> None:
    """Missing at the end, unless it was not yet a minute overdue."""
    assert (
        "never renewed its certificate of day 0 00:00, 12 h 1 m overdue"
        in found(ON_TIME, a_day()).because
    )
    assert found(ON_TIME, a_day(duration="11h59m30s")).verdict is HOLDS


def test_a_restart_ends_the_wait() -> None:
    """A renewal that a restart made needless was overdue until then, and no longer."""
    world = a_day().start("13h", cause="weekly-restart")
    assert "12 h 1 m overdue" not in found(ON_TIME, world).because
    assert "1 h 1 m overdue" in found(ON_TIME, world).because


def test_a_renewal_by_the_wrong_clock_is_early() -> None:
    """After a step back the timer of the monotonic clock fires long before the wall clock says
    so."""
    world = a_day([fault("step", "1h", by="-13h")])
    for identity in (CLIENT, SERVER):
        world.issue(identity, "11h59m")
    assert "13 h early" in found(ON_TIME, world).because


def test_nothing_due_is_nothing_shown() -> None:
    """A run shorter than half a certificate's life says nothing of renewals."""
    assert found(ON_TIME, a_day(duration="11h")).verdict is UNKNOWN


# --- traffic_flows

FLOWS = "traffic_flows"


def test_one_failed_attempt_is_enough() -> None:
    """Every connection has to work; the evidence is the outage, with its error."""
    world = a_day().attempts(good=("1h", "3h"), bad=("2h", "2h10m"))
    finding = found(FLOWS, world)
    assert finding.verdict is BROKEN
    assert finding.because == (
        f"{CLIENT} could not reach {SERVER} for 1 h, first at day 0 02:00 (tls handshake "
        "error: CertificateExpired); "
        "2 of 4 attempts failed"
    )
    assert finding.evidence[0].data["attempts"] == 2


def test_all_attempts_good() -> None:
    """Nothing failed, and the finding says of how many."""
    finding = found(FLOWS, a_day().attempts(good=("1h", "3h")))
    assert (finding.verdict, finding.because) == (HOLDS, "none of 2 attempts failed")


def test_without_attempts_traffic_is_unknown() -> None:
    """No connection was attempted."""
    assert found(FLOWS, a_day()).verdict is UNKNOWN


# --- recovers_within

RECOVERS = "recovers_within"
CA_AWAY = fault("ca_outage", "10h", node=None, lasts="1h")


@pytest.mark.parametrize(
    ("faults", "bad", "verdict"),
    [
        ([CA_AWAY], (), HOLDS),
        ([CA_AWAY], ("10h30m",), HOLDS),
        ([CA_AWAY], ("11h5m",), HOLDS),
        ([CA_AWAY], ("11h5m1s",), BROKEN),
        ([CA_AWAY], ("9h59m",), BROKEN),
        ([], ("10h",), BROKEN),
        ([SUSPEND], ("23h4m",), HOLDS),
        ([SUSPEND], ("23h6m",), BROKEN),
        ([fault("pause", "15h", lasts="8h", corrected_after="25s")], ("23h10s", "23h5m25s"), HOLDS),
        ([CA_AWAY, fault("suspend", "11h4m", lasts="1h")], ("12h8m",), HOLDS),
        ([CA_AWAY, fault("drift", "1h", lasts="2h", rate=(41, 40))], ("2h30m",), HOLDS),
        # A longer fault that began earlier is not forgotten over a short one within it.
        (
            [fault("drift", "1h", lasts="8h", rate=(41, 40)), fault("step", "2h", by="5m")],
            ("8h",),
            HOLDS,
        ),
    ],
)
def test_recovery(faults: list[dict[str, Any]], bad: tuple[str, ...], verdict: Verdict) -> None:
    """A failure is forgiven within a fault and for five minutes after it, a nap being a fault
    too."""
    world = World(plan(faults, duration="1d")).start().attempts(good=("23h30m",), bad=bad)
    assert found(RECOVERS, world).verdict is verdict


def test_a_fault_elsewhere_does_not_excuse() -> None:
    """That another machine slept does not explain why these two could not talk."""
    houses = {LAPTOP: (CLIENT, SERVER), "other": ("default/other",)}
    for node, verdict in (("other", BROKEN), (LAPTOP, HOLDS)):
        world = World(
            plan([fault("suspend", "1h", node=node, lasts="1h")], duration="1d", nodes=houses)
        ).start()
        world.attempts(good=("5h",), bad=("2h1m",))
        assert found(RECOVERS, world).verdict is verdict


def test_a_fault_of_the_authority_is_an_excuse() -> None:
    """Where the authority's machine slept, workloads elsewhere may have suffered from it."""
    houses = {"hub": ("default/hub",), LAPTOP: (CLIENT, SERVER)}
    world = World(
        plan([fault("suspend", "1h", node="hub", lasts="1h")], duration="1d", nodes=houses)
    ).start()
    assert world.plan.authority_node == "hub"
    assert found(RECOVERS, world.attempts(good=("5h",), bad=("2h1m",))).verdict is HOLDS


def test_a_restart_elsewhere_does_not_excuse() -> None:
    """Only a restart of a ztunnel of the pair's own nodes explains it."""
    houses = {LAPTOP: (CLIENT, SERVER), "other": ("default/other",)}
    world = World(plan(duration="1d", nodes=houses)).start().attempts(good=("5h",), bad=("2h1m",))
    world.add(
        ns("2h"),
        "ztunnel_started",
        "other",
        process="new",
        identities=["default/other"],
        cause="restart",
    )
    assert found(RECOVERS, world).verdict is BROKEN


def test_a_restart_is_an_excuse_and_the_start_is_none() -> None:
    """A restarted ztunnel may take its five minutes; at the start of a run nothing was broken
    yet."""
    for at, verdict in (("1m", BROKEN), ("4h1m", HOLDS), ("4h6m", BROKEN)):
        world = World(plan(duration="1d")).start().start("4h", cause="weekly-restart")
        world.attempts(good=("5h",), bad=(at,))
        assert found(RECOVERS, world).verdict is verdict


@pytest.mark.parametrize(
    ("faults", "good", "bad"),
    [
        ([fault("ca_outage", "23h", node=None, lasts="2h")], (), ("23h30m",)),
        ([fault("ca_outage", "22h", node=None, lasts="1h58m")], (), ("23h30m", "23h59m")),
        ([fault("drift", "1h", lasts="2d", rate=(41, 40))], ("20h",), ("10h",)),
    ],
)
def test_a_run_that_ends_too_early_shows_no_recovery(
    faults: list[dict[str, Any]], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    """Failing within a fault that lasts to the end, or so shortly after it, may or may not
    recover."""
    world = World(plan(faults, duration="1d")).start().attempts(good=good, bad=bad)
    assert found(RECOVERS, world).verdict is UNKNOWN


# --- ca_not_flooded

FLOODED = "ca_not_flooded"


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (list(range(20)), HOLDS),
        (list(range(21)), BROKEN),
        ([3 * n for n in range(21)], BROKEN),
        ([61 * n for n in range(100)], HOLDS),
        # The retries of an unpatched ztunnel: 1, 2, 4 ... 128, then 150 for ever.
        ([0, 1, 3, 7, 15, 31, 63, 127, 255, 405, 555], HOLDS),
    ],
)
def test_more_than_twenty_a_minute(seconds: list[int], verdict: Verdict) -> None:
    """Twenty requests within a minute are a bad day; twenty-one are a flood, whatever the
    answers."""
    world = World(plan(duration="1d")).start()
    for second in seconds:
        world.answer(SERVER, f"{second}s")
    assert found(FLOODED, world).verdict is verdict


def test_identities_are_counted_apart() -> None:
    """Twelve workloads that renew at once are no flood."""
    world = World(plan(duration="1d")).start()
    for number in range(40):
        world.answer(f"default/app{number}", "1h")
    assert found(FLOODED, world).verdict is HOLDS


def test_a_run_stopped_for_its_flood_is_broken() -> None:
    """The lab counted them, whatever reached the history."""
    world = a_day().end("12h", reason="csr_flood")
    assert found(FLOODED, world).verdict is BROKEN


def test_without_requests_a_flood_is_unknown() -> None:
    """Where no requests were recorded none can be counted."""
    assert found(FLOODED, World(plan()).start()).verdict is UNKNOWN


# --- valid_certificate_kept

KEPT = "valid_certificate_kept"


def refused_at_noon(outcome: str = "refused") -> tuple[World, Any]:
    """A day on which the server's renewal is refused at 11 h 59 m."""
    world = a_day(duration="2d")
    held = world.issue(SERVER, "1s")
    world.state(SERVER, "2s", "Available", of=held)
    world.answer(SERVER, "11h59m", outcome)
    return world, held


@pytest.mark.parametrize("outcome", ["refused", "unauthenticated"])
def test_a_valid_certificate_thrown_away(outcome: str) -> None:
    """Up to 1.27: dropped with half its life left."""
    world, _ = refused_at_noon(outcome)
    world.state(SERVER, "11h59m", "Unavailable: signing gRPC error")
    finding = found(KEPT, world)
    assert finding.verdict is BROKEN
    assert finding.because == (
        f"{SERVER} dropped a certificate that was good for another 12 h 1 m at day 0 11:59, "
        "when its renewal was refused"
    )


@pytest.mark.parametrize(
    ("dropped", "verdict"), [("23h59m50s", BROKEN), ("24h500ms", HOLDS), ("30h", HOLDS)]
)
def test_kept_until_it_expired(dropped: str, verdict: Verdict) -> None:
    """From 1.28: kept while valid; dropping it once it has expired is right, before that it is
    not."""
    world, _ = refused_at_noon()
    world.state(SERVER, dropped, "Unavailable: signing gRPC error")
    assert found(KEPT, world).verdict is verdict


def test_kept_and_replaced() -> None:
    """A later retry brought the next one, and nothing was dropped between."""
    world, _ = refused_at_noon()
    world.issue(SERVER, "12h34m")
    assert found(KEPT, world).verdict is HOLDS


def test_a_refusal_of_the_expired_does_not_matter() -> None:
    """Unknown: no renewal was refused while a valid certificate was held."""
    world = a_day(duration="2d")
    world.answer(SERVER, "25h")
    assert found(KEPT, world).verdict is UNKNOWN
    assert found(KEPT, a_day()).verdict is UNKNOWN


def test_a_refusal_of_the_first_certificate_does_not_matter() -> None:
    """A restarted ztunnel holds nothing yet; what its predecessor held is gone with it."""
    world = a_day().start("6h", cause="restart")
    world.state(SERVER, "1m", "Available", of=world.issue(SERVER, "1s"))
    world.answer(SERVER, "7h")
    assert found(KEPT, world).verdict is UNKNOWN


def test_what_ztunnel_held_must_have_been_seen() -> None:
    """A history without a word of ztunnel's state cannot show that it kept anything."""
    world = a_day()
    world.answer(SERVER, "12h")
    assert found(KEPT, world).verdict is UNKNOWN


# --- alert_before_outage

ALERT = "alert_before_outage"


def alerting(bad: tuple[str, ...], fired: str | None) -> World:
    """A day with rules that were evaluated, outages from `bad` until an hour later, and perhaps an
    alert."""
    world = a_day().attempts(good=("1m", "12h"), bad=bad)
    world.add(0, "alerts_evaluated", None, rules=["CertificateOverdue"])
    if fired:
        world.add(ns(fired), "alert_fired", None, alert="CertificateOverdue")
    return world


@pytest.mark.parametrize(
    ("bad", "fired", "verdict"),
    [
        ((), None, HOLDS),
        (("11h55m",), None, HOLDS),
        (("11h54m",), None, BROKEN),
        (("11h54m",), "11h53m", HOLDS),
        (("11h54m",), "11h54m", BROKEN),
        (("11h54m",), "11h55m", BROKEN),
    ],
)
def test_an_alert_before_a_long_outage(
    bad: tuple[str, ...], fired: str | None, verdict: Verdict
) -> None:
    """An outage of more than five minutes needs an alert before it; a shorter one needs none."""
    assert found(ALERT, alerting(bad, fired)).verdict is verdict


@pytest.mark.parametrize(
    ("fired", "verdict"),
    [("47h59m", HOLDS), ("48h", HOLDS), ("48h4m", HOLDS), ("48h6m", BROKEN), (None, BROKEN)],
)
def test_an_outage_that_begins_with_the_wake_may_be_announced_then(
    fired: str | None, verdict: Verdict
) -> None:
    """No alert can come before it: within five awake minutes, before it has lasted so long
    that it counts."""
    world = a_day([fault("suspend", at="12h", lasts="36h")], duration="3d")
    world.attempts(good=("1m", "56h"), bad=("48h", "50h"))
    world.add(0, "alerts_evaluated", None, rules=["Expired"])
    if fired:
        world.add(ns(fired), "alert_fired", None, alert="Expired")
    assert found(ALERT, world).verdict is verdict


def test_without_alerting_nothing_is_known() -> None:
    """Nothing that could alert was deployed: that is not a pass, and no failure of an alert
    either."""
    assert found(ALERT, a_day().attempts(bad=("1h",))).verdict is UNKNOWN


# --- judge


def judged(world: World, killed_at: str | None = None) -> dict[str, Finding]:
    """All findings by name."""
    return {finding.check: finding for finding in judge(world.plan, world.history(killed_at))}


def test_assumptions_come_first() -> None:
    """In a fixed order, each marked as what it is."""
    findings = judge(*_nightly())
    assert [finding.check for finding in findings] == [*ASSUMPTIONS, *CHECKS]
    assert [finding.is_assumption for finding in findings] == [True] * len(ASSUMPTIONS) + [
        False
    ] * len(CHECKS)


def _nightly() -> tuple[Plan, History]:
    world = Formula(World(plan([NIGHTS], duration="7d"))).world
    return world.plan, world.history()


def test_a_week_of_nightly_sleep() -> None:
    """The unpatched ztunnel on a laptop: everything that is to break does, and nothing else."""
    verdicts = {finding.check: finding.verdict for finding in judge(*_nightly())}
    assert verdicts == dict.fromkeys([*ASSUMPTIONS, FLOODED], HOLDS) | dict.fromkeys(
        [EXPIRED, ON_TIME, FLOWS, RECOVERS], BROKEN
    ) | dict.fromkeys([KEPT, ALERT], UNKNOWN)


def test_nothing_happens() -> None:
    """Without any fault the unpatched ztunnel is fine."""
    world = Formula(World(plan(duration="3d"))).world
    verdicts = {name: finding.verdict for name, finding in judged(world).items()}
    assert verdicts == dict.fromkeys(verdicts, HOLDS) | dict.fromkeys([KEPT, ALERT], UNKNOWN)


def test_a_failed_assumption_leaves_nothing_known() -> None:
    """The suspend did not happen: even the failures that were seen prove nothing, and the finding
    says why."""
    world = (
        World(plan([SUSPEND], duration="1d"), faults_happen=False).start().attempts(bad=("20h",))
    )
    findings = judged(world)
    assert findings["clock_fault_happened"].verdict is BROKEN
    assert {findings[name].verdict for name in CHECKS} == {UNKNOWN}
    assert all(
        findings[name].because.startswith("clock_fault_happened is BROKEN: ") for name in CHECKS
    )


@pytest.mark.parametrize("name", [*ASSUMPTIONS, *CHECKS])
def test_a_check_that_raises_is_unknown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that did not judge has not acquitted; of an assumption the others hang."""

    def raises(plan: Plan, history: History) -> Finding:
        raise RuntimeError("lost my spectacles")

    monkeypatch.setitem(ASSUMPTIONS if name in ASSUMPTIONS else CHECKS, name, raises)
    findings = {finding.check: finding for finding in judge(*_nightly())}
    assert findings[name].verdict is UNKNOWN
    assert "RuntimeError: lost my spectacles" in findings[name].because
    if name in ASSUMPTIONS:
        assert {findings[other].verdict for other in CHECKS} == {UNKNOWN}


def test_a_killed_run_shows_what_broke_and_nothing_that_held() -> None:
    """Until it broke off all was well; that promises nothing for the rest."""
    world = a_day().attempts(good=("1h",), bad=("2h",))
    findings = judged(world, killed_at="3h")
    assert findings[FLOWS].verdict is BROKEN
    assert findings[EXPIRED].verdict is UNKNOWN
    assert findings[EXPIRED].because.startswith(
        "the run broke off at day 0 02:00; until then none of 2"
    )


def test_a_run_stopped_for_a_flood_says_until_when_it_held() -> None:
    """What held, held until then."""
    world = a_day().attempts(good=("1h",)).end("12h", reason="csr_flood")
    findings = judged(world)
    assert findings[FLOWS].verdict is HOLDS
    assert (
        findings[FLOWS].because
        == "none of 1 attempts failed (until the run was stopped at day 0 12:00: csr_flood)"
    )


def test_evidence_is_the_first_five_and_a_count() -> None:
    """Enough to look at, not to drown in."""
    world = a_day()
    for hour in range(1, 9):
        world.attempts(bad=(f"{hour}h",), good=(f"{hour}h30m",))
    finding = found(FLOWS, world)
    places = finding.evidence
    assert [place.world_s for place in places] == [3600.0 * hour for hour in range(1, 7)]
    assert (places[-1].text, places[-1].data) == ("and 3 more from here on", {"more": 3})
    assert [place.world_s for place in finding.rest] == [3600.0 * hour for hour in range(6, 9)]


@pytest.mark.parametrize("missing", range(0, 700, 23))
def test_no_hole_in_a_history_makes_a_judge_raise(missing: int) -> None:
    """With any event gone judge still answers, in the same order."""
    of, history = _nightly()
    holed = History(history.events[:missing] + history.events[missing + 1 :])
    assert [finding.check for finding in judge(of, holed)] == [*ASSUMPTIONS, *CHECKS]


def test_work_grows_with_the_history_not_its_square() -> None:
    """Eight times the attempts cost at most nine times the lines of Python; a square would cost
    sixty-four times."""
    assert _lines_run("2m") < 9 * _lines_run("16m")


def _lines_run(attempt_every: str) -> int:
    world = Formula(World(plan([NIGHTS], duration="7d")), attempt_every).world
    history, lines = world.history(), 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        judge(world.plan, history)
    finally:
        sys.settrace(before)
    return lines
