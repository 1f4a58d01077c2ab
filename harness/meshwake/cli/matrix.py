"""meshwake matrix: which fix holds against which clock fault; meshwake guard-trial: does the wake
guard, for months?

Results go to stdout, progress to stderr. Errors are raised as HarnessError;
harness/meshwake/cli/app.py prints them and ends with their exit code.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from meshwake.analysis.confirm import (
    ConfirmingPlace,
    confirm,
    find_subject,
    on_binary,
    on_cluster,
)
from meshwake.analysis.fault_catalogue import FAULTS, scenario_for
from meshwake.analysis.guard_trial import describe_trial, random_months, try_guard
from meshwake.analysis.matrix import MatrixRow, matrix
from meshwake.analysis.matrix_table import (
    CONFIRMED,
    IN_CLUSTER,
    ONLY_RESTARTS,
    lasting_words,
    long_table,
    marks,
    replace_between,
    seen_words,
    short_table,
    write_between,
)
from meshwake.cli.options import JsonOption, OneVersionOption, SeedOption
from meshwake.cli.output import CommandExit, print_json, print_text, say
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.outputs import try_file
from meshwake.core.refusal import invalid_choice
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.core.text_files import read_text
from meshwake.fixes import FIXES
from meshwake.labs import Toolbox
from meshwake.report.terminal import show
from meshwake.runner.corpus import scenario_files
from meshwake.runner.flags import AUTO, LabFlags, given_in, with_flags
from meshwake.runner.options import planned_cluster

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
ConfirmedZtunnelOption = Annotated[
    Path | None,
    typer.Option("--ztunnel", metavar="PATH", help="With --confirm: the binary; one of the cache."),
]


def add_commands(app: typer.Typer) -> None:
    """Adds matrix and guard-trial to `app`."""
    app.command("matrix")(with_flags(LabFlags)(matrix_command))
    app.command("guard-trial")(trial_command)


def matrix_command(
    fix: FixOption = None,
    fault: FaultOption = None,
    scenario: ScenarioOption = None,
    istio: OneVersionOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    long: LongOption = False,
    write: WriteOption = None,
    confirming: ConfirmOption = False,
    ztunnel: ConfirmedZtunnelOption = None,
    *,
    flags: LabFlags,
) -> None:
    """Run every fix against every clock fault, and show which holds."""
    _refuse_contradictions(write, fix, fault, scenario, istio, seed, ztunnel, confirming)
    if not confirming and (typed := given_in(flags, LabFlags)):
        raise BadInput(
            f"{', '.join(typed)}: the matrix runs on the model; use --confirm to run pairs elsewhere"
        )
    for page in write or []:
        _check_page(page)
    fixes = _chosen("--fix", fix, list(FIXES))
    scenarios = _scenarios(fault, scenario)
    release = versions.find(istio) if istio else versions.newest()

    # First the binaries, which write what they show to a file; then the model's table, with a mark
    # where both agree.
    if confirming:
        confirm(fixes, scenarios, _place(flags, ztunnel, istio), seed, _report_pair)
    report = _report_pair if sys.stderr.isatty() else _report_nothing
    rows = matrix(fixes, scenarios, release, seed, report)

    # Pages first: a broken pipe behind stdout must not leave them as they were.
    for page in write or []:
        _write_page(page, rows)
    if as_json:
        print_json({"version": release.version, "rows": [row.to_json() for row in rows]})
    else:
        show(Console(), _long(rows) if long else _short(rows))
        _legend(release.version, scenarios)


def _place(flags: LabFlags, ztunnel: Path | None, istio: str | None) -> ConfirmingPlace:
    """Where --confirm runs. Raises BadInput, LabUnavailable."""
    if flags.lab not in (AUTO, "process", "kind"):
        raise invalid_choice("--lab", flags.lab, ("process", "kind"))
    if flags.lab != "kind":
        planned_cluster(flags)  # refuses options of a cluster
        return on_binary(ztunnel, istio)
    if ztunnel is not None:
        raise BadInput(f"--ztunnel {ztunnel}: lab kind runs no binary; leave it out")
    return on_cluster(planned_cluster(flags), istio)


def _refuse_contradictions(
    write: list[Path] | None,
    fix: list[str] | None,
    fault: list[str] | None,
    scenario: list[Path] | None,
    istio: str | None,
    seed: int,
    ztunnel: Path | None,
    confirming: bool,
) -> None:
    if ztunnel is not None and not confirming:
        raise BadInput(
            f"--ztunnel {ztunnel}: the matrix runs on the model; use --confirm to run pairs on a "
            "binary"
        )
    # A page with a part of the table would look like the whole.
    if write and (fix or fault or scenario or istio or seed):
        raise BadInput(
            "--write puts the whole matrix of the newest release on a page; leave the other "
            "options out"
        )
    if scenario and fault:
        raise BadInput("--scenario has faults of its own; leave --fault out")


def _check_page(page: Path) -> None:
    """Raises BadInput for a page that cannot take its table."""
    replace_between(read_text(page), _which(page), "", str(page))
    try_file(page, "--write")


def _which(page: Path) -> str:
    return "short" if page.name == "README.md" else "long"


def _write_page(page: Path, rows: list[MatrixRow]) -> None:
    which = _which(page)
    table = short_table(rows) if which == "short" else long_table(rows)
    changed = write_between(page, which, table)
    say(f"{page}: {'written' if changed else 'was up to date'}")


def trial_command(
    days: Annotated[int, typer.Option("--days", min=3, help="How long.")] = 90,
    seed: SeedOption = 1,
    lab: Annotated[
        str, typer.Option("--lab", help="model, or process: with a real ztunnel.")
    ] = "model",
    istio: OneVersionOption = None,
    ztunnel: ConfirmedZtunnelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test the wake guard for months of random sleeps and outages of the authority."""
    if lab not in ("model", "process"):
        raise invalid_choice("--lab", lab, ("model", "process"))

    # The same seed gives the same months on both labs, so that the two can be compared.
    scenario = random_months(seed, days)
    report = say if sys.stderr.isatty() else _report_nothing
    if lab == "process":
        path, release = find_subject(ztunnel, istio)
        with tempfile.TemporaryDirectory(prefix="meshwake-trial-") as work:
            toolbox = Toolbox(path, Path(work))
            trial = try_guard(scenario, release, seed, days, lab, toolbox, report)
    else:
        release = versions.find(istio) if istio else versions.newest()
        trial = try_guard(scenario, release, seed, days, report=report)
    if as_json:
        print_json(trial.to_json())
    else:
        print_text(describe_trial(trial))
    raise CommandExit(ExitCode.AS_EXPECTED if trial.passed else ExitCode.SURPRISE)


def _report_nothing(*_: str) -> None:
    """No progress: stderr is not a terminal."""


def _report_pair(fix: str, fault: str) -> None:
    say(f"{fix} against {fault}")


def _chosen(option: str, named: list[str] | None, known: list[str]) -> list[str]:
    for name in named or []:
        if name not in known:
            raise invalid_choice(option, name, known)
    return named or known


def _scenarios(faults: list[str] | None, files: list[Path] | None) -> dict[str, Scenario]:
    if files:
        read = [read_scenario(path) for path in scenario_files(files)]
        return {each.name: each for each in read}
    return {name: scenario_for(FAULTS[name]) for name in _chosen("--fault", faults, list(FAULTS))}


def _short(rows: list[MatrixRow]) -> Table:
    faults = _columns(rows)
    table = Table(
        Column("fix", no_wrap=True),
        *(fault.replace("-", " ") for fault in faults),
        box=None,
        padding=(0, 1),
    )
    by_fix: dict[str, list[Text]] = {}
    for row in rows:
        cells = by_fix.setdefault(row.fix, [])
        if row.fault in faults:
            cells.append(_words(row))
    for fix, cells in by_fix.items():
        table.add_row(fix, *cells)
    return table


def _columns(rows: list[MatrixRow]) -> list[str]:
    """The faults. What a fix costs without any is a column only when it is the only one."""
    faults = dict.fromkeys(row.fault for row in rows)
    shown = [fault for fault in faults if fault != ONLY_RESTARTS]
    return shown or [ONLY_RESTARTS]


def _words(row: MatrixRow) -> Text:
    """In colour where there is some; the words are enough without."""
    confirmed = marks(row)
    if row.verdict == "HOLDS":
        return Text(f"holds{confirmed}", "green")
    if row.verdict == "BROKEN":
        outage = "storm" if row.flooded else lasting_words(row.outage_s_per_week)
        return Text(f"{outage}{confirmed}", "red")
    return Text(f"unknown{confirmed}", "yellow")


def _long(rows: list[MatrixRow]) -> Table:
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
            seen_words(row),
        )
    return table


def _legend(version: str, scenarios: dict[str, Scenario]) -> None:
    lines = [
        "",
        f"ztunnel {version}, on the model; {CONFIRMED} the same verdict was seen on a real ztunnel, "
        f"{IN_CLUSTER} in a real cluster",
        "a time: BROKEN, and this much awake time without connection a week; storm: renewed "
        "without a pause",
        *(f"  {name}: {scenario.title}" for name, scenario in scenarios.items()),
    ]
    print_text("\n".join(lines))
