"""A month imported from a journal runs on a real ztunnel, and breaks there as it does on the model."""

from __future__ import annotations

from pathlib import Path

from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.scenario import read_scenario
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.agreement.conftest import binary_of, verdicts
from tests.support.paths import DATA

JOURNAL = DATA / "journals" / "pmset_macbook.log"
VERSION = "1.31.0-rc.0"


def test_an_imported_month_runs_on_a_real_ztunnel(tmp_path: Path) -> None:
    """Its sleeps happen to the binary, and both labs say the same of it."""
    binary_of(VERSION)
    path = tmp_path / "mine.toml"
    assert run_command(["import-sleep", str(JOURNAL), "-o", str(path)]) == ExitCode.AS_EXPECTED
    scenario = read_scenario(path)
    found = []
    for lab in ("model", "process"):
        options = Options(lab=lab, istio=(VERSION,))
        found.append(verdicts(run_case(choose(scenario, options)[0], options)))
    assert found[0] == found[1]
    assert found[0]["clock_fault_happened"] == "HOLDS"
