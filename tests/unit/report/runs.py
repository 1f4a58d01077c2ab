"""Runs to make reports of: those recorded on real ztunnels, and small ones of the model."""

from __future__ import annotations

from dataclasses import replace

from meshwake.core.run import Run
from meshwake.core.scenario import parse_scenario
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import check_run, run_case

from tests.support.paths import DATA
from tests.support.scenarios import SURPRISING

RECORDED = DATA / "histories"
ISSUE_1481 = "ztunnel_1481-1.31.0-rc.0"
NIGHTS = "nightly_sleep-1.28.0"


def recorded(name: str) -> Run:
    """A run of a real ztunnel, as it was recorded."""
    return check_run(RECORDED / name)


def modelled(text: str = SURPRISING, name: str = "small") -> Run:
    """A run of the model, just made."""
    options = Options(lab="model")
    run = run_case(choose(parse_scenario(text, f"{name}.toml", name), options)[0], options)
    return replace(run, path=None)
