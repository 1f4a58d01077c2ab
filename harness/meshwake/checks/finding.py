"""How a check says what it found. Evidence is the first five places and a count of the rest, which
a page can open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshwake.core.durations import seconds
from meshwake.core.outcome import Evidence, Finding, Verdict

PLACES_SHOWN = 5


def place(world_ns: int, text: str, **data: Any) -> Evidence:
    """One place in the history; `data` are plain values that go into JSON."""
    return Evidence(seconds(world_ns), text, data)


def holds(check: str, because: str) -> Finding:
    """The property was put to the test and held."""
    return Finding(check, Verdict.HOLDS, because)


def broken(check: str, because: str, places: Sequence[Evidence] = ()) -> Finding:
    """The property was seen broken at `places`."""
    return _at_places(check, Verdict.BROKEN, because, places)


def unknown(check: str, because: str, places: Sequence[Evidence] = ()) -> Finding:
    """This history cannot show whether the property holds."""
    return _at_places(check, Verdict.UNKNOWN, because, places)


def _at_places(check: str, verdict: Verdict, because: str, places: Sequence[Evidence]) -> Finding:
    rest = tuple(places[PLACES_SHOWN:])
    return Finding(check, verdict, because, shown(places), rest=rest)


def shown(places: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The first places, and how many more there are."""
    first, rest = places[:PLACES_SHOWN], places[PLACES_SHOWN:]
    if not rest:
        return tuple(first)

    # At the time of the first that is left out, so that a timeline can be opened there.
    more = Evidence(rest[0].world_s, f"and {len(rest)} more from here on", {"more": len(rest)})
    return (*first, more)
