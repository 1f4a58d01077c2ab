"""Whole runs: judged as expected, and the cluster is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.errors import ExitCode

from tests.cluster.trial import OF_EVERY_LAB, SCENARIOS, Ran, Trial

# Ten minutes to half an hour each.
IN_REAL_TIME = (
    "frozen_nodes",
    "restart_without_authority",
    "short_sleep",
    "short_sleep_with_guard",
    "one_node_sleeps_alone",
    "two_nodes_of_one_machine",
)
# Idle time skipped: one to three minutes each.
SKIPPED = (
    OF_EVERY_LAB / "nothing_happens.toml",
    OF_EVERY_LAB / "forward_step.toml",
    OF_EVERY_LAB / "ca_away_at_renewal.toml",
    OF_EVERY_LAB / "one_long_suspend.toml",
    OF_EVERY_LAB / "docker_pause_freeze.toml",
    OF_EVERY_LAB / "ztunnel_restart.toml",
    OF_EVERY_LAB / "many_short_sleeps.toml",
    OF_EVERY_LAB / "regressions" / "ztunnel_1481.toml",
    SCENARIOS / "two_nodes_of_one_machine.toml",
    SCENARIOS / "one_node_sleeps_alone.toml",
    SCENARIOS / "frozen_nodes.toml",
    SCENARIOS / "restart_without_authority.toml",
)
GATEWAY = pytest.param(
    SCENARIOS / "gateway_sleeps.toml", marks=pytest.mark.needs("gateway", "metallb")
)
WEEKS = (
    OF_EVERY_LAB / "nightly_sleep.toml",
    SCENARIOS / "nightly_sleep_with_guard.toml",
    OF_EVERY_LAB / "weekly_restart_nightly_sleep.toml",
)
WEEK_LONG = pytest.mark.slow(reason="a week on a cluster takes minutes")


@pytest.mark.slow(reason="certificates of minutes in real time")
@pytest.mark.parametrize("name", IN_REAL_TIME)
def test_a_run_in_real_time_is_judged_as_expected_and_leaves_the_cluster_as_it_was(
    trial: Trial, name: str
) -> None:
    _is_as_expected(trial, trial.ran(SCENARIOS / f"{name}.toml"))


@pytest.mark.parametrize(
    "scenario",
    [*SKIPPED, GATEWAY, *(pytest.param(week, marks=WEEK_LONG) for week in WEEKS)],
    ids=lambda scenario: scenario.stem,
)
def test_a_run_that_skips_idle_time_is_judged_as_expected_and_leaves_the_cluster_as_it_was(
    trial: Trial, scenario: Path
) -> None:
    _is_as_expected(trial, trial.ran(scenario, real_time=False))


def _is_as_expected(trial: Trial, ran: Ran) -> None:
    assert ran.code == ExitCode.AS_EXPECTED, ran.log
    saved = ran.saved()
    assert saved.plan.lab == "kind"
    began = {(event["fault"], event.node) for event in saved.history.of("fault_began")}
    assert len(began) >= len({fault.index for fault in saved.plan.faults})
    trial.is_as_before(ran.before, ran.after)
