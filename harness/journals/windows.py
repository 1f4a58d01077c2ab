"""Windows event logs as text: XML (wevtutil, Event Viewer, evtx_dump) or CSV (Event Viewer, PowerShell's Export-Csv).

Log System of a laptop:

    Power-Troubleshooter 1     returned from a low power state; tells SleepTime and WakeTime: believed before all others
    Kernel-Power 42, 107       entering sleep, resumed from sleep
    Kernel-Power 506, 507      entering, exiting modern standby (connected standby)
    Kernel-General 12, 13      the system started, is shutting down

Log Microsoft-Windows-Hyper-V-Worker-Admin of a host, for one of its VMs:

    18500 started  18502, 18504, 18508 turned off, shut down  18512, 18514 reset
    18510 saved    18596 restored    18516 paused    18518 resumed

A mesh on a Windows machine runs in a VM (WSL, Hyper-V), which stands while the host sleeps: every sleep is a pause. In
modern standby Windows may run things for moments; that is taken for sleep all the same.

XML is cut at </Event> and each event is parsed alone: the file may be one line, or have no root, or many.
CSV has local times without a zone, in the order of whoever exported it; `zone` says where that was, and whether day or
month comes first is taken from the times themselves: one of the two keeps the rows in order.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Literal, TextIO
from xml.etree import ElementTree as ET

from harness.durations import NS_PER_S
from harness.errors import BadInput
from harness.journals.items import Item, Mark, SleepKind, Span, Tally, lines_of

SYSTEM_XML = "Windows event log (XML)"
SYSTEM_CSV = "Windows event log (CSV)"
_CHUNK = 1 << 20
_EVENT_CHARACTERS_MAX = 1 << 20
_NS_PER_100NS = 100
_POWER, _TROUBLE, _GENERAL = "Kernel-Power", "Power-Troubleshooter", "Kernel-General"
_HYPER_V = "Hyper-V-Worker"

_Says = Literal["asleep", "awake", "off", "on"]
_EVENTS: dict[tuple[str, int], tuple[_Says, SleepKind]] = {
    (_POWER, 42): ("asleep", "pause"),
    (_POWER, 107): ("awake", "pause"),
    (_POWER, 506): ("asleep", "pause"),
    (_POWER, 507): ("awake", "pause"),
    (_GENERAL, 12): ("on", "off"),
    (_GENERAL, 13): ("off", "off"),
    (_HYPER_V, 18500): ("on", "off"),
    (_HYPER_V, 18502): ("off", "off"),
    (_HYPER_V, 18504): ("off", "off"),
    (_HYPER_V, 18508): ("off", "off"),
    (_HYPER_V, 18512): ("on", "off"),
    (_HYPER_V, 18514): ("on", "off"),
    (_HYPER_V, 18510): ("asleep", "pause"),
    (_HYPER_V, 18516): ("asleep", "pause"),
    (_HYPER_V, 18518): ("awake", "pause"),
    (_HYPER_V, 18596): ("awake", "pause"),
}
_IDS = {number for _, number in _EVENTS} | {1}
_EVENT_ID = re.compile(r"<EventID(?:\s[^>]*)?>\s*(\d+)\s*<")
_BEGINS = re.compile(r"<Event[\s>]")
_TIME = re.compile(r"SystemTime=['\"]([^'\"]+)['\"]")
_SLEEP = re.compile(r"Sleep Time:\s*(\S+)")
_WAKE = re.compile(r"Wake Time:\s*(\S+)")
_VM = re.compile(r"^'?(.+?)'? (?:was|started|saved|has)\b")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?$")
_LOCAL = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{2,4}),? +(\d{1,2}):(\d\d):(\d\d)(?: ?([AaPp])\.?[Mm]\.?)?$")


@dataclass(frozen=True)
class _Event:
    """One event, from whichever form. `slept`: the two times that a Power-Troubleshooter tells."""

    provider: str
    number: int
    wall_ns: int
    slept: tuple[int, int] | None = None
    machine: str | None = None


class _Choice:
    """Which VM of a Hyper-V host is meant: the one asked for, or the first."""

    def __init__(self, machine: str | None, tally: Tally) -> None:
        self._machine, self._tally = machine, tally
        self._others: set[str] = set()

    def is_another(self, event: _Event) -> bool:
        if event.machine is None:
            return False
        self._machine = self._machine or event.machine
        if event.machine == self._machine:
            return False
        if event.machine not in self._others:
            self._others.add(event.machine)
            self._tally.notes.append(
                f"{event.machine} is another machine and left out; it is imported with --machine {event.machine}"
            )
        return True


def read_xml(stream: TextIO, tally: Tally, machine: str | None = None) -> Iterator[Item]:
    """What events in XML tell."""
    choice = _Choice(machine, tally)
    for text in _events_in(stream, tally):
        found = _EVENT_ID.search(text)
        if found is None:
            tally.broken(text, "has no EventID")
            continue
        if int(found[1]) not in _IDS:
            tally.other += 1
            _reach(text, tally)
            continue
        try:
            event = _parse(text)
        except (ET.ParseError, ValueError, KeyError) as error:
            tally.broken(text, f"is no event ({error})")
            continue
        yield from _tell(event, choice, tally)


def _events_in(stream: TextIO, tally: Tally) -> Iterator[str]:
    """Each <Event>...</Event>; what stands between them is markup or lost."""
    rest = ""
    while chunk := stream.read(_CHUNK):
        *whole, rest = (rest + chunk).split("</Event>")
        for text in whole:
            begins = _BEGINS.search(text)
            if begins is None:
                tally.broken(text, "has no beginning")
            else:
                yield text[begins.start() :] + "</Event>"
        if len(rest) > _EVENT_CHARACTERS_MAX:
            tally.broken(rest[-200:], "has no end")
            rest = ""
    if _BEGINS.search(rest):
        tally.broken(rest, "breaks off")


def _reach(text: str, tally: Tally) -> None:
    """Another event; it shows how far the log reaches. Only the first few and every hundredth are looked at for
    that."""
    if tally.other > 10 and tally.other % 100:
        return
    if found := _TIME.search(text):
        with suppress(ValueError):
            tally.saw(_iso_ns(found[1], UTC))


def _parse(text: str) -> _Event:
    root = ET.fromstring(text)  # noqa: S314  one event without a document type: there are no entities to expand
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    provider = (root.find("System/Provider") or _empty(root, "System/Provider")).get("Name", "")
    number = int((root.findtext("System/EventID") or "").strip())
    wall_ns = _iso_ns(_empty(root, "System/TimeCreated").get("SystemTime", ""), UTC)
    data = {str(each.get("Name")): each.text or "" for each in root.iter("Data")}
    slept = None
    if "SleepTime" in data and "WakeTime" in data:
        slept = _iso_ns(data["SleepTime"], UTC), _iso_ns(data["WakeTime"], UTC)
    vm = data.get("VmName") or next((each.text for each in root.iter("VmName") if each.text), None)
    return _Event(provider, number, wall_ns, slept, vm)


def _empty(root: ET.Element, path: str) -> ET.Element:
    found = root.find(path)
    if found is None:
        raise KeyError(f"no {path}")
    return found


def _tell(event: _Event, choice: _Choice, tally: Tally) -> Iterator[Item]:
    tally.saw(event.wall_ns)
    kind = _short(event.provider)
    if kind == _TROUBLE and event.number == 1 and event.slept is not None:
        tally.used += 1
        if event.slept[0] < event.slept[1]:
            yield Span(*event.slept, "pause")
        return
    told = _EVENTS.get((kind, event.number))
    if told is None or choice.is_another(event):
        tally.other += 1
        return
    tally.used += 1
    yield Mark(event.wall_ns, told[0], told[1], f"{kind} {event.number}")


def _short(provider: str) -> str:
    """Kernel-Power, whichever way it is written: CSV from Event Viewer may leave out "Microsoft-Windows-"."""
    return provider.removeprefix("Microsoft-Windows-")


# --- CSV -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    time: int
    provider: int
    number: int
    message: int | None


def read_csv(stream: TextIO, tally: Tally, zone: tzinfo, machine: str | None = None) -> Iterator[Item]:
    """What rows tell. Raises BadInput when nobody can say whether a time has the day or the month first."""
    choice = _Choice(machine, tally)
    rows = csv.reader(lines_of(stream), delimiter=",")
    columns: _Columns | None = None
    kept: list[tuple[list[str], _Columns]] = []
    times: list[str] = []
    while (row := _next_row(rows, tally)) is not None:
        if columns is None:
            columns = _columns(row)
            continue
        number = _number(row, columns, tally)
        if number is None:
            continue
        if len(times) < 1000:
            times.append(row[columns.time])
        if number in _IDS:
            kept.append((row, columns))
        else:
            tally.other += 1
    if columns is None:
        raise BadInput(
            f"{tally.path}: no row names the columns; expected Event ID and Date and Time, or Id and TimeCreated"
        )
    day_first = _day_first(times, tally.path)
    for text in times[:1] + times[-1:]:
        with suppress(ValueError):
            tally.saw(_time_ns(text, zone, day_first))
    for row, each in kept:
        yield from _tell_row(row, each, zone, day_first, choice, tally)


def _next_row(rows: Iterator[list[str]], tally: Tally) -> list[str] | None:
    while True:
        try:
            return next(rows)
        except StopIteration:
            return None
        except csv.Error as error:
            tally.broken("", f"is no row ({error})")


def _columns(row: list[str]) -> _Columns | None:
    names = [cell.strip().lstrip("\ufeff").strip('"').lower() for cell in row]
    places: list[int | None] = [
        next((names.index(name) for name in allowed if name in names), None)
        for allowed in (("date and time", "timecreated"), ("source", "providername"), ("event id", "id"))
    ]
    time, provider, number = places
    if time is None or provider is None or number is None:
        return None
    # Event Viewer writes the message after the last column that it names.
    message = names.index("message") if "message" in names else len(names)
    return _Columns(time, provider, number, message)


def _number(row: list[str], columns: _Columns, tally: Tally) -> int | None:
    if not row:
        return None
    try:
        if len(row) <= max(columns.time, columns.provider):
            raise IndexError
        return int(row[columns.number])
    except (ValueError, IndexError):
        tally.broken(",".join(row), "has no event number where the heading says")
        return None


def _tell_row(
    row: list[str], columns: _Columns, zone: tzinfo, day_first: bool, choice: _Choice, tally: Tally
) -> Iterator[Item]:
    message = "".join(row[columns.message :]).replace("\u200e", "") if columns.message is not None else ""
    try:
        wall_ns = _time_ns(row[columns.time], zone, day_first)
        slept = _slept(message)
    except ValueError as error:
        tally.broken(",".join(row), str(error))
        return
    vm = _VM.match(message)
    provider = row[columns.provider]
    machine = vm[1] if vm and _HYPER_V in provider else None
    yield from _tell(_Event(provider, int(row[columns.number]), wall_ns, slept, machine), choice, tally)


def _slept(message: str) -> tuple[int, int] | None:
    sleep, wake = _SLEEP.search(message), _WAKE.search(message)
    return (_iso_ns(sleep[1], UTC), _iso_ns(wake[1], UTC)) if sleep and wake else None


# --- Times -----------------------------------------------------------------------------------------------------------


def _iso_ns(text: str, zone: tzinfo) -> int:
    """2026-11-24T21:03:12.345678900Z in ns. Raises ValueError."""
    match = _ISO.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time")
    day, clock, fraction, offset = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}{offset or ''}")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return int(moment.timestamp()) * NS_PER_S + int((fraction or "0").ljust(9, "0"))


def _time_ns(text: str, zone: tzinfo, day_first: bool) -> int:
    cleaned = text.replace("\u200e", "").replace("\u202f", " ").strip()
    if _ISO.match(cleaned):
        return _iso_ns(cleaned, zone)
    match = _LOCAL.match(cleaned)
    if match is None:
        raise ValueError(f"{text!r} is no time that is known")
    one, _, two, three, hour, minute, second, half = match.groups()
    if len(one) == 4:
        year, month, day = int(one), int(two), int(three)
    else:
        year = int(three)
        day, month = (int(one), int(two)) if day_first else (int(two), int(one))
    hours = int(hour) % 12 + (12 if half in ("P", "p") else 0) if half else int(hour)
    moment = datetime(year, month, day, hours, int(minute), int(second), tzinfo=zone)
    return int(moment.timestamp()) * NS_PER_S


def _day_first(times: list[str], path: str) -> bool:
    """Whether 3/4/2026 is in April: what keeps the rows in order, newest or oldest first."""
    if any("." in text.split(" ")[0] for text in times):
        return True
    if any(text.strip().lower().endswith("m") for text in times):
        return False
    fits = [day_first for day_first in (False, True) if _in_order(times, day_first)]
    alike = len(fits) == 2 and all(_same_either_way(text) for text in times)
    if len(fits) == 1 or alike:
        return fits[0]
    if not fits:
        return False  # each row that makes no sense is counted
    raise BadInput(
        f"{path}: whether {times[0]!r} begins with the day or the month cannot be told from its rows; "
        "export as XML: wevtutil qe System /f:xml > system.xml"
    )


def _in_order(times: list[str], day_first: bool) -> bool:
    moments = []
    for text in times:
        try:
            moments.append(_time_ns(text, UTC, day_first))
        except ValueError:
            return False
    pairs = list(pairwise(moments))
    return all(a <= b for a, b in pairs) or all(a >= b for a, b in pairs)


def _same_either_way(text: str) -> bool:
    try:
        return _time_ns(text, UTC, day_first=True) == _time_ns(text, UTC, day_first=False)
    except ValueError:
        return True
