"""Time zones in which dates are shown: by name (Europe/Berlin), or by the UTC offsets that a journal
shows where it does not name its zone.

As text, in a scenario file and for `--zone`:

    Europe/Berlin                                    a name of the IANA database
    +01:00                                           one offset
    -06:00, -07:00 from 2026-11-01T08:00:00Z         an offset, and each change of it with its moment

With offsets alone a month that ends summer time, or a journey, is still shown as the clock on the
wall showed it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from meshwake.system.hints import did_you_mean

EXPECTED = "a time zone such as Europe/Berlin, or an offset from UTC such as +01:00"
# Zones whose name says nothing: what they are depends on the machine that reads it.
_OF_THE_MACHINE = frozenset(("Local", "localtime", "Factory", "posixrules"))
_OFFSET = re.compile(r"([+-])([01]\d):([0-5]\d)")
_CHANGE = re.compile(r"(?P<offset>\S+) from (?P<moment>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
# No clock on a wall is farther from UTC: Kiribati is 14 hours ahead.
OFFSET_S_MAX = 14 * 3_600
# Zones change their offset months apart (in Morocco weeks).
_STEP_S = 43_200
_DAY_S = 86_400


class OffsetChange(NamedTuple):
    """From `from_wall_s` (Unix time) on, clocks are `offset_s` ahead of UTC."""

    from_wall_s: int
    offset_s: int


@dataclass(frozen=True)
class Zone:
    """`text`: as it is written in a file. `label`: for people. `offset_s`: how far ahead of UTC
    clocks are at a Unix time. `tzinfo`: for datetime; None for a zone of changing offsets, whose
    local times may mean anything."""

    text: str
    label: str
    offset_s: Callable[[int], int] = field(compare=False, repr=False)
    tzinfo: tzinfo | None
    _all_offsets: tuple[int, ...] = ()

    def local(self, wall_s: int) -> datetime:
        """What clocks show at `wall_s`, without a zone."""
        return datetime.fromtimestamp(wall_s + self.offset_s(wall_s), UTC).replace(tzinfo=None)

    def is_repeated(self, wall_s: int) -> bool:
        """Whether clocks show at another moment what they show at `wall_s`, as in the hour in
        which summer time ends."""
        local_s = wall_s + self.offset_s(wall_s)
        for offset_s in self._offsets_near(wall_s):
            # The moment at which clocks with that offset show it, if they have it then.
            other_s = local_s - offset_s
            shown_s = other_s + self.offset_s(other_s)
            if other_s != wall_s and shown_s == local_s:
                return True
        return False

    def _offsets_near(self, wall_s: int) -> Iterable[int]:
        if self._all_offsets:
            return self._all_offsets
        # Zones change their offset months apart, so a day before and after is one change at most.
        return (self.offset_s(wall_s - _DAY_S), self.offset_s(wall_s + _DAY_S))

    def changes(self, from_wall_s: int, to_wall_s: int) -> list[OffsetChange]:
        """The offset at `from_wall_s`, and its changes until `to_wall_s`."""
        found = [OffsetChange(from_wall_s, self.offset_s(from_wall_s))]
        marks_s = (*range(from_wall_s, to_wall_s, _STEP_S), to_wall_s)
        for before_s, after_s in pairwise(marks_s):
            offset_s = self.offset_s(after_s)
            if self.offset_s(before_s) != offset_s:
                changes_s = self._first_with_another(before_s, after_s)
                found.append(OffsetChange(changes_s, offset_s))
        return found

    def _first_with_another(self, before_s: int, after_s: int) -> int:
        """The first second that has not the offset of `before_s`; `after_s` has another."""
        offset_s = self.offset_s(before_s)
        while after_s - before_s > 1:
            middle_s = (before_s + after_s) // 2
            if self.offset_s(middle_s) == offset_s:
                before_s = middle_s
            else:
                after_s = middle_s
        return after_s


@lru_cache(maxsize=64)
def zone_of(text: str) -> Zone:
    """The zone that `text` describes. Raises ValueError that says what was expected."""
    if text.startswith(("+", "-")):
        return _zone_of_changes(list(_changes_in(text)))
    return _named_zone(text)


def zone_of_offsets(changes: Iterable[OffsetChange]) -> Zone | None:
    """The zone of clocks that were seen with these offsets, in order of time; None without any.
    The first offset is taken for what came before, too."""
    kept: list[OffsetChange] = []
    for change in changes:
        before_s = kept[-1].offset_s if kept else None
        # The same offset, seen again, changes nothing.
        if change.offset_s != before_s:
            kept.append(change)
    if not kept:
        return None
    return _zone_of_changes(kept)


def _named_zone(name: str) -> Zone:
    try:
        if name in _OF_THE_MACHINE:
            raise ZoneInfoNotFoundError(name)
        zone = ZoneInfo(name)
    # ZoneInfo takes the name for a path: ValueError for one that leaves its folder, OSError for
    # the folder of a continent.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = did_you_mean(name, sorted(available_timezones()))
        raise ValueError(f"expected {EXPECTED}{hint}") from error

    def offset_s(wall_s: int) -> int:
        offset = datetime.fromtimestamp(wall_s, zone).utcoffset()
        # None only for a datetime without a zone.
        assert offset is not None
        return int(offset.total_seconds())

    return Zone(name, name, offset_s, zone)


def _changes_in(text: str) -> Iterator[OffsetChange]:
    first, *changes = text.split(",")
    # What holds from the first is taken for what came before it, too.
    yield OffsetChange(0, _offset_s_in(first.strip()))
    before_s = 0
    for part in changes:
        change = _change_in(part.strip())
        # _zone_of_changes looks the moment up by halving.
        if change.from_wall_s <= before_s:
            raise ValueError("expected changes of the offset in order of time")
        before_s = change.from_wall_s
        yield change


def _change_in(text: str) -> OffsetChange:
    found = _CHANGE.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        moment = datetime.fromisoformat(found["moment"])
    except ValueError as error:
        change = "a change of it as '-07:00 from 2026-11-01T08:00:00Z'"
        raise ValueError(f"expected {EXPECTED}; {change}") from error
    return OffsetChange(int(moment.timestamp()), _offset_s_in(found["offset"]))


def _offset_s_in(text: str) -> int:
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise ValueError(f"expected {EXPECTED}")

    sign, hours, minutes = found.groups()
    size_s = int(hours) * 3_600 + int(minutes) * 60
    if size_s > OFFSET_S_MAX:
        raise ValueError("expected an offset of at most 14 hours from UTC")
    return -size_s if sign == "-" else size_s


def offset_text(offset_s: int) -> str:
    """+01:00."""
    sign = "-" if offset_s < 0 else "+"

    # Of the size: divmod of a negative number rounds away from 0.
    hours, minutes = divmod(abs(offset_s) // 60, 60)
    return f"{sign}{hours:02}:{minutes:02}"


def _zone_of_changes(changes: Sequence[OffsetChange]) -> Zone:
    first, *later = changes
    moments_s = [change.from_wall_s for change in later]

    def offset_s(wall_s: int) -> int:
        return changes[bisect_right(moments_s, wall_s)].offset_s

    text = ", ".join((offset_text(first.offset_s), *map(_change_text, later)))

    # Each once, in the order in which they came.
    offsets = tuple(dict.fromkeys(change.offset_s for change in changes))
    fixed = None
    if len(offsets) == 1:
        fixed = timezone(timedelta(seconds=first.offset_s))
    return Zone(text, _label(offsets), offset_s, fixed, offsets)


def _change_text(change: OffsetChange) -> str:
    moment = datetime.fromtimestamp(change.from_wall_s, UTC)
    return f"{offset_text(change.offset_s)} from {moment:%Y-%m-%dT%H:%M:%SZ}"


def _label(offsets: tuple[int, ...]) -> str:
    # Not UTC+00:00.
    if offsets == (0,):
        return "UTC"

    named = [f"UTC{offset_text(offset_s)}" for offset_s in offsets]
    if len(named) == 1:
        return named[0]

    # With their moments it would be longer than a line.
    return f"local time ({', '.join(named)})"


UTC_ZONE = Zone("UTC", "UTC", lambda _: 0, UTC)
