"""The decisions of one ztunnel, one answer after another, without a world around it."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.model.authority import Answer, SignedCertificate
from meshwake.labs.model.ztunnel import BEHAVIOURS, Backoff, ModelZtunnel

WALL_S = 1_800_000_000
BASE = ClockReading(WALL_S * NS_PER_S, 77 * NS_PER_S, 77 * NS_PER_S)
REFUSED = Answer("refused")
CLIENT, SERVER = "default/client", "default/server"


def ztunnel(behaviour_class: str, identities: tuple[str, ...] = (CLIENT, SERVER)) -> ModelZtunnel:
    return ModelZtunnel(
        identities, BEHAVIOURS[behaviour_class], lifetime_s=600, base=BASE, random=Random(0)
    )


def after(awake_s: float, asleep_s: float = 0) -> ClockReading:
    """The clocks this long after the start."""
    awake_ns, asleep_ns = int(awake_s * NS_PER_S), int(asleep_s * NS_PER_S)
    return ClockReading(
        BASE.wall_ns + awake_ns + asleep_ns,
        BASE.monotonic_ns + awake_ns,
        BASE.boottime_ns + awake_ns,
    )


def issued(now: ClockReading, lifetime_s: int = 600) -> Answer:
    now_s = now.wall_ns // NS_PER_S
    return Answer("issued", SignedCertificate("1", now_s - 120, now_s + lifetime_s))


def delays_s(
    subject: ModelZtunnel, times: int, start: ClockReading, identity: str = CLIENT
) -> list[float]:
    """The delays between tries that the authority refuses, one after the other."""
    found, now = [], start
    for _ in range(times):
        due_ns = subject.answered(identity, REFUSED, now)
        assert due_ns is not None
        delay_ns = due_ns - now.monotonic_ns
        found.append(delay_ns / 1e9)
        now = ClockReading(*(value + delay_ns for value in now))
    return found


def test_renewal_is_planned_for_the_middle_of_the_validity() -> None:
    """(L - B) / 2 after the issue: 4 min for 10 min, as in the comments of ztunnel#1481."""
    due_ns = ztunnel("E").answered(CLIENT, issued(after(0)), after(0))
    assert due_ns == after(240).monotonic_ns


@pytest.mark.parametrize("behaviour_class", BEHAVIOURS)
def test_after_j_of_sleep_the_timer_is_set_j_late_in_every_class(behaviour_class: str) -> None:
    """The defect: the time base is that of the start, 1020 s of sleep ago."""
    now = after(500, asleep_s=1_020)
    due_ns = ztunnel(behaviour_class).answered(CLIENT, issued(now), now)
    assert due_ns == now.monotonic_ns + (240 + 1_020) * NS_PER_S


def test_only_a0_requests_a_day_whatever_its_settings() -> None:
    """SECRET_TTL came with 1.21."""
    assert {name: ztunnel(name).requested_lifetime_s for name in BEHAVIOURS} == {
        "A0": 86_400, "A1": 600, "B": 600, "C": 600, "D": 600, "E": 600
    }  # fmt: skip


@pytest.mark.parametrize(
    ("behaviour_class", "kept"),
    [*((name, False) for name in ("A0", "A1", "B", "C")), ("D", True), ("E", True)],
)
def test_what_becomes_of_a_valid_certificate_when_its_renewal_fails(
    behaviour_class: str, kept: bool
) -> None:
    """Up to 1.27 it is thrown away with half its life left; from 1.28 on it stays."""
    subject = ztunnel(behaviour_class)
    first = issued(after(0))
    subject.answered(CLIENT, first, after(0))
    subject.answered(CLIENT, REFUSED, after(240))
    assert (subject.states[CLIENT].certificate == first.certificate) is kept
    assert subject.states[CLIENT].state.startswith(
        "Available" if kept else "Unavailable: signing gRPC error"
    )


def test_a_kept_certificate_is_tried_at_its_expiry_at_the_latest_and_then_dropped() -> None:
    """The next try would be after the expiry; it is brought forward to it, and there the
    certificate goes."""
    subject = ztunnel("E")
    subject.answered(CLIENT, issued(after(0)), after(0))
    assert subject.answered(CLIENT, REFUSED, after(599.9)) == after(600).monotonic_ns
    assert subject.states[CLIENT].state == "Available"
    subject.answered(CLIENT, REFUSED, after(600))
    assert subject.states[CLIENT].state.startswith("Unavailable")


def test_after_sleep_a_really_expired_certificate_is_kept_as_valid() -> None:
    """Its expiry is judged by the same stale time base: 1020 s of sleep keep it 1020 s too long."""
    subject = ztunnel("E")
    subject.answered(CLIENT, issued(after(0)), after(0))
    subject.answered(CLIENT, REFUSED, after(240, asleep_s=1_020))
    assert subject.states[CLIENT].state == "Available"


def test_class_a_tries_every_minute() -> None:
    """Constant, without chance."""
    assert delays_s(ztunnel("A1"), 5, after(0)) == [60, 60, 60, 60, 60]


def test_class_c_doubles_its_delays_and_stays_at_the_longest() -> None:
    """1, 2, 4 ... 150 s, each within a fifth, and 150 s sharp once 15 min have passed since the
    first failure."""
    delays = delays_s(ztunnel("C"), 20, after(50_000))
    for delay_s, nominal_s in zip(delays, [1, 2, 4, 8, 16, 32, 64, 128, 150], strict=False):
        assert 0.8 * nominal_s <= delay_s <= 1.2 * nominal_s
    assert len(set(delays[:9])) == 9 and set(delays[-5:]) == {150}


def test_class_c_counts_for_each_identity_by_itself() -> None:
    """A client that has failed for long does not slow the server's first tries."""
    subject = ztunnel("C")
    delays_s(subject, 10, after(0))
    assert delays_s(subject, 1, after(5_000), SERVER)[0] <= 1.2


def test_class_c_starts_over_after_a_success() -> None:
    """Seconds again, not minutes."""
    subject = ztunnel("C")
    delays_s(subject, 10, after(0))
    subject.answered(CLIENT, issued(after(2_000)), after(2_000))
    assert 0.8 <= delays_s(subject, 1, after(2_240))[0] <= 1.2


def test_class_b_waits_longest_at_once_when_no_request_succeeded_for_a_quarter_of_an_hour() -> None:
    """The usual case with a certificate of a day: its one backoff gave up hours ago."""
    subject = ztunnel("B")
    subject.answered(CLIENT, issued(after(0), 86_400), after(0))
    assert delays_s(subject, 3, after(43_140)) == [150, 150, 150]


def test_class_b_shares_one_backoff_and_any_success_resets_it() -> None:
    """Failures of the client slow the server; a success of the server speeds up the client, from
    half a second on."""
    subject = ztunnel("B")
    client = delays_s(subject, 3, after(1))
    server = delays_s(subject, 1, after(10), SERVER)
    assert 0.8 <= client[0] <= 1.2 and 6.4 <= server[0] <= 9.6
    subject.answered(SERVER, issued(after(20)), after(20))
    assert 0.4 <= delays_s(subject, 1, after(30))[0] <= 0.6


def test_a_delay_that_would_end_beyond_its_time_is_given_up() -> None:
    """The crate looks at where the delay leads, not only at where it begins."""
    backoff = Backoff(Random(0), 0)
    assert backoff.next_ns(899_500_000_000) is None


def test_eight_requests_that_are_never_answered_stop_all_others() -> None:
    """No request has a deadline; the ninth is never sent."""
    identities = tuple(f"default/{number}" for number in range(9))
    subject = ztunnel("E", identities)
    for identity in identities[:8]:
        assert subject.has_free_slot
        assert subject.answered(identity, Answer("hung"), after(0)) is None
    assert not subject.has_free_slot


def test_a_request_under_way_changes_no_state() -> None:
    """A ztunnel whose request hangs keeps the certificate it has, until it expires and longer."""
    subject = ztunnel("C")
    subject.answered(CLIENT, issued(after(0)), after(0))
    subject.answered(CLIENT, Answer("hung"), after(240))
    assert (
        subject.states[CLIENT].state == "Available"
        and subject.states[SERVER].state == "Initializing"
    )


def test_a_refused_token_is_named() -> None:
    """Another code than that of an authority which is unavailable."""
    subject = ztunnel("C")
    subject.answered(CLIENT, Answer("unauthenticated"), after(0))
    assert "authentication credentials" in subject.states[CLIENT].state


def test_chance_comes_from_the_seed() -> None:
    """The same seed gives the same delays, another seed others."""

    def delays(seed: int) -> list[float]:
        subject = ModelZtunnel((CLIENT,), BEHAVIOURS["C"], 600, BASE, Random(seed))
        return delays_s(subject, 8, after(0))

    assert delays(1) == delays(1)
    assert all(one != two for one, two in pairwise([delays(1), delays(2), delays(3)]))
