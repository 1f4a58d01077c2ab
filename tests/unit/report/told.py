"""Runs to make reports of: those recorded on real ztunnels, and small ones of the model."""

from __future__ import annotations

from meshwake.checks import judge
from meshwake.core.outcome import compare
from meshwake.core.scenario import parse_scenario
from meshwake.core.store import read_run
from meshwake.report.html.content import ReportedRun
from meshwake.runner.pipeline import Options, choose, run_case

from tests.support.paths import DATA
from tests.unit.worlds import SURPRISING

RECORDED = DATA / "histories"
ISSUE_1481 = "ztunnel_1481-1.31.0-rc.0"
NIGHTS = "nightly_sleep-1.28.0"


def recorded(name: str) -> ReportedRun:
    """A run of a real ztunnel, as it was recorded."""
    saved = read_run(RECORDED / name)
    outcome = compare(saved.plan, judge(saved.plan, saved.history))
    return ReportedRun(saved.plan, saved.history, outcome, saved.real_s, saved.path)


def modelled(text: str = SURPRISING, name: str = "small") -> ReportedRun:
    """A run of the model, just made."""
    options = Options(lab="model")
    saved = run_case(choose(parse_scenario(text, f"{name}.toml", name), options)[0], options)
    return ReportedRun(saved.plan, saved.history, saved.outcome, saved.real_s)
