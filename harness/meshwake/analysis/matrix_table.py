"""The matrix as tables: a short one for the README, a long one for docs/fixes.md, and one for the
terminal.

Pages hold them between two marks; `write_between` puts them there, and a test compares, so that
what a page shows is what the program says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from meshwake.analysis.matrix import MatrixRow
from meshwake.core.errors import BadInput

BEGIN, END = "<!-- meshwake matrix: {} -->", "<!-- end of the matrix -->"
_S_PER_H = 3_600
CONFIRMED, IN_CLUSTER = "●", "◆"
ONLY_RESTARTS = "nothing"  # the world without a fault, which the short tables leave out


def short_table(rows: Sequence[MatrixRow]) -> str:
    """Fixes down, faults across: the verdict, and hours without connection a week. Two weeks
    without a fault, in which only restarts are of interest, are left to the long one."""
    faults = list(dict.fromkeys(row.fault for row in rows if row.fault != ONLY_RESTARTS))
    cells = {(row.fix, row.fault): _cell(row) for row in rows}

    lines = [["fix", *faults], ["---"] * (len(faults) + 1)]
    for fix in dict.fromkeys(row.fix for row in rows):
        verdicts = [cells[fix, fault] for fault in faults]
        lines.append([f"`{fix}`", *verdicts])
    return _markdown(lines)


def long_table(rows: Sequence[MatrixRow]) -> str:
    """One line a row, with every number."""
    head = [
        "fix",
        "fault",
        "verdict",
        "outage a week",
        "longest, awake",
        "restarts a week",
        "certificates",
        "seen on",
    ]
    lines = [head, ["---"] * len(head)]
    lines += [_long_line(row) for row in rows]
    return _markdown(lines)


def _long_line(row: MatrixRow) -> list[str]:
    # One that renews without a pause may keep every connection: the verdict would hide its cost.
    storm = " (storm)" if row.flooded else ""
    return [
        f"`{row.fix}`",
        row.fault,
        f"{row.verdict}{storm}",
        lasting_words(row.outage_s_per_week),
        lasting_words(row.recovery_s_worst),
        f"{row.restarts_per_week:g}",
        str(row.certificates),
        seen_words(row),
    ]


def seen_words(row: MatrixRow) -> str:
    """Where the verdict was seen."""
    places = []
    if row.confirmed_on:
        places.append(row.confirmed_on)
    if row.seen_in_cluster:
        places.append(f"{row.seen_in_cluster} in a cluster")
    return ", ".join(places) or "model"


def marks(row: MatrixRow) -> str:
    """The same in two characters: of a real ztunnel, and of a real cluster."""
    found = ""
    if row.confirmed_on:
        found += CONFIRMED
    if row.seen_in_cluster:
        found += IN_CLUSTER
    return f" {found}" if found else ""


def lasting_words(length_s: float) -> str:
    """A duration as a table has room for it."""
    if length_s == 0:
        return "none"
    if length_s < 600:
        return f"{length_s:.0f} s"
    if length_s < _S_PER_H:
        return f"{length_s / 60:.0f} min"

    # Of many hours a tenth of one does not matter.
    hours = length_s / _S_PER_H
    if hours < 10:
        return f"{hours:.1f} h"
    return f"{hours:.0f} h"


def _cell(row: MatrixRow) -> str:
    """The verdict; in bold, with what it costs, where it does not hold."""
    seen = marks(row)
    if row.verdict == "HOLDS":
        return f"holds{seen}"

    # The outage of a run that was cut short for its renewals means nothing.
    more = "storm" if row.flooded else lasting_words(row.outage_s_per_week)
    return f"**{row.verdict}** {more}{seen}"


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_between(page: Path, which: str, table: str) -> bool:
    """Puts `table` between the marks of `page`; whether that changed anything. Raises BadInput when
    it has no marks."""
    text = page.read_text(encoding="utf-8")
    changed = replace_between(text, which, table, str(page))
    page.write_text(changed, encoding="utf-8")
    return changed != text


def replace_between(text: str, which: str, table: str, page: str) -> str:
    """`text` with `table` between its marks. Raises BadInput when there are none."""
    begin = BEGIN.format(which)
    before, found, rest = text.partition(begin + "\n")
    _, ended, after = rest.partition(END)

    # Never guessed: text that a person wrote around the table must stay.
    if not found or not ended:
        raise BadInput(
            f"{page}: has no place for the matrix; write the lines {begin!r} and {END!r} "
            "where it should be"
        )

    return f"{before}{begin}\n{table}{END}{after}"
