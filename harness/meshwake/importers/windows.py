"""What Windows events mean for sleep, in whichever form they come (windows_xml.py,
windows_csv.py).

Log System of a laptop:

    Power-Troubleshooter 1     returned from a low power state; has SleepTime and WakeTime: preferred to all others
    Kernel-Power 42, 107       entering sleep, resumed from sleep
    Kernel-Power 506, 507      entering, exiting modern standby (connected standby)
    Kernel-General 12, 13      the system started, is shutting down
    Kernel-General 1           the wall clock was set, from OldTime to NewTime
    EventLog 6005, 6006        the same as 12 and 13, from the log itself; Kernel-Power 41: started after a crash
    Kernel-Boot 27             with boot type 1 the sleep before it was a shutdown with fast startup: users were signed
                               out and only the kernel was hibernated, so the VMs of the user were switched off

Log Microsoft-Windows-Hyper-V-Worker-Admin of a host, for one of its VMs:

    18500 started  18502, 18504, 18508 turned off, shut down  18512, 18514 reset
    18510 saved    18596 restored    18516 paused    18518 resumed

A mesh on a Windows machine runs in a VM (WSL, Hyper-V), which is paused while the host sleeps:
every sleep is a pause. In modern standby Windows may run things for moments; that is taken for
sleep all the same.

Events are ordered by their record numbers where they are of one log, else as the rows are, newest
or oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    NOTICED_NS,
    S0_IDLE,
    PowerEvent,
    SleepKind,
    SleepSpan,
    Tally,
    falls_in,
    rises_in,
)
from meshwake.importers.placement import OUT_OF_ORDER_NS, EntryPlacer, PlacedJournal

POWER, TROUBLE, GENERAL, LOG = "Kernel-Power", "Power-Troubleshooter", "Kernel-General", "EventLog"
BOOT = "Kernel-Boot"
HYPER_V = "Hyper-V-Worker"
# A longer sleep is taken for a mistake in the log.
_SLEPT_MAX_NS = 10 * 366 * 86_400 * NS_PER_S
# Reason of Kernel-General 1: the clock was set from the hardware clock, as after each sleep.
FROM_HARDWARE = "2"

_Change = Literal["asleep", "awake", "off", "on", "restored"]
_EVENTS: dict[tuple[str, int], tuple[_Change, SleepKind, str]] = {
    (POWER, 42): ("asleep", "pause", "sleep"),
    (POWER, 107): ("awake", "pause", "sleep"),
    (POWER, 506): ("asleep", "pause", S0_IDLE),
    (POWER, 507): ("awake", "pause", S0_IDLE),
    (POWER, 41): ("on", "off", ""),
    (GENERAL, 12): ("on", "off", ""),
    (GENERAL, 13): ("off", "off", ""),
    (LOG, 6005): ("on", "off", ""),
    (LOG, 6006): ("off", "off", ""),
    (HYPER_V, 18500): ("on", "off", ""),
    (HYPER_V, 18502): ("off", "off", ""),
    (HYPER_V, 18504): ("off", "off", ""),
    (HYPER_V, 18508): ("off", "off", ""),
    (HYPER_V, 18512): ("on", "off", ""),
    (HYPER_V, 18514): ("on", "off", ""),
    (HYPER_V, 18510): ("asleep", "pause", ""),
    (HYPER_V, 18516): ("asleep", "pause", ""),
    (HYPER_V, 18518): ("awake", "pause", ""),
    (HYPER_V, 18596): ("restored", "pause", ""),
}
NUMBERS = {number for _, number in _EVENTS} | {1}
# Kernel-Boot 27, "The boot type was 0x1": 0 after a full shutdown, 1 with fast startup, 2 from
# hibernation. Not one of NUMBERS, by which the column of numbers is found: 27 is a day, too.
BOOT_TYPE = 27
_FAST_STARTUP = 1


@dataclass(frozen=True)
class WindowsEvent:
    """One event, from whichever form. `slept`: the two times of a Power-Troubleshooter event;
    `set`: from when to when (ns) the clock was set; `record`: its number in its log;
    `boot_type`: of an event BOOT_TYPE."""

    provider: str
    number: int
    wall_ns: int
    text: str
    slept: tuple[int, int] | None = None
    set: tuple[int, int] | None = None
    set_because: str = ""
    machine: str | None = None
    record: int | None = None
    log: str = ""
    boot_type: int | None = None

    @property
    def source(self) -> str:
        """Kernel-Power, whichever way it is written: CSV from Event Viewer may leave out
        "Microsoft-Windows-"."""
        return self.provider.strip().removeprefix("Microsoft-Windows-")

    @property
    def meaning(self) -> tuple[_Change, SleepKind, str] | None:
        """What it says of the machine's power, by the table; None for anything else."""
        return _EVENTS.get((self.source, self.number))

    @property
    def change(self) -> _Change | None:
        """How the machine's power state changed."""
        if self.meaning is None:
            return None
        return self.meaning[0]

    @property
    def is_about_power(self) -> bool:
        """Whether the table has it, or it is one of those that have both ends of a sleep."""
        if self.number == 1:
            return True
        return self.meaning is not None

    @property
    def is_wake(self) -> bool:
        """Whether the machine runs again."""
        # Power-Troubleshooter 1, which is written at the wake.
        if self.number == 1 and self.slept is not None:
            return True
        return self.change not in (None, "asleep")


class MachineFilter:
    """Selects one VM of a Hyper-V host: the one that was named, or the first."""

    def __init__(self, machine: str | None, tally: Tally) -> None:
        self._machine = machine
        self._tally = tally
        self._others: set[str] = set()

    def is_another(self, event: WindowsEvent) -> bool:
        """Whether `event` is of another VM."""
        # Events of a laptop's own log name none.
        if event.machine is None:
            return False

        self._machine = self._machine or event.machine
        if event.machine == self._machine:
            return False

        # One note for each, however many events it has.
        if event.machine not in self._others:
            self._others.add(event.machine)
            self._tally.notes.append(
                f"{event.machine} is another machine and left out; it is imported with "
                f"--machine {event.machine}"
            )
        return True


def place_events(
    events: Sequence[WindowsEvent],
    tally: Tally,
    machine: str | None,
    tolerance_ns: int = OUT_OF_ORDER_NS,
) -> PlacedJournal | None:
    """What the events report; they come in the order of the file."""
    rows = EntryPlacer(tally, tolerance_ns)
    choice = MachineFilter(machine, tally)
    events = _in_order(events)
    wakes = [event for event in events if event.is_wake]
    shut_down = _fast_startups(events, wakes)

    for event in events:
        if event.set is not None and _is_step(event, event.set, wakes):
            old_ns, new_ns = event.set
            rows.set(old_ns, new_ns, event.text)
            continue

        # An event of another VM still shows how far the log reaches.
        item: PowerEvent | SleepSpan | None = None
        if not choice.is_another(event):
            item = _item(event)
        if item is not None and event in shut_down:
            item = _switched_off(item)
        rows.add(event.wall_ns, event.text, item)

    return rows.placed()


def _item(event: WindowsEvent) -> PowerEvent | SleepSpan | None:
    """What an event reports, timed from when it was written."""
    if event.number == 1:
        return _span(event)
    if event.meaning is None:
        return None

    change, kind, family = event.meaning
    return PowerEvent(
        wall_ns=0,
        change=change,
        kind=kind,
        code=f"{event.source} {event.number}",
        family=family,
    )


def _span(event: WindowsEvent) -> SleepSpan | None:
    """A sleep whose both ends one event reports."""
    both = _both_ends(event)
    if both is None:
        return None
    span = SleepSpan(*both, "pause")

    # A mistake in the log; the events of this sleep are paired instead.
    if not 0 < span.length_ns <= _SLEPT_MAX_NS:
        return None
    return span.shifted(-event.wall_ns)


def _both_ends(event: WindowsEvent) -> tuple[int, int] | None:
    """Power-Troubleshooter has both times; so has Kernel-General where the clock was set ahead from
    the hardware's, which ran on during the sleep."""
    if event.source == TROUBLE:
        return event.slept
    if event.source != GENERAL or event.set is None:
        return None

    # Set by a person or by NTP, the clock shows nothing of a sleep.
    if event.set_because != FROM_HARDWARE:
        return None

    old_ns, new_ns = event.set
    set_ahead_ns = new_ns - old_ns

    # By less it is a correction, and not what the clock missed in a sleep.
    if set_ahead_ns < NOTICED_NS:
        return None
    return event.set


def _fast_startups(
    events: Sequence[WindowsEvent], wakes: Sequence[WindowsEvent]
) -> set[WindowsEvent]:
    """Events of sleep and wake that are a shutdown and its fast startup."""
    found: set[WindowsEvent] = set()
    asleep: WindowsEvent | None = None
    for event in events:
        if event.change == "asleep":
            asleep = event
        elif event.change == "off":
            # A shutdown by an event of its own needs no change, and the sleep before it was one.
            asleep = None

        # After a hibernation (boot type 2) the users' programs continue: that was a sleep.
        if event.source != BOOT or event.boot_type != _FAST_STARTUP:
            continue
        if asleep is not None:
            found.add(asleep)
        # Several programs report one start, before and after the boot type.
        found.update(_near(event, wakes))

    return found


def _near(event: WindowsEvent, others: Sequence[WindowsEvent]) -> list[WindowsEvent]:
    """Those within two minutes of `event`, as messages of one start are."""
    return [other for other in others if abs(other.wall_ns - event.wall_ns) < OUT_OF_ORDER_NS]


def _switched_off(item: PowerEvent | SleepSpan) -> PowerEvent | SleepSpan:
    """The item of a machine that was not asleep but off."""
    if isinstance(item, SleepSpan):
        return item._replace(kind="off")

    # Of the family of all other shutdowns and starts, so that it is paired with these.
    changes: dict[_Change, _Change] = {"asleep": "off", "awake": "on"}
    change = changes.get(item.change, item.change)
    return item._replace(change=change, kind="off", family="")


def _is_step(event: WindowsEvent, was_set: tuple[int, int], wakes: Sequence[WindowsEvent]) -> bool:
    """Whether the clock was set, other than ahead after a sleep: Windows does that after each, and
    it is the sleep itself."""
    if event.source != GENERAL:
        return False

    old_ns, new_ns = was_set
    by_ns = new_ns - old_ns
    if not NOTICED_NS <= abs(by_ns) <= _SLEPT_MAX_NS:
        return False

    # No sleep sets a clock back.
    if by_ns < 0:
        return True

    # See _both_ends.
    if event.set_because == FROM_HARDWARE:
        return False

    # Ahead near a wake is the sleep; far from each it is a person, or NTP.
    return not _near(event, wakes)


def _in_order(events: Sequence[WindowsEvent]) -> list[WindowsEvent]:
    """Oldest first, and each once: where some occur twice, logs that overlap were put together."""
    power_events = [event for event in events if event.is_about_power]
    if len(set(power_events)) < len(power_events):
        return sorted(dict.fromkeys(events), key=attrgetter("wall_ns"))

    records = {event.record for event in events}
    logs = {event.log for event in events}
    has_gaps = None in records or len(records) < len(events)

    # Several logs count from 1 each, so that their numbers say nothing.
    if has_gaps or len(logs) > 1:
        return _in_order_of_rows(events)
    return sorted(events, key=attrgetter("record"))


def _in_order_of_rows(events: Sequence[WindowsEvent]) -> list[WindowsEvent]:
    """Oldest first, by the rows: a file may be in either direction."""
    times_ns = [event.wall_ns for event in events]
    pairs = max(len(events) - 1, 0)

    # Neighbours of one time fit either direction.
    rises = pairs - falls_in(times_ns)
    falls = pairs - rises_in(times_ns)

    # The file is in the order of something else, such as the number of the event.
    if min(rises, falls) * 4 > max(rises, falls):
        return sorted(events, key=attrgetter("wall_ns"))
    if rises >= falls:
        return list(events)
    return list(reversed(events))
