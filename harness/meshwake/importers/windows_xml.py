"""Windows event logs as XML: from wevtutil, Event Viewer, evtx_dump.

The text is cut at </Event> and each event is parsed alone: the file may be one line, or have no
root, or many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO
from xml.etree import ElementTree as ET

from meshwake.importers.items import Tally
from meshwake.importers.local_times import utc_ns
from meshwake.importers.placement import PlacedJournal
from meshwake.importers.windows import BOOT_TYPE, NUMBERS, WindowsEvent, place_events

SYSTEM = "Windows event log (XML)"
_CHUNK = 1 << 20
_EVENT_CHARACTERS_MAX = 1 << 20
_EVENT_ID = re.compile(r"<(?:\w+:)?EventID(?:\s[^>]*)?>\s*(\d+)\s*<")
_BEGINS = re.compile(r"<(?:\w+:)?Event[\s>]")
_ENDS = re.compile(r"</(?:\w+:)?Event>")
_TIME = re.compile(r"SystemTime=['\"]([^'\"]+)['\"]")
_RECORD = re.compile(r"<(?:\w+:)?EventRecordID>\s*(\d{1,18})\s*<")
_CHANNEL = re.compile(r"<(?:\w+:)?Channel>\s*([^<]*?)\s*<")
# A prefix of a namespace that is declared outside of the event.
_PREFIX = re.compile(r"(</?)\w+:(?=\w)")


def read(stream: TextIO, tally: Tally, machine: str | None = None) -> PlacedJournal | None:
    """What events in XML report."""
    return place_events(list(_events(stream, tally)), tally, machine)


def _events(stream: TextIO, tally: Tally) -> Iterator[WindowsEvent]:
    others = 0
    for place, text in enumerate(_texts(stream, tally), 1):
        found = _EVENT_ID.search(text)
        if found is None:
            tally.broken(text, "has no EventID", place)
            continue
        # By a regular expression: nearly all events are about something else, and are not parsed.
        if int(found[1][:9]) not in NUMBERS | {BOOT_TYPE}:
            others += 1
            # Of other events the first few and every hundredth show how far the log reaches.
            event = _moment(text) if others <= 10 or others % 100 == 0 else None
            if event is None:
                tally.other += 1
            else:
                yield event
            continue
        try:
            yield _parse(text, tally)
        except (ET.ParseError, ValueError, KeyError) as error:
            tally.broken(text, f"is not an event ({error})", place)


def _texts(stream: TextIO, tally: Tally) -> Iterator[str]:
    """Each <Event>...</Event>; what is between them is markup or lost."""
    rest, place = "", 0
    while chunk := stream.read(_CHUNK):
        *whole, rest = _ENDS.split(rest + chunk)
        for text in whole:
            place += 1
            begins = _BEGINS.search(text)
            if begins is None:
                tally.broken(text, "has no beginning", place)
            else:
                yield text[begins.start() :] + "</Event>"
        if len(rest) > _EVENT_CHARACTERS_MAX:
            tally.broken(rest[-200:], "has no end", place + 1)
            rest = ""
    if _BEGINS.search(rest):
        tally.broken(rest, "breaks off", place + 1)


def _moment(text: str) -> WindowsEvent | None:
    """An event that has nothing but its time."""
    time = _TIME.search(text)
    if time is None:
        return None

    # An event about something else is not worth a complaint about its time.
    with suppress(ValueError):
        return WindowsEvent(
            "", 0, utc_ns(time[1]), text[:200], record=_record(text), log=_log(text)
        )
    return None


def _record(text: str) -> int | None:
    found = _RECORD.search(text)
    if found is None:
        return None
    return int(found[1])


def _log(text: str) -> str:
    found = _CHANNEL.search(text)
    if found is None:
        return ""
    return found[1]


def _parse(text: str, tally: Tally) -> WindowsEvent:
    root = _root(text)
    provider = _needed(root, "System/Provider").get("Name", "")
    number = int((root.findtext("System/EventID") or "").strip())
    wall_ns = utc_ns(_needed(root, "System/TimeCreated").get("SystemTime", ""))
    data = {str(each.get("Name")): (each.text or "").strip() for each in root.iter("Data")}
    with suppress(KeyError, ValueError):
        # In minutes, west of Greenwich being positive: 480 is UTC-08:00.
        tally.offsets.add(wall_ns, -60 * int(data["TimeZoneBias"]))

    # Hyper-V writes it below UserData, and not as Data with a name.
    vm = data.get("VmName") or next((each.text for each in root.iter("VmName") if each.text), None)
    return WindowsEvent(
        provider,
        number,
        wall_ns,
        text[:200],
        slept=_both(data, "SleepTime", "WakeTime"),
        set=_both(data, "OldTime", "NewTime"),
        set_because=data.get("Reason", ""),
        machine=vm,
        record=_record(text),
        log=_log(text),
        boot_type=_boot_type(data) if number == BOOT_TYPE else None,
    )


def _boot_type(data: dict[str, str]) -> int | None:
    with suppress(ValueError):
        return int(data.get("BootType", ""), 0)
    return None


def _root(text: str) -> ET.Element:
    """One event without namespaces, and without a document type: there are no entities to
    expand."""
    try:
        root = ET.fromstring(text)  # noqa: S314
    # A prefix that the lost root declared.
    except ET.ParseError:
        root = ET.fromstring(_PREFIX.sub(r"\1", text))  # noqa: S314
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _both(data: dict[str, str], one: str, two: str) -> tuple[int, int] | None:
    """Two times that belong together; None where one is missing or cannot be: the event itself is
    good."""
    if one in data and two in data:
        with suppress(ValueError):
            return utc_ns(data[one]), utc_ns(data[two])
    return None


def _needed(root: ET.Element, path: str) -> ET.Element:
    found = root.find(path)
    if found is None:
        raise KeyError(f"no {path}")
    return found
