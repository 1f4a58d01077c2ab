"""The systemd journal: every entry has a wall and a monotonic time and its boot (entries.py reads
the forms).

Both times are read by journald at one moment. Their difference stands still within a boot while
nobody sleeps. So each jump of it IS what makes ztunnel late, to the microsecond, and shows also
where no message tells of it: a VM that its host paused writes nothing. Messages only tell what a
jump was:

    kernel          PM: suspend entry (deep) ... PM: suspend exit; PM: hibernation: ...
    systemd-sleep   MESSAGE_ID 6bbd95ee... (begins), 8811e6df... (has ended)

A jump ahead without such a message is taken for a pause of the whole VM, unless the clock was wrong
before it: it was behind the end of the boot before, or had not been set since the start. Then, and
backwards, it is a step. Jumps of less than `NOTICED_NS` are let grow until they are as large: a
clock that drifts (WSL) shows as many small pauses that add up to the same.

A new _BOOT_ID is a boot. The order of boots is that of journald's own numbers where they are there,
else of the file; in a boot the monotonic clock gives it. The wall clock is placed on that afterwards
(placement.py).

The limit: the moment of a silent pause is known as finely as entries lie. Jumps in the first two
minutes after a boot are taken for part of it: nothing of a cluster runs yet.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.errors import BadInput
from meshwake.importers.entries import JournalEntry
from meshwake.importers.items import NOTICED_NS, ClockStep, JournalItem, SleepSpan, Tally
from meshwake.importers.placement import ABSURD_NS, PlacedJournal, Stretch, place_stretches

SYSTEM = "systemd journal"
BOOTING_NS = 120 * NS_PER_S
# So long after a boot a clock that nobody has set yet may be set, and nobody has paused the
# machine.
SETTLING_NS = 15 * 60 * NS_PER_S
# A message of a suspend may be written just after the jump: the kernel's own lines are read when
# journald runs again.
TELLS_FOR_NS = 120 * NS_PER_S
# No clock that was ever right shows less: systemd does not let one begin before it was built.
_UNSET_BEFORE_NS = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp()) * NS_PER_S
_PAUSED_MAX_NS = 90 * 86_400 * NS_PER_S
_NS_PER_US = 1_000
_TELLS, _UNSET = 1, 2
_NUMBER_MAX = (1 << 62) - 1
# What a machine is called before it has a name.
_NO_NAMES = {"localhost", "localhost.localdomain", "(none)"}


@dataclass
class Boot:
    """All entries of one boot, as they came: in microseconds, since there may be millions."""

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
        """One more entry, which stands at `place` in the journal."""
        self.wall_us.append(entry.wall_ns // _NS_PER_US)
        self.monotonic_us.append(entry.monotonic_ns // _NS_PER_US)
        self.flags.append(_TELLS * entry.tells_of_sleep + _UNSET * entry.clock_was_unset)
        if entry.machine:
            self.machines.add(entry.machine)
        if entry.host and entry.host not in _NO_NAMES:
            self.hosts.add(entry.host)
        if entry.order is not None and self.sequence in (None, entry.order[0]):
            self.sequence = entry.order[0]
            self.numbers.append(entry.order[1] & _NUMBER_MAX)
        if self.blocks and self.blocks[-1][1] == place - 1:
            self.blocks[-1] = (self.blocks[-1][0], place)
        else:
            self.blocks.append((place, place))

    def is_of(self, name: str) -> bool:
        """Whether a person may call its machine so: by host name, machine id or boot id, or how
        these begin."""
        return name in self.hosts or any(
            len(name) >= 4 and each.startswith(name) for each in (*self.machines, self.name)
        )

    @property
    def is_numbered(self) -> bool:
        """Whether journald's own number of each entry is known."""
        return len(self.numbers) == len(self.wall_us)

    @property
    def reversed(self) -> bool:
        """Whether it was printed newest first."""
        return (
            sum(1 if two < one else -1 for one, two in pairwise(self.monotonic_us) if one != two)
            > 0
        )


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
    """Files that are pieces of one journal, as one: they share a boot, or were written by one
    machine."""
    found: list[SystemdJournal] = []
    for log in logs:
        for other in found:
            if other.boots.keys() & log.boots.keys() or _machines(other) & _machines(log):
                _join(other, log)
                break
        else:
            found.append(log)
    return found


def _machines(log: SystemdJournal) -> set[str]:
    return {machine for boot in log.boots.values() for machine in boot.machines}


def _join(log: SystemdJournal, piece: SystemdJournal) -> None:
    """Puts `piece` before or after what is known of its journal: as the clock of a boot says that
    both have, or else the wall clock at their ends."""
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
    """What happened to the machine. Raises BadInput when there are several, and nobody said which."""
    boots = _in_order(_of_one_machine(log, machine))
    stretches: list[Stretch] = []
    for boot in boots:
        before_ns = stretches[-1].ends_wall_ns if stretches else None
        stretches.append(_stretch(boot, before_ns, log.tally))
    _refuse_at_one_time(log, boots, stretches)
    found = place_stretches(stretches)
    return (
        None
        if found is None
        else PlacedJournal(
            found.items, found.first_ns, found.last_ns, found.ahead_ns, measured=True
        )
    )


def in_order(log: SystemdJournal, machine: str | None = None) -> Iterator[tuple[str, int, int]]:
    """The boot, wall and monotonic time of every entry, as they were written one after another.
    Raises BadInput when several machines wrote them, and nobody said which is meant."""
    for boot in _in_order(_of_one_machine(log, machine)):
        yield from (
            (boot.name, wall_ns, monotonic_ns)
            for wall_ns, monotonic_ns, _ in _entries(boot, log.tally)
        )


# --- Which machine, and in which order ------------------------------------------------------------


def _of_one_machine(log: SystemdJournal, name: str | None) -> list[Boot]:
    boots = list(log.boots.values())
    if name is not None:
        chosen = [boot for boot in boots if boot.is_of(name)]
        if not chosen and any(boot.hosts or boot.machines for boot in boots):
            raise BadInput(f"--machine {name}: not in {log.path}; expected one of {_names(boots)}")
        if chosen:
            return chosen
    groups: list[list[Boot]] = []
    for boot in boots:
        same = [group for group in groups if any(_may_be_one(boot, other) for other in group)]
        groups = [group for group in groups if group not in same]
        groups.append([*(each for group in same for each in group), boot])
    if len(groups) > 1:
        raise BadInput(
            f"{log.path}: holds the journals of {len(groups)} machines; expected one: "
            "choose with --machine NAME, one "
            f"of {_names(boots)}"
        )
    return boots


def _may_be_one(one: Boot, two: Boot) -> bool:
    if one.machines and two.machines:
        return bool(one.machines & two.machines)
    return not (one.hosts and two.hosts) or bool(one.hosts & two.hosts)


def _names(boots: Iterable[Boot]) -> str:
    names = {host for boot in boots for host in boot.hosts}
    unnamed = {machine for boot in boots if not boot.hosts for machine in boot.machines}
    return ", ".join(sorted(names | unnamed))


def _in_order(boots: list[Boot]) -> list[Boot]:
    """By journald's numbers where each boot has its own, else as they stand in the file. There,
    what was dated by a clock that was years behind may stand before all else, so the last entry of
    a boot says."""
    if len({boot.sequence for boot in boots}) == 1 and all(boot.is_numbered for boot in boots):
        by_number = sorted(boots, key=lambda boot: min(boot.numbers))
        if all(max(one.numbers) < min(two.numbers) for one, two in pairwise(by_number)):
            return by_number
    if sum(1 if boot.reversed else -1 for boot in boots if len(boot.wall_us) > 1) > 0:
        return sorted(boots, key=lambda boot: boot.blocks[0][0], reverse=True)
    return sorted(boots, key=lambda boot: boot.blocks[-1][1])


def _refuse_at_one_time(
    log: SystemdJournal, boots: Sequence[Boot], stretches: Sequence[Stretch]
) -> None:
    """Two boots that ran at one time, entry by entry, are two machines, whatever they call
    themselves."""
    for (one, its), (two, others) in pairwise(zip(boots, stretches, strict=True)):
        begins_ns = others.ends_wall_ns - others.lasts_ns
        both_ns = min(its.ends_wall_ns, others.ends_wall_ns) - max(
            begins_ns, its.ends_wall_ns - its.lasts_ns
        )
        unlike = one.sequence != two.sequence or None in (one.sequence, two.sequence)
        interleaved = len(one.blocks) > 1 and len(two.blocks) > 1
        other_journald = None not in (one.sequence, two.sequence)
        if both_ns > NOTICED_NS and unlike and (interleaved or other_journald):
            hosts = sorted(one.hosts | two.hosts)
            how = (
                f"--machine NAME, one of {', '.join(hosts)}"
                if len(hosts) > 1
                else f"--machine {one.name[:8]}"
            )
            raise BadInput(
                f"{log.path}: boots {one.name[:8]} and {two.name[:8]} ran at one time, for "
                f"{format_duration(both_ns)}, "
                f"so they are of several machines; expected one: choose with {how}, or "
                "print it anew with "
                "journalctl -o json _HOSTNAME=NAME"
            )


# --- One boot -------------------------------------------------------------------------------------


class _Follow:
    """Follows the entries of a boot. `apart_ns`: by how much the clocks were apart when that was
    last noticed."""

    def __init__(self, first: tuple[int, int, int], right_from_ns: int) -> None:
        self.wall_ns, self.monotonic_ns, _ = first
        self.first_monotonic_ns = self.monotonic_ns
        self.apart_ns = self.wall_ns - self.monotonic_ns
        self.slept_ns = self.stepped_ns = 0
        self.right_from_ns = right_from_ns
        self.told_monotonic_ns: int | None = None
        self.pending: tuple[int, int] | None = None
        self.items: list[JournalItem] = []

    @property
    def passed_ns(self) -> int:
        """Time since the first entry, up to the last."""
        return self.monotonic_ns - self.first_monotonic_ns + self.slept_ns

    def entry(self, wall_ns: int, monotonic_ns: int, flags: int) -> None:
        """The next one."""
        tells = bool(flags & _TELLS)
        if tells:
            self.told_monotonic_ns = monotonic_ns
        if self.pending is not None and (tells or monotonic_ns > self.pending[1]):
            self._settle(told=tells and monotonic_ns <= self.pending[1])
        jumped_ns = wall_ns - monotonic_ns - self.apart_ns
        if abs(jumped_ns) >= NOTICED_NS:
            self.apart_ns += jumped_ns
            if monotonic_ns >= BOOTING_NS:
                self._jumped(jumped_ns, wall_ns, monotonic_ns, flags)
        self.wall_ns, self.monotonic_ns = wall_ns, monotonic_ns

    def _jumped(self, jumped_ns: int, wall_ns: int, monotonic_ns: int, flags: int) -> None:
        told = (
            self.told_monotonic_ns is not None
            and monotonic_ns - self.told_monotonic_ns <= TELLS_FOR_NS
        )
        if jumped_ns < 0 or (not told and self._was_unset(jumped_ns, wall_ns, monotonic_ns, flags)):
            # Whoever set it wrote so at once: it was when this entry was written.
            self.items.append(
                ClockStep(self.passed_ns + monotonic_ns - self.monotonic_ns, jumped_ns)
            )
            self.stepped_ns += jumped_ns
            return
        self.items.append(SleepSpan(self.passed_ns, self.passed_ns + jumped_ns, "pause"))
        self.slept_ns += jumped_ns
        self.pending = len(self.items) - 1, monotonic_ns + TELLS_FOR_NS
        if told:
            self._settle(told=True)

    def _was_unset(self, jumped_ns: int, wall_ns: int, monotonic_ns: int, flags: int) -> bool:
        """Whether the clock was wrong before it jumped ahead, so that it was set and nobody slept."""
        return (
            bool(flags & _UNSET)
            or monotonic_ns < SETTLING_NS
            or self.wall_ns < self.right_from_ns
            or self.wall_ns < _UNSET_BEFORE_NS <= wall_ns
            or jumped_ns >= _PAUSED_MAX_NS
        )

    def _settle(self, told: bool) -> None:
        """What the jump was that waited for a message is known now."""
        if self.pending is not None and told:
            span = self.items[self.pending[0]]
            assert isinstance(span, SleepSpan)
            self.items[self.pending[0]] = span._replace(kind="suspend")
        self.pending = None


def _stretch(boot: Boot, before_wall_ns: int | None, tally: Tally) -> Stretch:
    """One boot; `before_wall_ns`: what the wall clock showed at the end of the one before."""
    entries = _entries(boot, tally)
    follow = _Follow(next(entries), before_wall_ns or 0)
    for entry in entries:
        follow.entry(*entry)
    lasts_ns = follow.passed_ns
    begins_ns = follow.wall_ns - lasts_ns - follow.stepped_ns
    return Stretch(
        lasts_ns,
        begins_ns,
        follow.wall_ns,
        len(boot.wall_us),
        follow.items,
        before_wall_ns is not None,
        boot.name,
    )


def _entries(boot: Boot, tally: Tally) -> Iterator[tuple[int, int, int]]:
    """Wall, monotonic time and flags, in the order of the monotonic clock, without what is damaged."""
    wall_us, monotonic_us = boot.wall_us, boot.monotonic_us
    places = _as_written(boot)
    damaged = set(_damaged(boot, places))
    for place in damaged:
        used = bool(boot.flags[place] & _TELLS)
        tally.used, tally.other = tally.used - used, tally.other - (not used)
        shown = (
            f"__REALTIME_TIMESTAMP {wall_us[place]}, __MONOTONIC_TIMESTAMP {monotonic_us[place]}"
        )
        tally.broken(shown, "has times that fit no entry around it", boot.blocks[0][0] + 1 + place)
    places = [place for place in places if place not in damaged]
    if any(monotonic_us[two] < monotonic_us[one] for one, two in pairwise(places)):
        # What is not numbered and was written at one moment: clocks are set ahead by far more than
        # back.
        second = boot.numbers if boot.is_numbered else wall_us
        places.sort(key=lambda place: (monotonic_us[place], second[place]))
    for place in places:
        yield wall_us[place] * _NS_PER_US, monotonic_us[place] * _NS_PER_US, boot.flags[place]


def _as_written(boot: Boot) -> list[int]:
    """The places of the entries, oldest first: by journald's numbers, or as they stand in the file."""
    places = list(range(len(boot.wall_us)))
    if boot.is_numbered and len(set(boot.numbers)) == len(places):
        return sorted(places, key=boot.numbers.__getitem__)
    return places[::-1] if boot.reversed else places


def _damaged(boot: Boot, places: Sequence[int]) -> Iterator[int]:
    """Single entries whose clocks are apart as in neither the entry before nor the one after, which
    agree: by half a year, or where the monotonic time is out of its order too."""
    wall_us, monotonic_us = boot.wall_us, boot.monotonic_us
    for before, place, after in zip(places, places[1:], places[2:], strict=False):
        apart = [wall_us[each] - monotonic_us[each] for each in (before, place, after)]
        if abs(apart[1] - apart[0]) < NOTICED_NS // _NS_PER_US:
            continue
        in_order = monotonic_us[before] <= monotonic_us[place] <= monotonic_us[after]
        least_us = (ABSURD_NS if in_order else NOTICED_NS) // _NS_PER_US
        if (
            min(abs(apart[1] - apart[0]), abs(apart[1] - apart[2]))
            >= least_us
            > abs(apart[2] - apart[0])
        ):
            yield place
