"""Durations and moments in a person's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from meshwake.checks.format import count, dated, lasting, moment, moment_exactly
from meshwake.core.dates import Dates
from meshwake.core.zones import zone_of

from tests.support.histories import ns


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        ("0s", "0 s"),
        ("400ms", "0.4 s"),
        ("38s", "38 s"),
        ("59960ms", "1 m"),
        ("11m4s", "11 m 4 s"),
        ("59m59s", "59 m 59 s"),
        ("59m59700ms", "1 h"),
        ("3h59m2s", "3 h 59 m"),
        ("3h58m58s", "3 h 59 m"),
        ("16h", "16 h"),
        ("23h59m40s", "1 d"),
        ("51h", "2 d 3 h"),
        ("-13h", "-13 h"),
    ],
)
def test_lasting(duration: str, words: str) -> None:
    """The two largest units, rounded, and never sixty of one that has a larger."""
    assert lasting(ns(duration)) == words


def test_moments() -> None:
    """Day 0 is the first; to the minute it is cut, since nothing has happened before it did."""
    assert moment(ns("2d7h59m59s")) == "day 2 07:59"
    assert moment_exactly(ns("2d7h59m2s")) == "day 2 07:59:02"
    assert moment_exactly(0) == "day 0 00:00:00"


def test_moments_as_dates() -> None:
    """Of a world that began at a date; everything else in the text stays."""
    begun_s = int(datetime(2026, 11, 22, 8, tzinfo=UTC).timestamp())
    berlin = Dates(begun_s, zone_of("Europe/Berlin"))
    text = "late at day 2 07:58 (2 days), first on day 0 at 16:00; due day 1 00:00:02"
    assert dated(text, None) == text
    assert dated(text, Dates(begun_s)) == (
        "late at Tue 2026-11-24 15:58 (2 days), first on Mon 2026-11-23 00:00; "
        "due Mon 2026-11-23 08:00:02"
    )
    assert dated(text, berlin).startswith("late at Tue 2026-11-24 16:58 (2 days)")


def test_count() -> None:
    """One of a thing is not several."""
    assert [count(number, "request") for number in (0, 1, 2)] == [
        "0 requests",
        "1 request",
        "2 requests",
    ]
