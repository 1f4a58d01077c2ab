"""Entries of the systemd journal, from each form of `journalctl` that has both clocks of an entry:

    json        one object a line; also json-seq (a record separator before each), json-sse ("data: " before each),
                json-pretty, and an array as jq makes one
    export      lines NAME=value, an empty line after each entry; binary values with their length
    verbose     a heading with the cursor, which holds both clocks, then indented lines NAME=value

A broken entry costs itself and no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, TextIO

from meshwake.importers.items import LINE_CHARACTERS_MAX, Tally, checked_ns, lines_of

_NS_PER_US = 1_000
_MONOTONIC_NS_MAX = 100 * 366 * 86_400 * 1_000_000_000
# What journald writes at most of one field.
_BINARY_BYTES_MAX = 768 << 20
_SEPARATORS = " \t\r\n\x1e,[]\ufeff"
_OBJECT_BEGINS = re.compile(r'\{\s*"_')
_NAME = re.compile(rb"[A-Z_][A-Z0-9_]*$")
_FIELD = re.compile(r"\s+([A-Z_][A-Z0-9_]*)=(.*)")
CURSOR_HEADING = re.compile(
    r"\[(s=[0-9a-f]+;i=[0-9a-f]+;b=(?P<boot>[0-9a-f]{32});m=(?P<m>[0-9a-f]+);t=(?P<t>[0-9a-f]+);x=[0-9a-f]+)\]\s*$",
    re.MULTILINE,
)
_CURSOR = re.compile(r"s=([0-9a-f]+);i=([0-9a-f]+)")
_WHOLE_CURSOR = re.compile(r"s=[0-9a-f]+;i=[0-9a-f]+;b=([0-9a-f]{32});m=([0-9a-f]+);t=([0-9a-f]+)")
# Where containers print, the name of each stands before its lines.
_PREFIX = re.compile(r"^[^{}\"]{1,120}?(?=\{\s*\"_)")
_DECODER = json.JSONDecoder()

_SLEEP_IDS = {"6bbd95ee977941e497c48be27c254128", "8811e6df2a8e40f58a94cea26f8ebf14"}
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
    """One entry. `order`: the name of its journald's sequence, and its number there."""

    wall_ns: int
    monotonic_ns: int
    boot: str
    tells_of_sleep: bool
    clock_was_unset: bool
    order: tuple[str, int] | None
    machine: str
    host: str


def json_entries(stream: TextIO, tally: Tally) -> Iterator[JournalEntry]:
    """Entries of any of the JSON forms."""
    pending = ""
    for written in lines_of(stream):
        line = written if pending else _PREFIX.sub("", written, count=1)
        text = _bare(line)
        if pending and line.startswith("{"):
            # A new object at the beginning of a line: the one before it has lost its end.
            tally.broken(pending, "is no entry in JSON")
            pending = ""
        if not pending and not _begins(text, tally):
            continue
        fields = None if pending else _object(text)
        if fields is not None:
            yield from _entry(fields, text, tally)
            continue
        pending += line if pending else line[line.index("{") :]
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
    """Whether an object begins with this line; other text is counted, but for comments of json-sse."""
    if text and not text.startswith(("{", ":")):
        tally.broken(text, "is no entry in JSON")
    return text.startswith("{")


def _bare(line: str) -> str:
    """A line without what stands around objects: commas, brackets, record separators, "data:"."""
    return line.strip(_SEPARATORS).removeprefix("data:").strip(_SEPARATORS)


def _object(text: str) -> dict[str, Any] | None:
    """A whole object that is all of `text`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _objects(text: str, tally: Tally) -> tuple[list[tuple[dict[str, Any], str]], str]:
    """The whole objects at the beginning of `text`, and what is left after them."""
    found: list[tuple[dict[str, Any], str]] = []
    place = 0
    while True:
        while place < len(text) and text[place] in _SEPARATORS:
            place += 1
        if place >= len(text):
            return found, ""
        try:
            fields, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            following = _OBJECT_BEGINS.search(text, place + 1)
            if following is None:
                return found, text[place:]
            tally.broken(text[place : following.start()], "is no entry in JSON")
            place = following.start()
            continue
        if isinstance(fields, dict):
            found.append((fields, text[place : place + 200]))
        else:
            tally.broken(text[place:end], "is no entry in JSON")
        place = end


def export_entries(raw: BinaryIO, tally: Tally) -> Iterator[JournalEntry]:
    """Entries of `journalctl -o export`."""
    fields: dict[str, Any] = {}
    while line := raw.readline(LINE_CHARACTERS_MAX):
        name, equals, value = line.rstrip(b"\r\n").partition(b"=")
        if not name and not equals:
            yield from _whole(fields, tally)
            fields = {}
        elif equals and _NAME.match(name):
            fields[name.decode()] = value.decode("utf-8", "replace")
        elif not equals and _NAME.match(name) and _skip_binary(raw):
            continue
        else:
            fields["not understood"] = line[:200].decode("utf-8", "replace")
    yield from _whole(fields, tally)


def _skip_binary(raw: BinaryIO) -> bool:
    """Passes over a binary value; nothing that is looked for comes as one."""
    length = int.from_bytes(raw.read(8), "little")
    if length > _BINARY_BYTES_MAX:
        return False
    while length > 0 and (chunk := raw.read(min(length, LINE_CHARACTERS_MAX))):
        length -= len(chunk)
    return raw.readline(2) in (b"\n", b"\r\n", b"")


def _whole(fields: dict[str, Any], tally: Tally) -> Iterator[JournalEntry]:
    if "__REALTIME_TIMESTAMP" not in fields and "not understood" in fields:
        tally.broken(fields["not understood"], "is no field of an entry")
    elif fields:
        yield from _entry(fields, str(fields), tally)


def verbose_entries(stream: TextIO, tally: Tally) -> Iterator[JournalEntry]:
    """Entries of `journalctl -o verbose`: the cursor in an entry's heading has its clocks, in
    hexadecimal."""
    fields: dict[str, Any] = {}
    for line in lines_of(stream):
        if heading := CURSOR_HEADING.search(line):
            yield from _whole(fields, tally)
            fields = {
                "__CURSOR": heading[1],
                "__REALTIME_TIMESTAMP": int(heading["t"], 16),
                "__MONOTONIC_TIMESTAMP": int(heading["m"], 16),
                "_BOOT_ID": heading["boot"],
            }
        elif field := _FIELD.match(line):
            fields.setdefault(field[1], field[2].rstrip())
        elif line.strip() and not line.startswith((" ", "\t", "-- ")):
            tally.broken(line, "is no field of an entry")
    yield from _whole(fields, tally)


def _entry(fields: dict[str, Any], shown: str, tally: Tally) -> Iterator[JournalEntry]:
    """The entry that `fields` are, counted; nothing when they are none."""
    if cursor := _WHOLE_CURSOR.match(_text(fields.get("__CURSOR"))):
        boot, monotonic, wall = cursor.groups()
        told = {
            "__REALTIME_TIMESTAMP": int(wall, 16),
            "__MONOTONIC_TIMESTAMP": int(monotonic, 16),
            "_BOOT_ID": boot,
        }
        fields = {**told, **fields}
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
    tells = _tells_of_sleep(fields, message)
    tally.count(tells)
    yield JournalEntry(
        wall_ns,
        monotonic_ns,
        boot,
        tells,
        message.startswith(_FIRST_SET),
        _order(fields),
        _text(fields.get("_MACHINE_ID")),
        _text(fields.get("_HOSTNAME")),
    )


def _microseconds(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    try:
        return int(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"has a {name} that is no number") from error


def _text(value: Any) -> str:
    """A field as text: journalctl writes bytes that are no UTF-8 as numbers, and what stands twice
    as a list."""
    if isinstance(value, list):
        if value and all(isinstance(each, int) and 0 <= each < 256 for each in value):
            return bytes(value).decode("utf-8", "replace")
        return _text(value[0]) if value and not isinstance(value[0], list) else ""
    return value if isinstance(value, str) else ""


def _tells_of_sleep(fields: dict[str, Any], message: str) -> bool:
    if _text(fields.get("MESSAGE_ID")) in _SLEEP_IDS:
        return True
    # Saved without _TRANSPORT nobody can say whose words they are; only the kernel is known to
    # write these.
    return message.startswith(_SLEEP_WORDS) and fields.get("_TRANSPORT") in _KERNEL


def _order(fields: dict[str, Any]) -> tuple[str, int] | None:
    """Its place among all that its journald ever wrote, from a cursor or the fields that say so."""
    try:
        if "__SEQNUM" in fields:
            return _text(fields.get("__SEQNUM_ID")), int(fields["__SEQNUM"])
        found = _CURSOR.match(_text(fields.get("__CURSOR")))
        return (found[1], int(found[2], 16)) if found else None
    except (ValueError, TypeError, OverflowError):
        return None
