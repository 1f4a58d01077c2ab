"""meshwake alerts: which alerts would have fired in a recorded run, and in time? A real Prometheus
evaluates the rules.

Exit codes: 0 an alert fired in time, or there was nothing to warn of; 1 none did; 2 it cannot be
judged; 4 no Prometheus here. Errors are raised as HarnessError.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from meshwake.analysis.alert_replay import FiredAlert, RuleResults, evaluate_rules, judge_alerts
from meshwake.analysis.alert_rules import RuleSet, read_rule_files
from meshwake.checks.facts.traffic import failures
from meshwake.checks.format import count, dated, lasting, moment
from meshwake.cli.options import JsonOption
from meshwake.cli.output import CommandExit, print_json, print_text
from meshwake.core.durations import seconds
from meshwake.core.errors import ExitCode
from meshwake.core.history import History
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan
from meshwake.core.resources import CLUSTERS
from meshwake.core.store import read_run

# Without --rules: the rules that our own clusters are deployed with.
OURS = CLUSTERS / "observability" / "alerts" / "mesh.yml"
SHOWN = 10
_CODES = {
    Verdict.HOLDS: ExitCode.AS_EXPECTED,
    Verdict.BROKEN: ExitCode.SURPRISE,
    Verdict.UNKNOWN: ExitCode.UNKNOWN,
}


def add_commands(app: typer.Typer) -> None:
    """Adds alerts to `app`."""
    app.command("alerts")(alerts)


def alerts(
    run_directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run that was kept, or a 'latest'.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Option("--rules", metavar="FILE", help="Rules of Prometheus; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which alerts would have fired in a saved run, and whether before its outages."""
    # Rules first: a typing error in a file is found in a moment, the run may be of a month.
    rules = read_rule_files(files or [OURS])
    saved = read_run(run_directory)
    plan, history = saved.plan, saved.history
    results = evaluate_rules(plan, history, rules)
    finding = judge_alerts(plan, history, rules, results)
    if as_json:
        print_json(_as_json(finding, results))
    else:
        print_text("\n".join(_lines(plan, history, rules, results)))
        print_text(f"{finding.verdict}  {finding.check}: {dated(finding.because, plan.dates)}")
    raise CommandExit(_CODES[finding.verdict])


def _as_json(finding: Finding, results: RuleResults) -> MutableJsonObject:
    return {
        "verdict": finding.verdict,
        "because": finding.because,
        "alerts": _rows(results.fired),
        "before_anything_happened": _rows(results.noisy),
        "not_judged": [{"alert": name, "needs": list(needs)} for name, needs in results.unclear],
    }


def _rows(alerts: Sequence[FiredAlert]) -> list[MutableJsonObject]:
    return [{"alert": each.rule, "world_s": seconds(each.world_ns)} for each in alerts]


def _when(plan: Plan, alert: FiredAlert) -> str:
    return dated(moment(alert.world_ns), plan.dates)


def _lines(plan: Plan, history: History, rules: RuleSet, results: RuleResults) -> list[str]:
    long = count(len(failures(plan, history)), "outage")
    lines = [f"{count(len(rules.alerts), 'rule')}, {long} in {lasting(plan.duration_ns)}"]
    lines += [f"{_when(plan, each)}  {each.rule}" for each in results.fired[:SHOWN]]
    if len(results.fired) > SHOWN:
        lines.append(
            f"and {len(results.fired) - SHOWN} more from {_when(plan, results.fired[SHOWN])} on"
        )

    # An alert that fires in a healthy mesh is noise: what it says at the outage is not believed.
    lines += [
        f"{_when(plan, each)}  {each.rule}: before anything happened, so it warns of nothing"
        for each in results.noisy
    ]
    lines += [f"not judged: {name} needs {', '.join(needs)}" for name, needs in results.unclear]
    return lines
