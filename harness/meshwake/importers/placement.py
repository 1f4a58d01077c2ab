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
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    NOTICED_NS,
    ClockStep,
    JournalItem,
    PowerEvent,
    SleepSpan,
    Tally,
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

    @property
    def right_begin_ns(self) -> int:
        """When it began (ns since 1970), if the wall clock was right at its end."""
        return self.ends_wall_ns - self.lasts_ns


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
    first = stretches[0]
    first_ns = begins[0]
    ahead_ns = first.begins_wall_ns - first_ns

    # Where the stretch before ended, and by how much the wall clock was ahead of the calendar then.
    last_ns = first_ns
    last_ahead_ns = ahead_ns
    for stretch, begins_ns in zip(stretches, begins, strict=True):
        set_ns = stretch.begins_wall_ns - begins_ns - last_ahead_ns
        if abs(set_ns) < NOTICED_NS:
            set_ns = 0
        if stretch.booted and stretch is not first:
            items.append(SleepSpan(last_ns, begins_ns, "off", set_ns))
        elif set_ns:
            items.append(ClockStep(begins_ns, set_ns))
        items += [item.shifted(begins_ns) for item in stretch.items]

        last_ns = begins_ns + stretch.lasts_ns
        last_ahead_ns = stretch.ends_wall_ns - last_ns
    return PlacedJournal(items, first_ns, last_ns, ahead_ns)


def _begins(stretches: Sequence[Stretch]) -> list[int]:
    """When each began (ns since 1970): never before the end of the one before it."""
    trusted = set(_trusted(stretches))
    first = min(trusted)

    # What comes before the first that is trusted ends where that begins.
    before_first_ns = sum(stretch.lasts_ns for stretch in stretches[:first])
    ends_ns = stretches[first].right_begin_ns - before_first_ns

    begins: list[int] = []
    for position, stretch in enumerate(stretches):
        begins_ns = ends_ns
        if position in trusted:
            begins_ns = max(stretch.right_begin_ns, ends_ns)
        begins.append(begins_ns)
        ends_ns = begins_ns + stretch.lasts_ns
    return begins


def _trusted(stretches: Sequence[Stretch]) -> list[int]:
    """The positions of stretches whose clocks agree: each begins when those before it have ended.
    Of all such choices the one with the most entries: a longest increasing subsequence, weighted by
    entries."""
    choices = _HeaviestChoices()

    # "Room": how much later a stretch begins than if all before it followed without a gap. Where
    # it never falls, nothing overlaps.
    passed_ns = 0
    for stretch in stretches:
        room_ns = stretch.right_begin_ns - passed_ns
        choices.extend(room_ns, max(stretch.entries, 1))
        passed_ns += stretch.lasts_ns
    return choices.heaviest()


class _HeaviestChoices:
    """For each weight that a choice of stretches can reach, the one that ends with the least room.
    Three lists side by side, one place for each such choice; room and weight increase."""

    def __init__(self) -> None:
        self._room_ns: list[int] = []
        self._weights: list[int] = []
        self._last: list[int] = []  # position of the last stretch of the choice

        # For each stretch, the one before it in the best choice that ends with it; -1 for none.
        self._before: list[int] = []

    def extend(self, room_ns: int, weight: int) -> None:
        """The next stretch: appended to the heaviest choice that it may follow."""
        position = len(self._before)
        before = -1

        # Entries of several programs may be a little out of order, and so may their stretches.
        followed = bisect_right(self._room_ns, room_ns + OUT_OF_ORDER_NS // 4)
        if followed:
            before = self._last[followed - 1]
            weight += self._weights[followed - 1]
        self._before.append(before)

        place = bisect_right(self._room_ns, room_ns)
        # Another choice is as heavy and leaves at least as much room.
        if place and self._weights[place - 1] >= weight:
            return

        # Those behind it that are lighter, and leave less room, will never be better.
        after = bisect_right(self._weights, weight, lo=place)
        self._room_ns[place:after] = [room_ns]
        self._weights[place:after] = [weight]
        self._last[place:after] = [position]

    def heaviest(self) -> list[int]:
        """The positions in the heaviest choice of all, in order."""
        chosen: list[int] = []
        position = self._last[-1]
        while position >= 0:
            chosen.append(position)
            position = self._before[position]
        chosen.reverse()
        return chosen


class EntryPlacer:
    """Collects entries that have a wall clock and an order, and nothing else. What cannot have been
    is counted in `tally`."""

    def __init__(self, tally: Tally, tolerance_ns: int = OUT_OF_ORDER_NS) -> None:
        self._tally = tally
        self._tolerance_ns = tolerance_ns
        self._stretches: list[Stretch] = []

        # Of each stretch: how many entries are about sleep, and its first entry with its number.
        self._used: list[int] = []
        self._shown: list[tuple[str, int]] = []

    def add(
        self,
        wall_ns: int,
        text: str,
        item: JournalItem | None = None,
        place: int | None = None,
    ) -> None:
        """The next entry. `item`: what it reports, its times counted from the entry's own;
        `place`: its number, where it is not the entry that was counted last."""
        self._tally.count(item is not None)
        if place is None:
            place = self._tally.entries
        last = self._stretch_of(wall_ns, text, place)
        last.entries += 1

        # An entry that is a little out of order takes no time back.
        passed_ns = max(wall_ns - last.ends_wall_ns, 0)
        last.lasts_ns += passed_ns
        last.ends_wall_ns += passed_ns
        if item is not None:
            last.items.append(item.shifted(last.lasts_ns))
            self._used[-1] += 1

    def set(self, old_wall_ns: int, new_wall_ns: int, text: str) -> None:
        """The next entry reports that the clock was set."""
        self.add(old_wall_ns, text, ClockStep(0, new_wall_ns - old_wall_ns))
        self._stretches[-1].ends_wall_ns = new_wall_ns

    def _stretch_of(self, wall_ns: int, text: str, place: int) -> Stretch:
        """The stretch to which an entry of this time belongs: the last, or a new one."""
        if self._stretches:
            last = self._stretches[-1]
            after_ns = wall_ns - last.ends_wall_ns
            if -self._tolerance_ns <= after_ns <= SILENT_NS:
                return last

        stretch = Stretch(
            lasts_ns=0,
            begins_wall_ns=wall_ns,
            ends_wall_ns=wall_ns,
            entries=0,
        )
        self._stretches.append(stretch)
        self._used.append(0)
        self._shown.append((text, place))
        return stretch

    def placed(self) -> PlacedJournal | None:
        """All entries on the calendar, without those that cannot have been."""
        # Again after each: a stretch may have been trusted only because of one that is left out.
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
            if position in trusted:
                is_absurd = self._is_far_away(position, begins)
            else:
                # It is placed by its neighbours; its own clock shows another time.
                off_ns = abs(begins[position] - stretch.begins_wall_ns)
                is_absurd = off_ns >= ABSURD_NS
            if is_absurd:
                absurd.append(position)
        return absurd

    def _is_far_away(self, position: int, begins: Sequence[int]) -> bool:
        """Whether the first or the last stretch is years from all others."""
        last = len(begins) - 1
        if position not in (0, last):
            return False
        entries = sum(stretch.entries for stretch in self._stretches)
        others = entries - self._stretches[position].entries

        # Of so few, either side may be the one that is wrong.
        if others <= ABSURD_ENTRIES:
            return False

        # The gap between the first two, or the last two.
        one = min(position, last - 1)
        ends_ns = begins[one] + self._stretches[one].lasts_ns
        return begins[one + 1] - ends_ns >= FAR_AWAY_NS

    def _leave_out(self, position: int) -> None:
        """Counts a stretch as not understood. That the machine was started is kept, whatever the
        clock showed."""
        stretch = self._stretches.pop(position)
        used = self._used.pop(position)
        shown, place = self._shown.pop(position)
        self._tally.used -= used
        self._tally.other -= stretch.entries - used
        why = "is dated by no clock that fits the entries around it"
        for further in range(stretch.entries):
            self._tally.broken(shown, why, place + further)

        if position == 0:
            return
        before = self._stretches[position - 1]
        for item in stretch.items:
            if isinstance(item, PowerEvent) and item.change == "on":
                before.items.append(item._replace(wall_ns=before.lasts_ns))
                return
