"""Istio releases and the class of certificate renewal that each one's ztunnel belongs to.

The rows stand in clusters/versions.toml, so that a release is added without touching code. A version that is not
there has no class: it is refused rather than guessed at.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from harness.errors import BadInput

VERSIONS_FILE = Path(__file__).resolve().parent.parent / "clusters" / "versions.toml"
BEHAVIOUR_CLASSES = ("A0", "A1", "B", "C", "D", "E")


@dataclass(frozen=True)
class Release:
    """One Istio release, its ztunnel's behaviour class, and the place its facts came from."""

    version: str
    behaviour_class: str
    source: str = ""


def parse_version(text: str) -> Version:
    """The release `text` names, as something that can be compared. Raises BadInput."""
    try:
        return Version(text)
    except InvalidVersion as error:
        raise BadInput(f"--istio {text!r} is no version; a release is written as in 1.28.0 or 1.31.0-rc.0") from error


def covers(version_range: str, version: str) -> bool:
    """Whether `version` (pre-releases too) lies in `version_range`, written as in '>=1.24,<1.28'."""
    return SpecifierSet(version_range).contains(parse_version(version), prereleases=True)


@cache
def releases(path: Path = VERSIONS_FILE) -> tuple[Release, ...]:
    """All rows of the table, oldest first. Raises BadInput when a row names no known class."""
    rows = []
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["release"]:
        if row["class"] not in BEHAVIOUR_CLASSES:
            raise BadInput(f"{path}: {row['version']}: class {row['class']!r}, allowed: {', '.join(BEHAVIOUR_CLASSES)}")
        rows.append(Release(row["version"], row["class"], row.get("source", "")))
    return tuple(sorted(rows, key=lambda row: Version(row.version)))


def newest() -> Release:
    """The release that is tested when nobody says otherwise."""
    return releases()[-1]


def find(version: str) -> Release:
    """The row of `version`. Raises BadInput with the nearest versions that have one."""
    wanted = parse_version(version)
    for release in releases():
        if Version(release.version) == wanted:
            return release
    known = [release.version for release in releases()]
    near = difflib.get_close_matches(version, known, n=3, cutoff=0.5) or [known[0], known[-1]]
    raise BadInput(f"--istio {version}: has no row in clusters/versions.toml; nearest: {', '.join(near)}")
