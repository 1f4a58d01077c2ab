"""Which kind of journal a file is, told from its beginning; and the file opened as text, whatever its encoding.

PowerShell writes UTF-16 when output is redirected, so that is taken as it comes. What cannot be read as text (.evtx, a
gzip) is refused with the command that makes text of it.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TextIO

from harness.errors import BadInput
from harness.journals import libvirt, pmset, systemd, windows
from harness.journals.items import Item, Tally

_SAMPLE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 18
_PMSET = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} \w", re.MULTILINE)
_LIBVIRT = re.compile(
    r"event '[\w-]+' for domain|^event [A-Z_]+ at \d+\.\d+ for domain|starting up libvirt version", re.MULTILINE
)
_SHORT_JOURNAL = re.compile(
    r"^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) \S+ \S+?(?:\[\d+\])?: ", re.MULTILINE
)
_CSV_HEADING = re.compile(r"(date and time|timecreated).*(event id|\bid\b)", re.IGNORECASE)
_BINARY = {
    b"ElfFile\0": "a binary event log; make text of it on Windows: wevtutil qe FILE.evtx /lf:true /f:xml > events.xml",
    b"\x1f\x8b": "compressed; unpack it first: gunzip FILE",
    b"LPKSHHRH": "a binary journal; make text of it: journalctl --file FILE -o json > journal.json",
}
KNOWN = (
    "journalctl -o json, pmset -g log, wevtutil qe System /f:xml (or CSV from Event Viewer or Export-Csv), "
    "virsh event --all --loop --timestamp, QMP events"
)


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """`path` as text. Raises BadInput when it cannot be read or is no text."""
    try:
        raw = path.open("rb", buffering=_BUFFER_BYTES)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); give the path of a saved journal") from error
    with raw:
        try:
            start = raw.read(_SAMPLE_BYTES)
            raw.seek(0)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); give the path of a saved journal") from error
        for magic, what in _BINARY.items():
            if start.startswith(magic):
                raise BadInput(f"{path}: is {what}")
        yield io.TextIOWrapper(raw, encoding=_encoding(start), errors="replace", newline=None)


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-8-sig"


def read_journal(path: Path, tally: Tally, zone: tzinfo = UTC, machine: str | None = None) -> Iterator[Item]:
    """What the journal at `path` tells, as a stream; `tally` is filled on the way. Raises BadInput for what is no
    journal that is known."""
    with opened(path) as stream:
        reader = _kind(_sample(path), path)
        tally.system = reader
        if reader == systemd.SYSTEM:
            yield from systemd.read(stream, tally)
        elif reader == pmset.SYSTEM:
            yield from pmset.read(stream, tally)
        elif reader == windows.SYSTEM_XML:
            yield from windows.read_xml(stream, tally, machine)
        elif reader == windows.SYSTEM_CSV:
            yield from windows.read_csv(stream, tally, zone, machine)
        else:
            yield from libvirt.read(stream, tally, machine)


def _sample(path: Path) -> str:
    with opened(path) as stream:
        return stream.read(_SAMPLE_BYTES)


def _kind(sample: str, path: Path) -> str:
    """The name of the system. Raises BadInput with what is known."""
    if '"__REALTIME_TIMESTAMP"' in sample:
        return systemd.SYSTEM
    if re.search(r"<Event[\s>]", sample) or "<Events" in sample:
        return windows.SYSTEM_XML
    if _LIBVIRT.search(sample) or ('"event"' in sample and '"microseconds"' in sample):
        return libvirt.SYSTEM
    if _PMSET.search(sample):
        return pmset.SYSTEM
    if _CSV_HEADING.search(sample):
        return windows.SYSTEM_CSV
    if _SHORT_JOURNAL.search(sample):
        raise BadInput(f"{path}: is a journal for people, without monotonic time; print it with: journalctl -o json")
    shown = sample.strip()[:60]
    raise BadInput(f"{path}: is no journal that is known (it begins {shown!r}); known are: {KNOWN}")
