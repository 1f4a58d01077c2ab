"""meshwake report: kept runs as pages for a browser, or as strips in the terminal. And what `run
--report` does. meshwake runs: which runs are kept.

Results go to stdout. Errors are raised as HarnessError; harness/meshwake/cli/app.py prints them and
ends with their exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meshwake.cli.options import JsonOption
from meshwake.cli.output import print_json, print_text, say
from meshwake.core.errors import BadInput, HarnessError
from meshwake.core.run import Run
from meshwake.core.store import ended_s, kept_runs, read_result, runs_dir
from meshwake.report.ascii_timeline import ascii_timelines
from meshwake.report.html.folder import write_report
from meshwake.report.terminal import WIDTH_MAX, run_detail, show
from meshwake.runner.run import check_run
from meshwake.runner.suite import Ending, summary_of

RUNS_SHOWN = 20


def add_commands(app: typer.Typer) -> None:
    """Adds report and runs to `app`."""
    app.command("report")(report)
    app.command("runs")(runs_command)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN", help="Directories of kept runs, names of scenarios, or latest."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Write pages for a browser to this folder."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="In the terminal: all evidence.")
    ] = False,
) -> None:
    """Show kept runs: timelines in the terminal, or with --output pages that open offline."""
    checked = checked_runs(runs)
    console = Console(markup=False)
    if output is not None:
        console.print(f"open {write_report(output, checked)}", highlight=False, soft_wrap=True)
        return
    for run in checked:
        show(console, ascii_timelines(run.plan, run.history, min(console.width, WIDTH_MAX)))
        show(console, run_detail(run, verbose))
    console.print("--output DIR writes the same as pages for a browser", highlight=False)


def runs_command(
    every: Annotated[
        bool, typer.Option("--all", help="All of them, not only the last 20.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List kept runs, the newest first, as they were judged then."""
    kept = kept_runs()
    # A program gets all of them; a person the newest.
    shown = kept if every or as_json else kept[:RUNS_SHOWN]
    rows = [_row_of(run) for run in shown]
    if as_json:
        print_json(rows)
        return
    if not kept:
        say(f"no run is kept in {runs_dir()}; meshwake run --keep-run keeps one")
    for row in rows:
        print_text(f"{row['when']}  {row['outcome']:<11}  {row['run']}")
    if len(kept) > len(shown):
        say(f"and {len(kept) - len(shown)} older ones; --all lists them")


def _row_of(run: Path) -> dict[str, str]:
    """One kept run; a run that broke off has no result."""
    when = datetime.fromtimestamp(ended_s(run)).astimezone()
    outcome = (read_result(run) or {}).get("outcome", "broke off")
    return {"run": str(run), "when": f"{when:%Y-%m-%d %H:%M}", "outcome": str(outcome)}


def checked_runs(paths: Iterable[Path]) -> list[Run]:
    """The runs saved at `paths`, judged today. Every one is read before anything is written: raises
    BadInput that names all that are none."""
    checked, refusals = [], []
    for path in paths:
        # A kept run is judged again: its pages are by today's checks, as `meshwake check` is.
        try:
            checked.append(check_run(path))
        except BadInput as error:
            refusals.append(str(error))
    if refusals:
        raise BadInput("\n".join(refusals))
    return checked


def report_endings(
    path: Path, endings: Iterable[Ending], quiet: bool = False
) -> HarnessError | None:
    """Writes the report of a suite that just ran, those that were refused included. A report that
    cannot be written takes nothing from the runs: its error is returned."""
    endings = list(endings)
    runs = [ending.run for ending in endings if ending.run is not None]
    others = [summary_of(ending) for ending in endings if ending.run is None]
    try:
        opened = write_report(path, runs, others, option="--report")
    except HarnessError as error:
        return error
    if not quiet:
        Console(markup=False).print(f"report: {opened}", highlight=False, soft_wrap=True)
    return None
