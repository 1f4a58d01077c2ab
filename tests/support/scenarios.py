"""A small scenario that tests change a line of, instead of writing it again."""

from __future__ import annotations

from pathlib import Path

SMALL = """\
title    = "One suspend, too short to matter"
source   = "https://example.org/a-report"
labs     = ["model"]
duration = "2d"

[[node]]
name       = "laptop"
identities = ["default/client", "default/server"]

[traffic]
pairs = [["default/client", "default/server"]]
every = "30m"

[[fault]]
kind  = "suspend"
at    = "15h"
lasts = "8h"

[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "eight hours are less than half a life"
"""


def small(*changes: tuple[str, str]) -> str:
    """`SMALL` with each first text replaced by the second."""
    text = SMALL
    for old, new in changes:
        assert old in text, f"{old!r} is not in the small scenario"
        text = text.replace(old, new, 1)
    return text


SURPRISING = small(('lasts = "8h"', 'lasts = "20h"'))
UNKNOWN = small(('"traffic_flows"', '"valid_certificate_kept"'))


def write(directory: Path, text: str = SMALL, name: str = "small") -> Path:
    """The scenario `text` as a file in `directory`."""
    path = directory / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
