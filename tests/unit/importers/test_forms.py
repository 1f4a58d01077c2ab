"""Every form in which people have a journal is read, or answered with the one line that makes the
right one."""

from __future__ import annotations

# ruff: noqa: RUF001  (digits and letters of other scripts are what is tested)
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.cli.app import run_command
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, ExitCode
from meshwake.importers.formats import read_journal
from meshwake.importers.items import Tally
from meshwake.importers.local_times import DateOrder, LocalTimeRules, local_of, moment_ns, order_of
from meshwake.importers.placement import PlacedJournal
from meshwake.importers.sleep_history import SleepHistory, sleep_history_of
from meshwake.importers.windows_csv import JournalOptions

from tests.unit.importers.test_journals import happened, read_text

# --- The systemd journal --------------------------------------------------------------------------

BOOT = "c0ffee" + "0" * 26
ENTRIES: list[dict[str, str]] = [
    {
        "__CURSOR": f"s={'5' * 32};i={number:x};b={BOOT};m={monotonic * 1_000_000:x};t={wall * 1_000_000:x};x={number}",
        "__REALTIME_TIMESTAMP": str(wall * 1_000_000),
        "__MONOTONIC_TIMESTAMP": str(monotonic * 1_000_000),
        "_BOOT_ID": BOOT,
        "_TRANSPORT": "kernel",
        "MESSAGE": message,
    }
    for number, (wall, monotonic, message) in enumerate(
        [
            (1_795_420_800, 1_000, 'a "brace" { in a message } and a \\ too'),
            (1_795_464_000, 44_200, "PM: suspend entry (deep)"),
            (1_795_496_400, 44_202, "PM: suspend exit"),
            (1_795_520_000, 67_802, "later"),
        ],
        start=1,
    )
]
SLEPT = [("suspend", "2026-11-23 20:00", 32398.0)]


def export(entries: list[dict[str, str]]) -> bytes:
    """With a binary value that holds an empty line and what looks like a field."""
    binary = b"MESSAGE=no\n\n__REALTIME_TIMESTAMP=1\n"
    found = b""
    for each in entries:
        lines = "".join(f"{name}={value}\n" for name, value in each.items()).encode()
        found += lines + b"DATA\n" + len(binary).to_bytes(8, "little") + binary + b"\n\n"
    return found


def verbose(entries: list[dict[str, str]]) -> bytes:
    found = ""
    for each in entries:
        shown = datetime.fromtimestamp(int(each["__REALTIME_TIMESTAMP"]) // 1_000_000, UTC)
        found += f"{shown:%a %Y-%m-%d %H:%M:%S}.000000 UTC [{each['__CURSOR']}]\n"
        found += "".join(
            f"    {name}={value}\n" for name, value in each.items() if not name.startswith("__")
        )
    return found.encode()


FORMS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "json": lambda entries: "\n".join(map(json.dumps, entries)).encode(),
    "json-pretty": lambda entries: "\n".join(
        json.dumps(each, indent="\t") for each in entries
    ).encode(),
    "json-seq": lambda entries: "".join(f"\x1e{json.dumps(each)}\n" for each in entries).encode(),
    "json-sse": lambda entries: "".join(
        f"data: {json.dumps(each)}\n\n" for each in entries
    ).encode(),
    "array": lambda entries: json.dumps(entries).encode(),
    "pretty array": lambda entries: json.dumps(entries, indent=2).encode(),
    "in one line": lambda entries: "".join(map(json.dumps, entries)).encode(),
    "utf-16": lambda entries: "\r\n".join(map(json.dumps, entries)).encode("utf-16"),
    "byte order mark": lambda entries: "\r\n".join(map(json.dumps, entries)).encode("utf-8-sig"),
    "behind names of containers": lambda entries: "".join(
        f"kind-1  | {json.dumps(each)}\n" for each in entries
    ).encode(),
    "cursor only": lambda entries: "\n".join(
        json.dumps({name: each[name] for name in ("__CURSOR", "MESSAGE", "_TRANSPORT")})
        for each in entries
    ).encode(),
    "export": export,
    "verbose": verbose,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_with_both_clocks_is_read(tmp_path: Path, form: str) -> None:
    """The same sleep, to the second, and every entry."""
    month, tally = read_text(tmp_path, FORMS[form](ENTRIES))
    assert happened(month) == SLEPT
    assert (tally.used, tally.other, tally.not_understood) == (2, 2, 0)


@pytest.mark.parametrize(
    "form", ["json", "json-pretty", "json-seq", "json-sse", "in one line", "export"]
)
def test_a_broken_entry_costs_itself_only(tmp_path: Path, form: str) -> None:
    """What has no time among others is counted once."""
    broken: list[dict[str, Any]] = [
        ENTRIES[0],
        {"__CURSOR": "s=1;i=1", "MESSAGE": "no time"},
        *ENTRIES[1:],
    ]
    month, tally = read_text(tmp_path, FORMS[form](broken))
    assert happened(month) == SLEPT and tally.not_understood == 1


PRINTED_FOR_PEOPLE = {
    "short": "Nov 23 21:00:00 laptop kernel: PM: suspend entry (deep)",
    "short, German": "Dez 23 22:30:07 laptop systemd[1]: Starting System Suspend...",
    "short, Japanese": "11月 23 21:00:00 laptop kernel: PM: suspend entry (deep)",
    "short-precise": "Nov 23 21:00:00.123456 laptop kernel: PM: suspend entry (deep)",
    "short-iso": "2026-11-23T21:00:00+0100 laptop kernel: PM: suspend entry (deep)",
    "short-iso-precise": "2026-11-23T21:00:00.123456+01:00 laptop kernel: PM: suspend entry (deep)",
    "short-full": "Mon 2026-11-23 21:00:00 CET laptop kernel: PM: suspend entry (deep)",
    "with-unit": "Mon 2026-11-23 21:00:00 CET laptop k3s.service[812]: started",
    "short-unix": "1795467600.123456 laptop kernel: PM: suspend entry (deep)",
    "short-monotonic": "[47400.000000] laptop kernel: PM: suspend entry (deep)",
    "short-delta": "[47400.000000 <    2.000000 >] laptop kernel: PM: suspend exit",
    "cat": "PM: suspend entry (deep)\nPM: suspend exit",
    "dmesg": "[    0.000000] Linux version 6.8",
    "dmesg -T": "[Mon Nov 23 21:00:00 2026] PM: suspend entry (deep)",
    "dmesg -x": "kern  :info  : [47400.000000] PM: suspend entry (deep)",
    "dmesg -H": "[Nov23 21:00] PM: suspend entry (deep)",
    "dmesg --time-format iso": "2026-11-23T21:00:00,123456+01:00 PM: suspend entry (deep)",
    "dmesg --json": '{\n   "dmesg": [\n      {"pri": 6, "time": 47400.000000, "msg": '
    '"resumed"}\n   ]\n}',
    "without the clocks of journald": '{"_SOURCE_REALTIME_TIMESTAMP": "1795467600123456", '
    '"MESSAGE": "resumed"}',
    "heading": "-- Journal begins at Mon 2026-11-01 08:00:00 CET, ends at Tue 2026-11-24 08:00:00 "
    "CET. --",
    "old heading": "-- Logs begin at Mon 2026-11-01 08:00:00 CET, end at Tue 2026-11-24 "
    "08:00:00 CET. --",
    "nothing": "-- No entries --",
}


@pytest.mark.parametrize("form", PRINTED_FOR_PEOPLE)
def test_a_journal_for_people_is_answered_with_one_line(tmp_path: Path, form: str) -> None:
    """And with nothing about other systems."""
    with pytest.raises(BadInput, match="journalctl -o json --since") as refused:
        read_text(tmp_path, PRINTED_FOR_PEOPLE[form] + "\n")
    assert "pmset" not in str(refused.value) and "wevtutil" not in str(refused.value)


@pytest.mark.parametrize("clock", ["__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID"])
def test_entries_without_one_of_the_clocks_are_answered_with_one_line(
    clock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A filter has lost it."""
    path = tmp_path / "lost.json"
    lost = [
        {name: value for name, value in each.items() if name not in (clock, "__CURSOR")}
        for each in ENTRIES
    ]
    path.write_text("\n".join(map(json.dumps, lost)))
    assert run_command(["import-sleep", str(path)]) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "journalctl -o json --since" in err and (clock in err or clock == "__REALTIME_TIMESTAMP")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Event[0]:\n  Log Name: System\n  Event ID: 42\n", "wevtutil qe System /f:xml"),
        (
            "TimeCreated                     Id LevelDisplayName Message\n-----------      "
            "-- ----\n",
            "/f:xml",
        ),
        ('[{"TimeCreated": "/Date(1795467600000)/", "Id": 42}]', "/f:xml"),
        ("<Objs Version='1.1.0.1'><Obj>x</Obj></Objs>", "/f:xml"),
        (
            "event 'lifecycle' for domain 'k3s': Suspended Paused\n",
            "LC_ALL=C virsh event .*--timestamp",
        ),
        (
            "2026-11-20 20:15:00.500+0000: Ereignis 'lifecycle' für Domain 'k3s': Angehalten\n",
            "LC_ALL=C virsh",
        ),
        ("2026-11-23 22:29:58.123456-0700 0x74 Default 0x0 88 0 powerd: sleep\n", "pmset -g log"),
        ("   Index Time          EntryType   Source      InstanceID Message\n", "/f:xml"),
        ("[08123] Microsoft-Windows-Kernel-Power\n   Type:     INFORMATION\n", "/f:xml"),
        ("Wake History Count - 1\nWake History [0]\n", "/f:xml"),
        ("<!DOCTYPE html>\n<html><head><title>SleepStudy report</title>", "/f:xml"),
        (b"\x28\xb5\x2f\xfd\x00", "unzstd"),
        (b"\xfd7zXZ\x00\x00", "unxz"),
        (b"PK\x03\x04", "unzip"),
    ],
)
def test_other_logs_are_answered_with_what_makes_them_right(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    """The command of that system."""
    with pytest.raises(BadInput, match=message):
        read_text(tmp_path, text)


# --- Windows: columns and local times -------------------------------------------------------------

LOCAL_TIMES = {
    "en-US": ("11/24/2026 9:03:12 PM", "11/25/2026 7:41:55 AM"),
    "en-AU": ("24/11/2026 9:03:12 PM", "25/11/2026 7:41:55 AM"),
    "en-GB": ("24/11/2026 21:03:12", "25/11/2026 07:41:55"),
    "en-NZ": ("24/11/2026 9:03:12 pm", "25/11/2026 7:41:55 am"),
    "de-DE": ("24.11.2026 21:03:12", "25.11.2026 07:41:55"),
    "da-DK": ("24-11-2026 21.03.12", "25-11-2026 07.41.55"),
    "fi-FI": ("24.11.2026 21.03.12", "25.11.2026 7.41.55"),
    "cs-CZ": ("24. 11. 2026 21:03:12", "25. 11. 2026 7:41:55"),
    "bg-BG": ("24.11.2026 г. 21:03:12 ч.", "25.11.2026 г. 7:41:55 ч."),
    "lv-LV": ("2026.11.24. 21:03:12", "2026.11.25. 07:41:55"),
    "sv-SE": ("2026-11-24 21:03:12", "2026-11-25 07:41:55"),
    "ja-JP": ("2026/11/24 21:03:12", "2026/11/25 7:41:55"),
    "ja-JP, 12 hours": ("2026/11/24 午後 9:03:12", "2026/11/25 午前 7:41:55"),
    "zh-CN, 12 hours": ("2026/11/24 下午 9:03:12", "2026/11/25 上午 7:41:55"),
    "vi-VN": ("24/11/2026 9:03:12 CH", "25/11/2026 7:41:55 SA"),
    "sq-AL": ("24.11.2026 9:03:12 e pasdites", "25.11.2026 7:41:55 e paradites"),
    "ar-EG": ("٢٤/١١/٢٠٢٦ ٠٩:٠٣:١٢ م", "٢٥/١١/٢٠٢٦ ٠٧:٤١:٥٥ ص"),
    "th-TH": ("24/11/2569 21:03:12", "25/11/2569 7:41:55"),
    "fr-CA": ("2026-11-24 21 h 03 min 12 s", "2026-11-25 07 h 41 min 55 s"),
    "month by name": ("24-Nov-26 9:03:12 PM", "25-Nov-26 7:41:55 AM"),
    "narrow space": ("11/24/2026 9:03:12\u202fPM", "11/25/2026 7:41:55\u202fAM"),
    "marks of direction": (
        "\u200e24/\u200e11/\u200e2026 21:03:12",
        "\u200e25/\u200e11/\u200e2026 07:41:55",
    ),
    "midnight and noon": ("11/24/2026 12:00:00 PM", "11/25/2026 12:00:00 AM"),
    "with parts": ("2026-11-24 21:03:12,000", "2026-11-25 07:41:55,000"),
    "PowerShell 7": ("2026-11-24T21:03:12.0000000+01:00", "2026-11-25T07:41:55.0000000+01:00"),
}


def csv(
    rows: list[tuple[str, int]],
    heading: str = "TimeCreated,Id,ProviderName",
    line: str = '"{0}",{1},{2}',
) -> str:
    written = [line.format(time, number, "Microsoft-Windows-Kernel-Power") for time, number in rows]
    return "\r\n".join([heading, *written]) + "\r\n"


def slept(month: SleepHistory) -> list[float]:
    return [each.lasts_ns / NS_PER_S for each in month.events]


@pytest.mark.parametrize("place", LOCAL_TIMES)
def test_local_times_are_read(tmp_path: Path, place: str) -> None:
    """To the second, in whatever words."""
    begins, ends = LOCAL_TIMES[place]
    month, _ = read_text(tmp_path, csv([(begins, 42), (ends, 107)]))
    assert slept(month) == [43_200.0 if "noon" in place else 38_323.0]


@pytest.mark.parametrize(
    "time",
    [
        "24/11/1448 21:03:12",
        "24/11/48 09:03:12 م",
        "03/09/1405 21:03:12",
        "24/11/2026 9:03:12 xyz",
        "yesterday",
    ],
)
def test_times_that_are_not_understood_lead_to_xml(tmp_path: Path, time: str) -> None:
    """Another calendar, an unknown word: refused, never guessed."""
    with pytest.raises(BadInput, match="wevtutil qe System /f:xml"):
        read_text(tmp_path, csv([(time, 42), (time, 107)]))


def test_days_and_months_that_are_ambiguous_must_be_given(tmp_path: Path) -> None:
    """3/11 and 4/11 are in order either way; with --date-order they are read, as what it says."""
    rows = [("3/11/2026 9:00:00 PM", 42), ("4/11/2026 7:00:00 AM", 107)]
    with pytest.raises(BadInput, match="day or the month.*--date-order day-first"):
        read_text(tmp_path, csv(rows))
    assert slept(read_text(tmp_path, csv(rows), JournalOptions(date_order="day-first"))[0]) == [
        36_000.0
    ]
    assert slept(read_text(tmp_path, csv(rows), JournalOptions(date_order="month-first"))[0]) == [
        31 * 86_400.0 - 50_400.0
    ]


@pytest.mark.parametrize(
    "other",
    [
        ("13/11/2026 6:00:00 AM", 7036),  # a number above 12 is a day
        ("1/12/2026 6:00:00 AM", 7036),  # in order by one reading only
    ],
)
def test_other_rows_show_the_order_of_day_and_month(tmp_path: Path, other: tuple[str, int]) -> None:
    """All rows of a file count, not only those of sleep."""
    rows = [("3/11/2026 9:00:00 PM", 42), ("4/11/2026 7:00:00 AM", 107), other]
    assert slept(read_text(tmp_path, csv(rows))[0]) == [36_000.0]


def test_a_message_shows_the_order_of_day_and_month(tmp_path: Path) -> None:
    """A Power-Troubleshooter has the true time next to the local one."""
    text = (
        "TimeCreated,Id,ProviderName,Message\n"
        "4/11/2026 7:00:05 AM,1,Microsoft-Windows-Power-Troubleshooter,"
        '"The system has returned from a low power state.\n\n'
        "Sleep Time: \u200e2026\u200e-\u200e11\u200e-\u200e03T20:00:00.0Z\nWake Time: "
        '2026-11-04T06:00:00.0Z"\n'
    )
    assert happened(read_text(tmp_path, text)[0]) == [("pause", "2026-11-03 20:00", 36_000.0)]


def test_an_hour_that_comes_twice_is_distinguished_by_the_order_of_rows(tmp_path: Path) -> None:
    """25 October 2026 in Berlin: 02:30 in summer, then 02:10 in winter, forty minutes later."""
    rows = [
        ("25.10.2026 02:30:00", 42),
        ("25.10.2026 02:10:00", 107),
        ("25.10.2026 03:00:00", 7036),
    ]
    berlin = JournalOptions(zone=ZoneInfo("Europe/Berlin"), zone_given=True)
    assert slept(read_text(tmp_path, csv(rows), berlin)[0]) == [2_400.0]
    assert slept(read_text(tmp_path, csv([*rows[:2], rows[2]][::-1]), berlin)[0]) == [2_400.0]


TIMES = ("24.11.2026 21:03:12", "25.11.2026 07:41:55")
LAYOUTS = {
    "Event Viewer": (
        "Level,Date and Time,Source,Event ID,Task Category",
        "Information,{0},{2},{1},(64)",
    ),
    "Event Viewer, tabs": (
        "Level\tDate and Time\tSource\tEvent ID\tTask Category",
        "Information\t{0}\t{2}\t{1}\t(64)",
    ),
    "semicolons": ('"Message";"Id";"ProviderName";"TimeCreated"', '"x; y";"{1}";"{2}";"{0}"'),
    "type": ("#TYPE Selected.X\r\nTimeCreated,Id,ProviderName", "{0},{1},{2}"),
    "Excel's separator": ("sep=;\r\nTimeCreated;Id;ProviderName", "{0};{1};{2}"),
    "Get-EventLog": ('"EventID","Index","Source","TimeGenerated"', '"{1}","{1}7","{2}","{0}"'),
    "German heading": (
        "Ebene,Datum und Uhrzeit,Quelle,Ereignis-ID,Aufgabenkategorie",
        "Informationen,{0},{2},{1},(64)",
    ),
    "no heading": ("", "Information,{0},{2},{1},(64)"),
    "a table of Markdown": (
        "| TimeCreated | Id | ProviderName |\r\n| --- | --- | --- |",
        "| {0} | {1} | {2} |",
    ),
    "a point in a number": ("TimeCreated;Level;Id;ProviderName", "{0};4;{1};{2}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_columns_in_any_order_between_any_separators(
    tmp_path: Path, layout: str, encoding: str
) -> None:
    """Known by their names, or by their content."""
    heading, line = LAYOUTS[layout]
    text = csv([(TIMES[0], 42), (TIMES[1], 107)], heading, line).lstrip("\r\n")
    month, tally = read_text(tmp_path, text.encode(encoding))
    assert slept(month) == [38_323.0] and tally.not_understood == 0


def test_events_without_a_source_are_refused_unless_their_message_has_it(
    tmp_path: Path,
) -> None:
    """42 is a number of many providers."""
    rows = 'TimeCreated,Id,Message\n{0},42,"{2}"\n{1},107,"{3}"\n'
    with pytest.raises(BadInput, match="provider"):
        read_text(tmp_path, rows.format(*TIMES, "Systém", "Systém"))
    text = rows.format(
        *TIMES, "The system is entering sleep.", "The system has resumed from sleep."
    )
    assert slept(read_text(tmp_path, text)[0]) == [38_323.0]


@settings(max_examples=200, deadline=None)
@given(
    moments=st.lists(st.integers(0, 700), min_size=3, max_size=30, unique=True),
    order=st.sampled_from(["day-first", "month-first"]),
    falls=st.booleans(),
)
def test_the_order_of_day_and_month_is_never_guessed_wrong(
    moments: list[int], order: DateOrder, falls: bool
) -> None:
    """Rows in order, written one way: read that way, or the option is required."""
    days = [
        datetime.fromtimestamp(1_767_225_600 + day * 86_400, UTC)
        for day in sorted(moments, reverse=falls)
    ]
    form = "%d/%m/%Y %H:%M:%S" if order == "day-first" else "%m/%d/%Y %H:%M:%S"
    rows = [local_of(day.strftime(form)) for day in days]
    found = order_of(rows)
    if found is not None:
        assert [moment_ns(row, LocalTimeRules(UTC, found)) for row in rows] == [
            int(day.timestamp()) * NS_PER_S for day in days
        ]


# --- VMs that go on with their memory -------------------------------------------------------------


def virsh(*events: str) -> str:
    return "".join(
        f"2026-11-20 {hour:02}:00:00.000+0000: event 'lifecycle' for domain 'k3s': {event}\n"
        for hour, event in enumerate(events)
    )


def qmp(*events: str) -> str:
    return "".join(
        json.dumps(
            {
                "timestamp": {"seconds": 1_795_420_800 + hour * 3_600, "microseconds": 0},
                "event": event.split(" ")[0],
                "data": {"status": event.split(" ")[1]} if " " in event else {},
            }
        )
        + "\n"
        for hour, event in enumerate(events)
    )


def domain_log(*lines: str) -> str:
    return "".join(
        f"2026-11-20 {hour:02}:00:00.000+0000: {line}\n"
        if line.startswith(("starting", "shutting"))
        else f"{line}\n"
        for hour, line in enumerate(lines)
    )


GUESTS: dict[str, tuple[str, list[tuple[str, float]]]] = {
    "saved": (
        virsh("Started Booted", "Stopped Saved", "Started Restored", "Resumed Restored"),
        [("pause", 1)],
    ),
    "saved, restored without running": (
        virsh("Stopped Saved", "Started Restored", "Suspended Restored", "Resumed Unpaused"),
        [("pause", 1), ("pause", 1)],
    ),
    "migrated away and back": (
        virsh(
            "Started Booted",
            "Suspended Migrated",
            "Stopped Migrated",
            "Started Migrated",
            "Resumed Migrated",
        ),
        [("pause", 1)],
    ),
    "migration that failed": (
        virsh("Started Booted", "Suspended Migrated", "Resumed Migrated"),
        [("pause", 1)],
    ),
    "post-copy": (
        virsh(
            "Started Booted",
            "Suspended Migrated",
            "Suspended Post-copy",
            "Stopped Migrated",
            "Started Migrated",
        ),
        [("pause", 1)],
    ),
    "snapshot taken": (
        virsh("Started Booted", "Suspended Snapshot", "Resumed From snapshot"),
        [("pause", 1)],
    ),
    "snapshot reverted to": (
        virsh("Started Booted", "Stopped Snapshot", "Started Snapshot", "Resumed Snapshot"),
        [("pause", 1)],
    ),
    "snapshot of a guest that was off": (
        virsh("Stopped Shutdown", "Started Snapshot"),
        [("pause", 1)],
    ),
    "hibernated": (
        virsh("Started Booted", "PMSuspended Disk", "Stopped Shutdown", "Started Booted"),
        [("suspend", 2)],
    ),
    "suspended": (
        virsh("Started Booted", "PMSuspended Memory", "Started Event wakeup"),
        [("suspend", 1)],
    ),
    "paused by a full disk": (
        virsh("Started Booted", "Suspended I/O Error", "Resumed Unpaused"),
        [("pause", 1)],
    ),
    "rebooted": (
        virsh("Started Booted", "Suspended Paused", "Resumed Unpaused")
        + "2026-11-20 03:00:00.000+0000: event 'reboot' for domain 'k3s'\n",
        [("pause", 1), ("off", 0)],
    ),
    "monitor with times": (
        "".join(
            f"2026-11-20 {hour:02}:00:00.000+0000: event {event} for domain 'k3s': <null>\n"
            for hour, event in enumerate(["RESUME", "STOP", "RESUME"])
        ),
        [("pause", 1)],
    ),
    "QMP behind another time": (
        "".join(
            f"[20/Nov/2026 {line}"
            for line in qmp("RESUME", "STOP", "RESUME").splitlines(keepends=True)
        ),
        [("pause", 1)],
    ),
    "QMP: reset": (qmp("RESUME", "STOP", "RESUME", "RESET"), [("pause", 1), ("off", 0)]),
    "shut down": (
        virsh("Started Booted", "Stopped Shutdown", "Started Booted", "Resumed Unpaused"),
        [("off", 1)],
    ),
    "destroyed": (virsh("Started Booted", "Stopped Destroyed", "Started Booted"), [("off", 1)]),
    "crashed": (
        virsh("Started Booted", "Crashed Panicked", "Stopped Crashed", "Started Booted"),
        [("off", 2)],
    ),
    "QMP: stopped": (qmp("RESUME", "STOP", "RESUME"), [("pause", 1)]),
    "QMP: saved": (
        qmp("RESUME", "STOP", "MIGRATION completed", "SHUTDOWN", "MIGRATION active", "RESUME"),
        [("pause", 4)],
    ),
    "QMP: shut down": (qmp("RESUME", "SHUTDOWN", "STOP", "RESUME"), [("off", 2)]),
    "QMP: hibernated": (qmp("RESUME", "SUSPEND_DISK", "SHUTDOWN", "RESUME"), [("suspend", 2)]),
    "log: saved, no command line": (
        domain_log(
            "starting up libvirt version: 9",
            "shutting down, reason=saved",
            "starting up libvirt version: 9",
        ),
        [("pause", 1)],
    ),
    "log: saved and thrown away": (
        domain_log(
            "starting up libvirt version: 9",
            "shutting down, reason=saved",
            "starting up libvirt version: 9",
            "LC_ALL=C \\",
            "-S",
        ),
        [("off", 1)],
    ),
    "log: old libvirt, restored": (
        domain_log(
            "starting up libvirt version: 1",
            "shutting down",
            "starting up libvirt version: 1",
            "-incoming fd:25",
        ),
        [("pause", 1)],
    ),
    "log: snapshot": (
        domain_log(
            "shutting down, reason=from-snapshot",
            "starting up libvirt version: 9",
            "-loadvm before",
        ),
        [("pause", 1)],
    ),
    "log: destroyed": (
        domain_log(
            "shutting down, reason=destroyed", "starting up libvirt version: 9", "LC_ALL=C \\"
        ),
        [("off", 1)],
    ),
}


@pytest.mark.parametrize("guest", GUESTS)
def test_what_goes_on_with_its_memory_was_not_restarted(tmp_path: Path, guest: str) -> None:
    """A pause, a suspend, or a time switched off, in hours."""
    text, expected = GUESTS[guest]
    month, _ = read_text(tmp_path, text)
    assert [(each.kind, each.lasts_ns / NS_PER_S / 3_600) for each in month.events] == expected
    assert not month.dropped


def test_events_with_the_newest_first_are_refused(tmp_path: Path) -> None:
    """What an event means may hang on the one before it."""
    backwards = virsh("Started Booted", "Suspended Paused", "Resumed Unpaused").splitlines(
        keepends=True
    )[::-1]
    with pytest.raises(BadInput, match=r"the newest event is first; reverse it: tac FILE"):
        read_text(tmp_path, "".join(backwards))


def test_logs_of_several_guests_one_behind_the_other(tmp_path: Path) -> None:
    """The clock of a host that begins again with each guest was not set."""
    own = virsh(
        "Started Booted",
        "Suspended Paused",
        "Resumed Unpaused",
        "Suspended Paused",
        "Resumed Unpaused",
    )
    month, tally = read_text(tmp_path, own + own.replace("k3s", "builder"))
    assert happened(month) == [
        ("pause", "2026-11-20 01:00", 3_600.0),
        ("pause", "2026-11-20 03:00", 3_600.0),
    ]
    assert tally.other == 5 and "builder" in tally.notes[0]


# --- Logs that were put together ------------------------------------------------------------------

MOMENTS = [(day, hour) for day in (1, 2, 3) for day, hour in ((day, 21), (day + 1, 7))]
LOGS: dict[str, tuple[str, list[str]]] = {
    "pmset": (
        "",
        [
            f"2026-11-{day:02} {hour:02}:00:00 +0000 Sleep\tEntering Sleep state due to "
            "'Clamshell Sleep'\n"
            if hour == 21
            else f"2026-11-{day:02} {hour:02}:00:00 +0000 Wake\tWake from Deep Idle [CDNVA] : "
            "due to EC.LidOpen\n"
            for day, hour in MOMENTS
        ],
    ),
    "virsh": (
        "",
        [
            f"2026-11-{day:02} {hour:02}:00:00.000+0000: event 'lifecycle' for domain 'k3s': "
            f"{'Suspended Paused' if hour == 21 else 'Resumed Unpaused'}\n"
            for day, hour in MOMENTS
        ],
    ),
    "CSV": (
        "TimeCreated,Id,ProviderName\n",
        [
            f"2026-11-{day:02}T{hour:02}:00:00Z,{42 if hour == 21 else 107},Microsoft-Windows-Kernel-Power\n"
            for day, hour in MOMENTS
        ],
    ),
    "XML": (
        "",
        [
            "<Event><System><Provider Name='Microsoft-Windows-Kernel-Power'/>"
            f"<EventID>{42 if hour == 21 else 107}</EventID>"
            f"<TimeCreated SystemTime='2026-11-{day:02}T{hour:02}:00:00Z'/>"
            f"<EventRecordID>{record}</EventRecordID></System></Event>\n"
            for record, (day, hour) in enumerate(MOMENTS, 1)
        ],
    ),
}
NIGHTS = [("pause", f"2026-11-0{day} 21:00", 36_000.0) for day in (1, 2, 3)]


@pytest.mark.parametrize("log", LOGS)
def test_a_log_that_is_appended_to_itself_has_each_night_once(log: str, tmp_path: Path) -> None:
    """What was saved in the first week, and all of it in the second: no clock was set back between
    them."""
    heading, lines = LOGS[log]
    month, _ = read_text(tmp_path, heading + "".join(lines[:4] + lines[2:]))
    assert happened(month) == NIGHTS


@pytest.mark.parametrize("log", LOGS)
def test_pieces_that_were_cut_within_a_sleep(log: str, tmp_path: Path) -> None:
    """In either order: the wake of one ends the sleep of the other, and nothing is left out."""
    heading, lines = LOGS[log]
    paths = [tmp_path / "one", tmp_path / "two"]
    for path, piece in zip(paths, (lines[:3], lines[3:]), strict=True):
        path.write_text(heading + "".join(piece), encoding="utf-8")
    for order in (paths, paths[::-1]):
        placed = [read_journal(path, Tally(str(path))) for path in order]
        month = sleep_history_of([each for each in placed if isinstance(each, PlacedJournal)])
        assert happened(month) == NIGHTS and not month.dropped


# --- A Mac's log, as people paste it --------------------------------------------------------------

PMSET = [
    "2026-11-23 08:00:00 +0100 Start               \tpowerd process is started",
    "2026-11-23 22:00:00 +0100 Sleep               \tEntering Sleep state due to "
    "'Clamshell Sleep':TCPKeepAlive=active",
    "2026-11-24 08:00:00 +0100 Wake                \tWake from Deep Idle [CDNVA] : due to "
    "EC.LidOpen/Lid Open",
    "2026-11-24 12:00:00 +0100 Assertions          \tSummary- [System: DeclUser] Using "
    "AC(Charge: 100)",
    "2026-11-24 22:00:00 +0100 Sleep               \tEntering Sleep state due to 'Idle "
    "Sleep': Using AC (Charge:100%)",
    "2026-11-25 08:00:00 +0100 Wake                \tWake [CDNVA] due to EC.LidOpen/Lid "
    "Open: Using AC (Charge:100%)",
]


def with_twelve_hours(line: str) -> str:
    hour = int(line[11:13])
    half = "PM" if hour >= 12 else "AM"
    return f"{line[:11]}{hour % 12 or 12}{line[13:19]} {half}{line[19:]}"


ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
PASTED = {
    "as it is": PMSET,
    "a clock of twelve hours": [with_twelve_hours(line) for line in PMSET],
    "Arabic digits": [line[:25].translate(ARABIC) + line[25:] for line in PMSET],
    "newest first": PMSET[::-1],
    "indented": [f"    {line}" for line in PMSET],
    "quoted": [f"> {line}" for line in PMSET],
    "quoted twice": [f"> >{line}" for line in PMSET],
    "by grep -n": [f"{number}:{line}" for number, line in enumerate(PMSET, 1200)],
    "by grep -C": [f"{number}-{line}" for number, line in enumerate(PMSET, 1200)],
    "fenced": ["```", *PMSET, "```"],
    "tabs lost": [line.replace("\t", "    ") for line in PMSET],
}


@pytest.mark.parametrize("way", PASTED)
def test_a_macs_log_as_people_paste_it(tmp_path: Path, way: str) -> None:
    month, tally = read_text(tmp_path, "\n".join(PASTED[way]))
    nights = [("pause", "2026-11-23 21:00", 36_000.0), ("pause", "2026-11-24 21:00", 36_000.0)]
    assert happened(month) == nights and tally.not_understood == 0


def test_a_sleep_out_of_a_dark_wake_without_a_line_goes_on(tmp_path: Path) -> None:
    """Filtered by grep: such a wake lasts seconds. Twice asleep by the lid is another matter, and
    reported."""
    again = PMSET[1].replace("22:00", "23:00").replace("Clamshell Sleep", "{}")
    for reason, lasts_s in (("Maintenance Sleep", 36_000), ("Sleep Service Back to Sleep", 36_000)):
        month, tally = read_text(tmp_path, "\n".join([*PMSET[:2], again.format(reason), PMSET[2]]))
        assert (
            slept(month) == [lasts_s]
            and "1 dark wakes have no line" in tally.notes[0]
            and not month.dropped
        )
    month, tally = read_text(
        tmp_path, "\n".join([*PMSET[:2], again.format("Clamshell Sleep"), PMSET[2]])
    )
    assert (
        slept(month) == [32_400]
        and month.dropped == ["Sleep without a wake before the next"]
        and not tally.notes
    )


def test_nothing_is_reported_left_out_that_another_event_has(tmp_path: Path) -> None:
    """A sleep without its wake is read from the event that has both ends; without that, it is left
    out and reported."""
    events = [
        ("2026-11-24T21:00:00Z", 42, "Kernel-Power", ""),
        ("2026-11-25T21:00:00Z", 42, "Kernel-Power", ""),
    ]
    events_of_both_ends = [
        (
            "2026-11-25T07:00:10Z",
            1,
            "Power-Troubleshooter",
            "2026-11-24T21:00:05Z 2026-11-25T07:00:00Z",
        )
    ]
    wake = ("2026-11-26T07:00:00Z", 107, "Kernel-Power", "")
    alone, _ = read_text(tmp_path, xml(*events, wake))
    assert alone.dropped == ["Kernel-Power 42 without a wake before the next"]
    month, _ = read_text(tmp_path, xml(events[0], *events_of_both_ends, events[1], wake))
    assert slept(month) == [35_995.0, 36_000.0] and not month.dropped


def test_a_hibernation_is_a_part_of_the_modern_standby_around_it(tmp_path: Path) -> None:
    """A laptop that hibernates after three hours of standby slept for the whole night, though
    one event reports the hibernation's two ends. A second sleep of which only that event knows is
    still another one."""
    standby = ("2026-11-24T21:00:00Z", 506, "Kernel-Power", "")
    hibernates = ("2026-11-25T00:00:00Z", 42, "Kernel-Power", "")
    wakes = ("2026-11-25T06:00:00Z", 107, "Kernel-Power", "")
    both = "2026-11-25T00:00:01Z 2026-11-25T05:59:59Z"
    reported = ("2026-11-25T06:00:00Z", 1, "Power-Troubleshooter", both)
    active = ("2026-11-25T06:00:00Z", 507, "Kernel-Power", "")
    month, _ = read_text(tmp_path, xml(standby, hibernates, wakes, reported, active))
    assert slept(month) == [9 * 3_600] and not month.dropped

    before = "2026-11-24T21:00:00Z 2026-11-24T23:00:00Z"
    first = ("2026-11-24T23:00:00Z", 1, "Power-Troubleshooter", before)
    evening = ("2026-11-24T21:00:00Z", 42, "Kernel-Power", "")
    month, _ = read_text(tmp_path, xml(evening, first, wakes, reported))
    assert slept(month) == [2 * 3_600, 5 * 3_600 + 59 * 60 + 58]


def test_what_libvirt_notes_other_than_starts_and_ends_is_understood(tmp_path: Path) -> None:
    """A tainted guest and the beginning of a migration are another matter, and no damage."""
    lines = ["starting up libvirt version: 9", "Domain id=1 is tainted: host-cpu"]
    lines += ["initiating migration", "shutting down, reason=migrated", "what is new"]
    log = "".join(f"2026-11-20 08:00:00.000+0000: {line}\n" for line in lines)
    _, tally = read_text(tmp_path, log + virsh("Suspended Paused", "Resumed Unpaused"))
    assert tally.not_understood == 1 and "what is new" in tally.examples[0]


def xml(*events: tuple[str, int, str, str]) -> str:
    found = ""
    for time, number, provider, both in events:
        names = zip(("SleepTime", "WakeTime"), both.split(), strict=False)
        data = "".join(f"<Data Name='{name}'>{value}</Data>" for name, value in names)
        found += (
            "<Event><System><Provider "
            f"Name='Microsoft-Windows-{provider}'/><EventID>{number}</EventID>"
            f"<TimeCreated SystemTime='{time}'/></System><EventData>{data}</EventData></Event>"
        )
    return found


# A shutdown in the evening, a start in the morning: (time, provider, number, message).
EVENING, MORNING = "2026-11-24T21:03:12Z", "2026-11-25T07:41:55Z"
WINDOWS_NIGHT = [
    (EVENING, "Kernel-Power", 42, "The system is entering sleep. Sleep Reason: Kernel API"),
    (MORNING, "Kernel-Boot", 27, "The boot type was {boot_type}."),
    ("2026-11-25T07:41:56Z", "Kernel-Power", 107, "The system has resumed from sleep."),
]


def windows_csv(boot_type: str) -> str:
    rows = [
        f'"{time}",{number},Microsoft-Windows-{provider},"{message.format(boot_type=boot_type)}"'
        for time, provider, number, message in WINDOWS_NIGHT
    ]
    return "\r\n".join(["TimeCreated,Id,ProviderName,Message", *rows]) + "\r\n"


def windows_xml(boot_type: str) -> str:
    return "\n".join(
        f"<Event><System><Provider Name='Microsoft-Windows-{provider}'/><EventID>{number}</EventID>"
        f"<TimeCreated SystemTime='{time}'/><EventRecordID>{record}</EventRecordID>"
        "<Channel>System</Channel></System><EventData>"
        f"<Data Name='BootType'>{int(boot_type, 16)}</Data></EventData></Event>"
        for record, (time, provider, number, _) in enumerate(WINDOWS_NIGHT, 1)
    )


@pytest.mark.parametrize("form", [windows_csv, windows_xml])
@pytest.mark.parametrize(
    ("boot_type", "kind"), [("0x0", "pause"), ("0x1", "off"), ("0x2", "pause")]
)
def test_a_fast_startup_is_a_time_switched_off(
    tmp_path: Path, form: Callable[[str], str], boot_type: str, kind: str
) -> None:
    """Windows hibernates its kernel when it is shut down; the user's VMs are switched off. A start
    from hibernation (0x2) continues all of it."""
    month, _ = read_text(tmp_path, form(boot_type))
    assert [each.kind for each in month.events] == [kind]
    assert slept(month) == [pytest.approx(38_323, abs=1)]


def test_every_row_of_a_long_csv_is_counted(tmp_path: Path) -> None:
    """Also one that is passed over just before a row that is read."""
    header = "TimeCreated,ProviderName,Id,Message"
    events = ['"{}",Service,7036,running'] * 1_005
    events += ['"{}",Microsoft-Windows-Kernel-Power,42,The system is entering sleep.']
    events += ['"{}",Microsoft-Windows-Kernel-Power,107,The system has resumed from sleep.']
    rows = [
        event.format(f"2026-11-24T{8 + place // 3_600:02}:{place // 60 % 60:02}:{place % 60:02}Z")
        for place, event in enumerate(events)
    ]
    _, tally = read_text(tmp_path, "\n".join([header, *rows]) + "\n")
    assert (tally.used, tally.other) == (2, 1_005)
