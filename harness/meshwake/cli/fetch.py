"""meshwake fetch: real ztunnels out of their official image into the cache.

Results go to stdout, progress to stderr. Errors are raised as HarnessError;
harness/meshwake/cli/app.py prints them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from meshwake.cli.options import JsonOption
from meshwake.cli.output import print_json, print_text
from meshwake.core.errors import BadInput
from meshwake.ztunnel.fetch.fetch import Fetched, check_version, fetch, source_of
from meshwake.ztunnel.fetch.registry import Progress

MIB = 1024 * 1024


def add_commands(app: typer.Typer) -> None:
    """Adds fetch to `app`."""
    app.command("fetch")(fetch_command)


def fetch_command(
    wanted: Annotated[
        list[str], typer.Argument(metavar="VERSION", help="Releases of Istio, such as 1.28.0.")
    ],
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry", metavar="HOST[/NAME]", help="Another registry that has the image."
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror", metavar="HOST[/PREFIX]", help="A mirror: PREFIX/istio/ztunnel is there."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="A saved image or the binary itself; no network."
        ),
    ] = None,
    relock: Annotated[
        bool, typer.Option("--relock", help="Take it although the lock file names another.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch real ztunnels, checked by digest, into the cache."""
    source = source_of(registry, mirror, file, relock)
    if file is not None and len(wanted) != 1:
        raise BadInput(
            f"--from {file}: is one binary; give its version alone, for example: meshwake "
            "fetch 1.28.0"
        )
    versions = [check_version(version) for version in wanted]
    with _bars(shown=not as_json and sys.stderr.isatty()) as bars:
        fetched = [fetch(version, source, lambda what: _teller(bars, what)) for version in versions]
    if as_json:
        rows = [
            {
                "version": each.version,
                "path": str(each.path),
                "sha256": each.sha256,
                "was_there": each.was_there,
            }
            for each in fetched
        ]
        print_json(rows)
        return
    for each in fetched:
        print_text(_line(each))


def _line(fetched: Fetched) -> str:
    how = "was there" if fetched.was_there else f"{fetched.path.stat().st_size / MIB:.1f} MiB"
    remark = f"; {fetched.remark}" if fetched.remark else ""
    return f"ztunnel {fetched.version}  {how}  {fetched.sha256}{remark}\n  {fetched.path}"


def _bars(*, shown: bool) -> Bars:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    return Bars(*columns, console=Console(stderr=True), disable=not shown, transient=True)


def _teller(bars: Bars, what: str) -> Progress:
    # The bar appears with the first bytes: what is in the cache already is not downloaded.
    tasks: list[TaskID] = []

    def report(received: int, of: int) -> None:
        if not tasks:
            tasks.append(bars.add_task(what, total=of))
        bars.update(tasks[0], completed=received)

    return report
