"""meshwake alerts: would anybody have been told? Alerting rules set against what a run recorded, by a real Prometheus.

Exit codes: 0 somebody was told in time, or there was nothing to tell; 1 nobody was; 2 it cannot be judged; 4 no
Prometheus here. Errors are raised as HarnessError; harness/cli.py says them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.answers.alerting import fired, prometheus_with, read_rules, with_alerts
from harness.checks import CHECKS
from harness.checks.derive import failures
from harness.checks.words import count, lasting, moment
from harness.cli_forecast import Foretold
from harness.durations import seconds
from harness.errors import ExitCode
from harness.pipeline import REPOSITORY
from harness.store import read_run
from harness.verdict import Verdict

OURS = REPOSITORY / "clusters" / "observability" / "alerts" / "mesh.yml"
SHOWN = 10
_CODES = {Verdict.HOLDS: ExitCode.AS_EXPECTED, Verdict.BROKEN: ExitCode.SURPRISE, Verdict.UNKNOWN: ExitCode.UNKNOWN}


def add_commands(app: typer.Typer) -> None:
    """Adds alerts to `app`."""
    app.command("alerts")(alerts)


def alerts(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run that was kept, or a 'latest'.")],
    files: Annotated[
        list[Path] | None, typer.Option("--rules", metavar="FILE", help="Rules of Prometheus; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")] = False,
) -> None:
    """Say which alerts would have fired in a saved run, and whether before its outages."""
    rules = [rule for file in files or [OURS] for rule in read_rules(file)]
    saved = read_run(run_directory)
    plan, history = saved.plan, saved.history
    with prometheus_with(plan, history) as address:
        told = fired(address, plan, history, rules)
    finding = CHECKS["alert_before_outage"](plan, with_alerts(history, rules, told))
    if as_json:
        rows = [{"alert": each.rule, "world_s": seconds(each.world_ns)} for each in told]
        _print_json({"verdict": finding.verdict, "because": finding.because, "alerts": rows})
    else:
        long = count(len(failures(plan, history)), "outage")
        lines = [f"{moment(each.world_ns)}  {each.rule}" for each in told[:SHOWN]]
        if len(told) > SHOWN:
            lines.append(f"and {len(told) - SHOWN} more from {moment(told[SHOWN].world_ns)} on")
        sys.stdout.write(
            "\n".join([f"{count(len(rules), 'rule')}, {long} in {lasting(plan.duration_ns)}", *lines]) + "\n"
        )
        sys.stdout.write(f"{finding.verdict}  {finding.check}: {finding.because}\n")
    raise Foretold(_CODES[finding.verdict])


def _print_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
