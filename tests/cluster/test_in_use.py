"""One command at a time on a cluster: the others name the command that has it, and change
nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.trial import QUIET, Trial, wait_until, write_scenario

LAB_UNAVAILABLE = 4


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    return write_scenario(tmp_path / "quiet_minute.toml", QUIET)


def test_while_a_run_is_at_work_no_other_command_is(
    trial: Trial, quiet: Path, tmp_path: Path
) -> None:
    log = tmp_path / "first.log"
    with trial.running(quiet, log) as run:
        wait_until("the run to hold the cluster", 300, lambda: _holds(trial, run.poll(), log))
        for words in (("run", str(quiet), "--lab", "kind", "--clock", "process"), ("down",)):
            refused = trial.meshwake(*words)
            assert refused.code == LAB_UNAVAILABLE, refused.output
            assert re.search(
                rf"in use: run of quiet_minute \(process {run.pid} on \S+, since ", refused.output
            )
        assert f"process {run.pid} on" in trial.command("status")
        assert wait_until("the end of the run", 1200, run.poll) == 0, log.read_text()
    assert {
        machine.state for machine in trial.engine.containers({"io.x-k8s.kind.cluster": trial.name})
    } == {"running"}
    trial.has_nothing_of_a_run()
    assert "in use" not in trial.command("status")


def _holds(trial: Trial, code: int | None, log: Path) -> bool | None:
    assert code is None, log.read_text()
    return True if "in use: run of quiet_minute" in trial.command("status") else None
