"""Istio releases and the class of certificate renewal that each one's ztunnel belongs to.

The rows are in clusters/versions.toml, so that a release is added without touching code. A
version that is not there is refused, unless it is newer than all of them. The class of a newer one,
and of a row that says `UNCLASSIFIED`, is not known: the model takes the newest class that is known
before it, says so (`assumption`), and lets a person name another (`--as-class`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from meshwake.core.errors import BadInput
from meshwake.core.json_types import JsonObject, text_at
from meshwake.core.refusal import invalid, invalid_choice, unreadable
from meshwake.core.resources import CLUSTERS
from meshwake.system.hints import closest

VERSIONS_FILE = CLUSTERS / "versions.toml"
BEHAVIOUR_CLASSES = ("A0", "A1", "B", "C", "D", "E")
UNCLASSIFIED = "unclassified"


@dataclass(frozen=True)
class Release:
    """One Istio release: its ztunnel's behaviour class and commit, its image (`digest` None: not
    known yet), and what goes with it (what holds for its whole minor; "" where it was not looked
    up)."""

    version: str
    behaviour_class: str
    commit: str = ""
    image: str = ""
    digest: str | None = None
    kubernetes: str = ""
    end_of_life: str = ""
    gateway_api: str = ""
    node_image: str = ""
    notes: str = ""

    @property
    def minor(self) -> str:
        """As in 1.28."""
        return minor_of(self.version)

    @property
    def model_class(self) -> str:
        """The class that the model runs: its own, or while that is not known the one before it
        (`assumption`)."""
        return self.behaviour_class if self.classified else _classified_before(self).behaviour_class

    @property
    def assumption(self) -> str | None:
        """What is assumed of a release whose class is not known, as a sentence; None of any other."""
        if self.classified:
            return None
        before = _classified_before(self)
        return (
            f"the behaviour class of {self.version} is not known: taken as "
            f"{before.behaviour_class}, that of "
            f"{before.version} (choose another with --as-class)"
        )

    @property
    def classified(self) -> bool:
        """Whether its class is known."""
        return self.behaviour_class != UNCLASSIFIED


_ROW_KEYS = ("version", "class", "commit", "digest", "notes")
_MINOR_KEYS = ("kubernetes", "end_of_life", "gateway_api", "node_image")


# A minor release, without a patch: 1.30, v1.30.
_MINOR_ALONE = re.compile(r"v?\d+\.\d+")


def parse_version(
    text: str, option: str = "--istio", expected: str = "a version such as 1.28.0 or 1.31.0-rc.0"
) -> Version:
    """The release `text` names, as something that can be compared. Raises BadInput that says what
    was `expected`."""
    try:
        return Version(text)
    except InvalidVersion as error:
        raise invalid(option, text, expected) from error


def minor_of(version: str) -> str:
    """The minor release that `version` belongs to, as in 1.28."""
    # The 0 is for a version of one number, such as 2.
    major, minor = (*parse_version(version).release, 0)[:2]
    return f"{major}.{minor}"


def covers(version_range: str, version: str, until: str | None = None) -> bool:
    """Whether `version` (pre-releases too) lies in `version_range`, written as in '>=1.24,<1.28',
    and before `until`. Before 1.32.0 lie its pre-releases too: to end with the first of them, write
    1.32.0-alpha.0."""
    own = parse_version(version)
    inside = SpecifierSet(version_range).contains(own, prereleases=True)
    return inside and (until is None or own < parse_version(until, "until"))


@cache
def releases(path: Path = VERSIONS_FILE) -> tuple[Release, ...]:
    """All rows of the table, oldest first. Raises BadInput when the file or a row is not what it
    should be."""
    try:
        return parse_releases(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise unreadable(path, error, "it belongs to the repository") from error


def parse_releases(text: str, path: str) -> tuple[Release, ...]:
    """The rows written in `text`, oldest first; `path` is for messages only. Raises BadInput."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(
            f"{path}: is not TOML: {error}; take it from the repository again"
        ) from error
    minors, image = document.get("minor", {}), document.get("image", "")
    rows = [_release(row, minors, image, path) for row in document.get("release", [])]
    if not rows:
        raise BadInput(f"{path}: has no [[release]]; take it from the repository again")
    rows.sort(key=lambda row: Version(row.version))
    # By value and not by text: 1.28.0 and v1.28.0 are one release.
    for before, row in pairwise(rows):
        if Version(before.version) == Version(row.version):
            raise BadInput(f"{path}: {row.version} has two rows; one must go")
    return tuple(rows)


def _release(row: JsonObject, minors: JsonObject, image: str, path: str) -> Release:
    named = text_at(row, "version") or "a [[release]] without version"
    unknown = [key for key in row if key not in _ROW_KEYS]
    if unknown or not {"version", "class"} <= row.keys():
        raise BadInput(
            f"{path}: {named}: invalid keys {', '.join(row)}: expected {', '.join(_ROW_KEYS)}, the "
            "first two always"
        )
    allowed = (*BEHAVIOUR_CLASSES, UNCLASSIFIED)
    if row["class"] not in allowed:
        raise invalid_choice(f"class of {named} in {path}", str(row["class"]), allowed)
    minor = minor_of(named)
    return Release(
        named,
        text_at(row, "class"),
        text_at(row, "commit"),
        f"{image}:{named}" if image else "",
        text_at(row, "digest") or None,
        **{key: text_at(minors, minor, key) for key in _MINOR_KEYS},
        notes=text_at(row, "notes"),
    )


def _classified_before(release: Release) -> Release:
    classified = [row for row in releases() if row.classified]
    older = [row for row in classified if Version(row.version) < Version(release.version)]
    # Before the first release that was read, the first is the best guess.
    return older[-1] if older else classified[0]


def newest() -> Release:
    """The release that is tested by default: the newest of those whose class is known."""
    return next(row for row in reversed(releases()) if row.classified)


def check_class(behaviour_class: str, option: str = "--as-class") -> str:
    """`behaviour_class`, if it is one that is modelled. Raises BadInput."""
    if behaviour_class not in BEHAVIOUR_CLASSES:
        raise invalid_choice(option, behaviour_class, BEHAVIOUR_CLASSES)
    return behaviour_class


def find(version: str, option: str = "--istio") -> Release:
    """The row of `version`: of a minor alone (1.30) the newest stable release of it, as for
    `meshwake up`; or one without a class for a version that is newer than all rows. Raises BadInput
    with the nearest versions that have one."""
    # For those who give master or latest.
    expected = f"a version such as 1.28.0 or 1.28; the newest here is {newest().version}"
    wanted = parse_version(version, option, expected)
    # Before the rows: 1.30 alone would equal the row of 1.30.0.
    if _MINOR_ALONE.fullmatch(version.strip()) and (row := _newest_of(minor_of(version))):
        return row
    for release in releases():
        if Version(release.version) == wanted:
            return release
    last = Version(releases()[-1].version)
    # Another major is a typing error rather than a release newer than the table.
    if wanted > last and wanted.major == last.major:
        return Release(
            str(version).strip().removeprefix("v"),
            UNCLASSIFIED,
            notes="newer than clusters/versions.toml",
        )
    known = [release.version for release in releases()]
    near = closest(version, known, most=3) or [known[0], known[-1]]
    raise invalid(
        option, version, f"a release of clusters/versions.toml, such as {', '.join(near)}"
    )


def _newest_of(minor: str) -> Release | None:
    """The newest stable release of `minor`; the newest pre-release if it has none."""
    rows = [row for row in releases() if row.minor == minor]
    stable = [row for row in rows if not Version(row.version).is_prerelease]
    found = stable or rows
    return found[-1] if found else None


def built_from(revision: str, status: str) -> tuple[str, ...]:
    """The releases whose ztunnel is the commit `revision`, oldest first (several may be made of
    one); none for a build whose `status` is not "Clean". Both as ztunnel's own build information
    has them."""
    # istio's common/scripts/report_build_info.sh writes "Modified" for a tree with changes of its
    # own, whose behaviour need not be that of the commit.
    if not revision or status != "Clean":
        return ()
    return tuple(row.version for row in releases() if row.commit == revision)


def has_row(version: str) -> bool:
    """Whether the table knows `version`."""
    return any(Version(row.version) == parse_version(version) for row in releases())


def between(older: str, newer: str) -> tuple[Release, ...]:
    """The rows from `older` to `newer`, both included."""
    first, last = Version(older), Version(newer)
    return tuple(row for row in releases() if first <= Version(row.version) <= last)


def newest_of_each_minor(rows: Iterable[Release]) -> tuple[Release, ...]:
    """Of `rows` the last of each minor, oldest first."""
    last: dict[str, Release] = {}
    for row in rows:
        last[row.minor] = row
    return tuple(last.values())
