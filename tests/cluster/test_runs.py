"""Whole runs in real time: judged as expected, and the cluster is left as it was."""

from __future__ import annotations

import pytest

from harness.errors import ExitCode
from tests.cluster.trial import SCENARIOS, Trial, differences

SHORT = ("frozen_nodes", "restart_without_authority")
LONG = ("short_sleep", "short_sleep_with_guard", "one_node_sleeps_alone", "two_nodes_of_one_machine")


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_a_run_is_judged_as_expected_and_leaves_the_cluster_as_it_was(trial: Trial, name: str) -> None:
    ran = trial.ran(SCENARIOS / f"{name}.toml")
    assert ran.code == ExitCode.AS_EXPECTED, ran.log
    saved = ran.saved()
    assert saved.plan.lab == "kind"
    began = {(event["fault"], event.node) for event in saved.history.of("fault_began")}
    assert len(began) >= len({fault.index for fault in saved.plan.faults})
    assert differences(ran.before, ran.after) == []
    trial.has_nothing_of_a_run()
    trial.is_ready()
