"""TOML that people read and edit: changed with tomlkit, so that comments and layout survive.

tomlkit keeps comments and blank lines with the table that they follow. For a reader they belong to
what comes next; `take_trailing` and `give_trailing` move them when a table is put in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.items import Item, SingleKey, Table


def aligned_table(values: Mapping[str, Any]) -> Table:
    """A table of `values`, in their order, with the equals signs in one column."""
    width = max(map(len, values))
    table = tomlkit.table()
    for name, value in values.items():
        key = _aligned_key(name, width)
        table.append(key, tomlkit.item(value))
    return table


def append_aligned(table: Table, key: str, value: str) -> None:
    """Adds `key` at the end of `table`, or replaces its value. A new key's equals sign is in the
    column of the first key's."""
    if key in table:
        table[key] = value
        return

    # Comments and blank lines are entries of the body, too, with None for a key.
    keys = [entry for entry, _ in table.value.body if entry is not None]
    first = keys[0]

    # A separator is the blanks up to the column and then " = ".
    width = len(first.as_string()) + len(first.sep) - len(" = ")
    table.append(_aligned_key(key, width), tomlkit.item(value))


def _aligned_key(name: str, width: int) -> SingleKey:
    blanks = " " * (width - len(name))
    return SingleKey(name, sep=f"{blanks} = ")


def take_trailing(table: Table) -> list[Item]:
    """Removes the comments and blank lines after the last key of `table`, and returns them."""
    body = table.value.body
    trailing: list[Item] = []

    # From the end: an entry without a key is a comment or a blank line.
    while body and body[-1][0] is None:
        _, entry = body.pop()
        trailing.insert(0, entry)
    return trailing


def give_trailing(table: Table, trailing: Sequence[Item]) -> None:
    """Adds what `take_trailing` returned at the end of `table`."""
    for each in trailing:
        table.add(each)  # type: ignore[call-overload]  # the stub knows comments and blank lines only
