"""The systemd journal: every entry has a wall and a monotonic time and its boot (entries.py reads
the forms).

journald reads both clocks at one moment. Within a boot their difference only changes while the
machine sleeps, so each jump of it is exactly what makes ztunnel late, to the microsecond. It shows
also where no message reports it: a VM that its host paused writes nothing. Messages only explain
what a jump was:

    kernel          PM: suspend entry (deep) ... PM: suspend exit; PM: hibernation: ...
    systemd-sleep   MESSAGE_ID 6bbd95ee... (begins), 8811e6df... (has ended)

A jump ahead without such a message is taken for a pause of the whole VM, unless the clock was wrong
before it: it was behind the end of the boot before, or had not been set since the start. Then, and
backwards, it is a step. Jumps of less than `NOTICED_NS` are left to grow until they are as large: a
clock that drifts (WSL) shows as many small pauses that add up to the same.

A new _BOOT_ID is a boot. Boots are ordered by journald's own numbers where there are some, else by
the file; within a boot the monotonic clock gives the order. The wall clock is placed on that
afterwards (placement.py).

The limit: the moment of a silent pause is known as finely as entries lie. Jumps in the first two
minutes after a boot that no message announces are taken for part of it: nothing of a cluster runs
yet.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.errors import BadInput
from meshwake.importers.entries import JournalEntry
from meshwake.importers.items import (
    NOTICED_NS,
    ClockStep,
    JournalItem,
    SleepSpan,
    Tally,
    falls_in,
    rises_in,
)
from meshwake.importers.placement import ABSURD_NS, PlacedJournal, Stretch, place_stretches

SYSTEM = "systemd journal"
BOOTING_NS = 120 * NS_PER_S
# For so long after a boot a jump is the clock being set for the first time, not a pause.
SETTLING_NS = 15 * 60 * NS_PER_S
# A message of a suspend may be written just after the jump: journald reads the kernel's lines when
# it runs again.
MESSAGE_WITHIN_NS = 120 * NS_PER_S
# A clock that was ever right shows more: systemd sets one that is older than itself to the time
# when it was built.
_UNSET_BEFORE_NS = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp()) * NS_PER_S
_PAUSED_MAX_NS = 90 * 86_400 * NS_PER_S
_NS_PER_US = 1_000
# Flags of an entry.
_ABOUT_SLEEP, _UNSET = 1, 2
_NUMBER_MAX = (1 << 62) - 1
# Of an id, to choose a machine or boot by.
_ID_CHARACTERS_MIN = 4
# The host name of a machine that has none yet.
_NO_NAMES = {"localhost", "localhost.localdomain", "(none)"}


@dataclass
class Boot:
    """All entries of one boot, in the order of the file. Arrays of microseconds, since there may be
    millions. `numbers`: journald's number of each entry, of the sequence `sequence`; `blocks`: the
    first and last position in the file of each uninterrupted run of entries."""

    name: str
    wall_us: array[int] = field(default_factory=lambda: array("q"))
    monotonic_us: array[int] = field(default_factory=lambda: array("q"))
    flags: bytearray = field(default_factory=bytearray)
    machines: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    sequence: str | None = None
    numbers: array[int] = field(default_factory=lambda: array("q"))
    blocks: list[tuple[int, int]] = field(default_factory=list)

    def add(self, entry: JournalEntry, place: int) -> None:
        """Adds the entry at position `place` of the journal."""
        self.wall_us.append(entry.wall_ns // _NS_PER_US)
        self.monotonic_us.append(entry.monotonic_ns // _NS_PER_US)
        self.flags.append(_ABOUT_SLEEP * entry.about_sleep + _UNSET * entry.clock_was_unset)
        if entry.machine:
            self.machines.add(entry.machine)
        if entry.host and entry.host not in _NO_NAMES:
            self.hosts.add(entry.host)
        if entry.order is not None and self.sequence in (None, entry.order[0]):
            self.sequence = entry.order[0]
            self.numbers.append(entry.order[1] & _NUMBER_MAX)

        # Entries of one boot are nearly always together; where two machines wrote into one file,
        # they alternate.
        if self.blocks:
            first, last = self.blocks[-1]
            if last == place - 1:
                self.blocks[-1] = (first, place)
                return
        self.blocks.append((place, place))

    @property
    def last_place(self) -> int:
        """The position in the file of the entry that was read last."""
        return self.blocks[-1][1]

    def is_of(self, name: str) -> bool:
        """Whether `name` is its host name, or begins its machine id or boot id (four characters or
        more)."""
        if name in self.hosts:
            return True

        # Fewer characters of an id may begin another one as well.
        if len(name) < _ID_CHARACTERS_MIN:
            return False
        ids = (self.name, *self.machines)
        return any(each.startswith(name) for each in ids)

    @property
    def is_numbered(self) -> bool:
        """Whether journald's own number of each entry is known."""
        return len(self.numbers) == len(self.wall_us)

    @property
    def reversed(self) -> bool:
        """Whether it was printed newest first (`journalctl --reverse`): more entries are earlier
        than the one before them than later."""
        return falls_in(self.monotonic_us) > rises_in(self.monotonic_us)


@dataclass
class SystemdJournal:
    """The boots of one or several files, as `read` found them."""

    path: str
    tally: Tally
    boots: dict[str, Boot] = field(default_factory=dict)

    @property
    def machines(self) -> set[str]:
        """The machine ids in it."""
        return set().union(*(boot.machines for boot in self.boots.values()))

    @property
    def last_boot(self) -> Boot:
        """The boot of the entry that was read last."""
        return max(self.boots.values(), key=lambda boot: boot.last_place)


def read(entries: Iterable[JournalEntry], tally: Tally) -> SystemdJournal:
    """All entries, by boot."""
    log = SystemdJournal(tally.path, tally)
    for place, entry in enumerate(entries):
        boot = log.boots.get(entry.boot)
        if boot is None:
            boot = log.boots[entry.boot] = Boot(entry.boot)
        boot.add(entry, place)
    return log


def joined(logs: Sequence[SystemdJournal]) -> list[SystemdJournal]:
    """Joins files that are pieces of one journal: they share a boot, or were written by one
    machine."""
    whole: list[SystemdJournal] = []
    for log in logs:
        for other in whole:
            if _are_pieces_of_one(other, log):
                _join(other, log)
                break
        else:
            whole.append(log)
    return whole


def _are_pieces_of_one(one: SystemdJournal, two: SystemdJournal) -> bool:
    if one.boots.keys() & two.boots.keys():
        return True
    return not one.machines.isdisjoint(two.machines)


def _join(log: SystemdJournal, piece: SystemdJournal) -> None:
    """Puts `piece` before or after what is read of its journal already."""
    log.path += f", {piece.path}"
    if _is_before(piece, log):
        _move(log, piece.last_boot.last_place + 1)
    else:
        _move(piece, log.last_boot.last_place + 1)
    for name, boot in piece.boots.items():
        whole = log.boots.setdefault(name, Boot(name))
        _append(whole, _turned(boot) if boot.reversed else boot)


def _is_before(piece: SystemdJournal, log: SystemdJournal) -> bool:
    """By the monotonic clock of boots that both have, or else by the wall clock at their ends."""
    shared = log.boots.keys() & piece.boots.keys()
    if not shared:
        return piece.last_boot.wall_us[-1] < log.last_boot.wall_us[-1]
    for name in shared:
        piece_begins_us = min(piece.boots[name].monotonic_us)
        log_begins_us = min(log.boots[name].monotonic_us)
        if piece_begins_us >= log_begins_us:
            return False
    return True


def _move(log: SystemdJournal, by: int) -> None:
    for boot in log.boots.values():
        boot.blocks = [(first + by, last + by) for first, last in boot.blocks]


def _append(boot: Boot, piece: Boot) -> None:
    """Adds the entries of a piece of the same boot."""
    boot.wall_us += piece.wall_us
    boot.monotonic_us += piece.monotonic_us
    boot.flags += piece.flags
    boot.machines |= piece.machines
    boot.hosts |= piece.hosts
    boot.blocks = sorted(boot.blocks + piece.blocks)

    # Numbers of another sequence cannot be compared with these.
    if boot.sequence in (None, piece.sequence):
        boot.sequence = piece.sequence
        boot.numbers += piece.numbers


def _turned(boot: Boot) -> Boot:
    """A boot that was printed newest first, oldest first."""
    return replace(
        boot,
        wall_us=boot.wall_us[::-1],
        monotonic_us=boot.monotonic_us[::-1],
        flags=boot.flags[::-1],
        numbers=boot.numbers[::-1],
    )


def place_boots(log: SystemdJournal, machine: str | None = None) -> PlacedJournal | None:
    """What happened to the machine. Raises BadInput when several machines wrote the journal and
    `machine` does not choose one."""
    boots = _in_order(_of_one_machine(log, machine))
    stretches: list[Stretch] = []
    before_ns: int | None = None
    for boot in boots:
        stretch = _stretch(boot, before_ns, log.tally)
        stretches.append(stretch)
        before_ns = stretch.ends_wall_ns
    _refuse_simultaneous_boots(log, boots, stretches)

    placed = place_stretches(stretches)
    if placed is not None:
        placed.measured = True
    return placed


def in_order(log: SystemdJournal, machine: str | None = None) -> Iterator[tuple[str, int, int]]:
    """The boot, wall and monotonic time (ns) of every entry, in the order in which they were
    written. Raises BadInput as `place_boots` does."""
    for boot in _in_order(_of_one_machine(log, machine)):
        for wall_ns, monotonic_ns, _ in _entries(boot, log.tally):
            yield boot.name, wall_ns, monotonic_ns


# --- Which machine, and in which order ------------------------------------------------------------


def _of_one_machine(log: SystemdJournal, name: str | None) -> list[Boot]:
    """The boots of machine `name`, or all when they may be of one. Raises BadInput otherwise."""
    boots = list(log.boots.values())
    names = _names(boots)
    if name is not None:
        chosen = [boot for boot in boots if boot.is_of(name)]
        if chosen:
            return chosen
        # Where no entry has a name (`--output-fields=MESSAGE`), the name says nothing of the file.
        if names:
            raise BadInput(f"--machine {name}: not in {log.path}; expected one of {names}")

    groups = _by_machine(boots)
    if len(groups) > 1:
        raise BadInput(
            f"{log.path}: holds the journals of {len(groups)} machines; expected one: choose with "
            f"--machine NAME, one of {names}"
        )
    return boots


def _by_machine(boots: Sequence[Boot]) -> list[list[Boot]]:
    """Boots that may be of one machine, together. A boot without a name may join two groups."""
    groups: list[list[Boot]] = []
    for boot in boots:
        same: list[Boot] = []
        others: list[list[Boot]] = []
        for group in groups:
            if any(_may_be_one(boot, other) for other in group):
                same.extend(group)
            else:
                others.append(group)
        groups = [*others, [*same, boot]]
    return groups


def _may_be_one(one: Boot, two: Boot) -> bool:
    """Whether nothing shows that the two are of different machines."""
    # A machine id is sure, and a host name may change.
    if one.machines and two.machines:
        return not one.machines.isdisjoint(two.machines)
    if one.hosts and two.hosts:
        return not one.hosts.isdisjoint(two.hosts)
    return True


def _names(boots: Iterable[Boot]) -> str:
    """What can be given as --machine: host names, and machine ids where a boot has none."""
    names: set[str] = set()
    for boot in boots:
        names |= boot.hosts or boot.machines
    return ", ".join(sorted(names))


def _in_order(boots: list[Boot]) -> list[Boot]:
    """Oldest first: by journald's numbers where each boot has its own, else by the file."""
    by_number = _by_number(boots)
    if by_number is not None:
        return by_number

    # One entry alone has no direction.
    directions = [boot.reversed for boot in boots if len(boot.wall_us) > 1]
    if directions.count(True) > directions.count(False):
        return sorted(boots, key=lambda boot: boot.blocks[0][0], reverse=True)

    # Entries dated by a clock that was years behind may be before all others in the file, so the
    # last entry of a boot decides.
    return sorted(boots, key=lambda boot: boot.last_place)


def _by_number(boots: list[Boot]) -> list[Boot] | None:
    """In the order of one sequence of numbers; None where they are not all of one."""
    sequences = {boot.sequence for boot in boots}
    if len(sequences) != 1 or not all(boot.is_numbered for boot in boots):
        return None
    ordered = sorted(boots, key=lambda boot: min(boot.numbers))
    for one, two in pairwise(ordered):
        # A boot ends before the next one begins; where numbers say otherwise, they are not those
        # of one journald.
        if max(one.numbers) >= min(two.numbers):
            return None
    return ordered


def _refuse_simultaneous_boots(
    log: SystemdJournal, boots: Sequence[Boot], stretches: Sequence[Stretch]
) -> None:
    """Raises BadInput where two boots ran at one time, entry by entry: they are of two machines,
    whatever their names."""
    for place, (earlier, later) in enumerate(pairwise(stretches)):
        begins_ns = max(earlier.right_begin_ns, later.right_begin_ns)
        ends_ns = min(earlier.ends_wall_ns, later.ends_wall_ns)
        both_ns = ends_ns - begins_ns
        if both_ns <= NOTICED_NS:
            continue
        one, two = boots[place], boots[place + 1]
        if not _may_be_two_machines(one, two):
            continue
        raise BadInput(
            f"{log.path}: boots {one.name[:8]} and {two.name[:8]} ran at one time, for "
            f"{format_duration(both_ns)}, so they are of several machines; expected one: "
            f"choose with {_how_to_choose(one, two)}, or print it again with "
            "journalctl -o json _HOSTNAME=NAME"
        )


def _may_be_two_machines(one: Boot, two: Boot) -> bool:
    """Whether they are of two journald's, or lie between one another in the file."""
    # A name of a sequence is one journald's own.
    if one.sequence is not None and two.sequence is not None:
        return one.sequence != two.sequence
    # Boots of one machine follow one another, in one piece each.
    return len(one.blocks) > 1 and len(two.blocks) > 1


def _how_to_choose(one: Boot, two: Boot) -> str:
    hosts = sorted(one.hosts | two.hosts)
    if len(hosts) > 1:
        return f"--machine NAME, one of {', '.join(hosts)}"
    return f"--machine {one.name[:8]}"


# --- One boot -------------------------------------------------------------------------------------


class _ClockFollower:
    """Follows the clocks of a boot from entry to entry, and collects sleeps and steps. `apart_ns`:
    by how much the clocks were apart when a jump was last noticed; `right_from_ns`: a wall clock
    that shows less than this is behind."""

    def __init__(self, first: tuple[int, int, int], right_from_ns: int) -> None:
        self.wall_ns, self.monotonic_ns, _ = first
        self.first_monotonic_ns = self.monotonic_ns
        self.apart_ns = self.wall_ns - self.monotonic_ns
        self.slept_ns = 0
        self.stepped_ns = 0
        self.right_from_ns = right_from_ns
        self.message_monotonic_ns: int | None = None  # of the last message of a suspend

        # The jump that a message may still explain: its position in `items`, and until when.
        self.unexplained: tuple[int, int] | None = None
        self.items: list[JournalItem] = []

    @property
    def passed_ns(self) -> int:
        """Time since the first entry, up to the last."""
        return self.monotonic_ns - self.first_monotonic_ns + self.slept_ns

    def entry(self, wall_ns: int, monotonic_ns: int, flags: int) -> None:
        """The next one."""
        if flags & _ABOUT_SLEEP:
            self.message_monotonic_ns = monotonic_ns
            self._explain_jump(monotonic_ns)
        jumped_ns = wall_ns - monotonic_ns - self.apart_ns
        if abs(jumped_ns) >= NOTICED_NS:
            self.apart_ns += jumped_ns
            # A lid was once closed a minute after the boot: the journal had the message of the
            # suspend, the clocks jumped by nine hours, and the import found no sleep.
            if monotonic_ns >= BOOTING_NS or self._was_announced(monotonic_ns):
                self._jumped(jumped_ns, wall_ns, monotonic_ns, flags)
        self.wall_ns = wall_ns
        self.monotonic_ns = monotonic_ns

    def _explain_jump(self, monotonic_ns: int) -> None:
        """A message of a suspend: a jump shortly before it was the suspend."""
        if self.unexplained is None:
            return
        place, until_ns = self.unexplained
        span = self.items[place]
        assert isinstance(span, SleepSpan)
        if monotonic_ns <= until_ns:
            self.items[place] = span._replace(kind="suspend")
        self.unexplained = None

    def _jumped(self, jumped_ns: int, wall_ns: int, monotonic_ns: int, flags: int) -> None:
        """The clocks are apart by `jumped_ns` more than at the entry before."""
        was_announced = self._was_announced(monotonic_ns)
        was_set = False
        if jumped_ns < 0:
            # No sleep sets a clock back.
            was_set = True
        elif not was_announced:
            was_set = self._was_unset(jumped_ns, wall_ns, monotonic_ns, flags)

        if was_set:
            # What sets a clock logs that at once: it was when this entry was written.
            at_ns = self.passed_ns + monotonic_ns - self.monotonic_ns
            self.items.append(ClockStep(at_ns, jumped_ns))
            self.stepped_ns += jumped_ns
            return

        # From the entry before on: when it began is known only as finely as entries lie.
        span = SleepSpan(self.passed_ns, self.passed_ns + jumped_ns, "pause")
        self.slept_ns += jumped_ns
        if was_announced:
            span = span._replace(kind="suspend")
            self.unexplained = None
        else:
            self.unexplained = len(self.items), monotonic_ns + MESSAGE_WITHIN_NS
        self.items.append(span)

    def _was_announced(self, monotonic_ns: int) -> bool:
        """Whether a message of a suspend came shortly before."""
        if self.message_monotonic_ns is None:
            return False
        return monotonic_ns - self.message_monotonic_ns <= MESSAGE_WITHIN_NS

    def _was_unset(self, jumped_ns: int, wall_ns: int, monotonic_ns: int, flags: int) -> bool:
        """Whether the clock was wrong before it jumped ahead: then it was set, and the machine did
        not sleep."""
        # timesyncd reports it.
        if flags & _UNSET:
            return True

        # The machine has only just booted.
        if monotonic_ns < SETTLING_NS:
            return True

        # Behind the end of the boot before.
        if self.wall_ns < self.right_from_ns:
            return True

        # In years that no clock shows which was ever right.
        if self.wall_ns < _UNSET_BEFORE_NS <= wall_ns:
            return True

        # Longer than what is taken for a pause.
        return jumped_ns >= _PAUSED_MAX_NS


def _stretch(boot: Boot, before_wall_ns: int | None, tally: Tally) -> Stretch:
    """One boot; `before_wall_ns`: what the wall clock showed at the end of the one before."""
    entries = _entries(boot, tally)
    follower = _ClockFollower(next(entries), before_wall_ns or 0)
    for wall_ns, monotonic_ns, flags in entries:
        follower.entry(wall_ns, monotonic_ns, flags)

    lasts_ns = follower.passed_ns
    return Stretch(
        lasts_ns=lasts_ns,
        # Steps count as no time: only sleep and waking do.
        begins_wall_ns=follower.wall_ns - lasts_ns - follower.stepped_ns,
        ends_wall_ns=follower.wall_ns,
        entries=len(boot.wall_us),
        items=follower.items,
        booted=before_wall_ns is not None,
        name=boot.name,
    )


def _entries(boot: Boot, tally: Tally) -> Iterator[tuple[int, int, int]]:
    """Wall time (ns), monotonic time (ns) and flags of each entry, in the order of the monotonic
    clock, without entries that are damaged."""
    places = _as_written(boot)
    damaged = set(_damaged(boot, places))
    for place in damaged:
        _count_damaged(boot, place, tally)

    whole = [place for place in places if place not in damaged]
    for place in _by_monotonic(boot, whole):
        wall_ns = boot.wall_us[place] * _NS_PER_US
        monotonic_ns = boot.monotonic_us[place] * _NS_PER_US
        yield wall_ns, monotonic_ns, boot.flags[place]


def _by_monotonic(boot: Boot, places: list[int]) -> list[int]:
    """In the order of the monotonic clock. Of entries of one time the number decides, or else the
    wall clock: it is set ahead by far more than back."""
    monotonic_us = boot.monotonic_us
    # Nearly always so, and sorting needs a tuple for each of what may be millions.
    if falls_in(map(monotonic_us.__getitem__, places)) == 0:
        return places
    second = boot.numbers if boot.is_numbered else boot.wall_us
    return sorted(places, key=lambda place: (monotonic_us[place], second[place]))


def _count_damaged(boot: Boot, place: int, tally: Tally) -> None:
    """Moves an entry in the tally from those that were understood to the others."""
    if boot.flags[place] & _ABOUT_SLEEP:
        tally.used -= 1
    else:
        tally.other -= 1
    shown = (
        f"__REALTIME_TIMESTAMP {boot.wall_us[place]}, "
        f"__MONOTONIC_TIMESTAMP {boot.monotonic_us[place]}"
    )
    tally.broken(shown, "has times that fit no entry around it", boot.blocks[0][0] + 1 + place)


def _as_written(boot: Boot) -> list[int]:
    """The positions of the entries, oldest first: by journald's numbers, or by the file. An entry
    that two pieces of the journal have is there once."""
    places = list(range(len(boot.wall_us)))
    by_number = _in_order_of_numbers(boot, places)
    if by_number is not None:
        return by_number

    if boot.reversed:
        places.reverse()

    # Where each is later than the one before, none can be there twice.
    rises = rises_in(map(boot.monotonic_us.__getitem__, places))
    if rises == len(places) - 1:
        return places
    return _once(boot, places)


def _in_order_of_numbers(boot: Boot, places: Sequence[int]) -> list[int] | None:
    """None where not every entry of `places` has a number of its own."""
    if not boot.is_numbered:
        return None
    if len({boot.numbers[place] for place in places}) < len(places):
        return None
    return sorted(places, key=boot.numbers.__getitem__)


def _once(boot: Boot, places: Sequence[int]) -> list[int]:
    """`places` without entries that an earlier one equals, in the order of their numbers where
    there are some."""
    # Pieces of a journal that were saved one by one overlap; entries that are there twice were
    # counted as damaged once.
    found: dict[tuple[int, int, int], int] = {}
    for place in places:
        entry = (boot.monotonic_us[place], boot.wall_us[place], boot.flags[place])
        found.setdefault(entry, place)
    once = list(found.values())
    return _in_order_of_numbers(boot, once) or once


def _damaged(boot: Boot, places: Sequence[int]) -> Iterator[int]:
    """The positions of single entries whose clocks are apart by another amount than in the entries
    before and after, which agree: by half a year, or less where the monotonic time is out of order
    too."""
    noticed_us = NOTICED_NS // _NS_PER_US
    monotonic_us = boot.monotonic_us
    for before, place, after in zip(places, places[1:], places[2:], strict=False):
        apart_us = _apart_us(boot, place)
        apart_before_us = _apart_us(boot, before)
        # Nearly all end here.
        if abs(apart_us - apart_before_us) < noticed_us:
            continue

        apart_after_us = _apart_us(boot, after)
        differs_us = min(abs(apart_us - apart_before_us), abs(apart_us - apart_after_us))
        neighbours_differ_us = abs(apart_after_us - apart_before_us)
        in_order = monotonic_us[before] <= monotonic_us[place] <= monotonic_us[after]
        least_us = noticed_us
        if in_order:
            # A clock that is set twice in a row looks the same, but for the size of it.
            least_us = ABSURD_NS // _NS_PER_US
        if differs_us >= least_us > neighbours_differ_us:
            yield place


def _apart_us(boot: Boot, place: int) -> int:
    """By how much the clocks of an entry are apart."""
    return boot.wall_us[place] - boot.monotonic_us[place]
