"""Which lines a pipeline of filters lets through: `... | grep ztunnel | awk '{print $1}'`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from meshwake.fixes.effects import NotUnderstood
from meshwake.fixes.patterns import PatternNotRead, grep_lets_through
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import Ran

# They change lines and drop none for what is in it.
_SHAPE_LINES = names("cut tr sed sort uniq head tail tee cat xargs column jq")


def lines_left(filters: Iterable[Ran], lines: list[str]) -> list[str]:
    """What of `lines` goes through the filters of a pipeline. Raises NotUnderstood."""
    for ran in filters:
        # sed and jq are among them: what they drop is not read, so a filter that leaves nothing is
        # taken for one that lets lines through.
        if ran.program in _SHAPE_LINES:
            continue

        # Also where no line is left: a filter that is not understood is refused in any place.
        lets_through = _FILTERS.get(ran.program)
        if lets_through is None:
            raise NotUnderstood(f"what {' '.join(ran.words)!r} lets through is not understood")
        lines = [line for line in lines if lets_through(ran, line)]
    return lines


def _grep_lets_through(ran: Ran, line: str) -> bool:
    try:
        return grep_lets_through(ran.words, line)
    except PatternNotRead as error:
        raise NotUnderstood(f"{' '.join(ran.words)!r} {error}") from error


def _awk_lets_through(ran: Ran, line: str) -> bool:
    # The script is the first word that looks like one; -F: and -v NAME=VALUE come before it.
    script = next(filter(re.compile("[{/]").search, ran.words[1:]), "")

    # /pattern/ or $1 ~ /pattern/, with any action.
    match = re.match(r"\s*(?:\$\d+\s*~\s*)?/([^/]*)/", script)
    if match is not None:
        try:
            return re.search(match[1], line) is not None
        except re.error as error:
            raise NotUnderstood(f"{script!r} is not understood") from error

    # {print ...} of every line, or of all but the heading.
    if re.match(r"\s*(NR\s*>\s*1\s*)?\{\s*print[^{}]*\}\s*$", script):
        return True
    raise NotUnderstood(f"what awk {script!r} lets through is not understood")


_FILTERS: dict[str, Callable[[Ran, str], bool]] = {
    **dict.fromkeys(["grep", "egrep", "fgrep"], _grep_lets_through),
    **dict.fromkeys(["awk", "gawk"], _awk_lets_through),
}
