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
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import TextIO

from meshwake.core.errors import BadInput
from meshwake.importers.items import Tally, falls_in, lines_of, rises_in
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
    utc_ns,
)
from meshwake.importers.placement import OUT_OF_ORDER_NS, PlacedJournal
from meshwake.importers.windows import (
    BOOT_TYPE,
    FROM_HARDWARE,
    HYPER_V,
    NUMBERS,
    TROUBLE,
    WindowsEvent,
    place_events,
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
# Of the number of a record: no log has more events. A longer one is something else.
_DIGITS_MAX = 11


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
        # A row may be shorter than its heading.
        if place is None or place >= len(self.cells):
            return ""

        return self.cells[place].strip()

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

    order = _order(rows, tally, writing)
    reading = LocalTimeRules(writing.zone, order)
    local = not all(knows_its_zone(plain(row.when)) for row in rows)
    if local and not writing.zone_given:
        tally.notes.append(
            "local times without a zone, taken for UTC; say where they were written with --zone"
        )

    before = tally.not_understood
    events = list(_events(rows, reading, tally))

    # An import of nothing would look like a machine that never slept.
    if not events and tally.not_understood > before:
        raise BadInput(
            f"{tally.path}: no time of it is understood: {tally.examples[0]}; {EXPORT_XML}"
        )

    # Where summer ends, local times repeat an hour.
    tolerance_ns = SUMMER_NS if local else OUT_OF_ORDER_NS
    return place_events(events, tally, writing.machine, tolerance_ns)


# --- Rows and columns -----------------------------------------------------------------------------


def _layout(sample: str) -> tuple[str, _Columns | None] | None:
    """The delimiter, and the columns where only their contents say which they are; None for what is
    not such a CSV file."""
    lines = _lines_of_rows(sample)
    # A heading says more than contents do, so it is looked for with every delimiter first.
    for delimiter in _DELIMITERS:
        # Not the very first line: a note of the writer may be above the heading.
        rows = _parsed(lines[:5], delimiter)
        if any(map(_named, rows)):
            return delimiter, None

    for delimiter in _DELIMITERS:
        rows = _parsed(lines, delimiter)
        columns = _by_content(rows)
        if columns is not None:
            return delimiter, columns

    return None


def _lines_of_rows(sample: str) -> list[str]:
    """The first lines, without the type that Export-Csv writes above them."""
    # A byte order mark would hide the type, or become a part of the first name.
    lines = sample.lstrip("\ufeff").splitlines()[:200]
    filled = filter(None, lines)
    return [line for line in filled if not line.startswith("#TYPE")]


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The rows up to the first that is none."""
    rows: list[list[str]] = []

    # With their ends, since a quoted cell may have several lines.
    whole_lines = [f"{line}\n" for line in lines]
    with suppress(csv.Error):
        rows.extend(csv.reader(whole_lines, delimiter=delimiter))
    return rows


def _named(row: Sequence[str]) -> _Columns | None:
    """The columns that a heading names."""
    names = [plain(cell).strip('"').lower() for cell in row]
    time = _place_of("time", names)
    number = _place_of("number", names)

    # A row without either of these is of no use.
    if time is None or number is None:
        return None

    message = _place_of("message", names)
    if message is None:
        # Event Viewer writes the message after the last column that it names.
        message = len(names)
    return _Columns(
        time=time,
        number=number,
        provider=_place_of("provider", names),
        message=message,
        record=_place_of("record", names),
        log=_place_of("log", names),
    )


def _place_of(column: str, names: Sequence[str]) -> int | None:
    """The position of a column by the first of its names that `names` have."""
    for allowed in _NAMES[column]:
        if allowed in names:
            return names.index(allowed)
    return None


def _by_content(rows: Sequence[Sequence[str]]) -> _Columns | None:
    """The columns by what is in them: providers of sleep events, times, and numbers of events; None
    where one of these is not clear."""
    power_rows = [row for row in rows if any(map(_is_provider, row))]
    if not power_rows:
        return None

    try:
        provider = _only_column(power_rows, _is_provider)
        time = _only_column(power_rows, _is_time)
        number = _only_column(power_rows, _is_known_number)
    except ValueError:
        return None

    # The message is behind all columns that are found by their contents.
    message = max(provider, time, number) + 1
    return _Columns(time, number, provider, message)


def _only_column(rows: Sequence[Sequence[str]], fits: Callable[[str], bool]) -> int:
    """The one column whose every cell fits. Raises ValueError where none does, or several."""
    # The message, which is not quoted, is cut into more cells in some rows than in others.
    width = min(map(len, rows))
    columns: list[int] = []
    for place in range(width):
        cells = [row[place] for row in rows]
        if all(map(fits, cells)):
            columns.append(place)

    (column,) = columns
    return column


def _is_provider(cell: str) -> bool:
    return _PROVIDER.match(cell.strip()) is not None


def _is_time(text: str) -> bool:
    # Either raises for a text that is not a time of its form.
    with suppress(ValueError):
        if iso_ns(plain(text), UTC) is None:
            local_of(text)
        return True
    return False


def _is_known_number(cell: str) -> bool:
    return _whole(cell) in NUMBERS


def _whole(text: str) -> int | None:
    """A number as people write it: 18.500 is one in some places."""
    digits = _THOUSANDS.sub("", plain(text))

    if not digits.isdecimal() or len(digits) > _DIGITS_MAX:
        return None
    return int(digits)


def _rows(stream: TextIO, tally: Tally, delimiter: str, columns: _Columns | None) -> Iterator[_Row]:
    """The rows of events that may be about sleep, and those that show how far the log reaches."""
    others = 0
    passed_over: _Row | None = None
    for row in _all_rows(stream, tally, delimiter, columns):
        # It is not the last one, so only its number is of interest.
        if passed_over is not None:
            tally.other += 1
            passed_over = None
        if row.number in NUMBERS or row.number == BOOT_TYPE:
            yield row
            continue
        others += 1
        # Other events show how far the log reaches, and in which order it is; of a long log a
        # hundredth of them is enough for that.
        if others <= _ROWS_LOOKED_AT or others % 100 == 0:
            yield row
        else:
            passed_over = row

    # The very last row shows where the log ends, whatever it is about.
    if passed_over is not None:
        yield passed_over


def _all_rows(
    stream: TextIO, tally: Tally, delimiter: str, given: _Columns | None
) -> Iterator[_Row]:
    """Every row below a heading, or every one where the columns are `given`. Others are counted."""
    columns = given
    for place, cells in enumerate(_cells(stream, tally, delimiter)):
        if given is None:
            # Files that were put together have a heading each.
            named = _named(cells)
            if named is not None:
                columns = named
                continue
        # Above the first heading.
        if columns is None:
            continue

        row = _row(cells, columns, place)
        if row is not None:
            yield row
            continue
        # Where the columns are known by their contents, the first row may name them in another
        # language.
        may_be_heading = given is not None and place == 0
        if _has_event(cells) and not may_be_heading:
            tally.broken(",".join(cells), "has no event number where the heading says", place)


def _has_event(cells: Sequence[str]) -> bool:
    """Whether it should be a row: not nothing, a note of the writer, or a line of a table."""
    text = "".join(cells).strip()
    if not text.strip("-: "):
        return False

    # Export-Csv writes the type of its objects; "sep=;" is the delimiter, for Excel.
    is_note = len(cells) == 1 and text.startswith(("#TYPE", "sep="))
    return not is_note


def _cells(stream: TextIO, tally: Tally, delimiter: str) -> Iterator[list[str]]:
    rows = csv.reader(lines_of(stream), delimiter=delimiter)
    # Not a `for`, which could not go on behind a row that is broken.
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            tally.broken("", f"is not a row ({error})")


def _row(cells: list[str], columns: _Columns, place: int) -> _Row | None:
    """A row; None where it has no event number."""
    if len(cells) <= max(columns.time, columns.number):
        return None
    number = _whole(cells[columns.number])
    if number is None:
        return None

    return _Row(
        cells=cells,
        columns=columns,
        # The number of an instance (InstanceId) has flags above the number of its event.
        number=number & 0xFFFF,
        when=cells[columns.time],
        place=place,
    )


# --- What they report -----------------------------------------------------------------------------


def _nameless(rows: Sequence[_Row]) -> bool:
    """Whether the provider of the events is not known."""
    # Of the others none is needed: an event about something else only shows its time.
    power_rows = [row for row in rows if row.number in NUMBERS]
    if not power_rows:
        return False
    return not any(map(_provider, power_rows))


def _provider(row: _Row) -> str:
    """The program that wrote the event; "" where neither a column nor the message shows it."""
    if row.columns.provider is not None:
        return row.cell(row.columns.provider)

    # PowerShell's `select TimeCreated, Id, Message` leaves the provider out.
    message = row.message.lower()
    for number, name, words in _MESSAGES:
        # Several programs have an event 1, so the number alone does not do.
        is_its_message = number == row.number and message.startswith(words)
        if is_its_message:
            return name

    return ""


def _order(rows: Sequence[_Row], tally: Tally, writing: JournalOptions) -> DateOrder:
    """Whether days or months come first. Raises BadInput where the rows do not decide it, and
    `writing` neither."""
    if writing.date_order is not None:
        return writing.date_order
    local: list[LocalTime] = []
    known: list[tuple[LocalTime, int]] = []
    ambiguous = ""

    for row in rows:
        # A row that is not understood decides nothing; it is counted where events are read.
        with suppress(ValueError):
            if iso_ns(plain(row.when), UTC) is not None:
                continue

            time = local_of(row.when)
            local.append(time)
            ambiguous = ambiguous or row.when
            # The message has the true time of the wake, which is about when it was written.
            slept = _slept(row)
            if slept is not None:
                known.append((time, slept[1]))

    order = order_of(local, known)
    if order is None:
        raise BadInput(
            f"{tally.path}: whether {ambiguous!r} begins with the day or the month cannot be "
            "decided from its rows; say it "
            f"with --date-order day-first or --date-order month-first, or {EXPORT_XML}"
        )
    return order


def _events(rows: Sequence[_Row], reading: LocalTimeRules, tally: Tally) -> Iterator[WindowsEvent]:
    """The events, oldest first: which of two equal local times one is depends on those before."""
    if not _is_oldest_first(rows, reading):
        rows = rows[::-1]

    before_ns: int | None = None
    for row in rows:
        try:
            wall_ns = _row_ns(row.when, reading, before_ns)
        except ValueError as error:
            tally.broken(row.text, str(error), row.place)
            continue

        before_ns = wall_ns
        offset_s = offset_s_of(plain(row.when))
        if offset_s is not None:
            tally.offsets.add(wall_ns, offset_s)
        yield _event(row, wall_ns)


def _event(row: _Row, wall_ns: int) -> WindowsEvent:
    """What the other cells of a row say, and its message."""
    event = WindowsEvent(
        provider=_provider(row),
        number=row.number,
        wall_ns=wall_ns,
        text=row.text,
        set=_set(row),
        record=_whole(row.cell(row.columns.record)),
        log=row.cell(row.columns.log),
    )

    # Only of this program: "Sleep Time:" in the message of another would be something else.
    if event.source == TROUBLE:
        event = replace(event, slept=_slept(row))
    if _SET_BECAUSE.search(row.message):
        event = replace(event, set_because=FROM_HARDWARE)
    if row.number == BOOT_TYPE:
        event = replace(event, boot_type=_boot_type(row))
    if HYPER_V in event.provider:
        # "'k3s' was saved": each message begins with the VM's name.
        vm = _VM.match(row.message)
        event = replace(event, machine=vm[1] if vm else None)
    return event


def _boot_type(row: _Row) -> int | None:
    """Of "The boot type was 0x1.", in whichever language."""
    found = _HEXADECIMAL.search(row.message)
    if found is None:
        return None
    return int(found[0], 16)


def _is_oldest_first(rows: Sequence[_Row], reading: LocalTimeRules) -> bool:
    moments: list[int] = []
    for row in rows:
        with suppress(ValueError):
            moments.append(_row_ns(row.when, reading, None))

    rises = rises_in(moments)
    falls = falls_in(moments)

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

    # Where the hour is not repeated, fold=1 changes nothing, and the row is out of order; so it is
    # where the second is too early as well.
    is_repeated_hour = second_ns - first_ns <= SUMMER_NS
    if is_repeated_hour and second_ns >= before_ns:
        return second_ns
    return first_ns


def _slept(row: _Row) -> tuple[int, int] | None:
    """From when to when the machine slept, by the message of Power-Troubleshooter."""
    sleep = _SLEEP.search(row.message)
    wake = _WAKE.search(row.message)

    # In another language than English the two have other names.
    if sleep is None or wake is None:
        return None
    return _moments(sleep[1], wake[1])


def _set(row: _Row) -> tuple[int, int] | None:
    """From when to when the clock was set, by the message that says so."""
    found = _SET.search(row.message)
    if found is None:
        return None

    # "has changed to NEW from OLD".
    return _moments(found[2], found[1])


def _moments(begins: str, ends: str) -> tuple[int, int] | None:
    """Two times of a message in ns; None where one cannot be: the event itself is good."""
    with suppress(ValueError):
        return utc_ns(plain(begins)), utc_ns(plain(ends))
    return None
