"""Journals of every system, whole and broken ones, read from tests/data/journals
(docs/sleep-journals.md says after what each was written).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.importers import systemd
from meshwake.importers.formats import read_journal
from meshwake.importers.items import Tally
from meshwake.importers.placement import PlacedJournal
from meshwake.importers.sleep_history import SleepHistory, sleep_history_of
from meshwake.importers.windows_csv import JournalOptions

from tests.bench import journals as bench
from tests.support.paths import DATA

JOURNALS = DATA / "journals"
AS_IT_IS = JournalOptions()
BERLIN = JournalOptions(zone=ZoneInfo("Europe/Berlin"), zone_given=True)


def imported(
    *names: str, writing: JournalOptions = BERLIN, folder: Path = JOURNALS
) -> tuple[SleepHistory, Tally]:
    """What the journals contain together, and the tally of the last."""
    tallies = [Tally(name) for name in names]
    read = [read_journal(folder / tally.path, tally, writing) for tally in tallies]
    logs = systemd.joined([each for each in read if isinstance(each, systemd.SystemdJournal)])
    placed = [
        *(systemd.place_boots(log, writing.machine) for log in logs),
        *(each for each in read if isinstance(each, PlacedJournal)),
    ]
    return sleep_history_of([each for each in placed if each is not None]), tallies[-1]


def happened(month: SleepHistory) -> list[tuple[str, str, float]]:
    """What, when by the wall clock as it was then, for how many seconds."""
    found: list[tuple[str, str, float]] = []
    for each, ahead_ns in zip(month.events, month.set_ahead_ns, strict=True):
        shown = datetime.fromtimestamp(
            month.starts_wall_s + (each.at_world_ns + ahead_ns) // NS_PER_S, UTC
        )
        found.append(
            (each.kind, f"{shown:%Y-%m-%d %H:%M}", (each.lasts_ns or each.by_ns) / NS_PER_S)
        )
    return found


# file -> what happened, and how many entries were about sleep, about something else, and not
# understood
EXPECTED: dict[str, tuple[list[tuple[str, str, float]], tuple[int, int, int]]] = {
    "systemd_laptop.json": (
        [
            ("suspend", "2026-11-20 21:59", 28817.25),
            ("suspend", "2026-11-21 21:29", 28817.25),
            ("off", "2026-11-22 06:30", 95),
        ],
        (8, 16, 1),
    ),
    "systemd_paused_vm.json": (
        [("pause", "2026-11-20 10:20", 32400.5), ("step", "2026-11-20 22:50", -7200)],
        (0, 48, 0),
    ),
    "systemd_s2idle.json": (
        [("suspend", "2026-11-22 17:00", 3000), ("suspend", "2026-11-22 17:56", 40000)],
        (6, 1, 0),
    ),
    "pmset_macbook.log": (
        [
            ("pause", "2026-11-21 21:29", 31),
            ("pause", "2026-11-21 21:31", 4125),
            ("pause", "2026-11-21 22:40", 27554),
            ("pause", "2026-11-22 21:41", 31130),
        ],
        (8, 8, 0),
    ),
    "pmset_without_a_wake.log": ([("pause", "2026-10-24 21:00", 30600)], (4, 1, 1)),
    "pmset_restart.log": (
        [("off", "2026-11-02 05:00", 40530), ("pause", "2026-11-03 06:10", 34200)],
        (4, 1, 0),
    ),
    "windows_newest_first.xml": (
        [
            ("off", "2026-11-20 23:59", 28731.3765433),
            ("pause", "2026-11-21 22:03", 29500.7777778),
            ("pause", "2026-11-22 12:00", 5400.5),
        ],
        (7, 1, 0),
    ),
    "windows_utf16.xml": ([("pause", "2026-11-21 22:03", 29500.7777778)], (3, 0, 0)),
    "windows_evtx_dump.xml": ([("pause", "2026-11-22 12:00", 30600.5)], (2, 0, 3)),
    "windows_event_viewer.csv": ([("pause", "2026-11-21 22:03", 29500.7777778)], (3, 1, 1)),
    "windows_powershell_german.csv": ([("pause", "2026-11-21 22:03", 29503)], (2, 0, 0)),
    "windows_broken.csv": ([("pause", "2026-11-13 22:03", 29503)], (2, 0, 2)),
    "hyper_v_worker.xml": (
        [("pause", "2026-11-20 20:00", 43200.5), ("pause", "2026-11-21 12:00", 2700)],
        (5, 2, 0),
    ),
    "hyper_v_powershell.csv": (
        [("pause", "2026-11-20 19:00", 43200), ("off", "2026-11-21 08:00", 32400)],
        (4, 0, 0),
    ),
    "hyper_v_broken.xml": ([("pause", "2026-11-21 13:00", 3600)], (3, 0, 3)),
    "libvirt_virsh_event.log": (
        [
            ("pause", "2026-11-20 20:15", 37810.25),
            ("suspend", "2026-11-21 12:00", 3600),
            ("pause", "2026-11-21 21:00", 39600),
        ],
        (7, 4, 0),
    ),
    "libvirt_monitor.log": (
        [("pause", "2026-11-26 20:00", 32400.530865), ("suspend", "2026-11-27 06:13", 3600)],
        (4, 1, 1),
    ),
    "qemu_qmp.json": ([("pause", "2026-11-26 20:00", 32400.530865)], (3, 3, 1)),
    "libvirt_domain.log": ([("off", "2026-11-20 20:00", 41399.5)], (3, 5, 0)),
    "pmset_wake_requests.log": ([("pause", "2026-11-20 22:10", 27000)], (3, 3, 1)),
    "libvirt_saved_domain.log": (
        [("pause", "2026-11-20 18:00", 43200), ("off", "2026-11-21 18:00", 43200)],
        (6, 11, 0),
    ),
    "systemd_pi_without_rtc.json": (
        [("off", "2026-11-23 10:00", 7203), ("step", "2025-09-20 00:05", 37_108_800)],
        (0, 6, 0),
    ),
    "windows_tabs_korean.txt": ([("pause", "2026-11-21 21:00", 30600)], (2, 0, 0)),
    "windows_type_semicolons.csv": ([("pause", "2026-11-21 21:00", 30600)], (2, 0, 0)),
    "windows_clock_set.xml": (
        [("step", "2026-11-21 13:00", -18000), ("pause", "2026-11-21 21:00", 28800)],
        (4, 0, 0),
    ),
}


def test_every_sample_is_expected() -> None:
    """No sample lies about unread, and each system has at least three."""
    assert set(EXPECTED) == {path.name for path in JOURNALS.iterdir()}
    for system in ("systemd", "pmset", "windows", "hyper_v"):
        assert sum(name.startswith(system) for name in EXPECTED) >= 3
    assert sum(name.startswith(("libvirt", "qemu")) for name in EXPECTED) >= 3


@pytest.mark.parametrize("name", EXPECTED)
def test_a_journal_shows_what_happened(name: str) -> None:
    """The sleeps, to the precision of the journal, and each entry is counted once."""
    month, tally = imported(name)
    expected, counts = EXPECTED[name]
    assert [each[:2] for each in happened(month)] == [each[:2] for each in expected]
    assert [each[2] for each in happened(month)] == pytest.approx([each[2] for each in expected])
    assert (tally.used, tally.other, tally.not_understood) == counts
    assert len(tally.examples) == min(tally.not_understood, 3)


def test_what_is_left_out_is_reported() -> None:
    """A sleep without a wake is not guessed; one out of a dark wake without a line goes on."""
    month, tally = imported("pmset_without_a_wake.log")
    assert month.dropped == ["Sleep at the end, without a wake"]
    assert tally.notes == [
        "1 dark wakes have no line, though it fell asleep again after them: taken for "
        "sleep, since such a wake lasts "
        "seconds; print the log without a filter"
    ]


def test_another_machine_of_a_host_can_be_chosen() -> None:
    """The first that is named is taken, the others are reported; any can be chosen."""
    _, tally = imported("libvirt_virsh_event.log")
    assert tally.notes == [
        "domain builder is another machine and left out; it is imported with --machine builder"
    ]
    _, tally = imported("libvirt_virsh_event.log", writing=JournalOptions(machine="builder"))
    assert tally.used == 1
    _, tally = imported("hyper_v_worker.xml")
    assert "--machine other" in tally.notes[0]


def read_text(
    tmp_path: Path, text: str | bytes, writing: JournalOptions = AS_IT_IS
) -> tuple[SleepHistory, Tally]:
    (tmp_path / "file").write_bytes(text if isinstance(text, bytes) else text.encode())
    return imported("file", writing=writing, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"ElfFile\0\0\0", "wevtutil qe FILE.evtx"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"LPKSHHRH", "journalctl --file"),
        ("Nov 21 22:03:11 laptop kernel: PM: suspend entry (deep)\n", "journalctl -o json"),
        (
            "2026-11-21T22:03:11+0100 laptop kernel: PM: suspend entry (deep)\n",
            "journalctl -o json",
        ),
        ("hello\n", "known are: journalctl -o json, pmset -g log"),
        ("", "known are:"),
        ("Stufe,Datum und Uhrzeit,Quelle,Ereignis-ID\n", "known are:"),
    ],
)
def test_what_is_not_a_journal_is_refused_with_the_way_to_make_one(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    """The message says what to do."""
    with pytest.raises(BadInput, match=message):
        read_text(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Named, with the system's reason."""
    with pytest.raises(BadInput, match="No such file"):
        read_journal(tmp_path / "none", Tally("none"))


def test_a_journal_printed_newest_first_is_read_the_same(tmp_path: Path) -> None:
    """The monotonic clock of a boot gives the order."""
    lines = (JOURNALS / "systemd_laptop.json").read_text().splitlines()
    month, _ = read_text(tmp_path, "\n".join(reversed(lines)))
    assert happened(month) == happened(imported("systemd_laptop.json")[0])


def test_a_clock_that_drifts_adds_up(tmp_path: Path) -> None:
    """WSL2, 2.5 % (microsoft/WSL#40745): ten hours of a journal make a quarter of an hour of
    pauses."""
    lines = [
        f'{{"__REALTIME_TIMESTAMP":"{1_790_000_000_000_000 + int(second * 1.025e6)}",'
        f'"__MONOTONIC_TIMESTAMP":"{(second + 1200) * 1_000_000}","_BOOT_ID":"b","MESSAGE":"tick"}}'
        for second in range(0, 36_000, 10)
    ]
    month, _ = read_text(tmp_path, "\n".join(lines))
    assert 870 * NS_PER_S <= month.total_ns("pause") <= 900 * NS_PER_S


@pytest.mark.skipif(
    sys.platform != "linux", reason="the most memory of a process is read from /proc"
)
@pytest.mark.slow(reason="reads ten megabytes in a process of its own")
@pytest.mark.parametrize("system", bench.SYSTEMS)
def test_a_large_journal_is_a_stream(tmp_path: Path, system: str) -> None:
    """Ten megabytes are read within 200 MiB, Python and all its libraries among them
    (tests/bench/journals.py: how fast, and a hundred megabytes)."""
    path = tmp_path / system
    bench.write(path, bench.SYSTEMS[system](), 10_000_000)
    _, mib, entries, items = bench.measure(path)
    assert mib < 200
    assert entries > 10_000 and items
