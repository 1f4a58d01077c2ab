"""meshwake list and new: the scenarios that come with meshwake, by the names that `run` takes; and a
file to begin one's own with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from meshwake.cli.options import JsonOption
from meshwake.cli.output import print_json, print_text
from meshwake.core.errors import BadInput
from meshwake.core.refusal import unwritable
from meshwake.core.resources import SCENARIOS
from meshwake.core.scenario import read_scenario
from meshwake.runner.corpus import scenario_file, scenario_files
from meshwake.runner.flags import SelectFlags, with_flags

# Expectations that hold are what a person wants of a mesh: until a fix is there the run fails.
_TEMPLATE = """\
# A scenario of meshwake: a world, what happens to its clocks, and what must come of it.
title    = "My machine sleeps from ten in the evening to seven in the morning"
duration = "7d"

# A machine with clocks of its own, and the identities (namespace/serviceaccount) on it.
[[node]]
name       = "laptop"
identities = ["default/client", "default/server"]

# Who connects to whom, how often. Each attempt is a new connection.
[traffic]
pairs = [["default/client", "default/server"]]
every = "10m"

# Time begins with every ztunnel started, on a Monday at 08:00 UTC. Other kinds of faults are
# pause, step, drift, freeze, restart, ca_outage.
[[fault]]
kind  = "suspend"
at    = "14h"
lasts = "9h"
every = "24h"

# What is deployed against it; meshwake matrix --scenario THIS-FILE compares all there are.
# [fix]
# name = "wake-guard"

# What must come of it. Run it without a fix first: it should fail.
[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "whenever the machine is awake, its services must reach one another"
"""

_ELSEWHERE = "name a file in a directory of yours"


def add_commands(app: typer.Typer) -> None:
    """Adds list and new to `app`."""
    app.command("list")(list_scenarios)
    app.command("new")(new)


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


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="SCENARIO", help="Copy this one, a file or a name, instead."
        ),
    ] = "",
) -> None:
    """Write a scenario to begin with: a machine that sleeps every night, with comments."""
    if not file.name:
        raise BadInput(f"{file}: is a directory; expected the name of a file, such as mine.toml")

    # `meshwake run` knows files of one's own by their suffix.
    path = file if file.suffix == ".toml" else file.with_name(f"{file.name}.toml")
    text = scenario_file(source).read_text(encoding="utf-8") if source else _TEMPLATE
    _write_new(path, text)
    typed = shlex.quote(str(path))
    print_text(f"{path} is written; next:")
    print_text(f"  meshwake run {typed}")
    print_text(f"  meshwake run {typed} --fix wake-guard")
    print_text(f"  meshwake matrix --scenario {typed}      which fix holds")


def _write_new(path: Path, text: str) -> None:
    """Writes a file that must not be there yet, with its folders. Raises BadInput."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error, _ELSEWHERE) from error

    try:
        with path.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError as error:
        raise BadInput(f"{path}: exists already; name another file") from error
    except OSError as error:
        raise unwritable(path, error, _ELSEWHERE) from error
