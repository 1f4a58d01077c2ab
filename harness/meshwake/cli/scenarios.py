"""meshwake list: the scenarios that come with meshwake, by the names that `run` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from meshwake.cli.options import JsonOption
from meshwake.cli.output import print_json, print_text
from meshwake.core.resources import SCENARIOS
from meshwake.core.scenario import read_scenario
from meshwake.runner.corpus import corpus


def add_commands(app: typer.Typer) -> None:
    """Adds list to `app`."""
    app.command("list")(list_scenarios)


def list_scenarios(
    word: Annotated[
        str, typer.Option("-k", metavar="TEXT", help="Only names and titles with this text.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the scenarios that come with meshwake, with their titles."""
    rows = []
    for file in corpus():
        title, folder = read_scenario(file).title, file.parent.relative_to(SCENARIOS).as_posix()
        if word.lower() in f"{file.stem} {title}".lower():
            rows.append({"name": file.stem, "folder": folder.strip("."), "title": title})
    if as_json:
        print_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print_text(f"{row['name']:<{width}}  {row['title']}")
