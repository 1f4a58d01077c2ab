from __future__ import annotations

import tomlkit
from meshwake.core.toml_text import aligned_table, append_aligned, give_trailing, take_trailing
from tomlkit.items import Table

TEXT = """\
[one]
check   = "a"  # why
verdict = "b"

# About two.
[two]
check = 1
"""


def table(document: tomlkit.TOMLDocument, name: str) -> Table:
    found = document[name]
    assert isinstance(found, Table)
    return found


def test_equals_signs_are_in_one_column() -> None:
    """Also where a value needs escapes, or is a list."""
    document = tomlkit.document()
    document.add("t", aligned_table({"at": 'a "b"\\', "identities": ["x", "y"]}))
    assert tomlkit.dumps(document) == '[t]\nat         = "a \\"b\\"\\\\"\nidentities = ["x", "y"]\n'


def test_a_key_is_added_in_the_same_column() -> None:
    """Before the comment about the next table, once that was taken; everything else stays."""
    document = tomlkit.parse(TEXT)
    one = table(document, "one")
    trailing = take_trailing(one)
    append_aligned(one, "until", "c")
    give_trailing(one, trailing)
    assert tomlkit.dumps(document) == TEXT.replace('"b"\n', '"b"\nuntil   = "c"\n')


def test_a_key_that_is_there_keeps_its_place() -> None:
    """Only its value changes."""
    document = tomlkit.parse(TEXT)
    append_aligned(table(document, "one"), "check", "z")
    assert tomlkit.dumps(document) == TEXT.replace('"a"', '"z"')
