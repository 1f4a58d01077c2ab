"""The time zone of a month: what its journal shows of it, or --zone; and its dates everywhere."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.scenario import read_scenario
from meshwake.importers.offsets import OffsetsContradict, OffsetsSeen, zone_shown

from tests.support.paths import DATA

JOURNALS = DATA / "journals"
# Eight nights around the end of summer time in Europe.
FIRST_EVENING = datetime(2026, 10, 21, 20, tzinfo=UTC)
NS = 1_000_000_000


def imported(tmp_path: Path, journal: str, *options: str) -> Path:
    """The scenario of a journal."""
    saved, scenario = tmp_path / "journal", tmp_path / "mine.toml"
    saved.write_text(journal, encoding="utf-8")
    assert run_command(["import-sleep", str(saved), "-o", str(scenario), *options]) == 0
    return scenario


def pmset(name: str, nights: int = 8) -> str:
    """The log of a Mac that sleeps from 20:00 to 04:00 UTC."""
    lines = []
    for night in range(nights):
        asleep = FIRST_EVENING + timedelta(days=night)
        for at, words in (
            (asleep - timedelta(hours=1), "Assertions\tPID 107(powerd) Summary"),
            (asleep, "Sleep\tEntering Sleep state due to 'Clamshell Sleep'"),
            (asleep + timedelta(hours=8), "Wake\tWake from Deep Idle [CDNVA] : due to lid"),
        ):
            lines.append(f"{at.astimezone(ZoneInfo(name)):%Y-%m-%d %H:%M:%S %z} {words}\n")
    return "".join(lines)


def verbose(nights: int = 2) -> str:
    """`journalctl -o verbose` of a machine in Denver that is suspended from 20:00 to 04:00 UTC."""
    lines = []
    monotonic_s = 100
    for night in range(nights):
        asleep = FIRST_EVENING + timedelta(days=night)
        for at, words in (
            (asleep, "PM: suspend entry (deep)"),
            (asleep + timedelta(hours=8), "PM: suspend exit"),
            (asleep + timedelta(hours=20), "anything"),
        ):
            monotonic_s += 5 if words == "PM: suspend exit" else 12 * 3_600
            local = at.astimezone(ZoneInfo("America/Denver"))
            cursor = f"s=ab;i=1;b={'c' * 32};m={monotonic_s * 1_000_000:x};"
            cursor += f"t={int(at.timestamp()) * 1_000_000:x};x=0"
            lines.append(f"{local:%a %Y-%m-%d %H:%M:%S}.000000 {local:%Z} [{cursor}]\n")
            lines.append(f"    MESSAGE={words}\n    _TRANSPORT=kernel\n")
    return "".join(lines)


WINDOWS_SET = (
    "<Event><System><Provider Name='Microsoft-Windows-Kernel-General'/><EventID>1</EventID>"
    "<TimeCreated SystemTime='2026-11-21T13:30:00.0000000Z'/><EventRecordID>902</EventRecordID>"
    "<Channel>System</Channel></System><EventData>"
    "<Data Name='NewTime'>2026-11-21T13:30:00.0000000Z</Data>"
    "<Data Name='OldTime'>2026-11-21T13:29:59.0000000Z</Data><Data Name='Reason'>1</Data>"
    "<Data Name='TimeZoneBias'>480</Data></EventData></Event>\n"
)
WINDOWS = WINDOWS_SET + (JOURNALS / "windows_clock_set.xml").read_text(encoding="utf-8")
CSV = (
    "TimeCreated,ProviderName,Id,Message\n"
    "2026-11-21T22:02:11+01:00,Microsoft-Windows-Kernel-Power,42,\n"
    "2026-11-22T06:15:54+01:00,Microsoft-Windows-Kernel-Power,107,\n"
)


@pytest.mark.parametrize(
    ("journal", "zone", "began"),
    [
        (pmset("Asia/Kathmandu"), "+05:45", "2026-10-22T00:44:00+05:45"),
        (
            pmset("Europe/Berlin"),
            "+02:00, +01:00 from 2026-10-25T04:00:00Z",
            "2026-10-21T20:59:00+02:00",
        ),
        (verbose(), "-06:00", "2026-10-21T13:59:00-06:00"),
        (WINDOWS, "-08:00", ""),
        (CSV, "+01:00", ""),
        ((JOURNALS / "systemd_laptop.json").read_text(), None, "2026-11-20T07:59:00Z"),
        ((JOURNALS / "libvirt_virsh_event.log").read_text(), None, ""),
    ],
    ids=["pmset", "pmset, end of summer", "verbose", "Windows", "CSV", "json", "libvirt"],
)
def test_a_scenario_has_the_zone_that_its_journal_shows(
    tmp_path: Path, journal: str, zone: str | None, began: str
) -> None:
    """With the first line that has it. Its date is in that zone, too; what shows none is UTC."""
    scenario = imported(tmp_path, journal)
    assert read_scenario(scenario).recorded_zone == zone
    assert f"recorded_from = {began}" in scenario.read_text()


def test_an_option_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the lines show, of any journal; the comments above faults are in it, and the
    summary."""
    scenario = imported(tmp_path, pmset("Europe/Berlin"), "--zone", "America/New_York")
    assert 'recorded_zone = "America/New_York"' in scenario.read_text()
    assert "\n# Wed 2026-10-21 16:00:00 -04:00\n" in scenario.read_text()
    assert "from Wed 2026-10-21 14:59 America/New_York, " in capsys.readouterr().err
    # America's summer time ends a week later.
    assert "-05:00" not in scenario.read_text()


def test_without_a_zone_the_import_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, (JOURNALS / "systemd_laptop.json").read_text())
    assert "dates are UTC; for those of your own clocks add --zone" in capsys.readouterr().err


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe/Berln", "+01:00, +02:00"])
def test_a_zone_that_is_not_one(zone: str, capsys: pytest.CaptureFixture[str]) -> None:
    journal = str(JOURNALS / "pmset_macbook.log")
    assert run_command(["import-sleep", journal, "--zone", zone]) == ExitCode.BAD_INPUT
    message = capsys.readouterr().err
    assert f"invalid value {zone!r} for --zone: expected a time zone such as" in message
    assert ("did you mean 'Europe/Berlin'" in message) == (zone == "Europe/Berln")


def test_every_date_is_in_that_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a run, its tables, its pages and their data: no day 1, and no UTC."""
    scenario, pages = imported(tmp_path, pmset("Europe/Berlin")), tmp_path / "pages"
    capsys.readouterr()
    command = ["run", str(scenario), "--lab", "model", "-v", "--report", str(pages)]
    assert run_command(command) == ExitCode.SURPRISE
    shown = capsys.readouterr().out
    local = "local time (UTC+02:00, UTC+01:00)"
    words = " ".join(shown.split())
    assert f"every ztunnel was started on Wed 2026-10-21 20:59; all times are {local}" in words
    # Asleep from 22:00 to 06:00 in summer, to 05:00 after it.
    assert "Wed 2026-10-21 22:00:00" in words
    assert "Mon 2026-10-26 21:00:00" in words
    assert "Mon 2026-10-26 22:00:00" not in words
    page, script = (pages / "index.html").read_text(), next(pages.glob("data/*.js")).read_text()
    for text in (shown, page, script):
        assert not re.search(r"\bday \d+ (at )?\d\d:", text)
        assert not re.search(r"\d UTC\b", text)
    assert "Times are local time (UTC+02:00, UTC+01:00)" in page
    dates = json.loads(re.findall(r"add\((.*)\);", script)[0])["dates"]
    assert [offset_s for _, offset_s in dates["offsets"]] == [7_200, 3_600]


def test_two_journals_that_contradict_each_other() -> None:
    """Of one time: the zone is unknown, and dates stay UTC. One after the other is a journey."""
    one, two, later = OffsetsSeen(), OffsetsSeen(), OffsetsSeen()
    for at_s in (0, 100):
        one.add(at_s * NS, 3_600)
        two.add((50 + at_s) * NS, 7_200)
        later.add((200 + at_s) * NS, 7_200)
    with pytest.raises(OffsetsContradict):
        zone_shown([one, two])
    zone = zone_shown([later, one])
    assert zone is not None
    assert zone.text == "+01:00, +02:00 from 1970-01-01T00:03:20Z"


def test_an_offset_that_no_zone_has_is_damage() -> None:
    seen = OffsetsSeen()
    for offset_s in (3_601, 99 * 3_600, -15 * 3_600):
        seen.add(0, offset_s)
    assert zone_shown([seen]) is None


@settings(max_examples=50)
@given(st.sets(st.integers(0, 100), min_size=1, max_size=30))
def test_lines_may_come_in_any_order_of_time(hours: set[int]) -> None:
    """Oldest first and newest first are the same zone, over the end of summer time."""
    berlin, begins_s = ZoneInfo("Europe/Berlin"), int(FIRST_EVENING.timestamp())
    lines = [(begins_s + hour * 3_600) for hour in sorted(hours)]
    found = []
    for order in (lines, lines[::-1]):
        seen = OffsetsSeen()
        for at_s in order:
            offset = datetime.fromtimestamp(at_s, berlin).utcoffset()
            assert offset is not None
            seen.add(at_s * NS, int(offset.total_seconds()))
        found.append(zone_shown([seen]))
    assert found[0] == found[1]
    assert found[0] is not None
    for at_s in lines:
        shown = datetime.fromtimestamp(at_s, berlin).replace(tzinfo=None)
        assert found[0].local(at_s) == shown.replace(fold=0)
