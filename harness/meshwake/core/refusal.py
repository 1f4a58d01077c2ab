"""The sentences in which input is refused, one grammar for all of them.

Each says what was found, what was expected, and, where it helps, what to do next. They return the
error and leave it to the caller to raise it, so that the line with `raise` shows where a function
ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from meshwake.core.errors import BadInput
from meshwake.system import hints


def invalid(where: str, value: object, expected: str) -> BadInput:
    """`value` cannot be at `where`, an option or a key: "invalid value '0s' for --budget:
    expected more than 0"."""
    return BadInput(hints.invalid_value(where, value, expected))


def invalid_choice(where: str, value: object, allowed: Iterable[str]) -> BadInput:
    """`value` is not one of `allowed`; the nearest of them is named."""
    return invalid(where, value, hints.one_of(value, allowed))


def unreadable(path: Path | str, error: Exception, next_step: str = "") -> BadInput:
    """The file or directory at `path` exists or not, but cannot be read."""
    return BadInput(_with_reason(f"{path}: cannot be read", error, next_step))


def unwritable(path: Path | str, error: Exception, next_step: str = "") -> BadInput:
    """Nothing can be written at `path`."""
    return BadInput(_with_reason(f"{path}: cannot be written", error, next_step))


def _with_reason(sentence: str, error: Exception, next_step: str) -> str:
    # str() of an OSError repeats its number and the path.
    reason = getattr(error, "strerror", None) or error
    with_reason = f"{sentence} ({reason})"

    # Not every caller knows what to do next.
    if not next_step:
        return with_reason
    return f"{with_reason}; {next_step}"
