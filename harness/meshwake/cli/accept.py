"""meshwake accept: an unexpected result becomes what a scenario expects from now on."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from meshwake.analysis.accept import acceptance
from meshwake.cli.options import DryRunOption
from meshwake.cli.output import say, write_text
from meshwake.core.errors import BadInput
from meshwake.core.store import read_run
from meshwake.runner.corpus import scenario_file


def add_commands(app: typer.Typer) -> None:
    """Adds accept to `app`."""
    app.command("accept")(accept)


def accept(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run with an unexpected result, or a 'latest'."),
    ],
    because: Annotated[
        str | None, typer.Option("--because", help="Why it is so; without: what the check found.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="FILE", help="Its file; without: the one of that name."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Update a scenario's expectations from an unexpected run, with its evidence."""
    saved = read_run(run)
    file = Path(scenario) if scenario is not None else _file_of(run, saved.plan.scenario)

    # The date goes into the row that is written: since when it has been so.
    today = datetime.now(UTC).date().isoformat()
    change = acceptance(run, file, today, because)
    sys.stdout.write(change.diff)
    for sentence in change.sentences:
        say(sentence)
    if dry_run:
        say("nothing was written")
        return
    write_text(change.path, change.new)
    say(f"written: {change.path}; look at the difference before you commit it")


def _file_of(run: Path, name: str) -> Path:
    """The scenario `name` of the corpus. A run does not know where another was written."""
    try:
        return scenario_file(name)
    except BadInput as error:
        raise BadInput(
            f"{run}: its scenario, {name}, does not come with meshwake; give its file with "
            "--scenario FILE"
        ) from error
