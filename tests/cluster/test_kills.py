"""`kill -9` of a run at twenty of its moments: the next command finds what it left and puts it
back.

Twenty moments lie `APART_S` apart, from before the first object is applied to within the last
fault. An hour or more; -k "moment7" for one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from meshwake.core.errors import ExitCode

from tests.cluster.trial import QUIET, TWO_NODES, Trial, write_scenario

MOMENTS, APART_S = range(20), 14.0
LEFT = "left by a run that was killed"
# Everything that can be moved, and a restart on moved clocks. No test waits for the end, so nothing
# is expected of it.
KILLED = f"""
title    = "A run that is killed"
labs     = ["kind"]
duration = "5m"
[certificate]
lifetime = "4m"
{TWO_NODES}every = "10s"
[[fault]]
kind  = "suspend"
node  = "*"
at    = "5s"
lasts = "30s"
[[fault]]
kind  = "pause"
node  = "here"
at    = "45s"
lasts = "15s"
corrected_after = "10s"
[[fault]]
kind = "step"
node = "there"
at   = "80s"
by   = "1m"
[[fault]]
kind = "restart"
node = "here"
at   = "100s"
[[fault]]
kind  = "suspend"
node  = "there"
at    = "140s"
lasts = "90s"
[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "a scenario must expect something"
"""


@pytest.mark.slow(reason="twenty runs that are killed")
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"moment{moment}")
def test_the_next_command_restores_what_a_killed_run_left(
    trial: Trial, moment: int, tmp_path: Path
) -> None:
    """Mostly `status`; every fifth time another run, which must come out as on a cluster that was
    just made."""
    trial.command("status")  # whatever an earlier test left
    made = trial.settings()
    log = tmp_path / "killed.log"
    with trial.running(write_scenario(tmp_path / "killed.toml", KILLED), log) as run:
        time.sleep(1 + moment * APART_S)
        assert run.poll() is None, log.read_text()
        run.kill()
        run.wait()
    if moment % 5 == 4:
        ran = trial.ran(write_scenario(tmp_path / "quiet_minute.toml", QUIET))
        assert ran.code == ExitCode.AS_EXPECTED, ran.log
    else:
        assert "could not be undone" not in trial.command("status")
    assert trial.settings() == made
    trial.has_nothing_of_a_run()
    assert LEFT not in trial.command("status"), "the second command still found something"
