"""`make bench`: every part in a process of its own, one after another; then a table, and the same
as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meshwake.core import versions
from meshwake.ztunnel import binaries
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tests.bench.numbers import Number, measured_apart
from tests.support.paths import REPOSITORY

RESULT = REPOSITORY / "build" / "bench.json"


def parts() -> Iterator[tuple[str, ...]]:
    """Each part as a module and its arguments, what is quick first."""
    yield ("model",)
    yield ("report",)
    if not sys.platform.startswith("linux"):
        return
    yield ("start",)
    yield ("sweeping",)
    yield ("clocks",)
    yield ("process", "polling")
    yield ("machine",)
    known = {release.version for release in versions.releases()}
    cached = [binary.version for binary in reversed(binaries.cached()) if binary.version in known]
    for version in cached:
        yield ("process", version)
    for question in ("repeat", "formula", "crowd") if cached else ():
        yield ("exact", question, cached[0])
    patched = os.environ.get("MESHWAKE_POLLING_ZTUNNEL")
    if cached and patched:
        yield ("exact", "polling", cached[0], patched)
    if cached:
        yield ("corpus", cached[0])
        yield ("machine", cached[0])
    if os.environ.get("MESHWAKE_TEST_CLUSTER"):
        yield ("cluster",)


def machine() -> dict[str, Any]:
    """What the numbers depend on; no names."""
    return {
        "system": platform.system(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def table(numbers: list[Number]) -> Table:
    """One row a number; refusals are not numbers."""
    facts = "{system} {kernel}, {architecture}, {cpus} CPUs, Python {python}".format_map(machine())
    shown = Table("part", "what", "value", "ratio", "to", title=facts, box=SIMPLE, pad_edge=False)
    shown.columns[0].overflow = "fold"
    for number_column in shown.columns[2:4]:
        number_column.justify = "right"
    for short_column in (1, 2, 3, 4):
        shown.columns[short_column].no_wrap = True
    before = ""
    for number in numbers:
        if number.value is None:
            continue
        if before and number.part != before:
            shown.add_section()
        value = f"{readable(number.value)} {number.unit}".strip()
        ratio = "" if number.ratio is None else readable(number.ratio)
        part = number.part if number.part != before else ""
        shown.add_row(part, number.key, value, ratio, number.peer)
        before = number.part
    return shown


def readable(value: float) -> str:
    """Three digits that count, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Prints, and writes `--json`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--json", type=Path, default=RESULT, metavar="PATH", help="default: build/bench.json"
    )
    result: Path = parser.parse_args().json
    console, numbers = Console(), list[Number]()
    with console.status("measuring") as status:
        for part in parts():
            status.update(f"measuring {' '.join(part)}")
            numbers += measured_apart(*part)
    console.print(table(numbers))
    for number in numbers:
        if number.refusal:
            console.print(f"{number.part}: not measured: {number.refusal}", markup=False)
    result.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "machine": machine(), "numbers": [asdict(number) for number in numbers]}
    result.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
