"""macOS: `pmset -g log`, one line an event: local time with its offset, a domain, what happened.

    2026-11-23 22:29:58 -0700 Sleep      <tab>Entering Sleep state due to 'Clamshell Sleep':TCPKeepAlive=active ...
    2026-11-23 22:30:29 -0700 DarkWake   <tab>DarkWake from Deep Idle [CDN] : due to ...
    2026-11-24 07:40:00 -0700 Wake       <tab>DarkWake to FullWake from Deep Idle [CDNVA] : due to ...

A mesh on a Mac runs in a VM, which is paused while the Mac sleeps: every sleep is a pause. In a
dark wake processes run, VMs too; a Mac with Power Nap therefore sleeps many times a night. `Start`
(powerd started) is a boot. "Entering DarkWake state" is not sleep, and "Wake Requests" lists what
the Mac means to wake for later: no wake. All other domains (Assertions, Notification ...) are other
entries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, TextIO

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    EXAMPLE_CHARACTERS,
    PASTED,
    PowerEvent,
    Tally,
    checked_ns,
    falls_in,
    lines_of,
    rises_in,
)
from meshwake.importers.placement import EntryPlacer, PlacedJournal

SYSTEM = "macOS power log"
# The time is in the user's digits (\d takes Arabic ones too), and with AM or PM where the clock has
# twelve hours: "10:05:27 PM". Such a log was once answered with the advice to run pmset.
_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d) (?P<hour>\d\d?):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:\s(?P<half>[AP])M)? (?P<offset>[+-]\d{4})"
)
_GROUPS = re.compile(r"\(\?P<\w+>")
LINES = re.compile(
    rf"^{PASTED.pattern}{_GROUPS.sub('(?:', _TIME.pattern)} +[A-Z]",
    re.MULTILINE,
)
# The domain and the first words: where tabs were lost on the way, only the words say where the
# domain ends.
_ASLEEP = re.compile(r"\s*Sleep\s+.*\bEntering Sleep\b")
_AWAKE = re.compile(r"\s*(Wake|DarkWake)\s+(?:Dark|Full)?Wake\b(?! Requests)")
AGAIN = "Sleep again"
# Out of a dark wake of seconds, of which there may be no line.
_AGAIN = re.compile(r"due to '(?:Maintenance Sleep|[^']*Back to Sleep)'")
_STARTED = re.compile(r"\s*Start\s")


class _Row(NamedTuple):
    wall_ns: int
    text: str
    mark: PowerEvent | None
    place: int


def read(stream: TextIO, tally: Tally) -> PlacedJournal | None:
    """What the log reports; it may be newest first."""
    read_rows = _in_order(list(_rows(stream, tally)))
    unseen = _dark_wakes_unseen(read_rows)
    if unseen:
        tally.notes.append(
            f"{unseen} dark wakes have no line, though it fell asleep again after them: "
            "taken for sleep, since such a "
            "wake lasts seconds; print the log without a filter"
        )

    rows = EntryPlacer(tally)
    for row in read_rows:
        rows.add(row.wall_ns, row.text, row.mark, row.place)
    return rows.placed()


def _rows(stream: TextIO, tally: Tally) -> Iterator[_Row]:
    for place, written in enumerate(lines_of(stream)):
        line = PASTED.sub("", written, count=1)
        has_date = line[:4].isdigit() and line[4:5] == "-"
        # A heading, a sum, or the rest of an entry.
        if not has_date:
            tally.other += 1
            continue

        try:
            yield _row(line, tally, place)
        except ValueError as error:
            tally.broken(line, str(error), place)


def _row(line: str, tally: Tally, place: int) -> _Row:
    """One line that begins with a date. Raises ValueError where it has no time, or an impossible
    one."""
    time = _TIME.match(line)
    if time is None:
        raise ValueError("has no time such as '2026-11-23 22:29:58 -0700'")

    wall_ns = _wall_ns(time)
    tally.offsets.add(wall_ns, _offset_s(time["offset"]))
    return _Row(
        wall_ns=wall_ns,
        text=line[:EXAMPLE_CHARACTERS],
        mark=_mark(line[time.end() :]),
        place=place,
    )


def _dark_wakes_unseen(rows: list[_Row]) -> int:
    """How often it fell asleep out of a dark wake whose line is missing."""
    unseen = 0
    was_asleep = False
    for row in rows:
        # Lines about something else show nothing of it.
        if row.mark is None:
            continue
        if was_asleep and row.mark.code == AGAIN:
            unseen += 1
        was_asleep = row.mark.change == "asleep"
    return unseen


def _in_order(rows: list[_Row]) -> list[_Row]:
    """Oldest first, and each once: where some occur twice, logs that overlap were put together."""
    power_rows = [(row.wall_ns, row.text) for row in rows if row.mark is not None]
    if len(set(power_rows)) < len(power_rows):
        once: dict[tuple[int, str], _Row] = {}
        for row in rows:
            once.setdefault((row.wall_ns, row.text), row)
        return sorted(once.values(), key=attrgetter("wall_ns", "place"))

    moments_ns = [row.wall_ns for row in rows]
    # People paste it newest first, too.
    if falls_in(moments_ns) > rises_in(moments_ns):
        return rows[::-1]
    return rows


def _mark(text: str) -> PowerEvent | None:
    """What a line reports, timed from itself; None for what is not about sleep."""
    if _ASLEEP.match(text):
        code = "Sleep"
        if _AGAIN.search(text):
            code = AGAIN
        return PowerEvent(0, "asleep", "pause", code)

    awake = _AWAKE.match(text)
    if awake is not None:
        return PowerEvent(0, "awake", "pause", awake[1])

    # powerd starts with the system, so this is a boot.
    if _STARTED.match(text):
        return PowerEvent(0, "on", "off", "Start")
    return None


def _wall_ns(time: re.Match[str]) -> int:
    hours = _hours(int(time["hour"]), time["half"])
    minutes = int(time["minute"])
    seconds = int(time["second"])

    # 60: a leap second.
    if minutes > 59 or seconds > 60:
        raise ValueError("has an impossible time")
    midnight_s = _midnight_s(time["day"], time["offset"])
    wall_s = midnight_s + hours * 3_600 + minutes * 60 + seconds
    return checked_ns(wall_s * NS_PER_S)


def _hours(written: int, half: str | None) -> int:
    """Of 24, from a clock of twelve hours too (`half`: A or P). Raises ValueError."""
    last = 23 if half is None else 12
    if written > last:
        raise ValueError("has an impossible time")
    if half is None:
        return written

    # 12:05 AM is five past midnight, 12:05 PM five past noon.
    hours = written % 12
    if half == "P":
        hours += 12
    return hours


@lru_cache(maxsize=16)
def _midnight_s(day: str, offset: str) -> int:
    """A month of a log has thirty days, and a hundred thousand lines."""
    zone = timezone(timedelta(seconds=_offset_s(offset)))
    year, month, of_month = map(int, day.split("-"))
    return int(datetime(year, month, of_month, tzinfo=zone).timestamp())


def _offset_s(text: str) -> int:
    """Of -0730."""
    sign, hours, minutes = text[0], int(text[1:3]), int(text[3:])
    ahead_s = hours * 3_600 + minutes * 60

    # West of Greenwich clocks are behind UTC.
    if sign == "-":
        return -ahead_s
    return ahead_s
