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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, pairwise

from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.errors import BadInput
from meshwake.importers.entries import JournalEntry
from meshwake.importers.items import NOTICED_NS, ClockStep, JournalItem, SleepSpan, Tally
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
        if self.blocks and self.blocks[-1][1] == place - 1:
            self.blocks[-1] = (self.blocks[-1][0], place)
        else:
            self.blocks.append((place, place))

    def is_of(self, name: str) -> bool:
        """Whether `name` is its host name, or begins its machine id or boot id (four characters or
        more)."""
        if name in self.hosts:
            return True
        return len(name) >= 4 and any(each.startswith(name) for each in (*self.machines, self.name))

    @property
    def is_numbered(self) -> bool:
        """Whether journald's own number of each entry is known."""
        return len(self.numbers) == len(self.wall_us)

    @property
    def reversed(self) -> bool:
        """Whether it was printed newest first: more entries are earlier than the one before them
        than later."""
        falls = sum(two < one for one, two in pairwise(self.monotonic_us))
        rises = sum(two > one for one, two in pairwise(self.monotonic_us))
        return falls > rises


@dataclass
class SystemdJournal:
    """The boots of one or several files, as `read` found them."""

    path: str
    tally: Tally
    boots: dict[str, Boot] = field(default_factory=dict)


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
        same = next((other for other in whole if _are_pieces_of_one(other, log)), None)
        if same is None:
            whole.append(log)
        else:
            _join(same, log)
    return whole


def _are_pieces_of_one(one: SystemdJournal, two: SystemdJournal) -> bool:
    return bool(one.boots.keys() & two.boots.keys()) or bool(_machines(one) & _machines(two))


def _machines(log: SystemdJournal) -> set[str]:
    return {machine for boot in log.boots.values() for machine in boot.machines}


def _join(log: SystemdJournal, piece: SystemdJournal) -> None:
    """Puts `piece` before or after what is known of its journal: by the monotonic clock of a boot
    that both have, or else by the wall clock at their ends."""
    log.path += f", {piece.path}"
    shared = log.boots.keys() & piece.boots.keys()
    before = all(
        min(piece.boots[name].monotonic_us) < min(log.boots[name].monotonic_us) for name in shared
    )
    if not shared:
        before = _ends(piece) < _ends(log)
    _move(log if before else piece, 1 + _last_place(piece if before else log))
    for name, boot in piece.boots.items():
        whole = log.boots.setdefault(name, Boot(name))
        turned = _turned(boot) if boot.reversed else boot
        whole.wall_us += turned.wall_us
        whole.monotonic_us += turned.monotonic_us
        whole.flags += turned.flags
        whole.machines |= boot.machines
        whole.hosts |= boot.hosts
        if whole.sequence in (None, boot.sequence):
            whole.sequence = boot.sequence
            whole.numbers += turned.numbers
        whole.blocks = sorted(whole.blocks + boot.blocks)


def _ends(log: SystemdJournal) -> int:
    """What the wall clock showed at the end of the entries that came last."""
    return max(log.boots.values(), key=lambda boot: boot.blocks[-1][1]).wall_us[-1]


def _last_place(log: SystemdJournal) -> int:
    return max(boot.blocks[-1][1] for boot in log.boots.values())


def _move(log: SystemdJournal, by: int) -> None:
    for boot in log.boots.values():
        boot.blocks = [(first + by, last + by) for first, last in boot.blocks]


def _turned(boot: Boot) -> Boot:
    return Boot(
        boot.name,
        boot.wall_us[::-1],
        boot.monotonic_us[::-1],
        boot.flags[::-1],
        boot.machines,
        boot.hosts,
        boot.sequence,
        boot.numbers[::-1],
        boot.blocks,
    )


def place_boots(log: SystemdJournal, machine: str | None = None) -> PlacedJournal | None:
    """What happened to the machine. Raises BadInput when several machines wrote the journal and
    `machine` does not choose one."""
    boots = _in_order(_of_one_machine(log, machine))
    stretches: list[Stretch] = []
    for boot in boots:
        before_ns = stretches[-1].ends_wall_ns if stretches else None
        stretches.append(_stretch(boot, before_ns, log.tally))
    _refuse_simultaneous_boots(log, boots, stretches)
    placed = place_stretches(stretches)
    if placed is not None:
        placed.measured = True
    return placed


def in_order(log: SystemdJournal, machine: str | None = None) -> Iterator[tuple[str, int, int]]:
    """The boot, wall and monotonic time (ns) of every entry, in the order in which they were
    written. Raises BadInput as `place_boots` does."""
    for boot in _in_order(_of_one_machine(log, machine)):
        yield from (
            (boot.name, wall_ns, monotonic_ns)
            for wall_ns, monotonic_ns, _ in _entries(boot, log.tally)
        )


# --- Which machine, and in which order ------------------------------------------------------------


def _of_one_machine(log: SystemdJournal, name: str | None) -> list[Boot]:
    """The boots of machine `name`, or all when they may be of one. Raises BadInput otherwise."""
    boots = list(log.boots.values())
    if name is not None:
        chosen = _of_name(log, boots, name)
        if chosen:
            return chosen
    groups = _by_machine(boots)
    if len(groups) > 1:
        raise BadInput(
            f"{log.path}: holds the journals of {len(groups)} machines; expected one: choose with "
            f"--machine NAME, one of {_names(boots)}"
        )
    return boots


def _of_name(log: SystemdJournal, boots: list[Boot], name: str) -> list[Boot]:
    """The boots of machine `name`; none where no boot has a name. Raises BadInput where they have
    others."""
    chosen = [boot for boot in boots if boot.is_of(name)]
    if not chosen and any(boot.hosts or boot.machines for boot in boots):
        raise BadInput(f"--machine {name}: not in {log.path}; expected one of {_names(boots)}")
    return chosen


def _by_machine(boots: Sequence[Boot]) -> list[list[Boot]]:
    """Boots that may be of one machine, together. A boot without a name may join two groups."""
    groups: list[list[Boot]] = []
    for boot in boots:
        same: list[list[Boot]] = []
        others: list[list[Boot]] = []
        for group in groups:
            joins = any(_may_be_one(boot, other) for other in group)
            (same if joins else others).append(group)
        groups = [*others, [*chain.from_iterable(same), boot]]
    return groups


def _may_be_one(one: Boot, two: Boot) -> bool:
    # A machine id is sure, and a host name may change.
    if one.machines and two.machines:
        return bool(one.machines & two.machines)
    return not (one.hosts and two.hosts) or bool(one.hosts & two.hosts)


def _names(boots: Iterable[Boot]) -> str:
    names = {host for boot in boots for host in boot.hosts}
    unnamed = {machine for boot in boots if not boot.hosts for machine in boot.machines}
    return ", ".join(sorted(names | unnamed))


def _in_order(boots: list[Boot]) -> list[Boot]:
    """Oldest first: by journald's numbers where each boot has its own, else by the file."""
    by_number = _by_number(boots)
    if by_number is not None:
        return by_number
    longer = [boot for boot in boots if len(boot.wall_us) > 1]
    newest_first = sum(boot.reversed for boot in longer)
    if newest_first > len(longer) - newest_first:
        return sorted(boots, key=lambda boot: boot.blocks[0][0], reverse=True)
    # Entries dated by a clock that was years behind may be before all others in the file, so the
    # last entry of a boot decides.
    return sorted(boots, key=lambda boot: boot.blocks[-1][1])


def _by_number(boots: list[Boot]) -> list[Boot] | None:
    """In the order of one sequence of numbers; None where they are not all of one."""
    sequences = {boot.sequence for boot in boots}
    if len(sequences) != 1 or not all(boot.is_numbered for boot in boots):
        return None
    ordered = sorted(boots, key=lambda boot: min(boot.numbers))
    apart = all(max(one.numbers) < min(two.numbers) for one, two in pairwise(ordered))
    return ordered if apart else None


def _refuse_simultaneous_boots(
    log: SystemdJournal, boots: Sequence[Boot], stretches: Sequence[Stretch]
) -> None:
    """Raises BadInput where two boots ran at one time, entry by entry: they are of two machines,
    whatever their names."""
    for (one, its), (two, others) in pairwise(zip(boots, stretches, strict=True)):
        begins_ns = max(_begins_ns(its), _begins_ns(others))
        both_ns = min(its.ends_wall_ns, others.ends_wall_ns) - begins_ns
        if both_ns > NOTICED_NS and _may_be_two_machines(one, two):
            raise BadInput(
                f"{log.path}: boots {one.name[:8]} and {two.name[:8]} ran at one time, for "
                f"{format_duration(both_ns)}, so they are of several machines; expected one: "
                f"choose with {_how_to_choose(one, two)}, or print it again with "
                "journalctl -o json _HOSTNAME=NAME"
            )


def _begins_ns(stretch: Stretch) -> int:
    return stretch.ends_wall_ns - stretch.lasts_ns


def _may_be_two_machines(one: Boot, two: Boot) -> bool:
    """Whether they are of two journald's, or lie between one another in the file."""
    if one.sequence is None or two.sequence is None:
        return len(one.blocks) > 1 and len(two.blocks) > 1
    return one.sequence != two.sequence


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
        self.slept_ns = self.stepped_ns = 0
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
        about_sleep = bool(flags & _ABOUT_SLEEP)
        if about_sleep:
            self.message_monotonic_ns = monotonic_ns
        self._explain(about_sleep, monotonic_ns)
        jumped_ns = wall_ns - monotonic_ns - self.apart_ns
        if abs(jumped_ns) >= NOTICED_NS:
            self.apart_ns += jumped_ns
            # A lid was once closed a minute after the boot: the journal had the message of the
            # suspend, the clocks jumped by nine hours, and the import found no sleep.
            if monotonic_ns >= BOOTING_NS or self._was_announced(monotonic_ns):
                self._jumped(jumped_ns, wall_ns, monotonic_ns, flags)
        self.wall_ns, self.monotonic_ns = wall_ns, monotonic_ns

    def _explain(self, about_sleep: bool, monotonic_ns: int) -> None:
        """Decides about an unexplained jump, once a message of a suspend or enough time came."""
        if self.unexplained is None:
            return
        in_time = monotonic_ns <= self.unexplained[1]
        if about_sleep or not in_time:
            self._settle(is_suspend=about_sleep and in_time)

    def _jumped(self, jumped_ns: int, wall_ns: int, monotonic_ns: int, flags: int) -> None:
        was_announced = self._was_announced(monotonic_ns)
        was_set = not was_announced and self._was_unset(jumped_ns, wall_ns, monotonic_ns, flags)
        if jumped_ns < 0 or was_set:
            # What sets a clock logs that at once: it was when this entry was written.
            at_ns = self.passed_ns + monotonic_ns - self.monotonic_ns
            self.items.append(ClockStep(at_ns, jumped_ns))
            self.stepped_ns += jumped_ns
            return
        self.items.append(SleepSpan(self.passed_ns, self.passed_ns + jumped_ns, "pause"))
        self.slept_ns += jumped_ns
        self.unexplained = len(self.items) - 1, monotonic_ns + MESSAGE_WITHIN_NS
        if was_announced:
            self._settle(is_suspend=True)

    def _was_announced(self, monotonic_ns: int) -> bool:
        """Whether a message of a suspend came shortly before."""
        return (
            self.message_monotonic_ns is not None
            and monotonic_ns - self.message_monotonic_ns <= MESSAGE_WITHIN_NS
        )

    def _was_unset(self, jumped_ns: int, wall_ns: int, monotonic_ns: int, flags: int) -> bool:
        """Whether the clock was wrong before it jumped ahead: then it was set, and the machine did
        not sleep."""
        # timesyncd reports it, or the machine has only just booted.
        was_just_set = bool(flags & _UNSET) or monotonic_ns < SETTLING_NS
        # Behind the end of the boot before, or in years that no clock shows which was ever right.
        was_behind = self.wall_ns < self.right_from_ns or self.wall_ns < _UNSET_BEFORE_NS <= wall_ns
        return was_just_set or was_behind or jumped_ns >= _PAUSED_MAX_NS

    def _settle(self, is_suspend: bool) -> None:
        """The unexplained jump is what it was taken for, or a suspend."""
        if self.unexplained is not None and is_suspend:
            position = self.unexplained[0]
            span = self.items[position]
            assert isinstance(span, SleepSpan)
            self.items[position] = span._replace(kind="suspend")
        self.unexplained = None


def _stretch(boot: Boot, before_wall_ns: int | None, tally: Tally) -> Stretch:
    """One boot; `before_wall_ns`: what the wall clock showed at the end of the one before."""
    entries = _entries(boot, tally)
    follower = _ClockFollower(next(entries), before_wall_ns or 0)
    for entry in entries:
        follower.entry(*entry)
    lasts_ns = follower.passed_ns
    begins_ns = follower.wall_ns - lasts_ns - follower.stepped_ns
    return Stretch(
        lasts_ns,
        begins_ns,
        follower.wall_ns,
        len(boot.wall_us),
        follower.items,
        before_wall_ns is not None,
        boot.name,
    )


def _entries(boot: Boot, tally: Tally) -> Iterator[tuple[int, int, int]]:
    """Wall time (ns), monotonic time (ns) and flags of each entry, in the order of the monotonic
    clock, without entries that are damaged."""
    wall_us, monotonic_us = boot.wall_us, boot.monotonic_us
    places = _as_written(boot)
    damaged = set(_damaged(boot, places))
    for place in damaged:
        _count_damaged(boot, place, tally)
    whole = [place for place in places if place not in damaged]
    for place in _by_monotonic(boot, whole):
        yield wall_us[place] * _NS_PER_US, monotonic_us[place] * _NS_PER_US, boot.flags[place]


def _by_monotonic(boot: Boot, places: list[int]) -> list[int]:
    """In the order of the monotonic clock. Of entries of one time the number decides, or else the
    wall clock: it is set ahead by far more than back."""
    monotonic_us = boot.monotonic_us
    if all(monotonic_us[one] <= monotonic_us[two] for one, two in pairwise(places)):
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
    if boot.is_numbered and len(set(boot.numbers)) == len(places):
        return sorted(places, key=boot.numbers.__getitem__)
    oldest_first = places[::-1] if boot.reversed else places
    if all(boot.monotonic_us[one] < boot.monotonic_us[two] for one, two in pairwise(oldest_first)):
        return oldest_first
    return _once(boot, oldest_first)


def _once(boot: Boot, places: Sequence[int]) -> list[int]:
    """`places` without entries that an earlier one equals, in the order of their numbers where
    there are some."""
    # Pieces of a journal that were saved one by one overlap; entries that are there twice were
    # counted as damaged once.
    found: dict[tuple[int, int, int], int] = {}
    for place in places:
        clocks = boot.monotonic_us[place], boot.wall_us[place]
        found.setdefault((*clocks, boot.flags[place]), place)
    once = list(found.values())
    if boot.is_numbered and len({boot.numbers[place] for place in once}) == len(once):
        return sorted(once, key=boot.numbers.__getitem__)
    return once


def _damaged(boot: Boot, places: Sequence[int]) -> Iterator[int]:
    """The positions of single entries whose clocks are apart by another amount than in the entries
    before and after, which agree: by half a year, or less where the monotonic time is out of order
    too."""
    wall_us, monotonic_us = boot.wall_us, boot.monotonic_us
    for before, place, after in zip(places, places[1:], places[2:], strict=False):
        apart_before, apart, apart_after = (
            wall_us[each] - monotonic_us[each] for each in (before, place, after)
        )
        if abs(apart - apart_before) < NOTICED_NS // _NS_PER_US:
            continue
        in_order = monotonic_us[before] <= monotonic_us[place] <= monotonic_us[after]
        least_us = (ABSURD_NS if in_order else NOTICED_NS) // _NS_PER_US
        differs_us = min(abs(apart - apart_before), abs(apart - apart_after))
        if differs_us >= least_us > abs(apart_after - apart_before):
            yield place
