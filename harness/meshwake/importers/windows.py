"""What events of Windows tell of sleep, whatever form they come in (windows_xml.py,
windows_csv.py).

Log System of a laptop:

    Power-Troubleshooter 1     returned from a low power state; tells SleepTime and WakeTime: believed before all others
    Kernel-Power 42, 107       entering sleep, resumed from sleep
    Kernel-Power 506, 507      entering, exiting modern standby (connected standby)
    Kernel-General 12, 13      the system started, is shutting down
    Kernel-General 1           the wall clock was set, from OldTime to NewTime
    EventLog 6005, 6006        the same as 12 and 13, from the log itself; Kernel-Power 41: started after a crash

Log Microsoft-Windows-Hyper-V-Worker-Admin of a host, for one of its VMs:

    18500 started  18502, 18504, 18508 turned off, shut down  18512, 18514 reset
    18510 saved    18596 restored    18516 paused    18518 resumed

A mesh on a Windows machine runs in a VM (WSL, Hyper-V), which stands while the host sleeps: every
sleep is a pause. In modern standby Windows may run things for moments; that is taken for sleep all
the same.

The order is that of the record numbers where one log is told, else that of the rows, newest or
oldest first.
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
    JournalItem,
    PowerEvent,
    SleepKind,
    SleepSpan,
    Tally,
    shifted,
)
from meshwake.importers.placement import OUT_OF_ORDER_NS, EntryPlacer, PlacedJournal

POWER, TROUBLE, GENERAL, LOG = "Kernel-Power", "Power-Troubleshooter", "Kernel-General", "EventLog"
HYPER_V = "Hyper-V-Worker"
# The longest that a machine is believed to have slept.
_SLEPT_MAX_NS = 10 * 366 * 86_400 * NS_PER_S
# Reason of Kernel-General 1: put right from the hardware clock, as after each sleep.
_FROM_HARDWARE = "2"

_Change = Literal["asleep", "awake", "off", "on", "restored"]
_EVENTS: dict[tuple[str, int], tuple[_Change, SleepKind, str]] = {
    (POWER, 42): ("asleep", "pause", "sleep"),
    (POWER, 107): ("awake", "pause", "sleep"),
    (POWER, 506): ("asleep", "pause", "standby"),
    (POWER, 507): ("awake", "pause", "standby"),
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


@dataclass(frozen=True)
class WindowsEvent:
    """One event, from whichever form. `slept`: the two times that a Power-Troubleshooter tells;
    `set`: from when to when the clock was set; `record`: its number in its log."""

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


class MachineFilter:
    """Which VM of a Hyper-V host is meant: the one asked for, or the first."""

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
    """What the events tell, which are as the file has them."""
    rows, choice = EntryPlacer(tally, tolerance_ns), MachineFilter(machine, tally)
    events = _in_order(events)
    wakes = [event.wall_ns for event in events if _is_wake(event)]
    for event in events:
        if _is_step(event, wakes):
            assert event.set is not None
            rows.set(*event.set, event.text)
            continue
        item = None if choice.is_another(event) else _item(event)
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
    told = _EVENTS.get((kind, event.number))
    return PowerEvent(0, told[0], told[1], f"{kind} {event.number}", told[2]) if told else None


def _span(event: WindowsEvent, kind: str) -> SleepSpan | None:
    """A sleep whose both ends are told; also by a clock that the hardware's put right, ahead."""
    both = event.slept if kind == TROUBLE else None
    if kind == GENERAL and event.set is not None and event.set_because == _FROM_HARDWARE:
        both = event.set if event.set[1] - event.set[0] >= NOTICED_NS else None
    return (
        SleepSpan(*both, "pause")
        if both is not None and 0 < both[1] - both[0] <= _SLEPT_MAX_NS
        else None
    )


def _is_wake(event: WindowsEvent) -> bool:
    told = _EVENTS.get((short(event.provider), event.number))
    return (told is not None and told[0] != "asleep") or (
        event.number == 1 and event.slept is not None
    )


def _is_step(event: WindowsEvent, wakes: Sequence[int]) -> bool:
    """Whether the clock was set, other than ahead after a sleep: that is done after each, and is
    the sleep itself."""
    if event.set is None or short(event.provider) != GENERAL:
        return False
    by_ns = event.set[1] - event.set[0]
    if not NOTICED_NS <= abs(by_ns) <= _SLEPT_MAX_NS:
        return False
    if by_ns < 0:
        return True
    return event.set_because != _FROM_HARDWARE and not any(
        abs(wake - event.wall_ns) < OUT_OF_ORDER_NS for wake in wakes
    )


def _in_order(events: Sequence[WindowsEvent]) -> list[WindowsEvent]:
    """Oldest first, and each once: where some stand twice, logs were put together that overlap."""
    once = list(dict.fromkeys(events))
    telling = [
        event
        for event in events
        if event.number == 1 or (short(event.provider), event.number) in _EVENTS
    ]
    if len(set(telling)) < len(telling):
        return sorted(once, key=lambda event: event.wall_ns)
    records = [event.record for event in events]
    if (
        len({event.log for event in events}) == 1
        and len(set(records)) == len(records)
        and None not in records
    ):
        return sorted(events, key=lambda event: event.record or 0)
    rises = sum(two.wall_ns >= one.wall_ns for one, two in pairwise(events))
    falls = sum(two.wall_ns <= one.wall_ns for one, two in pairwise(events))
    if min(rises, falls) * 4 > max(rises, falls):
        # In the order of something else, such as the number of the event.
        return sorted(events, key=lambda event: event.wall_ns)
    return list(events) if rises >= falls else list(reversed(events))


def short(provider: str) -> str:
    """Kernel-Power, whichever way it is written: CSV from Event Viewer may leave out
    "Microsoft-Windows-"."""
    return provider.strip().removeprefix("Microsoft-Windows-")
