"""meshwake forecast (stub while it is written)."""

from __future__ import annotations

import typer


def add_commands(app: typer.Typer) -> None:
    """Adds forecast to `app`."""
