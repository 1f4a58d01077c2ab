"""Whole runs: judged as expected, and the cluster is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.errors import ExitCode

from tests.cluster.trial import OF_EVERY_LAB, SCENARIOS, Ran, Trial, differences

SHORT = ("frozen_nodes", "restart_without_authority")
LONG = (
    "short_sleep",
    "short_sleep_with_guard",
    "one_node_sleeps_alone",
    "two_nodes_of_one_machine",
)
# Certificates of a day, idle time skipped: a minute or two each.
SKIPPED = (
    "nothing_happens",
    "forward_step",
    "ca_away_at_renewal",
    "one_long_suspend",
    "docker_pause_freeze",
    "ztunnel_restart",
)
WEEKS = (OF_EVERY_LAB / "nightly_sleep.toml", SCENARIOS / "nightly_sleep_with_guard.toml")


def _slow(*cases: str | Path) -> list[object]:
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("name", [*SHORT, *_slow(*LONG)])
def test_a_run_in_real_time_is_judged_as_expected_and_leaves_the_cluster_as_it_was(
    trial: Trial, name: str
) -> None:
    _is_as_expected(trial, trial.ran(SCENARIOS / f"{name}.toml"))


@pytest.mark.parametrize(
    "scenario",
    [*(OF_EVERY_LAB / f"{name}.toml" for name in SKIPPED), *_slow(*WEEKS)],
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
    assert differences(ran.before, ran.after) == []
    trial.has_nothing_of_a_run()
    trial.is_ready()
