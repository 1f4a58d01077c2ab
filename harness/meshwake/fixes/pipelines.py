"""Which lines a pipeline of filters lets through: `... | grep ztunnel | awk '{print $1}'`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshwake.fixes.effects import NotUnderstood
from meshwake.fixes.patterns import PatternNotRead, grep_lets_through
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import Ran

# They change lines and drop none for what is in it.
_SHAPE_LINES = names("cut tr sed sort uniq head tail tee cat xargs column jq")


def lines_left(filters: Iterable[Ran], lines: list[str]) -> list[str]:
    """What of `lines` goes through the filters of a pipeline. Raises NotUnderstood."""
    for ran in filters:
        if ran.program in ("grep", "egrep", "fgrep"):
            lines = [line for line in lines if _grep_lets_through(ran, line)]
        elif ran.program in ("awk", "gawk"):
            lines = [line for line in lines if _awk_lets_through(ran.words, line)]
        elif ran.program not in _SHAPE_LINES:
            raise NotUnderstood(f"what {' '.join(ran.words)!r} lets through is not understood")
    return lines


def _grep_lets_through(ran: Ran, line: str) -> bool:
    try:
        return grep_lets_through(ran.words, line)
    except PatternNotRead as error:
        raise NotUnderstood(f"{' '.join(ran.words)!r} {error}") from error


def _awk_lets_through(words: tuple[str, ...], line: str) -> bool:
    script = next((word for word in words[1:] if "{" in word or "/" in word), "")
    # /pattern/ or $1 ~ /pattern/, with any action.
    match = re.match(r"\s*(?:\$\d+\s*~\s*)?/([^/]*)/", script)
    if match:
        try:
            return re.search(match[1], line) is not None
        except re.error as error:
            raise NotUnderstood(f"{script!r} is not understood") from error
    # {print ...} of every line, or of all but the heading.
    if re.match(r"\s*(NR\s*>\s*1\s*)?\{\s*print[^{}]*\}\s*$", script):
        return True
    raise NotUnderstood(f"what awk {script!r} lets through is not understood")
