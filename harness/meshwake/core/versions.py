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
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from meshwake.core.errors import BadInput
from meshwake.core.json_types import JsonObject, object_at, objects_at, text_at
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

    @cached_property
    def number(self) -> Version:
        """The version, as something that can be compared."""
        return Version(self.version)

    @property
    def minor(self) -> str:
        """As in 1.28."""
        return minor_of(self.version)

    @property
    def model_class(self) -> str:
        """The class that the model runs: its own, or while that is not known the one before it
        (`assumption`)."""
        if self.classified:
            return self.behaviour_class
        return _classified_before(self).behaviour_class

    @property
    def assumption(self) -> str | None:
        """What is assumed of a release whose class is not known, as a sentence; None of any other."""
        if self.classified:
            return None
        before = _classified_before(self)
        return (
            f"the behaviour class of {self.version} is not known: taken as "
            f"{before.behaviour_class}, that of {before.version} (choose another with --as-class)"
        )

    @property
    def classified(self) -> bool:
        """Whether its class is known."""
        return self.behaviour_class != UNCLASSIFIED


# In the order of a message; the first two are in every row.
_ROW_KEYS = ("version", "class", "commit", "digest", "notes")


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
    # Without `prereleases`, packaging leaves them out of every range that names none.
    inside = SpecifierSet(version_range).contains(own, prereleases=True)
    if until is None:
        return inside
    return inside and own < parse_version(until, "until")


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

    image = text_at(document, "image")
    minors = object_at(document, "minor")
    rows = [_release(row, minors, image, path) for row in objects_at(document, "release")]
    if not rows:
        raise BadInput(f"{path}: has no [[release]]; take it from the repository again")
    rows.sort(key=lambda row: row.number)

    # By value and not by text: 1.28.0 and v1.28.0 are one release.
    for before, row in pairwise(rows):
        if before.number == row.number:
            raise BadInput(f"{path}: {row.version} has two rows; one must go")
    return tuple(rows)


def _release(row: JsonObject, minors: JsonObject, image: str, path: str) -> Release:
    """One row; what holds for its whole minor is in a table of its own, so that it is written
    once."""
    version = text_at(row, "version")
    named = version or "a [[release]] without version"
    _check_keys(row, f"{path}: {named}")

    allowed = (*BEHAVIOUR_CLASSES, UNCLASSIFIED)
    if row["class"] not in allowed:
        raise invalid_choice(f"class of {named} in {path}", str(row["class"]), allowed)

    of_minor = object_at(minors, minor_of(named))
    return Release(
        version=version,
        behaviour_class=text_at(row, "class"),
        commit=text_at(row, "commit"),
        image=f"{image}:{version}" if image else "",
        digest=text_at(row, "digest") or None,
        kubernetes=text_at(of_minor, "kubernetes"),
        end_of_life=text_at(of_minor, "end_of_life"),
        gateway_api=text_at(of_minor, "gateway_api"),
        node_image=text_at(of_minor, "node_image"),
        notes=text_at(row, "notes"),
    )


def _check_keys(row: JsonObject, named: str) -> None:
    """Raises BadInput for a row with a key that is misspelt, or that lacks one."""
    is_complete = {"version", "class"} <= row.keys()
    if not is_complete or not row.keys() <= set(_ROW_KEYS):
        raise BadInput(
            f"{named}: invalid keys {', '.join(row)}: expected {', '.join(_ROW_KEYS)}, the first "
            "two always"
        )


def _classified() -> list[Release]:
    """The rows whose class is known, oldest first."""
    return [row for row in releases() if row.classified]


def _classified_before(release: Release) -> Release:
    """The newest row with a known class that is older than `release`."""
    # Before the first release that was read, the first is the best guess.
    before, *others = _classified()
    for row in others:
        if row.number < release.number:
            before = row
    return before


def newest() -> Release:
    """The release that is tested by default: the newest of those whose class is known."""
    return _classified()[-1]


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
    if _MINOR_ALONE.fullmatch(version.strip()):
        newest_of_minor = _newest_of(minor_of(version))
        if newest_of_minor is not None:
            return newest_of_minor

    for release in releases():
        if release.number == wanted:
            return release

    last = releases()[-1].number
    # Another major is a typing error rather than a release newer than the table.
    if wanted > last and wanted.major == last.major:
        return Release(
            version=version.strip().removeprefix("v"),
            behaviour_class=UNCLASSIFIED,
            notes="newer than clusters/versions.toml",
        )

    known = [release.version for release in releases()]
    near = closest(version, known, most=3) or [known[0], known[-1]]
    raise invalid(
        option, version, f"a release of clusters/versions.toml, such as {', '.join(near)}"
    )


def _newest_of(minor: str) -> Release | None:
    """The newest stable release of `minor`; the newest pre-release if it has none."""
    newest_stable = newest_of_any = None
    # Oldest first, so that the last that fits is the newest.
    for row in releases():
        if row.minor != minor:
            continue
        newest_of_any = row
        if not row.number.is_prerelease:
            newest_stable = row
    return newest_stable or newest_of_any


def built_from(revision: str, status: str) -> tuple[str, ...]:
    """The releases whose ztunnel is the commit `revision`, oldest first (several may be made of
    one); none for a build whose `status` is not "Clean". Both as ztunnel's own build information
    has them."""
    # istio's common/scripts/report_build_info.sh writes "Modified" for a tree with changes of its
    # own, whose behaviour need not be that of the commit.
    if status != "Clean":
        return ()

    # A row whose commit was not looked up has "" as well, and would be found.
    if not revision:
        return ()
    built = [row.version for row in releases() if row.commit == revision]
    return tuple(built)


def has_row(version: str) -> bool:
    """Whether the table knows `version`."""
    wanted = parse_version(version)
    return any(row.number == wanted for row in releases())


def between(older: str, newer: str) -> tuple[Release, ...]:
    """The rows from `older` to `newer`, both included."""
    first, last = Version(older), Version(newer)
    within = [row for row in releases() if first <= row.number <= last]
    return tuple(within)


def newest_of_each_minor(rows: Iterable[Release]) -> tuple[Release, ...]:
    """Of `rows` the last of each minor, oldest first."""
    last: dict[str, Release] = {}
    # Later rows take the place of those before them.
    for row in rows:
        last[row.minor] = row
    return tuple(last.values())
