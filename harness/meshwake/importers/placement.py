"""Stretches of a journal, placed on one calendar.

What a journal shows beside its wall clock is sure: the order of its entries, and within a boot how
much time passed between them. The wall clock is not: it may be behind after a boot, years off, or
set in the midst. So a journal comes as stretches in their order, each with the time that passed in
it, and only then is told when each of them was: a stretch lies where the wall clock at its end
says, since a clock that is set is set right. Where stretches cannot all lie so, in their order and
without overlapping, the most entries are believed; the others follow what came before.

Where the wall clock differs from the calendar, it was set: a step, or after a boot a clock that
began behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    NOTICED_NS,
    ClockStep,
    JournalItem,
    PowerEvent,
    SleepSpan,
    Tally,
    shifted,
)

# Entries that are written by several hands may stand a little out of order.
OUT_OF_ORDER_NS = 120 * NS_PER_S
_DAY_NS = 86_400 * NS_PER_S
# A clock that shows a time so far from its neighbours', for an entry or two, is no clock but
# damage.
ABSURD_NS = 180 * _DAY_NS
ABSURD_ENTRIES = 2
# The same before all others, or after them, where it would fit.
FAR_AWAY_NS = 2 * 365 * _DAY_NS
# Within one stretch nobody is silent for so long: what follows may be dated by another clock.
SILENT_NS = 30 * _DAY_NS


@dataclass
class Stretch:
    """Entries between which nothing but time passed. `items` are timed from 0, the first entry;
    `begins_wall_ns` and `ends_wall_ns`: what the wall clock showed; `booted`: the machine was
    started anew before it."""

    lasts_ns: int
    begins_wall_ns: int
    ends_wall_ns: int
    entries: int
    items: list[JournalItem] = field(default_factory=list)
    booted: bool = False
    name: str = ""


@dataclass
class PlacedJournal:
    """What one journal tells, on the calendar. `ahead_ns`: by how much the wall clock was ahead of
    it at the beginning; `system`: what wrote it."""

    items: list[JournalItem]
    first_ns: int
    last_ns: int
    ahead_ns: int = 0
    measured: bool = False
    dropped: list[str] = field(default_factory=list)
    system: str = ""


def place_stretches(stretches: Sequence[Stretch]) -> PlacedJournal | None:
    """All stretches, in their order, on the calendar; None when there are none."""
    if not stretches:
        return None
    items: list[JournalItem] = []
    begins = _begins(stretches)
    last_ns = begins[0]
    off_ns = begins[0] - stretches[0].begins_wall_ns
    ahead_ns = -off_ns
    for stretch, begins_ns in zip(stretches, begins, strict=True):
        changed_ns = (stretch.begins_wall_ns - begins_ns) + off_ns
        changed_ns = changed_ns if abs(changed_ns) >= NOTICED_NS else 0
        if stretch.booted and stretch is not stretches[0]:
            items.append(SleepSpan(last_ns, begins_ns, "off", changed_ns))
        elif changed_ns:
            items.append(ClockStep(begins_ns, changed_ns))
        items += [shifted(item, begins_ns) for item in stretch.items]
        last_ns = begins_ns + stretch.lasts_ns
        off_ns = last_ns - stretch.ends_wall_ns
    return PlacedJournal(items, begins[0], last_ns, ahead_ns)


def _begins(stretches: Sequence[Stretch]) -> list[int]:
    """When each began. Never before the end of the one before it."""
    believed = set(_believed(stretches))
    first = min(believed)
    begins: list[int] = []
    # What comes before the first that is believed ends where that begins.
    ends_ns = _anchor(stretches[first]) - sum(stretch.lasts_ns for stretch in stretches[:first])
    for position, stretch in enumerate(stretches):
        begins_ns = max(_anchor(stretch), ends_ns) if position in believed else ends_ns
        begins.append(begins_ns)
        ends_ns = begins_ns + stretch.lasts_ns
    return begins


def _anchor(stretch: Stretch) -> int:
    """When it began, if the wall clock was right at its end."""
    return stretch.ends_wall_ns - stretch.lasts_ns


def _believed(stretches: Sequence[Stretch]) -> list[int]:
    """The positions of those whose clocks agree: each begins when those before it have ended. Of
    all such choices the one with the most entries, by the longest rising sequence (weighted)."""
    passed_ns = 0
    room: list[int] = []
    for stretch in stretches:
        room.append(_anchor(stretch) - passed_ns)
        passed_ns += stretch.lasts_ns
    # Kept: for each weight that can be reached, the least room at which it ends. Both rise.
    ends: list[int] = []
    best: list[tuple[int, int]] = []  # (weight, position) beside `ends`
    before: list[int | None] = []
    for position, (stretch, own) in enumerate(zip(stretches, room, strict=True)):
        place = bisect_right(ends, own + OUT_OF_ORDER_NS // 4)
        weight, last = best[place - 1] if place else (0, -1)
        before.append(last if place else None)
        weight += max(stretch.entries, 1)
        place = bisect_right(ends, own)
        if place and best[place - 1][0] >= weight:
            continue
        after = place
        while after < len(ends) and best[after][0] <= weight:
            after += 1
        ends[place:after] = [own]
        best[place:after] = [(weight, position)]
    chosen: list[int] = []
    at: int | None = best[-1][1]
    while at is not None:
        chosen.append(at)
        at = before[at]
    return chosen[::-1]


class EntryPlacer:
    """Entries that have nothing but a wall clock, and their order. What cannot have been is told to
    `tally`."""

    def __init__(self, tally: Tally, tolerance_ns: int = OUT_OF_ORDER_NS) -> None:
        self._tally, self._tolerance_ns = tally, tolerance_ns
        self._stretches: list[Stretch] = []
        self._used: list[int] = []
        self._shown: list[tuple[str, int]] = []

    def add(
        self,
        wall_ns: int,
        text: str,
        item: Callable[[int], JournalItem] | None = None,
        place: int | None = None,
    ) -> None:
        """The next entry, and what it tells: `item` makes it for a time. `place`: its number, where
        that is not the one of the entry that was counted last."""
        self._tally.count(item is not None)
        last = self._last(wall_ns, text, self._tally.entries if place is None else place)
        last.lasts_ns += max(wall_ns - last.ends_wall_ns, 0)
        last.ends_wall_ns = max(last.ends_wall_ns, wall_ns)
        last.entries += 1
        if item is not None:
            last.items.append(item(last.lasts_ns))
            self._used[-1] += 1

    def set(self, old_wall_ns: int, new_wall_ns: int, text: str) -> None:
        """The next entry tells that the clock was set."""
        self.add(old_wall_ns, text, lambda at_ns: ClockStep(at_ns, new_wall_ns - old_wall_ns))
        self._stretches[-1].ends_wall_ns = new_wall_ns

    def _last(self, wall_ns: int, text: str, place: int) -> Stretch:
        """The stretch to which an entry of this time belongs."""
        last = self._stretches[-1] if self._stretches else None
        if last is None or not -self._tolerance_ns <= wall_ns - last.ends_wall_ns <= SILENT_NS:
            last = Stretch(0, wall_ns, wall_ns, 0)
            self._stretches.append(last)
            self._used.append(0)
            self._shown.append((text, place))
        return last

    def placed(self) -> PlacedJournal | None:
        """All of it on the calendar, without what cannot have been."""
        while absurd := self._absurd():
            for position in reversed(absurd):
                self._leave_out(position)
        return place_stretches(self._stretches)

    def _absurd(self) -> list[int]:
        """The positions of an entry or two by a time that fits nothing else."""
        if len(self._stretches) < 2:
            return []
        believed = set(_believed(self._stretches))
        begins = _begins(self._stretches)
        return [
            position
            for position, stretch in enumerate(self._stretches)
            if stretch.entries <= ABSURD_ENTRIES
            and (
                abs(begins[position] - stretch.begins_wall_ns) >= ABSURD_NS
                if position not in believed
                else self._is_far_away(position, begins)
            )
        ]

    def _is_far_away(self, position: int, begins: Sequence[int]) -> bool:
        """Whether the first or the last entry is years from all others: nobody logs once in years."""
        others = (
            sum(stretch.entries for stretch in self._stretches) - self._stretches[position].entries
        )
        if others <= ABSURD_ENTRIES or position not in (0, len(begins) - 1):
            return False
        one = min(position, len(begins) - 2)
        return begins[one + 1] - begins[one] - self._stretches[one].lasts_ns >= FAR_AWAY_NS

    def _leave_out(self, position: int) -> None:
        """Counts it as not understood. That the machine was started is believed whatever the clock
        said."""
        stretch, used = self._stretches.pop(position), self._used.pop(position)
        shown, place = self._shown.pop(position)
        self._tally.used -= used
        self._tally.other -= stretch.entries - used
        for further in range(stretch.entries):
            self._tally.broken(
                shown, "is dated by no clock that fits the entries around it", place + further
            )
        started = [
            item for item in stretch.items if isinstance(item, PowerEvent) and item.change == "on"
        ]
        if started and position:
            before = self._stretches[position - 1]
            before.items.append(started[0]._replace(wall_ns=before.lasts_ns))
