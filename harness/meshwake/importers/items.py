"""What readers of journals yield, and the tally of what they understood.

Readers yield times of the wall clock that wrote the journal, in ns since 1970; placement.py puts
them on one calendar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal, NamedTuple, TextIO

from meshwake.core.durations import NS_PER_S
from meshwake.importers.offsets import OffsetsSeen

SleepKind = Literal["suspend", "pause", "off"]
# Lines that are not understood are most often of one kind, many times.
EXAMPLES_SHOWN = 3
EXAMPLE_CHARACTERS = 120
# What may precede a line that was pasted: indentation, quote marks, its number by grep.
PASTED = re.compile(r"[ \t]{0,40}(?:>[ \t]?){0,9}(?:\d{1,9}[:-](?=\d{4}-))?")
# A line without an end must not fill the memory: it is read in pieces of so many characters.
LINE_CHARACTERS_MAX = 1 << 20
# Wall clocks that differ by less are taken for the same.
NOTICED_NS = 30 * NS_PER_S
# The family of S0 low power idle (events 506 and 507 of Windows): a laptop in it may hibernate, and
# that is reported too.
S0_IDLE = "S0 idle"
# Dates outside are damage: years 1, 1601 and 586524 have been seen. A clock that begins at 1970 is
# possible.
_EARLIEST_NS = 0
_LATEST_NS = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * NS_PER_S


class PowerEvent(NamedTuple):
    """A change of a machine's power state."""

    wall_ns: int
    # `restored`: the machine continues with the memory that it had, even if it was reported as off.
    change: Literal["asleep", "awake", "off", "on", "restored"]
    kind: SleepKind
    # The journal's own name for it: an event's number, a message.
    code: str
    # Which wakes end which sleeps: the same family asleep twice in a row means that a wake is
    # missing.
    family: str = ""

    @property
    def at_ns(self) -> int:
        """When it was (wall clock)."""
        return self.wall_ns

    def shifted(self, by_ns: int) -> PowerEvent:
        """The same event, `by_ns` later."""
        return self._replace(wall_ns=self.wall_ns + by_ns)


class SleepSpan(NamedTuple):
    """A sleep of which the journal has both ends; it is preferred to power events that overlap it.
    `by_ns`: by how much more the wall clock was off at its end than at its beginning, for a machine
    that was off. `corrected`: whether the wall clock of a paused guest was set soon after."""

    from_wall_ns: int
    to_wall_ns: int
    kind: SleepKind
    by_ns: int = 0
    corrected: bool = True

    @property
    def at_ns(self) -> int:
        """When it began (wall clock)."""
        return self.from_wall_ns

    @property
    def length_ns(self) -> int:
        """How long it was by the wall clock."""
        return self.to_wall_ns - self.from_wall_ns

    def shifted(self, by_ns: int) -> SleepSpan:
        """The same sleep, `by_ns` later."""
        return self._replace(
            from_wall_ns=self.from_wall_ns + by_ns,
            to_wall_ns=self.to_wall_ns + by_ns,
        )

    def overlaps(self, other: SleepSpan) -> bool:
        """Whether there is a moment that both contain."""
        begins_ns = max(self.from_wall_ns, other.from_wall_ns)
        ends_ns = min(self.to_wall_ns, other.to_wall_ns)
        return begins_ns < ends_ns


class ClockStep(NamedTuple):
    """The wall clock was set by `by_ns`; `at_wall_ns` is what it showed just before."""

    at_wall_ns: int
    by_ns: int

    @property
    def at_ns(self) -> int:
        """When it was (wall clock)."""
        return self.at_wall_ns

    def shifted(self, by_ns: int) -> ClockStep:
        """The same step, `by_ns` later."""
        return self._replace(at_wall_ns=self.at_wall_ns + by_ns)


JournalItem = PowerEvent | SleepSpan | ClockStep


@dataclass
class Tally:
    """How many entries of one journal were understood. `used`: about sleep; `other`: well formed,
    about something else; `not_understood`: neither. `offsets`: what they show of its time zone."""

    path: str
    system: str = ""
    used: int = 0
    other: int = 0
    not_understood: int = 0
    examples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offsets: OffsetsSeen = field(default_factory=OffsetsSeen)

    @property
    def entries(self) -> int:
        """All entries."""
        return self.used + self.other + self.not_understood

    def count(self, used: bool) -> None:
        """Counts an entry that was understood."""
        if used:
            self.used += 1
        else:
            self.other += 1

    def broken(self, text: str, why: str, place: int | None = None) -> None:
        """Counts an entry that was not understood, and keeps the first few as examples. `place`:
        its number, where it is not the entry that was counted last."""
        self.not_understood += 1
        if len(self.examples) >= EXAMPLES_SHOWN:
            return

        if place is None:
            place = self.entries
        shown = text.strip()[:EXAMPLE_CHARACTERS]
        self.examples.append(f"entry {place}: {why}: {shown!r}")


def checked_ns(wall_ns: int) -> int:
    """`wall_ns`, if a journal can have that date. Raises ValueError otherwise."""
    if not _EARLIEST_NS <= wall_ns < _LATEST_NS:
        raise ValueError("is dated outside of the years 1970 to 2200")
    return wall_ns


def lines_of(stream: TextIO) -> Iterator[str]:
    """The lines of `stream`; one of more than LINE_CHARACTERS_MAX in pieces."""
    return iter(lambda: stream.readline(LINE_CHARACTERS_MAX), "")


def rises_in(moments: Iterable[int]) -> int:
    """How often one is later than the one before it."""
    return sum(before < after for before, after in pairwise(moments))


def falls_in(moments: Iterable[int]) -> int:
    """How often one is earlier than the one before it."""
    return sum(after < before for before, after in pairwise(moments))


def in_order(items: Iterable[JournalItem]) -> list[JournalItem]:
    """By time; at one time power events keep their order, spans and steps follow them."""
    return sorted(items, key=_place_in_order)


def _place_in_order(item: JournalItem) -> tuple[int, bool]:
    return item.at_ns, not isinstance(item, PowerEvent)
