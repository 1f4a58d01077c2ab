"""How fast journals are read, and with how much memory: `python -m tests.bench.journals`. Files of
100 MB are made and read in a process of its own, one of each system.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from tests.support.paths import REPOSITORY

SIZE_BYTES = 100_000_000
READ = r"""
import sys, time
from pathlib import Path
from meshwake.importers import systemd
from meshwake.importers.formats import read_journal
from meshwake.importers.items import Tally
from tests.bench.use import own_peak_bytes
tally = Tally(sys.argv[1])
began = time.process_time()
read = read_journal(Path(sys.argv[1]), tally)
placed = systemd.place_boots(read) if isinstance(read, systemd.SystemdJournal) else read
items = len(placed.items)
used_s = time.process_time() - began
print(used_s, (own_peak_bytes() or 0) // 2**20, tally.entries, items)
"""
_STARTS_S = 1_790_000_000


def systemd() -> Iterator[str]:
    """A laptop's journal: an entry every ten seconds, eight hours of sleep every 16 hours of
    waking."""
    filler = {f"_FIELD_{number}": "x" * 60 for number in range(8)}
    slept_us = 0
    for number in count():
        if number % 5760 == 5759:
            slept_us += 28_800_000_000
        monotonic_us = 10_000_000 * number
        entry = {
            "__REALTIME_TIMESTAMP": str(_STARTS_S * 1_000_000 + monotonic_us + slept_us),
            "__MONOTONIC_TIMESTAMP": str(monotonic_us),
            "_BOOT_ID": "4a3f6c1d2b7e4f58a1c09d8e7f6a5b4c",
            "MESSAGE": "PM: suspend exit" if number % 5760 == 5759 else "something that happens",
            "_TRANSPORT": "kernel",
        }
        yield json.dumps(entry | filler) + "\n"


def pmset() -> Iterator[str]:
    """A Mac's log: mostly assertions."""
    for number in count():
        when = datetime.fromtimestamp(_STARTS_S + 30 * number, UTC).strftime(
            "%Y-%m-%d %H:%M:%S +0000"
        )
        what = (
            'Assertions          \tPID 388(WindowServer) Created UserIsActive "tickle" '
            "00:00:00  id:0x0x9000081a6"
        )
        if number % 1000 == 500:
            what = (
                "Sleep               \tEntering Sleep state due to 'Clamshell "
                "Sleep':TCPKeepAlive=active"
            )
        elif number % 1000 == 999:
            what = "Wake                \tWake from Deep Idle [CDNVA] : due to lid"
        yield f"{when} {what}\n"


def windows_xml() -> Iterator[str]:
    """A System log, exported whole: most events are others'."""
    for number in count():
        when = datetime.fromtimestamp(_STARTS_S + 60 * number, UTC).strftime(
            "%Y-%m-%dT%H:%M:%S.0000000Z"
        )
        event = {500: 42, 999: 107}.get(number % 1000, 7036)
        yield (
            "<Event "
            "xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider "
            "Name='Microsoft-Windows-Kernel-Power' Guid='{331c3b3a-2005-44c2-ac5e-77220c37d6b4}'/>"
            f"<EventID>{event}</EventID><Version>3</Version><TimeCreated SystemTime='{when}'/>"
            f"<EventRecordID>{number}</EventRecordID></System><EventData><Data "
            "Name='TargetState'>4</Data>"
            f"<Data Name='Filler'>{'x' * 300}</Data></EventData></Event>"
        )


SYSTEMS: dict[str, Callable[[], Iterator[str]]] = {
    "systemd": systemd,
    "pmset": pmset,
    "windows_xml": windows_xml,
}


def write(path: Path, entries: Iterator[str], size: int = SIZE_BYTES) -> None:
    """Writes entries until the file is as large as requested."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in entries:
            written += file.write(text)
            if written >= size:
                return


def measure(path: Path) -> tuple[float, int, int, int]:
    """User seconds, MiB at most, entries, and the items in them, of reading `path`."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path.resolve())],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    used_s, mib, entries, items = done.stdout.split()
    return float(used_s), int(mib), int(entries), int(items)


def main() -> None:
    """One line a system."""
    with tempfile.TemporaryDirectory() as folder:
        for system, entries in SYSTEMS.items():
            path = Path(folder) / system
            write(path, entries())
            used_s, mib, read, items = measure(path)
            sys.stdout.write(
                f"{system}: {used_s:.1f} s of one core, {mib} MiB, {read} entries, {items} items\n"
            )
            path.unlink()


if __name__ == "__main__":
    main()
