"""What commands print, and how they end.

Results go to stdout, everything else (progress, notes, errors) to stderr, so that a result can be
piped. A command that ends with another code than 0 raises `CommandExit`, or the HarnessError
that gives the reason; app.py turns both into the exit code of the process.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from meshwake.core.refusal import unwritable

LINE_WIDTH = 100
_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")


class CommandExit(Exception):
    """Carries the exit code of a command past typer, whose own code 2 means a usage error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def print_text(text: str) -> None:
    """A result for a person. What stdout cannot encode is escaped, not an error (app.py)."""
    sys.stdout.write(text + "\n")


def print_json(content: Any) -> None:
    """A result for programs: one JSON value, in ASCII where stdout cannot encode it: half a
    character pair in a saved name has no encoding."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    is_utf8 = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
    if not is_utf8 or _HALF_OF_A_PAIR.search(text):
        text = json.dumps(content, indent=2)
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A line for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def cut(line: str, width: int = LINE_WIDTH) -> str:
    """`line`, shortened where it would not fit."""
    return line if len(line) <= width else f"{line[: width - 3]}..."


def write_text(path: Path, text: str, option: str = "") -> None:
    """Writes a file that a person requested with `option`. Raises BadInput where that is not
    possible."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(f"{option} {path}".strip(), error) from error
