"""Gateways, tokens and application pods in the model: late once, refused for a minute, forgotten
and fetched again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.history import History
from meshwake.core.plan import PlannedFix
from meshwake.labs.model.tokens import Tokens

from tests.support.plans import NIGHTS, SERVER, failed_world_s, issued_world_s, plan, run

HOUR_S, DAY_S = 3_600, 86_400
GATEWAY = '\n[[gateway]]\nname = "ingress"\nnode = "laptop"\nidentity = "ingress/gateway"\n'
HALF_A_DAY = '\n[authority]\nnode = "laptop"\ntoken = "12h"\n'
LONG = '\n[[fault]]\nkind = "suspend"\nat = "15h"\nlasts = "20h"\n'


def gateway_issues(body: str, duration: str = "6d") -> list[float]:
    return issued_world_s(run(plan(GATEWAY + body, duration=duration)), "ingress/gateway")


def test_a_gateway_is_late_once_and_then_right_again() -> None:
    """Renewed every 12 h awake; after one sleep that renewal is late by it, and no later one is."""
    at = gateway_issues(LONG)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps[:3] == [12 * HOUR_S, 32 * HOUR_S, 12 * HOUR_S]
    assert set(gaps[3:]) == {12 * HOUR_S}


def test_nights_of_eight_hours_do_a_gateway_no_harm() -> None:
    gaps = gateway_issues(NIGHTS)
    assert max(later - earlier for earlier, later in pairwise(gaps)) <= 24 * HOUR_S


@pytest.mark.parametrize(
    ("fault", "waits_h"),
    [
        # Two hours ahead: the certificate is valid for 26 h by the clock of the gateway.
        ('kind = "ca_clock"\nby = "2h"', 13),
        ('kind = "ca_clock"\nby = "-2h"', 11),
        # 12 h where 24 h were requested: not at once, which would be a request without a pause.
        ('kind = "ca_lifetime"\nlifetime = "12h"', 6),
    ],
)
def test_a_gateway_waits_half_of_what_its_own_clock_says_is_left(fault: str, waits_h: int) -> None:
    """rotateTime of pilot-agent at 1.18.0 to 1.31.0-rc.0: half of notAfter minus now."""
    at = gateway_issues(f'\n[[fault]]\nat = "6h"\nlasts = "3d"\n{fault}\n', duration="2d")
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps[0] == 12 * HOUR_S
    assert set(gaps[1:]) == {waits_h * HOUR_S}


def test_a_gateway_keeps_its_certificate_while_the_authority_is_away() -> None:
    history = run(
        plan(GATEWAY + '\n[[fault]]\nkind = "ca_outage"\nat = "11h"\nlasts = "3h"\n', duration="2d")
    )
    states = [
        event["state"] for event in history.of("certificate_state", identity="ingress/gateway")
    ]
    assert set(states) == {"Available"}


def outcomes(history: History, identity: str = SERVER) -> list[tuple[int, str]]:
    events = history.of("csr_answered", identity=identity)
    return [(event.world_ns // NS_PER_S, event["outcome"]) for event in events]


def test_a_token_that_ran_out_asleep_is_refused_until_kubelet_has_looked() -> None:
    """The certificate's second renewal falls due ten seconds after the wake, kubelet's look thirty
    seconds later."""
    sleep = '\n[[fault]]\nkind = "suspend"\nat = "23h57m20s"\nlasts = "20h"\n'
    of = plan(HALF_A_DAY + sleep, lifetime="23h59m30s", duration="3d")
    after = [(at, outcome) for at, outcome in outcomes(run(of)) if at > 40 * HOUR_S]
    assert after[0][1] == "unauthenticated"
    assert next(at for at, outcome in after if outcome == "issued") - after[0][0] <= 90


def test_without_a_token_in_the_scenario_none_is_ever_refused() -> None:
    of = plan('\n[[fault]]\nkind = "suspend"\nat = "23h57m30s"\nlasts = "20h"\n', duration="3d")
    assert {outcome for _, outcome in outcomes(run(of))} == {"issued"}


def test_a_token_is_renewed_in_time_on_a_machine_that_is_awake() -> None:
    of = plan(HALF_A_DAY, duration="14d")
    assert {outcome for _, outcome in outcomes(run(of))} == {"issued"}


def test_a_clock_set_back_makes_the_old_token_not_valid_yet_and_a_new_pod_gets_another() -> None:
    of = plan('\n[[fault]]\nkind = "step"\nat = "6h"\nby = "-13h"\n')
    tokens = Tokens(12 * HOUR_S, clocks_of(of), "laptop")
    tokens.pod_started("ztunnel", "laptop", 0)
    assert tokens.accepted("ztunnel", 5 * HOUR_S * NS_PER_S)
    assert not tokens.accepted("ztunnel", 7 * HOUR_S * NS_PER_S)
    tokens.pod_started("ztunnel", "laptop", 7 * HOUR_S * NS_PER_S)
    assert tokens.accepted("ztunnel", 7 * HOUR_S * NS_PER_S)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('node = "laptop"\nidentity', 'node = "lap"\nidentity', "expected one of laptop"),
        ('"ingress"', '"laptop"', "is used twice"),
    ],
)
def test_a_gateway_that_cannot_be_is_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        plan(GATEWAY.replace(old, new))


def test_traffic_may_come_from_a_gateway() -> None:
    """It fails while the gateway's certificate has run out, from the wake on, though ztunnel's is
    new."""
    of = plan(
        GATEWAY + '\n[[fault]]\nkind = "suspend"\nat = "13h"\nlasts = "65h"\n',
        duration="5d",
        every="1h",
    )
    update = {"pairs": (("ingress/gateway", SERVER),), "fix": PlannedFix(name="wall-polling")}
    gateway = of.model_copy(update=update)
    failed = failed_world_s(run(gateway))
    assert failed[0] == 78 * HOUR_S
    assert failed[-1] <= 89 * HOUR_S
