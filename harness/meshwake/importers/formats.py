"""Detects which kind of journal a file is, from its beginning, and opens it as text in any
encoding.

PowerShell writes UTF-16 when output is redirected, so that is taken as it comes. What cannot be
read as text (.evtx, a gzip), and text that lacks what counts (a journal printed for people), is
refused with the command that makes the right one.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from meshwake.core.errors import BadInput
from meshwake.core.text_files import encoding_of
from meshwake.importers import entries, libvirt, pmset, systemd, windows_csv, windows_xml
from meshwake.importers.items import Tally
from meshwake.importers.placement import PlacedJournal
from meshwake.importers.windows_csv import JournalOptions

DEFAULT_OPTIONS = JournalOptions()
_SAMPLE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 18
JOURNALCTL = 'journalctl -o json --since "1 month ago" > journal.json'
_PACKED = "compressed; unpack it first: "
# By the bytes with which such files begin.
_BINARY = {
    b"ElfFile\0": "a binary event log; make text of it on Windows: wevtutil qe FILE.evtx /lf:true /f:xml "
    "> events.xml",
    b"LPKSHHRH": "a binary journal; make text of it: journalctl --file FILE -o json > journal.json",
    b"\x1f\x8b": _PACKED + "gunzip FILE",
    b"\x28\xb5\x2f\xfd": _PACKED + "unzstd FILE",
    b"\xfd7zXZ\0": _PACKED + "unxz FILE",
    b"BZh": _PACKED + "bunzip2 FILE",
    b"PK\x03\x04": _PACKED + "unzip FILE",
    b"7z\xbc\xaf\x27\x1c": _PACKED + "7z x FILE",
}
KNOWN = (
    "journalctl -o json, pmset -g log, wevtutil qe System /f:xml (or CSV from Event Viewer "
    "or Export-Csv), "
    "virsh event --all --loop --timestamp, QMP events"
)

_JSON_JOURNAL = re.compile(r'"(?:__REALTIME_TIMESTAMP|__MONOTONIC_TIMESTAMP|__CURSOR)"\s*:')
_EXPORT_JOURNAL = re.compile(r"^__(?:CURSOR|REALTIME_TIMESTAMP)=\S+\s*$", re.MULTILINE)
_XML = re.compile(r"<(?:\w+:)?Events?[\s>]")
_CLOCK = r"\d\d:\d\d:\d\d"
# What journalctl, dmesg and syslog print for people. In all of them a clock is missing, or its
# year, or its boot.
_FOR_PEOPLE = re.compile(
    "|".join(
        (
            rf"^\S{{1,12}} +\d{{1,2}}\.? {_CLOCK}(?:\.\d+)? \S+ \S",  # short, short-precise, in any language
            rf"^\S{{1,12}} \d{{4}}-\d\d-\d\d {_CLOCK}(?:\.\d+)? \S+ ",  # short-full, with-unit, verbose
            # short-iso, syslog
            rf"^\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?:[.,]\d+)? ?(?:Z|[+-]\d\d:?\d\d) \S+ \S+?(?:\[\d+\])?: ",
            r"^\d{9,11}\.\d{6} \S+ \S",  # short-unix
            r"^(?:<\d+>|\w+ *: ?\w+ *: ?)?\[[ <>\d.+-]*\d\.\d{3,9}[ <>\d.+-]*\] ?\S",  # short-monotonic, -delta, dmesg
            rf"^\[\w{{3}} \w{{3}} +\d+ {_CLOCK} \d{{4}}\] ",  # dmesg -T
            rf"^\[\w{{3}} ?\d+ \d\d:\d\d\] |^\d{{4}}-\d\d-\d\dT{_CLOCK},\d{{6}}[+-]\d\d:\d\d ",  # dmesg -H, iso
            r'^\s*"dmesg"\s*:\s*\[',  # dmesg --json
            # entries of which something left out the clocks
            r'"(?:_SOURCE_(?:REALTIME|MONOTONIC)_TIMESTAMP|_BOOT_ID|_TRANSPORT|SYSLOG_IDENTIFIER|PRIORITY)"\s*:',
            r"^-- (?:Journal begins|Logs begin|No entries|Reboot|Boot [0-9a-f]{32})",
            r"^Hint: You are currently not seeing messages",
            # cat
            r"^(?:PM: |ACPI: |Linux version |Freezing |systemd\[1\]|Started |Stopped |Starting |Reached target )",
            r"^(?:Lid (?:closed|opened)|Suspending|Performing sleep operation|System returned from sleep)",
        )
    ),
    re.MULTILINE,
)
_MAC_FOR_PEOPLE = re.compile(
    rf"^\d{{4}}-\d\d-\d\d {_CLOCK}\.\d+[+-]\d{{4}}\s+(?:0x|\S+ (?:powerd|kernel)\b)|^Timestamp +Thread +Type",
    re.MULTILINE,
)
_WINDOWS_FOR_PEOPLE = re.compile(
    r"^\s*Event\[\d+\]|^\s*Log Name\s*:|^<Objs |^\s*TimeCreated\s*:|^-{3,} +-{2,}|\"TimeCreated\"\s*:|ProviderName: "
    r"|^\s*Index\s+Time\s+EntryType|^\[\d+\] Microsoft-Windows-|^Wake History|<title>\s*(?:SleepStudy|System Sleep)",
    re.MULTILINE,
)
_VIRSH_WITHOUT_TIME = re.compile(r"^event '[\w-]+' for domain", re.MULTILINE)
_VIRSH_TRANSLATED = re.compile(rf"^\d{{4}}-\d\d-\d\d {_CLOCK}\.\d+[+-]\d{{4}}: \S", re.MULTILINE)


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """`path` as text. Raises BadInput when it cannot be read or is not text."""
    with _opened_bytes(path) as (raw, start):
        yield io.TextIOWrapper(raw, encoding=_encoding(start), errors="replace", newline=None)


@contextmanager
def _opened_bytes(path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """`path` at its beginning, and the beginning itself."""
    try:
        raw = path.open("rb", buffering=_BUFFER_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{path}: cannot be read ({why}); give the path of a saved journal"
        ) from error
    with raw:
        try:
            start = raw.read(_SAMPLE_BYTES)
            raw.seek(0)
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be read ({error.strerror}); give the path of a saved journal"
            ) from error
        for magic, what in _BINARY.items():
            if start.startswith(magic):
                raise BadInput(f"{path}: is {what}")
        yield raw, start


def _encoding(start: bytes) -> str:
    encoding = encoding_of(start)
    if encoding != "utf-8-sig":
        return encoding
    try:
        # The last characters of a sample may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        # Event Viewer and Excel write the code page of Windows; what counts is ASCII.
        return "cp1252"
    return encoding


def read_journal(
    path: Path, tally: Tally, writing: JournalOptions = DEFAULT_OPTIONS
) -> PlacedJournal | systemd.SystemdJournal | None:
    """What the journal at `path` reports; `tally` is filled on the way. A systemd journal comes as
    its boots, since several files may be pieces of one. None: no entry has a time. Raises BadInput
    for what is not a known kind of journal."""
    with opened(path) as stream:
        sample = stream.read(_SAMPLE_BYTES)
    log = _systemd_log(path, sample, tally)
    if log is not None:
        return log
    placed = _host_log(path, sample, tally, writing)
    if placed is not None:
        placed.system = tally.system
    return placed


def read_systemd(path: Path, tally: Tally) -> systemd.SystemdJournal | None:
    """The boots of a systemd journal in any form that has both clocks; None for what is none."""
    with opened(path) as stream:
        sample = stream.read(_SAMPLE_BYTES)
    return _systemd_log(path, sample, tally)


def _systemd_log(path: Path, sample: str, tally: Tally) -> systemd.SystemdJournal | None:
    """The boots of a systemd journal; None for what is none. Raises BadInput."""
    if _EXPORT_JOURNAL.search(sample) and not _JSON_JOURNAL.search(sample):
        tally.system = systemd.SYSTEM
        with _opened_bytes(path) as (raw, start):
            if _encoding(start).startswith("utf-16"):
                raise BadInput(
                    f"{path}: was changed to UTF-16 on its way, which -o export does not "
                    f"survive; use: {JOURNALCTL}"
                )
            return systemd.read(entries.export_entries(raw, tally), tally)
    if _JSON_JOURNAL.search(sample):
        reader = entries.json_entries
    elif entries.CURSOR_HEADING.search(sample):
        reader = entries.verbose_entries
    else:
        return None
    tally.system = systemd.SYSTEM
    with opened(path) as stream:
        return systemd.read(reader(stream, tally), tally)


def _host_log(
    path: Path, sample: str, tally: Tally, writing: JournalOptions
) -> PlacedJournal | None:
    """The journal in the log of another system. Raises BadInput for what is not a known kind of
    journal."""
    # The most particular first: almost any text with commas may be a CSV.
    with opened(path) as stream:
        if _XML.search(sample):
            tally.system = windows_xml.SYSTEM
            return windows_xml.read(stream, tally, writing.machine)
        if libvirt.LINES.search(sample):
            tally.system = libvirt.SYSTEM
            return libvirt.read(stream, tally, writing.machine)
        if pmset.LINES.search(sample):
            tally.system = pmset.SYSTEM
            return pmset.read(stream, tally)
        if windows_csv.is_csv(sample):
            tally.system = windows_csv.SYSTEM
            return windows_csv.read(stream, tally, writing, sample)
    raise BadInput(f"{path}: {_why_not(sample)}")


def _why_not(sample: str) -> str:
    """What the text looks like, and the one line that makes what is needed."""
    if _WINDOWS_FOR_PEOPLE.search(sample):
        return f"is a Windows event log for people; {windows_csv.EXPORT_XML}"
    if _VIRSH_WITHOUT_TIME.search(sample) or _VIRSH_TRANSLATED.search(sample):
        return (
            "holds events of libvirt without their times, or in another language than "
            "English; print them with: "
            "LC_ALL=C virsh event --all --loop --timestamp > events.log"
        )
    if _MAC_FOR_PEOPLE.search(sample):
        return (
            "is a log of macOS that does not have every sleep; print it with: pmset -g log > "
            "pmset.log"
        )
    if _FOR_PEOPLE.search(sample):
        return (
            "is a journal for people, without both clocks of its entries; print it with: "
            f"{JOURNALCTL}"
        )
    shown = sample.strip()[:60]
    if not shown:
        return f"is empty; known are: {KNOWN}"
    return f"is not a known kind of journal (it begins {shown!r}); known are: {KNOWN}"
