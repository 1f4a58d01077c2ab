from __future__ import annotations

import pytest

from harness.errors import BadInput
from harness.versions import covers, find, newest, parse_version, releases


def test_rows_are_in_order_and_unique() -> None:
    """Oldest first, none twice: a bisect walks this list."""
    versions = [parse_version(row.version) for row in releases()]
    assert versions == sorted(set(versions))


def test_classes_never_go_back() -> None:
    """Within one minor release the class only grows: a backport is not taken out again."""
    by_minor: dict[tuple[int, ...], list[str]] = {}
    for row in releases():
        by_minor.setdefault(parse_version(row.version).release[:2], []).append(row.behaviour_class)
    for classes in by_minor.values():
        assert classes == sorted(classes)


@pytest.mark.parametrize(
    ("version", "behaviour_class"), [("1.18.0", "A0"), ("1.27.9", "C"), ("1.28.0", "D"), ("1.31.0-rc.0", "E")]
)
def test_classes_of_known_releases(version: str, behaviour_class: str) -> None:
    """Each change of behaviour lies where the source says."""
    assert find(version).behaviour_class == behaviour_class


@pytest.mark.parametrize(
    ("version_range", "version", "inside"),
    [
        (">=1.28.0-alpha.0", "1.28.0-alpha.0", True),
        (">=1.28.0-alpha.0", "1.27.9", False),
        ("<1.28.0-alpha.0", "1.27.9", True),
        ("<1.28.0-alpha.0", "1.28.0-alpha.0", False),
        (">=1.18", "1.31.0-rc.0", True),
        (">=0", "1.31.0-rc.0", True),
    ],
)
def test_pre_releases_count(version_range: str, version: str, inside: bool) -> None:
    """A pre-release of 1.28 already behaves as 1.28."""
    assert covers(version_range, version) is inside


def test_a_version_without_a_row_is_refused_with_the_nearest() -> None:
    """Not guessed at."""
    with pytest.raises(BadInput, match=r"nearest: .*1\.30\."):
        find("1.30.99")


def test_what_is_no_version_is_refused() -> None:
    """The message says how a version is written."""
    with pytest.raises(BadInput, match=r"1\.28\.0 or 1\.31\.0-rc\.0"):
        find("latest")


def test_newest_is_the_last() -> None:
    """What runs when nobody says a version."""
    assert newest() == releases()[-1]
