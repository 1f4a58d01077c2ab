"""Our alerts and the one of the original report, evaluated by a real Prometheus over what runs
recorded.

Without Prometheus on this machine these tests skip; the samples themselves are tested everywhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from meshwake.analysis import alert_replay as alerting
from meshwake.analysis.alert_replay import FiredAlert, read_rules
from meshwake.checks import CHECKS
from meshwake.checks.facts.traffic import failures
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan
from meshwake.core.resolve import resolve
from meshwake.core.scenario import read_scenario
from meshwake.core.store import read_run
from meshwake.labs import Toolbox, load_lab
from meshwake.runner.choose import choose
from meshwake.runner.options import Options

from tests.integration.alerts.tools import ALERTS
from tests.support import plans

ROOT = ALERTS.parents[2]
OURS = read_rules(ALERTS / "mesh.yml")
AS_REPORTED = read_rules(ALERTS.parent / "as_reported.yml")
RECORDED = sorted((ROOT / "tests" / "data" / "histories").glob("*/plan.json"))
SCENARIOS = sorted(
    path
    for path in (ROOT / "scenarios").rglob("*.toml")
    if "model" in path.read_text().split("labs")[1][:60]
)
NEEDS = pytest.mark.skipif(
    bool(alerting.missing_tools()),
    reason="; ".join(alerting.missing_tools()) or "Prometheus is here",
)
# Before 1.28 a certificate is thrown away at the first refusal: that outage has no time before it
# in which to warn.
UNWARNED = {"ca_away_at_renewal-1.27.9"}

ORDINARY = """
[[fault]]
kind = "suspend"
at = "20h"
lasts = "15m"
every = "7d"
[[fault]]
kind = "pause"
at = "300h"
lasts = "20m"
corrected_after = "25s"
every = "30d"
[[fault]]
kind = "step"
at = "31h"
by = "-2s"
every = "7d"
[[fault]]
kind = "step"
at = "55h"
by = "2s"
every = "7d"
[[fault]]
kind = "ca_outage"
at = "70h"
lasts = "20m"
every = "7d"
[[fault]]
kind = "restart"
at = "700h"
every = "30d"
"""


@cache
def of_scenario(path: Path) -> tuple[Plan, History]:
    """A scenario of the corpus on the model."""
    case = choose(read_scenario(path), Options(lab="model"))[0]
    plan, recorder = resolve(case), Recorder()
    load_lab("model").run(plan, Toolbox(None, Path()), recorder)
    return plan, recorder.history


def judge(plan: Plan, history: History) -> tuple[Verdict, list[FiredAlert]]:
    """What the check says of our alerts; and all that the original one ever did."""
    with alerting.prometheus_with(plan, history) as address:
        ours = alerting.firing_alerts(address, plan, history, OURS)
        original = alerting.firing_alerts(address, plan, history, AS_REPORTED)
    replayed = alerting.with_alerts(history, OURS, ours)
    return CHECKS["alert_before_outage"](plan, replayed).verdict, original


@NEEDS
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario(path: Path) -> None:
    """Ours are there before every outage of more than five waking minutes; the one of the report
    never is."""
    verdict, original = judge(*of_scenario(path))
    assert original == []
    assert verdict is Verdict.HOLDS


@NEEDS
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_every_recorded_run_of_a_real_ztunnel(path: Path) -> None:
    """The same, of real binaries."""
    saved = read_run(path.parent)
    verdict, original = judge(saved.plan, saved.history)
    assert original == []
    assert verdict is (Verdict.BROKEN if path.parent.name in UNWARNED else Verdict.HOLDS)


@NEEDS
def test_no_false_alarm_in_a_year_of_ordinary_days() -> None:
    """Short naps, a paused VM, clocks corrected by seconds, an authority away for minutes, a
    restart a month: silence."""
    plan = plans.plan(ORDINARY, duration="365d", every="6h")
    history = plans.run(plan)
    assert not failures(plan, history)
    with alerting.prometheus_with(plan, history, scrape_s=300) as address:
        assert alerting.firing_alerts(address, plan, history, OURS, step_s=900) == []


@NEEDS
def test_the_replay_can_find_an_untold_outage() -> None:
    """With a rule that never fires the check says so: it is not that nothing could fail here."""
    plan, history = of_scenario(ROOT / "scenarios" / "nightly_sleep.toml")
    replayed = alerting.replay(plan, history, AS_REPORTED)
    assert CHECKS["alert_before_outage"](plan, replayed).verdict is Verdict.BROKEN


def test_the_samples_have_a_gap_where_the_node_slept() -> None:
    """Nothing is scraped while asleep, and what is scraped is what the guard would export."""
    plan, history = of_scenario(ROOT / "scenarios" / "nightly_sleep.toml")
    lines = list(alerting.open_metrics(plan, history))
    assert lines[0] == "# TYPE meshwake_guard_drift_seconds gauge\n" and lines[-1] == "# EOF\n"
    looks = [line for line in lines if line.startswith("meshwake_guard_last_look")]
    moments = [int(line.split()[-1]) - plan.starts_wall_s for line in looks]
    assert 15 * 3_600 - 60 in moments and 23 * 3_600 in moments
    assert not [at for at in moments if 15 * 3_600 <= at < 23 * 3_600]
    drifts = {float(line.split()[1]) for line in lines if line.startswith("meshwake_guard_drift")}
    assert drifts == {28_800.0 * night for night in range(8)}


def test_alerts_about_the_watchers_do_not_count() -> None:
    """GuardSilent fires while a node sleeps for days; that does not announce an outage."""
    _, history = of_scenario(ROOT / "scenarios" / "one_long_suspend.toml")
    replayed = alerting.with_alerts(
        history, OURS, [FiredAlert("GuardSilent", 10), FiredAlert("ZtunnelRenewalsLate", 20)]
    )
    assert [event["alert"] for event in replayed.of("alert_fired")] == ["ZtunnelRenewalsLate"]
    assert [event.world_ns for event in replayed] == sorted(event.world_ns for event in replayed)
    assert History.from_text(replayed.to_text()).to_text() == replayed.to_text()
