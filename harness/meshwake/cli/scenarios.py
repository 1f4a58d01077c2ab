"""meshwake list: the scenarios that come with meshwake, by the names that `run` takes."""

from __future__ import annotations

from pathlib import Path

import typer

from meshwake.cli.options import JsonOption
from meshwake.cli.output import print_json, print_text
from meshwake.core.resources import SCENARIOS
from meshwake.core.scenario import read_scenario
from meshwake.runner.corpus import scenario_files
from meshwake.runner.flags import SelectFlags, with_flags


def add_commands(app: typer.Typer) -> None:
    """Adds list to `app`."""
    app.command("list")(list_scenarios)


@with_flags(SelectFlags)
def list_scenarios(as_json: JsonOption = False, *, flags: SelectFlags) -> None:
    """List the scenarios that come with meshwake, with their titles."""
    rows = [_row(file) for file in scenario_files([SCENARIOS], flags.keyword)]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print_text(f"{row['name']:<{width}}  {row['title']}")


def _row(file: Path) -> dict[str, str]:
    folder = file.parent.relative_to(SCENARIOS).as_posix().strip(".")
    return {"name": file.stem, "folder": folder, "title": read_scenario(file).title}
