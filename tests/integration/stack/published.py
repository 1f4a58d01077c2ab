"""published.toml: what programs say of the files that they decode, and whether a file of ours is of
that shape."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.toml")
_DURATION = re.compile(r"^(\d+(\.\d+)?(ns|us|ms|s|m|h))+$")
_PLAIN: dict[str, Any] = {
    "string": lambda thing: isinstance(thing, str),
    "bool": lambda thing: isinstance(thing, bool),
    "int": lambda thing: isinstance(thing, int) and not isinstance(thing, bool),
    "number": lambda thing: isinstance(thing, int | float) and not isinstance(thing, bool),
    "duration": lambda thing: isinstance(thing, str) and _DURATION.match(thing) is not None,
    "any": lambda thing: True,
}


@cache
def published(section: str) -> Mapping[str, Any]:
    """One section of the file."""
    return dict(tomllib.loads(FILE.read_text(encoding="utf-8"))[section])


def misfits(section: str, thing: Any) -> list[str]:
    """What a strict decoder would refuse in `thing`, each with its place."""
    about = published(section)
    return list(_misfits(about["types"], about["root"], thing, ""))


def _misfits(
    types: Mapping[str, Mapping[str, str]], shape: str, thing: Any, place: str
) -> Iterator[str]:
    expected = _PLAIN.get(shape) or (list if shape.startswith("[") else Mapping)
    if not (isinstance(thing, expected) if isinstance(expected, type) else expected(thing)):
        words = shape if shape in _PLAIN else "a list" if expected is list else "a table"
        yield f"{place}: expected {words}, found {thing!r}"
    elif shape.startswith("["):
        for number, entry in enumerate(thing):
            yield from _misfits(types, shape[1:-1], entry, f"{place}[{number}]")
    elif shape not in _PLAIN:
        yield from _misfits_of_table(types, shape, thing, place)


def _misfits_of_table(
    types: Mapping[str, Mapping[str, str]], shape: str, thing: Mapping[str, Any], place: str
) -> Iterator[str]:
    for key, value in thing.items():
        inner = shape[1:-1] if shape.startswith("{") else types[shape].get(key)
        if inner is None:
            yield f"{place}.{key}: unknown field"
        else:
            yield from _misfits(types, inner, value, f"{place}.{key}")
