"""meshwake list: the scenarios that come with meshwake, by the names that `run` takes."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, for programs.")
    ] = False,
) -> None:
    """List the scenarios that come with meshwake, with their titles."""
    rows = []
    for file in corpus():
        title, folder = read_scenario(file).title, file.parent.relative_to(SCENARIOS).as_posix()
        if word.lower() in f"{file.stem} {title}".lower():
            rows.append({"name": file.stem, "folder": folder.strip("."), "title": title})
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        sys.stdout.write(f"{row['name']:<{width}}  {row['title']}\n")
