"""meshwake versions, dashboard: which releases are known, and what is true of each."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from meshwake.analysis.refresh_versions import CachedFetch, Sources, fetch
from meshwake.analysis.refresh_versions import refresh as renew
from meshwake.cli.options import JsonOption
from meshwake.cli.output import CommandExit, print_json, print_text, say, write_text
from meshwake.core import versions
from meshwake.core.errors import BadInput
from meshwake.core.refusal import unreadable
from meshwake.core.resources import repository
from meshwake.report.terminal import show
from meshwake.ztunnel import binaries

_HEADINGS = (
    "version",
    "class",
    "ztunnel",
    "Kubernetes",
    "kind node",
    "Gateway API",
    "end of life",
    "here",
)


def add_commands(app: typer.Typer) -> None:
    """Adds versions and dashboard to `app`."""
    app.command("dashboard")(make_dashboard)
    table = typer.Typer(
        help="List the releases that are known; refresh the table.", invoke_without_command=True
    )
    table.callback()(list_versions)
    table.command()(refresh)
    app.add_typer(table, name="versions")


def make_dashboard(
    night: Annotated[
        Path | None,
        typer.Option("--record", metavar="NIGHT", help="Record what this night saw on binaries."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when the page is stale.")
    ] = False,
) -> None:
    """Write docs/versions.md: what is true of which release on which lab."""
    if check and night is not None:
        raise BadInput("--check writes nothing, --record does; give one of them")

    # The page belongs to the repository, and so does the program that makes it.
    command = [sys.executable, str(repository() / "tools" / "dashboard.py")]
    if check:
        command.append("--check")
    if night is not None:
        command += ["--record", str(night)]
    raise CommandExit(subprocess.run(command, check=False).returncode)


def list_versions(
    context: typer.Context,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="VERSION", help="Only this release and newer ones."),
    ] = None,
    newest_of_each_minor: Annotated[
        bool, typer.Option("--newest-of-each-minor", help="One a minor.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Version and image, one a line, for scripts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the releases that are known, their class and what goes with them."""
    if context.invoked_subcommand is not None:
        return
    rows = versions.releases()
    if since is not None:
        oldest = versions.parse_version(since, "--since")
        rows = tuple(row for row in rows if versions.parse_version(row.version) >= oldest)
    if newest_of_each_minor:
        rows = versions.newest_of_each_minor(rows)
    here = {binary.version for binary in binaries.cached()}
    if as_json:
        print_json([asdict(row) | {"cached": row.version in here} for row in rows])
    elif plain:
        print_text("\n".join(_image_line(row) for row in rows))
    else:
        show(Console(), _versions_table(rows, here))


def _image_line(row: versions.Release) -> str:
    digest = f"@{row.digest}" if row.digest else ""
    return f"{row.version} {row.image}{digest}"


def _versions_table(rows: Sequence[versions.Release], here: set[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(
            row.version,
            row.behaviour_class,
            row.commit[:8],
            row.kubernetes,
            row.node_image,
            row.gateway_api,
            row.end_of_life,
            "yes" if row.version in here else "",
        )
    return table


def refresh(
    write: Annotated[
        bool, typer.Option("--write", help="Change the table; without: only show how.")
    ] = False,
    images: Annotated[
        str, typer.Option("--images", metavar="URL", help="The image's tags.")
    ] = Sources.images,
    releases: Annotated[
        str, typer.Option("--releases", metavar="URL", help="The releases.")
    ] = Sources.releases,
    deps: Annotated[
        str, typer.Option("--deps", metavar="URL", help="istio.deps of a {version}.")
    ] = Sources.deps,
    table: Annotated[
        Path, typer.Option("--table", metavar="FILE", help="The table.")
    ] = versions.VERSIONS_FILE,
) -> None:
    """Refresh the table from public sources, as a diff to look at; a new release is
    unclassified."""
    try:
        text = table.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(f"--table {table}", error) from error

    # Of a refresh that failed half way the pages that were read are not fetched again for an hour.
    get = CachedFetch(fetch, binaries.cache_dir() / "refresh", time.time, say)
    renewed = renew(text, str(table), get, Sources(images, releases, deps))
    sys.stdout.write(renewed.diff)
    for note in renewed.notes:
        say(note)
    if not renewed.diff:
        say("nothing is new")
    elif write:
        write_text(table, renewed.new, "--table")
        say(f"written: {table}")
    else:
        say("nothing was written; --write does")
