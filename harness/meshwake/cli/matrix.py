"""meshwake matrix: which fix holds against which clock fault; meshwake guard-trial: does the wake
guard, for months?

Results go to stdout, progress to stderr. Errors are raised as HarnessError;
harness/meshwake/cli/app.py says them and ends with their exit code.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from meshwake.analysis.confirm import confirm, subject
from meshwake.analysis.fault_catalogue import FAULTS, scenario_for
from meshwake.analysis.guard_trial import months, trial_words, try_guard
from meshwake.analysis.matrix import Row, matrix
from meshwake.analysis.matrix_table import (
    CONFIRMED,
    ONLY_RESTARTS,
    lasting_words,
    long_table,
    short_table,
    write_between,
)
from meshwake.cli.ending import Ended
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.refusal import invalid_choice
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.fixes import FIXES
from meshwake.labs import Toolbox
from meshwake.report.terminal import show
from meshwake.runner.corpus import scenario_files

FixOption = Annotated[
    list[str] | None, typer.Option("--fix", metavar="NAME", help="Only this fix; may be repeated.")
]
FaultOption = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="NAME", help="Only this fault; may be repeated."),
]
ScenarioOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--scenario", metavar="FILE", help="Against the faults of this scenario, instead of ours."
    ),
]
IstioOption = Annotated[
    str | None, typer.Option("--istio", metavar="VERSION", help="The release; newest known.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Chooses what is left to chance.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
LongOption = Annotated[
    bool, typer.Option("--long", help="One line for each fix and fault, with every number.")
]
WriteOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--write",
        metavar="PAGE",
        help="Put the table between the marks of this page; may be repeated.",
    ),
]
ConfirmOption = Annotated[
    bool,
    typer.Option("--confirm", help="Run each pair on a real ztunnel, and record what it shows."),
]
ZtunnelOption = Annotated[
    Path | None,
    typer.Option("--ztunnel", metavar="PATH", help="With --confirm: the binary; one of the cache."),
]


def add_commands(app: typer.Typer) -> None:
    """Adds matrix and guard-trial to `app`."""
    app.command("matrix")(matrix_command)
    app.command("guard-trial")(trial_command)


def matrix_command(
    fix: FixOption = None,
    fault: FaultOption = None,
    scenario: ScenarioOption = None,
    istio: IstioOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    long: LongOption = False,
    write: WriteOption = None,
    confirming: ConfirmOption = False,
    ztunnel: ZtunnelOption = None,
) -> None:
    """Run every fix against every clock fault, and show which holds."""
    fixes = _chosen("--fix", fix, list(FIXES))
    scenarios = _scenarios(fault, scenario)
    release = versions.find(istio) if istio else versions.newest()
    if ztunnel is not None and not confirming:
        raise BadInput(
            f"--ztunnel {ztunnel}: the matrix is of the model; say --confirm to run pairs "
            "on a binary"
        )
    if write and (fix or fault or scenario or istio or seed):
        raise BadInput(
            "--write puts the whole matrix of the newest release on a page; leave the "
            "other options out"
        )
    if confirming:
        confirm(fixes, scenarios, ztunnel, istio, seed, _tell)
    rows = matrix(
        fixes, scenarios, release, seed, _tell if sys.stderr.isatty() else lambda name, fault: None
    )
    for page in write or []:
        kind = "short" if page.name == "README.md" else "long"
        changed = write_between(
            page, kind, short_table(rows) if kind == "short" else long_table(rows)
        )
        typer.echo(f"{page}: {'written' if changed else 'was up to date'}", err=True)
    if as_json:
        typer.echo(
            json.dumps(
                {"version": release.version, "rows": [row.to_json() for row in rows]}, indent=2
            )
        )
    else:
        show(Console(), _long(rows) if long else _short(rows))
        _legend(release.version, scenarios)


def trial_command(
    days: Annotated[int, typer.Option("--days", min=3, help="How long.")] = 90,
    seed: SeedOption = 1,
    lab: Annotated[
        str, typer.Option("--lab", help="model, or process: with a real ztunnel.")
    ] = "model",
    istio: IstioOption = None,
    ztunnel: ZtunnelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the wake guard through months of random sleeps and of an authority that is away."""
    if lab not in ("model", "process"):
        raise invalid_choice("--lab", lab, ("model", "process"))
    scenario, tell = months(seed, days), _say if sys.stderr.isatty() else lambda text: None
    if lab == "process":
        path, release = subject(ztunnel, istio)
        with tempfile.TemporaryDirectory(prefix="meshwake-trial-") as work:
            trial = try_guard(scenario, release, seed, days, lab, Toolbox(path, Path(work)), tell)
    else:
        release = versions.find(istio) if istio else versions.newest()
        trial = try_guard(scenario, release, seed, days, tell=tell)
    typer.echo(json.dumps(trial.to_json(), indent=2) if as_json else trial_words(trial))
    raise Ended(ExitCode.AS_EXPECTED if trial.passed else ExitCode.SURPRISE)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _chosen(option: str, named: list[str] | None, known: list[str]) -> list[str]:
    for name in named or []:
        if name not in known:
            raise invalid_choice(option, name, known)
    return named or known


def _scenarios(faults: list[str] | None, files: list[Path] | None) -> dict[str, Scenario]:
    if files and faults:
        raise BadInput("--scenario brings faults of its own; leave --fault out")
    if files:
        read = [read_scenario(path) for path in scenario_files(files)]
        return {each.name: each for each in read}
    return {name: scenario_for(FAULTS[name]) for name in _chosen("--fault", faults, list(FAULTS))}


def _short(rows: list[Row]) -> Table:
    faults = list(dict.fromkeys(row.fault for row in rows if row.fault != ONLY_RESTARTS)) or [
        ONLY_RESTARTS
    ]
    table = Table(
        Column("fix", no_wrap=True),
        *(fault.replace("-", " ") for fault in faults),
        box=None,
        padding=(0, 1),
    )
    for fix in dict.fromkeys(row.fix for row in rows):
        table.add_row(fix, *(_words(row) for row in rows if row.fix == fix and row.fault in faults))
    return table


def _words(row: Row) -> Text:
    """In colour where there is some; the words say it too."""
    seen = f" {CONFIRMED}" if row.confirmed_on else ""
    if row.verdict == "HOLDS":
        return Text(f"holds{seen}", "green")
    if row.verdict == "BROKEN":
        return Text(
            f"{'storm' if row.flooded else lasting_words(row.outage_s_per_week)}{seen}", "red"
        )
    return Text(f"unknown{seen}", "yellow")


def _long(rows: list[Row]) -> Table:
    table = Table(
        "fix",
        "fault",
        "verdict",
        "outage a week",
        "longest",
        "restarts a week",
        "seen on",
        box=None,
    )
    for row in rows:
        table.add_row(
            row.fix,
            row.fault,
            row.verdict,
            lasting_words(row.outage_s_per_week),
            lasting_words(row.recovery_s_worst),
            f"{row.restarts_per_week:g}",
            row.confirmed_on or "model",
        )
    return table


def _legend(version: str, scenarios: dict[str, Scenario]) -> None:
    typer.echo(
        f"\nztunnel {version}, on the model; {CONFIRMED} the same verdict was seen on a "
        "real ztunnel"
    )
    typer.echo(
        "a time: BROKEN, and so much waking time without connection a week; storm: renewed "
        "without a pause"
    )
    for name, scenario in scenarios.items():
        typer.echo(f"  {name}: {scenario.title}")


def _tell(fix: str, fault: str) -> None:
    typer.echo(f"{fix} against {fault}", err=True)
