"""The nearest word, and the sentence in which a value is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.errors import BadInput
from meshwake.core.refusal import invalid, invalid_choice, unreadable
from meshwake.system.hints import closest, did_you_mean

from tests.support.paths import PACKAGE

LABS = ("auto", "model", "process", "machine", "kind")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("modle", "model"), ("proces", "process"), ("Kind", "kind"), ("banana", None), ("", None)],
)
def test_the_nearest_word(word: str, meant: str | None) -> None:
    """Nothing is guessed where no word is close."""
    assert did_you_mean(word, LABS) == (f"; did you mean {meant!r}?" if meant else "")
    assert closest(word, LABS) == ([meant] if meant else [])


def test_one_grammar_of_refusals() -> None:
    """What was found, where, what was expected, and the nearest word."""
    assert str(invalid_choice("--lab", "modle", LABS)) == (
        "invalid value 'modle' for --lab: expected one of auto, model, process, machine, kind; "
        "did you mean 'model'?"
    )
    assert str(invalid("--budget", "0s", "more than 0")) == (
        "invalid value '0s' for --budget: expected more than 0"
    )
    assert isinstance(invalid("--budget", "0s", "more than 0"), BadInput)


def test_a_file_that_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    """The operating system's words, without the path that Python puts after them."""
    with pytest.raises(OSError, match="No such file") as raised:
        (tmp_path / "gone").read_text()
    refused = str(unreadable(tmp_path / "gone", raised.value, "give another"))
    assert refused == (
        f"{tmp_path / 'gone'}: cannot be read (No such file or directory); give another"
    )


def test_no_other_module_looks_for_close_words() -> None:
    """A second one would soon have a second grammar."""
    places = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "get_close_matches" in path.read_text(encoding="utf-8")
    ]
    assert places == ["system/hints.py"]
