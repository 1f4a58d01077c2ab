"""meshwake fetch-kernel | clocks | timers: what lab machine needs, and what it measures without a
ztunnel.

Results go to stdout, progress to stderr. Errors are raised as HarnessError;
harness/meshwake/cli/app.py prints them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshwake.cli.output import print_text
from meshwake.core.outputs import try_file

# What only Linux has is imported by the command that needs it.

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="PACKAGE.deb", help="A linux-image package, instead of downloading one."
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="Where the page is written.")
]


def add_commands(app: typer.Typer) -> None:
    """Adds fetch-kernel, clocks and timers to `app`."""
    app.command("fetch-kernel")(fetch)
    app.command("clocks")(clocks)
    app.command("timers")(timers)


def fetch(file: FileOption = None) -> None:
    """Fetch a Linux kernel for the guests of lab machine (Debian's package, with apt; needs no
    root)."""
    from meshwake.labs.machine.kernel import fetch_kernel

    kernel = fetch_kernel(file)
    print_text(f"kernel {kernel.release} is at {kernel.image}")


def clocks(output: OutputOption = None) -> None:
    """Measure what clock faults do in a real kernel, and write docs/clocks-measured.md."""
    from meshwake.labs.machine.measure import write_page

    place = output or Path("docs/clocks-measured.md")
    try_file(place, "--output")
    measured = write_page(place)
    print_text(f"{len(measured)} faults measured; see {place}")


def timers(output: OutputOption = None) -> None:
    """Measure when timers of other programs end around a suspend, and write docs/timers.md."""
    from meshwake.labs.machine.timers import write_timers_page

    place = output or Path("docs/timers.md")
    try_file(place, "--output")
    rows = write_timers_page(place)
    print_text(f"{rows} timers measured; see {place}")
