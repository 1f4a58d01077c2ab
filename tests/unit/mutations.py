"""Samples with bytes changed, cut, doubled, mixed and moved: what damaged files are tried with.

MESHWAKE_MUTATIONS says how many of each sample, MESHWAKE_SEED with which seed (1 without it).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

TOKENS = [
    *(
        b"18446744073709551615",
        b"-1",
        b"0",
        b"1e400",
        b"NaN",
        b"null",
        b"[]",
        b"{",
        b"}",
        b"\0",
        b"\xff\xfe",
        b'"',
        b",",
    ),
    *(
        b";",
        b"\t",
        b"\r\n",
        b"1601-01-01T00:00:00Z",
        b"0001-01-01 00:00:00 +0000",
        b"9999-12-31 23:59:59 -1200",
    ),
    *(
        b"31/02/2026 25:61:61 PM",
        b"</Event>",
        b"<Event>",
        b"&#x0;",
        b"Start",
        b"Wake",
        b"Started Restored",
        b"SHUTDOWN",
    ),
]


def many(without: int) -> int:
    """How many mutations of one sample are tried; `without`: where none is given."""
    return int(os.environ.get("MESHWAKE_MUTATIONS", str(without)))


def chance(of: str) -> Random:
    """The same for every run with the same seed."""
    return Random(f"{os.environ.get('MESHWAKE_SEED', '1')} {of}")


def mutated(
    data: bytes, random: Random, others: Sequence[Path], tokens: Sequence[bytes] = TOKENS
) -> bytes:
    """`data` after a few changes; pieces of `others` may be among them."""
    text = bytearray(data)
    for _ in range(random.choice([1, 2, 5, 20])):
        begins = random.randrange(len(text) + 1)
        ends = begins + random.choice([1, 8, 100, 1000])
        change = random.randrange(7)
        if change == 0:
            text[begins : begins + 1] = bytes([random.randrange(256)])
        elif change == 1:
            del text[begins:ends]
        elif change == 2:
            text[begins:begins] = random.choice(tokens)
        elif change == 3:
            text[begins:begins] = text[begins:ends]
        elif change == 4:
            text = bytearray(b"\n".join(reversed(bytes(text).split(b"\n"))))
        elif change == 5:
            other = random.choice(others).read_bytes()
            text[begins:begins] = other[: random.randrange(len(other))]
        else:
            text[begins:ends] = bytes(
                48 + random.randrange(10) if 48 <= byte < 58 else byte for byte in text[begins:ends]
            )
    return bytes(text)


# What may replace any value.
VALUES: Sequence[Any] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1e400,
        float("nan"),
        10**400,
        17,
        "",
        " ",
        "0",
        "null",
        "\0",
        "\ud800",
        "\u0669",
        "a b",
    ),
    *(
        "x" * 5_000,
        "9" * 5_000,
        [],
        [[]],
        {},
        {"": None},
        {"name": "a"},
        ["a"],
        "/",
        "/dev/null",
        "../..",
        "~",
        "-----BEGIN",
    ),
    *(
        "!!!",
        "eHh4",
        "https://",
        "https://[::",
        "https://a:99999",
        "http://192.0.2.1",
        "unix:///a",
        "socks5://a",
        "//a",
    ),
    *(
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-23T08:00:00",
    ),
)


def reshaped(content: Any, random: Random) -> Any:
    """Well formed still, with a few values in the place of others, gone, doubled, or in one
    another's place."""
    for _ in range(random.choice([1, 1, 2, 4])):
        content = _reshaped_once(content, random)
    return content


def _reshaped_once(content: Any, random: Random) -> Any:
    places = list(_places(content))
    if not places:
        return random.choice(VALUES)
    where, key = random.choice(places)
    change = random.randrange(6)
    if change == 0:
        del where[key]
    elif change == 1:
        other, name = random.choice(places)
        where[key] = copy.deepcopy(other[name])
    elif change == 2 and isinstance(where, list):
        where.append(copy.deepcopy(where[key]))
    elif change == 2:
        where[random.choice([name for _, name in places if isinstance(name, str)] or ["a"])] = (
            copy.deepcopy(where[key])
        )
    elif change == 3:
        where[key] = [where[key]] if random.randrange(2) else {"a": where[key]}
    else:
        where[key] = copy.deepcopy(random.choice(VALUES))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as what holds it and its key there."""
    keys = (
        list(content)
        if isinstance(content, dict)
        else range(len(content))
        if isinstance(content, list)
        else ()
    )
    for key in keys:
        yield content, key
        yield from _places(content[key])
