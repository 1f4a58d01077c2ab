"""Places the stretches of a journal on one calendar.

Two things in a journal are certain: the order of its entries, and within a boot how much time
passed between them. The wall clock is not: it may be behind after a boot, years off, or set in
between. So a journal comes as stretches in their order, each with the time that passed in it, and
each is placed where the wall clock at its end says, since a clock that is set is set to the right
time. Where not all stretches can be placed so, in their order and without overlap, those with the
most entries are trusted; the others follow what came before them.

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

# Entries of several programs may be a little out of order.
OUT_OF_ORDER_NS = 120 * NS_PER_S
_DAY_NS = 86_400 * NS_PER_S
# A time so far from its neighbours', for an entry or two, is damage and not a clock.
ABSURD_NS = 180 * _DAY_NS
ABSURD_ENTRIES = 2
# The same for the first entries of all, or the last: there the calendar has room for any time.
FAR_AWAY_NS = 2 * 365 * _DAY_NS
# After such a silence another stretch begins: what follows may be dated by another clock.
SILENT_NS = 30 * _DAY_NS


@dataclass
class Stretch:
    """Entries between which the clock was not set. `items` are timed from 0, the first entry;
    `begins_wall_ns` and `ends_wall_ns`: what the wall clock showed; `booted`: the machine booted
    before it."""

    lasts_ns: int
    begins_wall_ns: int
    ends_wall_ns: int
    entries: int
    items: list[JournalItem] = field(default_factory=list)
    booted: bool = False
    name: str = ""


@dataclass
class PlacedJournal:
    """The items of one journal, on the calendar. `ahead_ns`: by how much the wall clock was ahead
    of the calendar at the beginning; `measured`: both clocks of each entry are known; `system`:
    what wrote it."""

    items: list[JournalItem]
    first_ns: int
    last_ns: int
    ahead_ns: int = 0
    measured: bool = False
    dropped: list[str] = field(default_factory=list)
    system: str = ""


def place_stretches(stretches: Sequence[Stretch]) -> PlacedJournal | None:
    """All stretches on the calendar, in their order; None when there are none."""
    if not stretches:
        return None
    items: list[JournalItem] = []
    begins = _begins(stretches)
    last_ns = begins[0]
    off_ns = begins[0] - stretches[0].begins_wall_ns
    ahead_ns = -off_ns
    for stretch, begins_ns in zip(stretches, begins, strict=True):
        # By how much the wall clock is further off than at the end of the stretch before.
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
    """When each began (ns since 1970): never before the end of the one before it."""
    trusted = set(_trusted(stretches))
    first = min(trusted)
    begins: list[int] = []
    # What comes before the first that is trusted ends where that begins.
    ends_ns = _anchor(stretches[first]) - sum(stretch.lasts_ns for stretch in stretches[:first])
    for position, stretch in enumerate(stretches):
        begins_ns = max(_anchor(stretch), ends_ns) if position in trusted else ends_ns
        begins.append(begins_ns)
        ends_ns = begins_ns + stretch.lasts_ns
    return begins


def _anchor(stretch: Stretch) -> int:
    """When it began, if the wall clock was right at its end."""
    return stretch.ends_wall_ns - stretch.lasts_ns


def _trusted(stretches: Sequence[Stretch]) -> list[int]:
    """The positions of stretches whose clocks agree: each begins when those before it have ended.
    Of all such choices the one with the most entries: a longest increasing subsequence, weighted by
    entries."""
    # "Room": how much later a stretch begins than if all before it followed without a gap. Where
    # it never falls, nothing overlaps.
    passed_ns = 0
    room: list[int] = []
    for stretch in stretches:
        room.append(_anchor(stretch) - passed_ns)
        passed_ns += stretch.lasts_ns
    # For each weight that can be reached, the least room at which it ends. Both lists increase.
    ends: list[int] = []
    best: list[tuple[int, int]] = []  # (weight, position) of each of `ends`
    before: list[int | None] = []
    for position, (stretch, own) in enumerate(zip(stretches, room, strict=True)):
        place = bisect_right(ends, own + OUT_OF_ORDER_NS // 4)
        weight, last = best[place - 1] if place else (0, -1)
        before.append(last if place else None)
        weight += max(stretch.entries, 1)
        place = bisect_right(ends, own)
        # Another choice is as heavy and leaves at least as much room.
        if place and best[place - 1][0] >= weight:
            continue
        # Those behind it that are lighter, and leave less room, will never be better.
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
    """Collects entries that have a wall clock and an order, and nothing else. What cannot have been
    is counted in `tally`."""

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
        """The next entry. `item` makes what it reports, for a time from the beginning of its
        stretch; `place`: its number, where it is not the entry that was counted last."""
        self._tally.count(item is not None)
        last = self._last(wall_ns, text, self._tally.entries if place is None else place)
        last.lasts_ns += max(wall_ns - last.ends_wall_ns, 0)
        last.ends_wall_ns = max(last.ends_wall_ns, wall_ns)
        last.entries += 1
        if item is not None:
            last.items.append(item(last.lasts_ns))
            self._used[-1] += 1

    def set(self, old_wall_ns: int, new_wall_ns: int, text: str) -> None:
        """The next entry reports that the clock was set."""
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
        """All entries on the calendar, without those that cannot have been."""
        while absurd := self._absurd():
            for position in reversed(absurd):
                self._leave_out(position)
        return place_stretches(self._stretches)

    def _absurd(self) -> list[int]:
        """The positions of stretches of an entry or two whose time fits no other."""
        if len(self._stretches) < 2:
            return []
        trusted = set(_trusted(self._stretches))
        begins = _begins(self._stretches)
        absurd: list[int] = []
        for position, stretch in enumerate(self._stretches):
            if stretch.entries > ABSURD_ENTRIES:
                continue
            # One that is not trusted is placed by its neighbours; its own clock shows another time.
            off_ns = abs(begins[position] - stretch.begins_wall_ns)
            is_off = position not in trusted and off_ns >= ABSURD_NS
            if is_off or (position in trusted and self._is_far_away(position, begins)):
                absurd.append(position)
        return absurd

    def _is_far_away(self, position: int, begins: Sequence[int]) -> bool:
        """Whether the first or the last stretch is years from all others."""
        others = (
            sum(stretch.entries for stretch in self._stretches) - self._stretches[position].entries
        )
        if others <= ABSURD_ENTRIES or position not in (0, len(begins) - 1):
            return False
        one = min(position, len(begins) - 2)
        return begins[one + 1] - begins[one] - self._stretches[one].lasts_ns >= FAR_AWAY_NS

    def _leave_out(self, position: int) -> None:
        """Counts a stretch as not understood. That the machine was started is kept, whatever the
        clock showed."""
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
