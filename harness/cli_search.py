"""meshwake falsify | sweep: questions asked of many runs."""

from __future__ import annotations

import typer


def add_commands(app: typer.Typer) -> None:
    """Adds falsify and sweep to `app`."""
