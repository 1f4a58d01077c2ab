"""The wake guard that stays: installed by one command, judged on the same night as the mesh without
it, and removed without a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from meshwake.checks import judge
from meshwake.cluster.stack.own_images import GUARD
from meshwake.core.errors import ExitCode
from meshwake.core.outcome import Verdict

from tests.cluster.trial import Trial, differences

# Renewals come 13 h late, and a certificate has 12 h left when its renewal is due.
ONE_LONG_NIGHT = """
title    = "One night of 13 hours"
labs     = ["kind"]
duration = "27h"
[[node]]
name       = "laptop"
identities = ["default/client", "default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "20m"
[[fault]]
kind  = "suspend"
at    = "2h"
lasts = "13h"
[[expect]]
check   = "no_expired_certificate_served"
verdict = "broken"
because = "the renewal that is due at noon comes an hour after the certificate ran out"
[[expect]]
check   = "recovers_within"
verdict = "broken"
because = "connections work at the wake and fail nine hours later, because of it"
"""


@contextmanager
def installed(trial: Trial) -> Iterator[str]:
    """What `guard install` printed; afterwards the cluster is as it was."""
    before = trial.objects()
    printed = trial.command("guard", "install")
    try:
        yield printed
    finally:
        trial.command("guard", "uninstall")
    assert differences(before, trial.objects()) == []


def test_one_command_guards_every_node_and_another_removes_all_of_it(trial: Trial) -> None:
    with installed(trial) as printed:
        assert f"looks on {len(trial.cluster.nodes)} nodes" in printed
        nodes = json.loads(trial.meshwake("guard", "status", "--json").stdout)["nodes"]
        assert {each["node"] for each in nodes} == set(trial.cluster.nodes)
        for each in nodes:
            assert each["problem"] is None
            assert each["image"].endswith(GUARD.reference)
            assert any("ztunnel" in process for process in each["drift_s"])
        of_lab = ("--lab", "kind", "--clock", "process")
        refused = trial.meshwake("run", "short_sleep_with_guard", *of_lab)
        assert refused.code == ExitCode.LAB_UNAVAILABLE
        assert "meshwake guard uninstall" in refused.stderr
    assert trial.meshwake("guard", "status").code == ExitCode.LAB_UNAVAILABLE


@pytest.mark.slow(reason="two runs of minutes")
def test_the_same_night_breaks_the_mesh_without_the_guard_and_not_with_it(
    trial: Trial, tmp_path: Path
) -> None:
    night = tmp_path / "one_long_night.toml"
    night.write_text(ONE_LONG_NIGHT, encoding="utf-8")
    without = trial.run(night, real_time=False)
    assert without.code == ExitCode.AS_EXPECTED, without.log
    with installed(trial):
        guarded = trial.run(night, real_time=False)
        assert differences(guarded.before, guarded.after) == []
    saved = guarded.saved()
    found = {finding.check: finding.verdict for finding in judge(saved.plan, saved.history)}
    assert found["no_expired_certificate_served"] is Verdict.HOLDS, guarded.log
    assert found["recovers_within"] is Verdict.HOLDS
    assert saved.history.events[0].data["subject"]["guard"] == GUARD.reference
