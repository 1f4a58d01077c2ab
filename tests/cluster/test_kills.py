"""`kill -9` of a run at twenty of its moments, on a real cluster: the next command finds what it left and puts it back.

    meshwake up --name trial ...
    MESHWAKE_TEST_CLUSTER=trial pytest tests/cluster/test_kills.py      (about an hour; -k "moment7" for one)

The cluster is one of ours; every run goes by --clock process, so nothing but programs in it is moved. Twenty moments
lie `APART_S` apart, from before the first object is applied to within the last fault.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster.trial import ENDS_WITHIN_S, QUIET, Trial, write_scenario

MOMENTS, APART_S = range(20), 14.0
LEFT = "left by a run that was killed"
# Everything that can be moved, and a restart on moved clocks; short, for it is never to reach its end.
FAULTS = """
title    = "Faults of every kind, one after the other"
labs     = ["kind"]
duration = "5m"
[certificate]
lifetime = "4m"
[[node]]
name       = "here"
identities = ["default/client"]
[[node]]
name       = "there"
identities = ["default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "10s"
[[fault]]
kind  = "suspend"
node  = "*"
at    = "5s"
lasts = "30s"
[[fault]]
kind            = "pause"
node            = "here"
at              = "45s"
lasts           = "15s"
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
check   = "ca_not_flooded"
verdict = "holds"
because = "nobody waits for its end"
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"moment{moment}")
def test_the_next_command_puts_back_what_a_killed_run_left(trial: Trial, moment: int, tmp_path: Path) -> None:
    """Mostly `status`; every fifth time another run, which must come out as on a cluster that was just made."""
    log = tmp_path / "killed.log"
    trial.command("status")  # whatever an earlier test left
    made = trial.settings()
    with trial.running(write_scenario(tmp_path / "faults.toml", FAULTS), log) as run:
        time.sleep(1 + moment * APART_S)
        assert run.poll() is None, log.read_text()
        run.kill()
        run.wait()
    if moment % 5 == 4:
        following = tmp_path / "following.log"
        with trial.running(write_scenario(tmp_path / "quiet.toml", QUIET), following) as run:
            assert run.wait(ENDS_WITHIN_S) == 0, following.read_text()
    else:
        said = trial.command("status")
        assert "could not be undone" not in said
    assert trial.settings() == made
    trial.has_nothing_of_a_run()
    assert LEFT not in trial.command("status"), "the second command still found something"
