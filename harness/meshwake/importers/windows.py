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
from functools import partial
from itertools import pairwise
from typing import Literal

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    NOTICED_NS,
    S0_IDLE,
    JournalItem,
    PowerEvent,
    SleepKind,
    SleepSpan,
    Tally,
    shifted,
)
from meshwake.importers.placement import OUT_OF_ORDER_NS, EntryPlacer, PlacedJournal

POWER, TROUBLE, GENERAL, LOG = "Kernel-Power", "Power-Troubleshooter", "Kernel-General", "EventLog"
BOOT = "Kernel-Boot"
HYPER_V = "Hyper-V-Worker"
# A longer sleep is taken for a mistake in the log.
_SLEPT_MAX_NS = 10 * 366 * 86_400 * NS_PER_S
# Reason of Kernel-General 1: the clock was set from the hardware clock, as after each sleep.
_FROM_HARDWARE = "2"

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


class MachineFilter:
    """Selects one VM of a Hyper-V host: the one that was named, or the first."""

    def __init__(self, machine: str | None, tally: Tally) -> None:
        self._machine, self._tally = machine, tally
        self._others: set[str] = set()

    def is_another(self, event: WindowsEvent) -> bool:
        """Whether `event` is of another VM."""
        if event.machine is None:
            return False
        self._machine = self._machine or event.machine
        if event.machine == self._machine:
            return False
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
    rows, choice = EntryPlacer(tally, tolerance_ns), MachineFilter(machine, tally)
    events = _in_order(events)
    wakes = [event.wall_ns for event in events if _is_wake(event)]
    shut_down = _fast_startups(events)
    for event in events:
        if _is_step(event, wakes):
            assert event.set is not None
            rows.set(*event.set, event.text)
            continue
        item = None if choice.is_another(event) else _item(event)
        if item is not None and event in shut_down:
            item = _switched_off(item)
        rows.add(
            event.wall_ns, event.text, None if item is None else partial(_at, item, event.wall_ns)
        )
    return rows.placed()


def _at(item: PowerEvent | SleepSpan, wall_ns: int, place_ns: int) -> JournalItem:
    """The item, whose event was written at `wall_ns`, which is `place_ns` from the beginning of its
    stretch."""
    if isinstance(item, PowerEvent):
        return item._replace(wall_ns=place_ns)
    return shifted(item, place_ns - wall_ns)


def _item(event: WindowsEvent) -> PowerEvent | SleepSpan | None:
    kind = short(event.provider)
    if event.number == 1:
        return _span(event, kind)
    meaning = _EVENTS.get((kind, event.number))
    if meaning is None:
        return None
    change, sleep_kind, family = meaning
    return PowerEvent(0, change, sleep_kind, f"{kind} {event.number}", family)


def _span(event: WindowsEvent, kind: str) -> SleepSpan | None:
    """A sleep whose both ends one event reports."""
    both = _both_ends(event, kind)
    if both is None:
        return None
    slept_ns = both[1] - both[0]
    return SleepSpan(*both, "pause") if 0 < slept_ns <= _SLEPT_MAX_NS else None


def _both_ends(event: WindowsEvent, kind: str) -> tuple[int, int] | None:
    """Power-Troubleshooter has both times; so has Kernel-General where the clock was set ahead from
    the hardware's, which ran on during the sleep."""
    if kind == TROUBLE:
        return event.slept
    if kind != GENERAL or event.set is None or event.set_because != _FROM_HARDWARE:
        return None
    old_ns, new_ns = event.set
    return event.set if new_ns - old_ns >= NOTICED_NS else None


def _fast_startups(events: Sequence[WindowsEvent]) -> set[WindowsEvent]:
    """Events of sleep and wake that are a shutdown and its fast startup."""
    found: set[WindowsEvent] = set()
    asleep: WindowsEvent | None = None
    for event in events:
        change = _change_of(event)
        if change in ("asleep", "off"):
            # Only the last one counts: a shutdown by another event needs no change.
            asleep = event if change == "asleep" else None
        if short(event.provider) == BOOT and event.boot_type == _FAST_STARTUP:
            found |= {asleep} if asleep is not None else set()
            found |= _wakes_near(events, event.wall_ns)
    return found


def _wakes_near(events: Sequence[WindowsEvent], wall_ns: int) -> set[WindowsEvent]:
    """The wakes of one start, which several programs report, before and after the boot type."""
    wakes = (event for event in events if _is_wake(event))
    return {wake for wake in wakes if abs(wake.wall_ns - wall_ns) < OUT_OF_ORDER_NS}


def _switched_off(item: PowerEvent | SleepSpan) -> PowerEvent | SleepSpan:
    """The item of a machine that was not asleep but off."""
    if isinstance(item, SleepSpan):
        return item._replace(kind="off")
    changes: dict[_Change, _Change] = {"asleep": "off", "awake": "on"}
    return item._replace(change=changes.get(item.change, item.change), kind="off", family="")


def _change_of(event: WindowsEvent) -> _Change | None:
    meaning = _EVENTS.get((short(event.provider), event.number))
    return None if meaning is None else meaning[0]


def _is_wake(event: WindowsEvent) -> bool:
    if event.number == 1 and event.slept is not None:
        return True
    return _change_of(event) not in (None, "asleep")


def _is_step(event: WindowsEvent, wakes: Sequence[int]) -> bool:
    """Whether the clock was set, other than ahead after a sleep: Windows does that after each, and
    it is the sleep itself."""
    if event.set is None or short(event.provider) != GENERAL:
        return False
    by_ns = event.set[1] - event.set[0]
    if not NOTICED_NS <= abs(by_ns) <= _SLEPT_MAX_NS:
        return False
    # No sleep sets a clock back.
    if by_ns < 0:
        return True
    # See _both_ends.
    if event.set_because == _FROM_HARDWARE:
        return False
    # Ahead near a wake is the sleep; far from each it is a person, or NTP.
    return not any(abs(wake - event.wall_ns) < OUT_OF_ORDER_NS for wake in wakes)


def _in_order(events: Sequence[WindowsEvent]) -> list[WindowsEvent]:
    """Oldest first, and each once: where some occur twice, logs that overlap were put together."""
    power_events = [event for event in events if _is_about_power(event)]
    if len(set(power_events)) < len(power_events):
        return sorted(dict.fromkeys(events), key=_wall_ns)
    if _are_numbered(events):
        return sorted(events, key=lambda event: event.record or 0)
    return _in_order_of_rows(events)


def _in_order_of_rows(events: Sequence[WindowsEvent]) -> list[WindowsEvent]:
    times_ns = [event.wall_ns for event in events]
    rises = sum(two >= one for one, two in pairwise(times_ns))
    falls = sum(two <= one for one, two in pairwise(times_ns))
    if min(rises, falls) * 4 > max(rises, falls):
        # The file is in the order of something else, such as the number of the event.
        return sorted(events, key=_wall_ns)
    if rises >= falls:
        return list(events)
    return list(reversed(events))


def _wall_ns(event: WindowsEvent) -> int:
    return event.wall_ns


def _is_about_power(event: WindowsEvent) -> bool:
    return event.number == 1 or (short(event.provider), event.number) in _EVENTS


def _are_numbered(events: Sequence[WindowsEvent]) -> bool:
    """Whether all are of one log, each with a record number of its own."""
    records = {event.record for event in events}
    one_log = len({event.log for event in events}) == 1
    return one_log and len(records) == len(events) and None not in records


def short(provider: str) -> str:
    """Kernel-Power, whichever way it is written: CSV from Event Viewer may leave out
    "Microsoft-Windows-"."""
    return provider.strip().removeprefix("Microsoft-Windows-")
