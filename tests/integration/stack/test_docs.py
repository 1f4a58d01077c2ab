"""docs/stack.md says of every value why it is set, and of every part what it is for."""

from __future__ import annotations

import re

from meshwake.cluster.stack.choice import PARTS, PROFILES

from tests.integration.stack.keys import lines
from tests.support.paths import DOCS

TEXT = (DOCS / "stack.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section, its head left out."""
    section = (
        TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0] if title else TEXT.split("\n## ")[0]
    )
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def test_every_value_is_explained() -> None:
    explained = {
        f"{chart} {key}"
        for charts, keys, *_ in rows("Every value that we set, and why")
        for chart in charts.split(", ")
        for key in re.findall(r"`([^`]+)`", keys)
    }
    assert explained == set(lines())


def test_every_part_is_there_with_its_profiles() -> None:
    listed = {part.strip("`"): profiles for part, profiles, *_ in rows("")}
    assert listed == {
        part: ", ".join(name for name, parts in PROFILES.items() if part in parts) for part in PARTS
    }
