"""How a command ends with an exit code of its own."""

from __future__ import annotations


class Ended(Exception):
    """Carries the exit code of a command past typer, whose own code 2 means a usage error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
