"""Journals of every system, whole and broken ones, read from tests/data/journals (docs/sleep-journals.md says after
what each was written).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from harness.durations import NS_PER_S
from harness.errors import BadInput
from harness.journals.formats import read_journal
from harness.journals.items import Tally
from harness.journals.month import Month, month_of
from tests.bench import journals as bench

DATA = Path(__file__).parents[2] / "data" / "journals"


def imported(name: str, zone: str = "UTC", machine: str | None = None) -> tuple[Month, Tally]:
    tally = Tally(name)
    items = list(read_journal(DATA / name, tally, ZoneInfo(zone), machine))
    assert tally.first_wall_ns is not None and tally.last_wall_ns is not None
    return month_of(items, tally.first_wall_ns, tally.last_wall_ns), tally


def happened(month: Month) -> list[tuple[str, str, float]]:
    """What, when by the true wall clock, for how many seconds."""
    return [
        (
            each.kind,
            datetime.fromtimestamp(month.starts_wall_s + each.at_world_ns // NS_PER_S, UTC).isoformat(" ", "minutes")[
                :16
            ],
            (each.lasts_ns or each.by_ns) / NS_PER_S,
        )
        for each in month.happened
    ]


# file -> what happened, and how many entries told of sleep, of something else, and were not understood
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
        [("pause", "2026-11-20 10:20", 32400.5), ("step", "2026-11-20 22:40", -7200)],
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
    "pmset_without_a_wake.log": ([("pause", "2026-10-24 23:30", 21600)], (4, 1, 1)),
    "pmset_restart.log": ([("off", "2026-11-02 05:00", 40530), ("pause", "2026-11-03 06:10", 34200)], (4, 1, 0)),
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
}


def test_every_sample_is_expected() -> None:
    """No sample lies about unread, and each system has at least three."""
    assert set(EXPECTED) == {path.name for path in DATA.iterdir()}
    for system in ("systemd", "pmset", "windows", "hyper_v"):
        assert sum(name.startswith(system) for name in EXPECTED) >= 3
    assert sum(name.startswith(("libvirt", "qemu")) for name in EXPECTED) >= 3


@pytest.mark.parametrize("name", EXPECTED)
def test_a_journal_tells_what_happened(name: str) -> None:
    """The sleeps, to the precision of the journal, and each entry is counted once."""
    month, tally = imported(name, zone="Europe/Berlin")
    expected, counts = EXPECTED[name]
    assert [each[:2] for each in happened(month)] == [each[:2] for each in expected]
    assert [each[2] for each in happened(month)] == pytest.approx([each[2] for each in expected])
    assert (tally.used, tally.other, tally.not_understood) == counts
    assert len(tally.examples) == min(tally.not_understood, 3)


def test_what_is_left_out_is_told() -> None:
    """A sleep without a wake is not guessed."""
    month, _ = imported("pmset_without_a_wake.log")
    assert month.dropped == ["Sleep without a wake before the next", "Sleep at the end, without a wake"]


def test_another_machine_of_a_host_can_be_chosen() -> None:
    """The first that is named is taken, the others are told of; any can be asked for."""
    _, tally = imported("libvirt_virsh_event.log")
    assert tally.notes == ["domain builder is another machine and left out; it is imported with --machine builder"]
    _, tally = imported("libvirt_virsh_event.log", machine="builder")
    assert tally.used == 1
    _, tally = imported("hyper_v_worker.xml")
    assert "--machine other" in tally.notes[0]


def read_text(tmp_path: Path, text: str | bytes, zone: str = "UTC") -> Tally:
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    tally = Tally(str(path))
    list(read_journal(path, tally, ZoneInfo(zone)))
    return tally


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"ElfFile\0\0\0", "wevtutil qe FILE.evtx"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"LPKSHHRH", "journalctl --file"),
        ("Nov 21 22:03:11 laptop kernel: PM: suspend entry (deep)\n", "journalctl -o json"),
        ("2026-11-21T22:03:11+0100 laptop kernel: PM: suspend entry (deep)\n", "journalctl -o json"),
        ("hello\n", "known are: journalctl -o json, pmset -g log"),
        ("", "known are:"),
        ("Stufe,Datum und Uhrzeit,Quelle,Ereignis-ID\n", "known are:"),
    ],
)
def test_what_is_no_journal_is_refused_with_the_way_to_make_one(tmp_path: Path, text: str | bytes, said: str) -> None:
    """The message says what to do."""
    with pytest.raises(BadInput, match=said):
        read_text(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Named, with the system's reason."""
    with pytest.raises(BadInput, match="No such file"):
        list(read_journal(tmp_path / "none", Tally("none")))


def test_a_journal_printed_newest_first_is_refused(tmp_path: Path) -> None:
    """Its jumps would be taken for steps."""
    lines = (DATA / "systemd_s2idle.json").read_text().splitlines()
    with pytest.raises(BadInput, match="without -r"):
        read_text(tmp_path, "\n".join(reversed(lines)))


def test_days_and_months_that_nobody_can_tell_apart_are_refused(tmp_path: Path) -> None:
    """3/4 and 5/6 are in order either way."""
    heading = "Level,Date and Time,Source,Event ID,Task Category\n"
    row = "Information,{},Microsoft-Windows-Kernel-Power,{},(64),x\n"
    with pytest.raises(BadInput, match="begins with the day or the month"):
        read_text(tmp_path, heading + row.format("3/4/2026 22:00:00", 42) + row.format("5/6/2026 07:00:00", 107))
    told = read_text(tmp_path, heading + row.format("12/4/2026 22:00:00", 42) + row.format("13/4/2026 07:00:00", 107))
    assert told.last_wall_ns == int(datetime(2026, 4, 13, 7, tzinfo=UTC).timestamp()) * NS_PER_S


def test_a_clock_that_drifts_adds_up(tmp_path: Path) -> None:
    """WSL2, 2.5 % (microsoft/WSL#40745): ten hours of a journal make a quarter of an hour of pauses."""
    lines = [
        f'{{"__REALTIME_TIMESTAMP":"{1_790_000_000_000_000 + int(second * 1.025e6)}",'
        f'"__MONOTONIC_TIMESTAMP":"{(second + 300) * 1_000_000}","_BOOT_ID":"b","MESSAGE":"tick"}}'
        for second in range(0, 36_000, 10)
    ]
    (tmp_path / "wsl.json").write_text("\n".join(lines))
    tally = Tally("wsl.json")
    items = list(read_journal(tmp_path / "wsl.json", tally))
    assert tally.first_wall_ns is not None and tally.last_wall_ns is not None
    month = month_of(items, tally.first_wall_ns, tally.last_wall_ns)
    assert 870 * NS_PER_S <= month.total_ns("pause") <= 900 * NS_PER_S


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory of a process is read from /proc")
@pytest.mark.parametrize("system", bench.SYSTEMS)
def test_a_large_journal_is_a_stream(tmp_path: Path, system: str) -> None:
    """Ten megabytes are read within 200 MiB, Python and all its libraries among them (tests/bench/journals.py: how
    fast, and a hundred megabytes)."""
    path = tmp_path / system
    bench.write(path, bench.SYSTEMS[system](), 10_000_000)
    _, mib, entries, items = bench.measure(path)
    assert mib < 200
    assert entries > 10_000 and items
