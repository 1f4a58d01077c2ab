"""Fixes that act by themselves, through the model: when, how often, and when not."""

from __future__ import annotations

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.errors import BadInput
from meshwake.core.history import History
from meshwake.core.plan import Plan, PlannedFix
from meshwake.fixes import FIXES, adapted, deploy
from meshwake.fixes.wake_guard import LabGuard, Turns, read_settings
from meshwake.guard.settings import Settings

from tests.support.plans import NIGHTS, ONE_NODE, TWO_NODES, failed_world_s, plan, run

HOUR_S = 3_600


def deployed(name: str, body: str = NIGHTS, duration: str = "7d", nodes: str = ONE_NODE) -> Plan:
    of = plan(body, duration=duration, every="1h", nodes=nodes)
    return adapted(
        of.model_copy(update={"fix": PlannedFix(name=name, manifest=FIXES[name].read_manifest())})
    )


def restarts_world_s(history: History, name: str) -> list[float]:
    return [event.world_ns / 1e9 for event in history.of("ztunnel_started", cause=name)]


def fault(text: str) -> str:
    return f"\n[[fault]]\n{text}\n"


def test_the_sleep_hook_acts_after_each_suspend() -> None:
    assert restarts_world_s(run(deployed("sleep-hook", duration="3d")), "sleep-hook") == [
        23 * HOUR_S + 5,
        47 * HOUR_S + 5,
        71 * HOUR_S + 5,
    ]


def test_the_sleep_hook_does_not_notice_a_pause() -> None:
    pause = fault(
        'kind = "pause"\nat = "15h"\nlasts = "8h"\nevery = "24h"\ncorrected_after = "25s"'
    )
    assert restarts_world_s(run(deployed("sleep-hook", pause)), "sleep-hook") == []


def test_the_watchdog_acts_when_an_outage_is_logged_and_not_before() -> None:
    history = run(deployed("log-watchdog"))
    first_failure_s = failed_world_s(history)[0]
    first_restart_s = restarts_world_s(history, "log-watchdog")[0]
    assert first_failure_s < first_restart_s <= first_failure_s + 600


def test_the_watchdog_sees_nothing_without_connections() -> None:
    """The same nights; the only pair tries once in a week."""
    quiet = deployed("log-watchdog").model_copy(update={"pairs": ()})
    assert restarts_world_s(run(quiet), "log-watchdog") == []


def test_near_expiry_acts_within_the_hour_before() -> None:
    history = run(deployed("near-expiry"))
    assert restarts_world_s(history, "near-expiry") != []
    assert failed_world_s(history) == []


@pytest.mark.parametrize("name", ["log-watchdog", "near-expiry", "wake-guard", "sleep-hook"])
def test_nothing_is_restarted_in_a_week_without_sleep(name: str) -> None:
    assert restarts_world_s(run(deployed(name, "")), name) == []


def test_restarted_applications_get_a_certificate_that_is_late_again() -> None:
    """It is fresh, and its renewal is as late as before: the fault comes back."""
    history = run(deployed("restart-applications", duration="14d"))
    restarted_s = history.of("applications_restarted")[0].world_ns / 1e9
    failed = failed_world_s(history)
    assert any(at < restarted_s for at in failed)
    assert not any(restarted_s <= at < restarted_s + 20 * HOUR_S for at in failed)
    assert any(at > restarted_s + 24 * HOUR_S for at in failed)


# The guard


GUARD_FAULTS = {
    "nights": NIGHTS,
    "long": fault('kind = "suspend"\nat = "20h"\nlasts = "60h"'),
    "back": fault('kind = "step"\nat = "6h"\nby = "-13h"'),
    "away": NIGHTS + fault('kind = "ca_outage"\nat = "46h"\nlasts = "5h"'),
}


@pytest.mark.parametrize("body", GUARD_FAULTS.values(), ids=GUARD_FAULTS)
def test_looks_that_a_lab_skips_change_nothing(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look of the week, or only those at which something may be due: the same history, to the
    byte."""
    of = deployed("wake-guard", body)
    skipping = run(of).to_text()
    monkeypatch.setattr("meshwake.fixes.wake_guard.LabGuard", _patient)
    assert run(of).to_text() == skipping
    assert '"cause":"wake-guard"' in skipping


def _patient(*about: object) -> LabGuard:
    return LabGuard(*about, idles=False)  # type: ignore[arg-type]


def test_the_guard_waits_during_an_outage_of_the_authority() -> None:
    """It comes back at 51 h; the machine woke at 47 h with 16 h of drift, and nothing has expired
    before."""
    history = run(deployed("wake-guard", GUARD_FAULTS["away"], duration="4d"))
    away = [at for at in restarts_world_s(history, "wake-guard") if 46 * HOUR_S <= at < 51 * HOUR_S]
    assert away == []
    assert failed_world_s(history) == []


def test_nodes_are_restarted_one_after_another() -> None:
    both = NIGHTS.replace('kind = "suspend"', 'kind = "suspend"\nnode = "*"')
    history = run(deployed("wake-guard", both, nodes=TWO_NODES, duration="5d"))
    starts = [
        (event.world_ns / 1e9, event.node)
        for event in history.of("ztunnel_started", cause="wake-guard")
    ]
    assert {node for _, node in starts} == {"east", "west"}
    at = {node: [world_s for world_s, of in starts if of == node] for node in ("east", "west")}
    assert all(abs(one - two) >= 45 for one in at["east"] for two in at["west"])


def test_settings_come_from_the_manifest() -> None:
    manifest = FIXES["wake-guard"].read_manifest()
    assert manifest is not None
    assert read_settings(manifest) == Settings()
    assert read_settings(manifest.replace("--lead=30m", "--lead=2h")).lead_ns == 2 * HOUR_S * 10**9


def test_a_guard_that_only_watches_is_not_a_fix() -> None:
    """It would be judged as one that restarts."""
    manifest = FIXES["wake-guard"].read_manifest()
    assert manifest is not None
    with pytest.raises(BadInput, match="--only-look"):
        read_settings(manifest.replace("--lead=30m", "--only-look"))


def test_a_turn_is_given_back_by_itself() -> None:
    turns = Turns()
    assert turns.take(0, "a", 0, 45)
    assert not turns.take(0, "b", 44, 45)
    assert turns.take(1, "b", 44, 45)
    assert turns.take(0, "a", 44, 45)
    assert not turns.take(0, "b", 88, 45)
    assert turns.take(0, "b", 89, 45)


def test_deployments_know_their_guards() -> None:
    of = deployed("wake-guard", nodes=TWO_NODES, body="")
    assert len(deploy(of, clocks_of(of)).watchers) == 2
