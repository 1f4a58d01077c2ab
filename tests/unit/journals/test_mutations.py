"""Samples with bytes changed, cut, doubled, mixed and moved: each is a scenario, or a sentence with what to do. Nothing
else may come of a damaged file.

MESHWAKE_MUTATIONS says how many of each sample are tried (8 without it), MESHWAKE_SEED with which seed (1).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from harness.cli_journal import import_sleep
from harness.errors import BadInput
from tests.unit.journals.test_journals import DATA

SAMPLES = sorted(DATA.iterdir())
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
    *(b";", b"\t", b"\r\n", b"1601-01-01T00:00:00Z", b"0001-01-01 00:00:00 +0000", b"9999-12-31 23:59:59 -1200"),
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


def mutated(data: bytes, random: Random) -> bytes:
    """A few changes."""
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
            text[begins:begins] = random.choice(TOKENS)
        elif change == 3:
            text[begins:begins] = text[begins:ends]
        elif change == 4:
            text = bytearray(b"\n".join(reversed(bytes(text).split(b"\n"))))
        elif change == 5:
            other = random.choice(SAMPLES).read_bytes()
            text[begins:begins] = other[: random.randrange(len(other))]
        else:
            text[begins:ends] = bytes(
                48 + random.randrange(10) if 48 <= byte < 58 else byte for byte in text[begins:ends]
            )
    return bytes(text)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_damaged_file_is_a_scenario_or_a_sentence(sample: Path, tmp_path: Path) -> None:
    """Never a traceback: whatever else is raised here is a fault of ours."""
    random = Random(f"{os.environ.get('MESHWAKE_SEED', '1')} {sample.name}")
    damaged = tmp_path / "damaged"
    for _ in range(int(os.environ.get("MESHWAKE_MUTATIONS", "8"))):
        damaged.write_bytes(mutated(sample.read_bytes(), random))
        with suppress(BadInput):
            import_sleep([damaged], output=tmp_path / "mine.toml")
