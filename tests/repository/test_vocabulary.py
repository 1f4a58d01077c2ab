"""tools/vocabulary.py: the words of the list do not spread, the allowances only fall, and the
glossary shows the list as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.paths import REPOSITORY
from tools import vocabulary
from tools.vocabulary import Word, counted, hits, lowered, over_allowance, read_words

TOLD = Word(find="told|tells?", write="report")
IS_NO = Word(find="is no", write="is not a")
J = Word(find="J", write="clock drift", exact=True)


def found(word: Word, text: str) -> int:
    """How often a word is counted in a text."""
    return counted([word], {"product": {"file.py": text}}).get(word.find, {}).get("product", 0)


def test_no_word_is_written_more_often_than_allowed() -> None:
    """As pre-commit runs it."""
    done = subprocess.run(
        [sys.executable, "tools/vocabulary.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("word", read_words(), ids=lambda word: word.plain)
def test_no_text_that_has_a_word_is_passed_over(word: Word) -> None:
    """A text without any of the stems of a word is not searched for it."""

    @settings(max_examples=20, deadline=None, database=None)
    @given(st.from_regex(word.find, fullmatch=True))
    def holds(written: str) -> None:
        assert not word.stems or any(stem in written.lower() for stem in word.stems)

    holds()


@pytest.mark.parametrize(
    ("word", "text", "times"),
    [
        (TOLD, "It told them and tells us.", 2),
        (TOLD, "class ToldRun: ...\nRunTold, _told_ending", 3),
        (TOLD, "untold, told_you, retold, tollgate", 1),
        (IS_NO, "modle is no lab; there is\nno other", 2),
        (IS_NO, "this is normal, is not", 0),
        (J, "(J = 17 m), J of each process", 2),
        (J, "JSON, 'J', [A-Z]J, \\J, J-1", 0),
    ],
)
def test_words_are_found_in_text_and_in_names(word: Word, text: str, times: int) -> None:
    """In both spellings of a name and over the end of a line, and not inside other words."""
    assert found(word, text) == times


def test_a_name_of_a_public_format_keeps_its_word() -> None:
    """Only there, and without moving the places of what comes after it."""
    asked = Word("asked", "requested", keep="lifetime_asked_for")
    text = "lifetime_asked_for\nasked_for"
    assert [hit.place for hit in hits(asked, {"docs": {"a.md": text}})] == ["a.md:2"]


def test_a_word_too_many_fails_and_names_the_plain_one() -> None:
    """The line has the count, the limit and what to write."""
    counts = {TOLD.find: {"product": 3, "docs": 1}}
    allowed = {TOLD.find: {"product": 2, "docs": 1}}
    (line,) = over_allowance([TOLD], counts, allowed)
    assert "3 times in product, at most 2" in line
    assert line.endswith("write instead: report")
    assert len(over_allowance([TOLD], counts, {})) == 2


def test_a_new_word_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One word in one file of a tree of its own."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "lab.py").write_text("# whoever comes next\n")
    (tmp_path / "allowed.json").write_text("{}")
    monkeypatch.setattr(vocabulary, "ALLOWED", tmp_path / "allowed.json")
    texts = vocabulary.read_texts(tmp_path)
    monkeypatch.setattr(vocabulary, "read_texts", lambda: texts)
    monkeypatch.setattr(sys, "argv", ["vocabulary.py", "--check"])
    assert vocabulary.main() == 1
    assert "whoever: 1 times in product" in capsys.readouterr().err


def test_allowances_only_fall() -> None:
    """More than before is not allowed afterwards either, and what has gone stays gone."""
    allowed = {"a": {"product": 5, "docs": 2}, "b": {"tests": 1}}
    counts = {"a": {"product": 7, "docs": 1}, "c": {"tests": 4}}
    assert lowered(counts, allowed) == {"a": {"product": 5, "docs": 1}}


def test_every_allowance_is_of_a_word_and_an_area() -> None:
    """A misspelt one would allow nothing and look as if it did."""
    allowed = json.loads(vocabulary.ALLOWED.read_text(encoding="utf-8"))
    assert set(allowed) <= {word.find for word in read_words()}
    assert {area for by_area in allowed.values() for area in by_area} <= set(vocabulary.AREAS)


def test_the_words_are_plain_in_the_table() -> None:
    """A reader of the glossary sees words, not expressions."""
    for word in read_words():
        assert not set(word.plain) & set("()[]?*\\|."), word


def test_the_glossary_shows_the_list() -> None:
    """`python tools/vocabulary.py --table` prints what belongs there."""
    glossary = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert vocabulary.table(read_words()) in glossary


@pytest.mark.parametrize("area", vocabulary.AREAS)
def test_every_area_is_read(area: str) -> None:
    """A folder that was moved would silently be left out."""
    for pattern in vocabulary.AREAS[area]:
        assert list(REPOSITORY.glob(pattern)), pattern
    assert vocabulary.read_texts()[area]
