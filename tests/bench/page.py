"""Rewrites the table of docs/performance.md from what `make bench` measured last
(build/bench.json).

    make bench && python -m tests.bench.page

Only the lines between the heading of the table and the next text are replaced; what the page says
about the numbers is for a person to check.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.__main__ import RESULT, readable
from tests.bench.numbers import Number
from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "performance.md"
HEADING, NEXT = "## The table\n", "\nHow it is measured:\n"


def rows(numbers: list[Number]) -> list[str]:
    """The table's lines; what was not measured here is below it."""
    lines, before = ["| part | what | value | ratio | to |", "|---|---|---|---|---|"], ""
    for number in numbers:
        if number.value is None:
            continue
        value = f"{readable(number.value)} {number.unit}".strip()
        ratio = "" if number.ratio is None else readable(number.ratio)
        part = number.part if number.part != before else ""
        lines.append(f"| {part} | `{number.key}` | {value} | {ratio} | {number.peer} |")
        before = number.part
    return lines


def page(text: str, result: dict[str, Any], day: str) -> str:
    """The page with the table of `result`, measured on `day`."""
    numbers = [Number(**number) for number in result["numbers"]]
    begin, end = text.index(HEADING) + len(HEADING), text.index(NEXT)
    facts = "{system} {kernel}, {architecture}, {cpus} CPUs, Python {python}".format_map(
        result["machine"]
    )
    refused = [
        f"* {number.part}: not measured: {number.refusal}" for number in numbers if number.refusal
    ]
    table = "\n".join(
        [f"\nMeasured {day} on {facts}.\n", *rows(numbers), *(["", *refused] if refused else [])]
    )
    return text[:begin] + table + "\n" + text[end:]


def main() -> None:
    """In place."""
    if not RESULT.exists():
        sys.exit(f"{RESULT} is not there; run make bench first")
    day = datetime.fromtimestamp(RESULT.stat().st_mtime, UTC).date().isoformat()
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    Path(PAGE).write_text(page(PAGE.read_text(encoding="utf-8"), result, day), encoding="utf-8")


if __name__ == "__main__":
    main()
