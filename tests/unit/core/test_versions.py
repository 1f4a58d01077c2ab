from __future__ import annotations

import pytest
from meshwake.core.errors import BadInput
from meshwake.core.versions import (
    BEHAVIOUR_CLASSES,
    check_class,
    covers,
    find,
    newest,
    newest_of_each_minor,
    parse_releases,
    parse_version,
    releases,
)


def test_rows_are_in_order_and_unique() -> None:
    """Oldest first, none twice: a bisect walks this list."""
    versions = [parse_version(row.version) for row in releases()]
    assert versions == sorted(set(versions))


def test_classes_never_go_back() -> None:
    """Within one minor release the class only grows: a backport is not taken out again."""
    by_minor: dict[tuple[int, ...], list[str]] = {}
    for row in filter(lambda row: row.classified, releases()):
        by_minor.setdefault(parse_version(row.version).release[:2], []).append(row.behaviour_class)
    for classes in by_minor.values():
        assert classes == sorted(classes)


@pytest.mark.parametrize(
    ("version", "behaviour_class"),
    [("1.18.0", "A0"), ("1.27.9", "C"), ("1.28.0", "D"), ("1.31.0-rc.0", "E")],
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
    with pytest.raises(BadInput, match=r"a release of clusters/versions.toml, such as .*1\.30\."):
        find("1.30.99")


def test_what_is_not_a_version_is_refused() -> None:
    """The message says how a version is written."""
    with pytest.raises(BadInput, match=r"a version such as 1\.28\.0 or 1\.28"):
        find("1.x")


def test_a_version_newer_than_the_table_is_taken_as_the_newest_class() -> None:
    """With a sentence that says so; a row without a class likewise, by what is known before it."""
    last = newest()
    for text in ("1.99.0", "v1.99.0", " 1.99.0"):
        future = find(text)
        assert (future.version, future.model_class, future.classified) == (
            "1.99.0",
            last.behaviour_class,
            False,
        )
        assert future.assumption == (
            f"the behaviour class of 1.99.0 is not known: taken as {last.behaviour_class}, "
            f"that of {last.version} "
            "(choose another with --as-class)"
        )
    assert find("1.28.0").assumption is None
    for row in releases():
        assert row.model_class in BEHAVIOUR_CLASSES
        assert row.classified == (row.assumption is None)


def test_another_major_is_not_a_newer_release() -> None:
    """A typing error, most likely."""
    with pytest.raises(BadInput, match="expected a release of clusters/versions.toml"):
        find("13.1.0")


def test_a_class_that_is_named_must_be_one() -> None:
    assert check_class("A0") == "A0"
    with pytest.raises(
        BadInput, match="invalid value 'F' for --as-class: expected one of A0, A1, B, C, D, E"
    ):
        check_class("F")


def test_newest_is_the_last_whose_class_is_known() -> None:
    """What runs when no version is given: the model can run it."""
    assert newest() == [row for row in releases() if row.classified][-1]


def test_until_ends_a_range() -> None:
    """Before that release, its pre-releases still belong to the range."""
    assert covers(">=1.18", "1.27.9", "1.28.0")
    assert covers(">=1.18", "1.28.0-rc.0", "1.28.0")
    assert not covers(">=1.18", "1.28.0", "1.28.0")
    assert not covers(">=1.18", "1.28.0-rc.0", "1.28.0-alpha.0")


def test_a_row_has_what_holds_for_its_minor() -> None:
    """Kubernetes range, node image, Gateway API, end of life; the image's tag is the version."""
    row = find("1.28.5")
    assert (row.minor, row.kubernetes, row.gateway_api) == ("1.28", "1.30-1.34", "v1.4.1")
    assert row.image == "docker.io/istio/ztunnel:1.28.5"
    assert row.end_of_life == "2026-07-01"


def test_every_classified_row_has_the_commit_it_was_read_at() -> None:
    """A class is what a person read at a commit; without one nothing was read."""
    assert all(len(row.commit) == 40 for row in releases() if row.classified)
    assert all(row.notes for row in releases() if not row.classified)


def test_minors_agree_with_the_stack() -> None:
    """What a cluster is made of is in clusters/stack.toml; the two files agree."""
    from meshwake.cluster.stack.pins import read_pins

    for minor, pin in read_pins().istio.minor.items():
        rows = [row for row in releases() if row.minor == minor]
        assert {row.node_image for row in rows} == {f"v{pin.kubernetes}"}
        assert {row.kubernetes for row in rows} == {f"{pin.supported[0]}-{pin.supported[-1]}"}


def test_newest_of_each_minor() -> None:
    """One row a minor, the last."""
    rows = newest_of_each_minor(releases())
    assert [row.minor for row in rows] == list(dict.fromkeys(row.minor for row in releases()))
    assert find("1.27.9") in rows
    assert find("1.27.8") not in rows


ROW = '[[release]]\nversion = "1.28.0"\nclass = "D"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[release", "is not TOML"),
        ("", "has no"),
        (
            ROW.replace('"D"', '"Z"'),
            "'Z' for class of 1.28.0 in versions.toml: expected one of A0, A1, B, C, D, E, unclassified",
        ),
        (ROW.replace("class", "klass"), "expected version, class, commit, digest, notes"),
        (ROW + 'klass = "D"\n', "expected version, class"),
        (ROW + ROW.replace("1.28.0", "1.28"), "has two rows"),
        (ROW.replace("1.28.0", "newest"), "expected a version such as"),
    ],
)
def test_a_table_that_is_wrong_is_refused(text: str, words: str) -> None:
    """With what is allowed; a half row would be a guess."""
    with pytest.raises(BadInput, match=words):
        parse_releases(text, "versions.toml")


def test_a_minor_alone_is_its_newest_stable_release() -> None:
    """As `meshwake up --istio 1.30` reads it."""
    rows = [row.version for row in releases() if row.minor == "1.30"]
    stable = [version for version in rows if "-" not in version]
    assert find("1.30").version == find("v1.30").version == stable[-1]
    assert find("1.30.0").version == "1.30.0"


@pytest.mark.parametrize("word", ["master", "latest"])
def test_a_branch_is_answered_with_the_newest_release(word: str) -> None:
    with pytest.raises(BadInput, match=f"the newest here is {newest().version}"):
        find(word)
