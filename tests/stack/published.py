"""published.toml: what programs say of the files that they decode, and whether a file of ours is of that shape."""

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


def _misfits(types: Mapping[str, Mapping[str, str]], shape: str, thing: Any, place: str) -> Iterator[str]:
    if shape in _PLAIN:
        if not _PLAIN[shape](thing):
            yield f"{place}: expected {shape}, found {thing!r}"
    elif shape.startswith("["):
        if not isinstance(thing, list):
            yield f"{place}: expected a list, found {thing!r}"
            return
        for number, entry in enumerate(thing):
            yield from _misfits(types, shape[1:-1], entry, f"{place}[{number}]")
    elif not isinstance(thing, Mapping):
        yield f"{place}: expected a table, found {thing!r}"
    elif shape.startswith("{"):
        for key, value in thing.items():
            yield from _misfits(types, shape[1:-1], value, f"{place}.{key}")
    else:
        for key, value in thing.items():
            if key not in types[shape]:
                yield f"{place}.{key}: unknown field"
            else:
                yield from _misfits(types, types[shape][key], value, f"{place}.{key}")
