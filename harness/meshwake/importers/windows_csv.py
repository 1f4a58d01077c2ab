"""Windows event logs as CSV: from Event Viewer (commas or tabs), PowerShell's Export-Csv, and tools
that read .evtx.

Columns are known by their names in any order, between commas, semicolons or tabs; where the heading
is in another language, or lost, by their contents. Times are local, as Windows writes them
where it was exported: `zone` says where that was, `date_order` whether day or month comes first
where the rows do not decide it (local_times.py).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, tzinfo
from itertools import pairwise
from typing import TextIO

from meshwake.core.errors import BadInput
from meshwake.importers.items import Tally, lines_of
from meshwake.importers.local_times import (
    SUMMER_NS,
    DateOrder,
    LocalTime,
    LocalTimeRules,
    iso_ns,
    knows_its_zone,
    local_of,
    moment_ns,
    offset_s_of,
    order_of,
    plain,
)
from meshwake.importers.placement import OUT_OF_ORDER_NS, PlacedJournal
from meshwake.importers.windows import (
    BOOT_TYPE,
    HYPER_V,
    NUMBERS,
    WindowsEvent,
    place_events,
    short,
)

SYSTEM = "Windows event log (CSV)"
EXPORT_XML = (
    "export it as XML, which has one form everywhere: wevtutil qe System /f:xml > system.xml"
)
_HEXADECIMAL = re.compile(r"\b0x[0-9A-Fa-f]{1,8}\b")
_DELIMITERS = ",;\t|"
_NAMES = {
    "time": (
        "date and time",
        "timecreated",
        "timegenerated",
        "time created",
        "timewritten",
        "date/time",
        "datetime",
    ),
    "provider": (
        "source",
        "providername",
        "provider",
        "provider name",
        "sourcename",
        "source name",
    ),
    "number": ("event id", "eventid", "id", "event_id", "eventcode", "instanceid"),
    "message": ("message", "description", "event description"),
    "record": ("recordid", "eventrecordid", "record id", "recordnumber", "index"),
    "log": ("logname", "channel", "log name", "log"),
}
_PROVIDER = re.compile(
    r"(?:Microsoft-Windows-)?(?:Kernel-Power|Power-Troubleshooter|Kernel-General|Hyper-V-Worker.*)$"
)
_MESSAGES = (
    (42, "Kernel-Power", "the system is entering sleep"),
    (107, "Kernel-Power", "the system has resumed from sleep"),
    (506, "Kernel-Power", "the system is entering"),
    (507, "Kernel-Power", "the system is exiting"),
    (41, "Kernel-Power", "the system has rebooted without"),
    (1, "Power-Troubleshooter", "the system has returned from a low power state"),
    (1, "Kernel-General", "the system time has changed"),
    (12, "Kernel-General", "the operating system started"),
    (13, "Kernel-General", "the operating system is shutting down"),
    (6005, "EventLog", "the event log service was started"),
    (6006, "EventLog", "the event log service was stopped"),
)
_ISO_TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)"
_SLEEP = re.compile(r"Sleep Time:\s*" + _ISO_TIME)
_WAKE = re.compile(r"Wake Time:\s*" + _ISO_TIME)
_SET = re.compile(r"has changed to\s+" + _ISO_TIME + r"\s+from\s+" + _ISO_TIME)
_SET_BECAUSE = re.compile(r"Change Reason:[^\n]*hardware clock")
_VM = re.compile(r"^'?(.+?)'? (?:was|started|saved|has)\b")
_THOUSANDS = re.compile(r"(?<=\d)[.,' ](?=\d{3}$)")
_ROWS_LOOKED_AT = 1_000


@dataclass(frozen=True)
class JournalOptions:
    """How journals were written, by the options of the command. `zone`: where local times were;
    `machine`: which of several."""

    zone: tzinfo = UTC
    date_order: DateOrder | None = None
    machine: str | None = None
    zone_given: bool = False


@dataclass(frozen=True)
class _Columns:
    time: int
    number: int
    provider: int | None
    message: int | None
    record: int | None = None
    log: int | None = None


@dataclass(frozen=True)
class _Row:
    """A row whose event number is known, and its time as it is written."""

    cells: list[str]
    columns: _Columns
    number: int
    when: str
    place: int

    @property
    def text(self) -> str:
        return ",".join(self.cells)[:200]

    def cell(self, place: int | None) -> str:
        """The contents of a column; "" where there is none."""
        return self.cells[place].strip() if place is not None and place < len(self.cells) else ""

    @property
    def message(self) -> str:
        """Everything from the message on, since Event Viewer does not quote it; without marks
        of direction."""
        place = self.columns.message
        if place is None:
            return ""
        # U+200E, the mark of a direction, is before each number of a time.
        return "".join(self.cells[place:]).replace("\u200e", "").strip()


def is_csv(sample: str) -> bool:
    """Whether this is the beginning of an event log as CSV."""
    return _layout(sample) is not None


def read(
    stream: TextIO, tally: Tally, writing: JournalOptions, sample: str
) -> PlacedJournal | None:
    """What rows report. Raises BadInput when it is not clear whether a time has the day or the
    month first, or whose events they are."""
    layout = _layout(sample)
    assert layout is not None
    rows = list(_rows(stream, tally, *layout))
    if _nameless(rows):
        raise BadInput(
            f"{tally.path}: no column has the provider of an event (ProviderName, "
            "Source), and no message in English "
            f"does; select ProviderName too, or {EXPORT_XML}"
        )
    order, local = _order(rows, tally, writing)
    reading = LocalTimeRules(writing.zone, order)
    if local and not writing.zone_given:
        tally.notes.append(
            "local times without a zone, taken for UTC; say where they were written with --zone"
        )
    before = tally.not_understood
    events = [*_events(rows, reading, tally)]
    if not events and tally.not_understood > before:
        raise BadInput(
            f"{tally.path}: no time of it is understood: {tally.examples[0]}; {EXPORT_XML}"
        )
    return place_events(events, tally, writing.machine, SUMMER_NS if local else OUT_OF_ORDER_NS)


# --- Rows and columns -----------------------------------------------------------------------------


def _layout(sample: str) -> tuple[str, _Columns | None] | None:
    """The delimiter, and the columns where only their contents say which they are; None for what is
    not such a CSV file."""
    lines = _lines_of_rows(sample)
    for delimiter in _DELIMITERS:
        if any(_named(row) for row in _parsed(lines[:5], delimiter)):
            return delimiter, None
    for delimiter in _DELIMITERS:
        columns = _by_content(_parsed(lines, delimiter))
        if columns is not None:
            return delimiter, columns
    return None


def _lines_of_rows(sample: str) -> list[str]:
    """The first lines, without the type that Export-Csv writes above them."""
    lines = sample.lstrip("\ufeff").splitlines()[:200]
    return [line for line in lines if line and not line.startswith("#TYPE")]


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    found: list[list[str]] = []
    with suppress(csv.Error):
        found.extend(csv.reader((f"{line}\n" for line in lines), delimiter=delimiter))
    return found


def _named(row: Sequence[str]) -> _Columns | None:
    """The columns that a heading names."""
    names = [plain(cell).strip('"').lower() for cell in row]
    place = {what: _first_of(allowed, names) for what, allowed in _NAMES.items()}
    time, number = place["time"], place["number"]
    if time is None or number is None or time == number:
        return None
    message = place["message"]
    if message is None:
        # Event Viewer writes the message after the last column that it names.
        message = len(names)
    return _Columns(time, number, place["provider"], message, place["record"], place["log"])


def _first_of(allowed: Sequence[str], names: Sequence[str]) -> int | None:
    """The position of the first allowed name among `names`."""
    return next((names.index(name) for name in allowed if name in names), None)


def _by_content(rows: Sequence[Sequence[str]]) -> _Columns | None:
    """The columns by what is in them: providers of sleep events, times, and numbers of events; None
    where one of these is not clear."""
    power_rows = [row for row in rows if any(map(_is_provider, row))]
    if not power_rows:
        return None
    provider = _only_column(power_rows, _is_provider)
    time = _only_column(power_rows, _is_time)
    number = _only_column(power_rows, lambda cell: _whole(cell) in NUMBERS)
    if provider is None or time is None or number is None:
        return None
    return _Columns(time, number, provider, max(provider, time, number) + 1)


def _only_column(rows: Sequence[Sequence[str]], fits: Callable[[str], bool]) -> int | None:
    """The one column whose every cell fits; None where none does, or several."""
    width = min(map(len, rows))
    columns = [place for place in range(width) if all(fits(row[place]) for row in rows)]
    return columns[0] if len(columns) == 1 else None


def _is_provider(cell: str) -> bool:
    return _PROVIDER.match(cell.strip()) is not None


def _is_time(text: str) -> bool:
    with suppress(ValueError):
        return iso_ns(plain(text), UTC) is not None or local_of(text) is not None
    return False


def _whole(text: str) -> int | None:
    """A number as people write it: 18.500 is one in some places."""
    text = _THOUSANDS.sub("", plain(text))
    return int(text) if text.isdecimal() and len(text) < 12 else None


def _rows(stream: TextIO, tally: Tally, delimiter: str, columns: _Columns | None) -> Iterator[_Row]:
    """The rows of events that may be about sleep, and those that show how far the log reaches."""
    given = columns is not None
    others = 0
    last: _Row | None = None
    for place, cells in enumerate(_cells(stream, tally, delimiter)):
        if not given and (named := _named(cells)) is not None:
            columns = named
            continue
        row = None if columns is None else _row(cells, columns, place)
        if row is None:
            if columns is not None and not _is_heading(cells, place == 0 and given):
                tally.broken(",".join(cells), "has no event number where the heading says", place)
            continue
        if row.number in NUMBERS | {BOOT_TYPE}:
            yield row
            last = None
            continue
        others += 1
        # Other events show how far the log reaches, and in which order it is.
        if others <= _ROWS_LOOKED_AT or others % 100 == 0:
            yield row
            last = None
        else:
            if last is not None:
                tally.other += 1
            last = row
    if last is not None:
        yield last


def _is_heading(cells: Sequence[str], may_name_columns: bool) -> bool:
    """What is not a row: nothing, a note of the writer, names of columns in another language, a
    line of a table."""
    text = "".join(cells).strip()
    notes = len(cells) == 1 and text.startswith(("#TYPE", "sep="))
    return not text or notes or may_name_columns or not text.strip("-: ")


def _cells(stream: TextIO, tally: Tally, delimiter: str) -> Iterator[list[str]]:
    rows = csv.reader(lines_of(stream), delimiter=delimiter)
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            tally.broken("", f"is not a row ({error})")


def _row(cells: list[str], columns: _Columns, place: int) -> _Row | None:
    if len(cells) <= max(columns.time, columns.number):
        return None
    number = _whole(cells[columns.number])
    if number is None:
        return None
    # The number of an instance (InstanceId) has flags above the number of its event.
    return _Row(cells, columns, number & 0xFFFF, cells[columns.time], place)


# --- What they report -----------------------------------------------------------------------------


def _nameless(rows: Sequence[_Row]) -> bool:
    """Whether the provider of the events is not known."""
    power_rows = [row for row in rows if row.number in NUMBERS]
    return bool(power_rows) and not any(map(_provider, power_rows))


def _provider(row: _Row) -> str:
    if row.columns.provider is not None:
        return row.cell(row.columns.provider)
    # PowerShell's `select TimeCreated, Id, Message` leaves the provider out.
    message = row.message.lower()
    for number, name, words in _MESSAGES:
        if number == row.number and message.startswith(words):
            return name
    return ""


def _order(rows: Sequence[_Row], tally: Tally, writing: JournalOptions) -> tuple[DateOrder, bool]:
    """Whether days or months come first, and whether there are local times at all."""
    local: list[LocalTime] = []
    known: list[tuple[LocalTime, int]] = []
    shown = ""
    for row in rows:
        if knows_its_zone(plain(row.when)):
            continue
        with suppress(ValueError):
            if iso_ns(plain(row.when), UTC) is None:
                local.append(local_of(row.when))
                shown = shown or row.when
                if (slept := _slept(row)) is not None:
                    known.append((local[-1], slept[1]))
    zoned = all(knows_its_zone(plain(row.when)) for row in rows)
    order = writing.date_order or order_of(local, known)
    if order is None:
        raise BadInput(
            f"{tally.path}: whether {shown!r} begins with the day or the month cannot be "
            "decided from its rows; say it "
            f"with --date-order day-first or --date-order month-first, or {EXPORT_XML}"
        )
    return order, not zoned


def _events(rows: Sequence[_Row], reading: LocalTimeRules, tally: Tally) -> Iterator[WindowsEvent]:
    before_ns: int | None = None
    rises = _rises(rows, reading)
    for row in rows if rises else reversed(rows):
        try:
            wall_ns = _row_ns(row.when, reading, before_ns)
        except ValueError as error:
            tally.broken(row.text, str(error), row.place)
            continue
        before_ns = wall_ns
        offset_s = offset_s_of(plain(row.when))
        if offset_s is not None:
            tally.offsets.add(wall_ns, offset_s)
        provider = _provider(row)
        vm = _VM.match(row.message) if HYPER_V in provider else None
        yield WindowsEvent(
            provider,
            row.number,
            wall_ns,
            row.text,
            slept=_slept(row) if short(provider) == "Power-Troubleshooter" else None,
            set=_set(row),
            set_because="2" if _SET_BECAUSE.search(row.message) else "",
            machine=vm[1] if vm else None,
            record=_whole(row.cell(row.columns.record)),
            log=row.cell(row.columns.log),
            boot_type=_boot_type(row) if row.number == BOOT_TYPE else None,
        )


def _boot_type(row: _Row) -> int | None:
    """Of "The boot type was 0x1.", in whichever language."""
    found = _HEXADECIMAL.search(row.message)
    return int(found[0], 16) if found else None


def _rises(rows: Sequence[_Row], reading: LocalTimeRules) -> bool:
    """Whether the oldest rows come first."""
    moments = []
    for row in rows:
        with suppress(ValueError):
            moments.append(_row_ns(row.when, reading, None))
    rises = sum(two > one for one, two in pairwise(moments))
    falls = sum(two < one for one, two in pairwise(moments))
    # As often up as down: the ends decide.
    if moments and rises == falls:
        return moments[-1] >= moments[0]
    return rises >= falls


def _row_ns(text: str, reading: LocalTimeRules, before_ns: int | None) -> int:
    """When a row was written. An hour that comes twice, at a summer's end, is the second where the
    first would lie before the row before. Raises ValueError."""
    known = iso_ns(plain(text), reading.zone)
    if known is not None:
        return known
    local = local_of(text)
    first_ns = moment_ns(local, reading)
    if before_ns is None or first_ns >= before_ns:
        return first_ns
    # PEP 495: fold=1 is the second of two equal local times.
    second_ns = moment_ns(local, reading, fold=1)
    is_repeated_hour = second_ns - first_ns <= SUMMER_NS and second_ns >= before_ns
    return second_ns if is_repeated_hour else first_ns


def _slept(row: _Row) -> tuple[int, int] | None:
    return _both(_SLEEP.search(row.message), _WAKE.search(row.message))


def _set(row: _Row) -> tuple[int, int] | None:
    """From when to when the clock was set, by the message that says so."""
    found = _SET.search(row.message)
    return None if found is None else _moments(found[2], found[1])


def _both(one: re.Match[str] | None, two: re.Match[str] | None) -> tuple[int, int] | None:
    return _moments(one[1], two[1]) if one and two else None


def _moments(one: str, two: str) -> tuple[int, int] | None:
    with suppress(ValueError):
        begins, ends = iso_ns(plain(one), UTC), iso_ns(plain(two), UTC)
        return None if begins is None or ends is None else (begins, ends)
    return None
