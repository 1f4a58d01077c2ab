"""Entries of the systemd journal, from each form of `journalctl` that has both clocks of an entry:

    json        one object a line; also json-seq (a record separator before each), json-sse ("data: " before each),
                json-pretty, and an array as jq makes one
    export      lines NAME=value, an empty line after each entry; binary values with their length
    verbose     a heading with the cursor, which holds both clocks, then indented lines NAME=value

A broken entry is counted and skipped; those around it are still read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, TextIO

from meshwake.core.json_types import MutableJsonObject
from meshwake.importers.items import LINE_CHARACTERS_MAX, Tally, checked_ns, lines_of

_NS_PER_US = 1_000
_US_PER_S = 1_000_000
# Offsets from UTC are multiples of this.
_OFFSETS_APART_S = 900
_WRITTEN_WITHIN_S = 60
_MONOTONIC_NS_MAX = 100 * 366 * 86_400 * 1_000_000_000
# The most that journald writes of one field (DATA_SIZE_MAX in journal-importer.h).
_BINARY_BYTES_MAX = 768 << 20
_SEPARATORS = " \t\r\n\x1e,[]\ufeff"
_OBJECT_BEGINS = re.compile(r'\{\s*"_')
_NAME = re.compile(rb"[A-Z_][A-Z0-9_]*$")
_FIELD = re.compile(r"\s+([A-Z_][A-Z0-9_]*)=(.*)")
CURSOR_HEADING = re.compile(
    r"\[(s=[0-9a-f]+;i=[0-9a-f]+;b=(?P<boot>[0-9a-f]{32});"
    r"m=(?P<m>[0-9a-f]+);t=(?P<t>[0-9a-f]+);x=[0-9a-f]+)\]\s*$",
    re.MULTILINE,
)
_LOCAL_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? \S+ $")
_CURSOR = re.compile(r"s=([0-9a-f]+);i=([0-9a-f]+)")
_WHOLE_CURSOR = re.compile(r"s=[0-9a-f]+;i=[0-9a-f]+;b=([0-9a-f]{32});m=([0-9a-f]+);t=([0-9a-f]+)")
# A log of several containers has the name of each before its lines.
_PREFIX = re.compile(r"^[^{}\"]{1,120}?(?=\{\s*\"_)")
_DECODER = json.JSONDecoder()

# MESSAGE_ID of systemd-sleep (sd-messages.h): SD_MESSAGE_SLEEP_START and SD_MESSAGE_SLEEP_STOP.
_SLEEP_IDS = {"6bbd95ee977941e497c48be27c254128", "8811e6df2a8e40f58a94cea26f8ebf14"}
# What the kernel logs around a suspend (kernel/power/suspend.c, hibernate.c, process.c).
_SLEEP_WORDS = (
    "PM: suspend entry",
    "PM: suspend exit",
    "PM: hibernation",
    "PM: Preparing system for sleep",
    "PM: Finishing wakeup",
    "PM: Entering mem sleep",
)
_KERNEL = ("kernel", None)
# timesyncd says this once after its start: what the clock showed before was not known to be right.
_FIRST_SET = ("Initial clock synchronization", "Initial synchronization to time server")


class JournalEntry(NamedTuple):
    """One entry. `about_sleep`: it is a message of a suspend; `clock_was_unset`: it says that the
    clock was synchronised for the first time; `order`: the name of its journald's sequence, and
    its number there."""

    wall_ns: int
    monotonic_ns: int
    boot: str
    about_sleep: bool
    clock_was_unset: bool
    order: tuple[str, int] | None
    machine: str
    host: str


def json_entries(stream: TextIO, tally: Tally) -> Iterator[JournalEntry]:
    """Entries of any of the JSON forms."""
    # What is read of an object that does not end on its first line.
    pending = ""
    for written in lines_of(stream):
        line = written if pending else _PREFIX.sub("", written, count=1)
        text = _bare(line)
        if pending and line.startswith("{"):
            # A new object at the beginning of a line: the one before it has lost its end.
            tally.broken(pending, "is not an entry in JSON")
            pending = ""
        if not pending:
            if not _begins(text, tally):
                continue
            # Nearly always an object is one line, which is parsed once. What is not whole is
            # collected below until it is.
            fields = _object(text)
            if fields is not None:
                yield from _entry(fields, text, tally)
                continue
        pending += line if pending else line[line.index("{") :]
        # Only where an object may end, or each line of a pretty-printed one would be parsed with
        # all before it. A line without an end is a piece of a longer one (lines_of).
        if text.endswith("}") or not line.endswith("\n"):
            found, pending = _objects(pending, tally)
            for fields, shown in found:
                yield from _entry(fields, shown, tally)
        if len(pending) > 4 * LINE_CHARACTERS_MAX:
            tally.broken(pending, "has no end")
            pending = ""
    if _bare(pending):
        tally.broken(pending, "breaks off")


def _begins(text: str, tally: Tally) -> bool:
    """Whether an object begins with this line; other text is counted, but for the comments of
    json-sse, which begin with a colon."""
    if text and not text.startswith(("{", ":")):
        tally.broken(text, "is not an entry in JSON")
    return text.startswith("{")


def _bare(line: str) -> str:
    """A line without what surrounds objects: commas, brackets, record separators, "data:"."""
    return line.strip(_SEPARATORS).removeprefix("data:").strip(_SEPARATORS)


def _object(text: str) -> MutableJsonObject | None:
    """A whole object that is all of `text`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _objects(text: str, tally: Tally) -> tuple[list[tuple[MutableJsonObject, str]], str]:
    """The whole objects at the beginning of `text`, and what is left after them."""
    found: list[tuple[MutableJsonObject, str]] = []
    position = 0
    while True:
        while position < len(text) and text[position] in _SEPARATORS:
            position += 1
        if position >= len(text):
            return found, ""
        try:
            fields, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            # Half an object, or a broken one. If another begins behind it, it is broken.
            following = _OBJECT_BEGINS.search(text, position + 1)
            if following is None:
                return found, text[position:]
            tally.broken(text[position : following.start()], "is not an entry in JSON")
            position = following.start()
            continue
        if isinstance(fields, dict):
            found.append((fields, text[position : position + 200]))
        else:
            tally.broken(text[position:end], "is not an entry in JSON")
        position = end


def export_entries(raw: BinaryIO, tally: Tally) -> Iterator[JournalEntry]:
    """Entries of `journalctl -o export`: lines NAME=value, and an empty line after each entry. A
    name alone announces a binary value: its length as eight bytes, then the value."""
    fields: MutableJsonObject = {}
    while line := raw.readline(LINE_CHARACTERS_MAX):
        if line.rstrip(b"\r\n"):
            _take_field(raw, line, fields)
        else:
            yield from _whole(fields, tally)
            fields = {}
    yield from _whole(fields, tally)


def _take_field(raw: BinaryIO, line: bytes, fields: MutableJsonObject) -> None:
    """Adds the field that begins with `line`; a binary one is skipped."""
    name, equals, value = line.rstrip(b"\r\n").partition(b"=")
    if _NAME.match(name):
        if equals:
            fields[name.decode()] = value.decode("utf-8", "replace")
            return
        # A name alone: its value is binary.
        if _skip_binary(raw):
            return
    fields["not understood"] = line[:200].decode("utf-8", "replace")


def _skip_binary(raw: BinaryIO) -> bool:
    """Reads past a binary value, since no field that is needed comes as one. False for a length
    that journald never writes."""
    length = int.from_bytes(raw.read(8), "little")
    if length > _BINARY_BYTES_MAX:
        return False
    while length > 0:
        chunk = raw.read(min(length, LINE_CHARACTERS_MAX))
        # The file breaks off.
        if not chunk:
            break
        length -= len(chunk)

    # systemd's JOURNAL_EXPORT_FORMATS: a line end follows the value.
    return raw.readline(2) in (b"\n", b"\r\n", b"")


def _whole(fields: MutableJsonObject, tally: Tally) -> Iterator[JournalEntry]:
    if "__REALTIME_TIMESTAMP" not in fields and "not understood" in fields:
        tally.broken(str(fields["not understood"]), "is not a field of an entry")
    elif fields:
        yield from _entry(fields, str(fields), tally)


def verbose_entries(stream: TextIO, tally: Tally) -> Iterator[JournalEntry]:
    """Entries of `journalctl -o verbose`: the cursor in an entry's heading has its clocks, in
    hexadecimal."""
    fields: MutableJsonObject = {}
    for line in lines_of(stream):
        heading = CURSOR_HEADING.search(line)
        if heading is not None:
            yield from _whole(fields, tally)
            wall_us = int(heading["t"], 16)
            _see_offset(line[: heading.start()], wall_us, tally)
            fields = {
                "__CURSOR": heading[1],
                "__REALTIME_TIMESTAMP": wall_us,
                "__MONOTONIC_TIMESTAMP": int(heading["m"], 16),
                "_BOOT_ID": heading["boot"],
            }
            continue
        field = _FIELD.match(line)
        if field is not None:
            # The heading's own come first, and of a field that is there twice the first counts.
            fields.setdefault(field[1], field[2].rstrip())
        elif line.strip() and not line.startswith((" ", "\t", "-- ")):
            tally.broken(line, "is not a field of an entry")
    yield from _whole(fields, tally)


def _see_offset(text: str, wall_us: int, tally: Tally) -> None:
    """What precedes the cursor is the same moment in local time, with the abbreviation of its zone,
    which several zones may have: CST is China's and Chicago's."""
    local = _LOCAL_TIME.search(text)
    if local is None:
        return
    try:
        shown = datetime.fromisoformat(f"{local[1]}T{local[2]}Z")
    except ValueError:
        return
    ahead_s = int(shown.timestamp()) - wall_us // _US_PER_S

    # An entry may show when its message was written, some seconds before it reached journald.
    offset_s = round(ahead_s / _OFFSETS_APART_S) * _OFFSETS_APART_S
    if abs(ahead_s - offset_s) < _WRITTEN_WITHIN_S:
        tally.offsets.add(wall_us * _NS_PER_US, offset_s)


def _entry(fields: MutableJsonObject, shown: str, tally: Tally) -> Iterator[JournalEntry]:
    """The entry that `fields` describe, counted; nothing when they describe none."""
    # What the entry itself has counts more than its cursor.
    fields = {**_clocks_of_cursor(fields), **fields}
    try:
        wall_ns = checked_ns(_microseconds(fields, "__REALTIME_TIMESTAMP") * _NS_PER_US)
        monotonic_ns = _microseconds(fields, "__MONOTONIC_TIMESTAMP") * _NS_PER_US
        if not 0 <= monotonic_ns < _MONOTONIC_NS_MAX:
            raise ValueError("has a monotonic time of more than a hundred years")
        boot = str(fields["_BOOT_ID"])
    except KeyError as error:
        tally.broken(shown, f"has no {error.args[0]}")
        return
    except ValueError as error:
        tally.broken(shown, str(error))
        return
    message = _text(fields.get("MESSAGE"))
    about_sleep = _is_about_sleep(fields, message)
    tally.count(about_sleep)
    yield JournalEntry(
        wall_ns=wall_ns,
        monotonic_ns=monotonic_ns,
        boot=boot,
        about_sleep=about_sleep,
        clock_was_unset=message.startswith(_FIRST_SET),
        order=_order(fields),
        machine=_text(fields.get("_MACHINE_ID")),
        host=_text(fields.get("_HOSTNAME")),
    )


def _clocks_of_cursor(fields: MutableJsonObject) -> MutableJsonObject:
    """What a cursor says of its entry: m= and t= are the two clocks in microseconds, hexadecimal,
    b= is the boot."""
    cursor = _WHOLE_CURSOR.match(_text(fields.get("__CURSOR")))
    if cursor is None:
        return {}
    boot, monotonic, wall = cursor.groups()
    return {
        "__REALTIME_TIMESTAMP": int(wall, 16),
        "__MONOTONIC_TIMESTAMP": int(monotonic, 16),
        "_BOOT_ID": boot,
    }


def _microseconds(fields: MutableJsonObject, name: str) -> int:
    try:
        return _whole_number(fields[name])
    except ValueError as error:
        raise ValueError(f"has a {name} that is not a number") from error


def _whole_number(value: object) -> int:
    """journalctl writes numbers as text; other programs that save entries, as numbers. Raises
    ValueError."""
    # A program that saved entries may have made numbers of the texts.
    if not isinstance(value, str | int | float):
        # A file that is not what it should be, not a wrong type in our own code.
        raise ValueError(f"{str(value)[:40]!r} is not a number")  # noqa: TRY004
    try:
        return int(value)
    except OverflowError as error:  # infinity
        raise ValueError(f"{value!r} is not a whole number") from error


def _text(value: Any) -> str:
    """A field as text. journalctl writes bytes that are not UTF-8 as a list of numbers, and a field
    that occurs twice as a list of values."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return ""
    if _are_bytes(value):
        return bytes(value).decode("utf-8", "replace")

    # journald writes no list in a list; to follow one would be a call for each bracket of it.
    first = value[0]
    return "" if isinstance(first, list) else _text(first)


def _are_bytes(values: list[Any]) -> bool:
    return all(isinstance(each, int) and 0 <= each < 256 for each in values)


def _is_about_sleep(fields: MutableJsonObject, message: str) -> bool:
    if _text(fields.get("MESSAGE_ID")) in _SLEEP_IDS:
        return True
    # The kernel's own lines come by transport "kernel". Of an entry that was saved without
    # _TRANSPORT the sender is unknown, but only the kernel is known to write these sentences.
    return message.startswith(_SLEEP_WORDS) and fields.get("_TRANSPORT") in _KERNEL


def _order(fields: MutableJsonObject) -> tuple[str, int] | None:
    """Its number among all entries that its journald ever wrote, and the name of that sequence."""
    # journalctl has it as a field of its own since systemd 254, and always had it in the cursor.
    if "__SEQNUM" in fields:
        sequence = _text(fields.get("__SEQNUM_ID"))
        try:
            return sequence, _whole_number(fields["__SEQNUM"])
        except ValueError:
            return None
    cursor = _CURSOR.match(_text(fields.get("__CURSOR")))
    if cursor is None:
        return None
    return cursor[1], int(cursor[2], 16)
