from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode

from tests.support.paths import DATA

JOURNALS = DATA / "journals"


def test_a_month_is_imported_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two nights of eight hours, then a day: what is imported breaks just as it would have."""
    text = (JOURNALS / "systemd_laptop.json").read_text().splitlines()
    later = json.loads(text[19])
    assert later["MESSAGE"].startswith("Operation")
    for key in ("__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP"):
        later[key] = str(int(later[key]) + 40 * 3_600_000_000)
    journal, scenario = tmp_path / "journal.json", tmp_path / "mine.toml"
    journal.write_text("\n".join([*text[:20], json.dumps(later | {"MESSAGE": "still awake"})]))
    assert (
        run_command(["import-sleep", str(journal), "--output", str(scenario)])
        == ExitCode.AS_EXPECTED
    )
    printed = capsys.readouterr()
    assert "asleep 2 times (16h1m)" in printed.err and printed.out == f"{scenario}\n"
    assert run_command(["run", str(scenario), "--lab", "model", "--json"]) == ExitCode.SURPRISE
    findings = {
        each["check"]: each["verdict"] for each in json.loads(capsys.readouterr().out)["findings"]
    }
    assert findings["clock_fault_happened"] == "HOLDS"
    assert findings["traffic_flows"] == findings["recovers_within"] == "BROKEN"


def import_two_weeks(directory: Path) -> Path:
    """A laptop that sleeps eight hours a night, imported."""
    at_us, awake_us = 1_763_625_600_000_000, 0
    lines: list[dict[str, str]] = []
    hour_us = 3_600_000_000
    for _ in range(14):
        for slept_h, awake_h, message in (
            (0, 16, "PM: suspend entry (deep)"),
            (8, 0, "PM: suspend exit"),
        ):
            at_us += (slept_h + awake_h) * hour_us
            awake_us += awake_h * hour_us + 1_000_000
            lines.append(
                {
                    "__CURSOR": f"s=1;i={len(lines) + 1:x}",
                    "__REALTIME_TIMESTAMP": str(at_us),
                    "__MONOTONIC_TIMESTAMP": str(awake_us),
                    "_BOOT_ID": "b" * 32,
                    "_TRANSPORT": "kernel",
                    "MESSAGE": message,
                }
            )
    journal, scenario = directory / "journal.json", directory / "mine.toml"
    journal.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert run_command(["import-sleep", str(journal), "-o", str(scenario)]) == 0
    return scenario


def test_an_import_ends_with_one_line_per_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours a week without a connection, of runs of the model; a run of the month ends so, too."""
    two_weeks = import_two_weeks(tmp_path)
    answer = re.compile(
        r"as it is: (\d+) h a week · weekly restart: (\d+) h · wake guard: none$", re.MULTILINE
    )
    imported = answer.search(capsys.readouterr().err)
    assert run_command(["run", str(two_weeks), "--lab", "model"]) == ExitCode.SURPRISE
    run = answer.search(capsys.readouterr().out)
    assert imported is not None and run is not None
    assert imported.groups() == run.groups()
    as_it_is, restarted = map(int, run.groups())
    assert as_it_is > restarted > 0


def test_a_month_has_its_own_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where people read; programs still get seconds."""
    two_weeks = import_two_weeks(tmp_path)
    capsys.readouterr()
    run_command(["run", str(two_weeks), "--lab", "model", "-v"])
    shown = capsys.readouterr().out
    assert shown.startswith("BROKEN: ")
    first = re.search(r"first on (\w+ \d{4}-\d\d-\d\d)", shown.splitlines()[0])
    assert first is not None and first[1].startswith("Sat 2025-11-22")
    assert "every ztunnel was started on Thu 2025-11-20" in shown
    assert not re.search(r"\bday \d+ \d", shown)
    run_command(["run", str(two_weeks), "--lab", "model", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert any("day 1 " in finding["because"] for finding in findings)


@pytest.mark.parametrize("path", sorted(JOURNALS.iterdir()), ids=lambda path: path.name)
def test_every_import_is_a_scenario_that_runs(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sample makes a scenario whose faults really happen, on the model."""
    scenario = tmp_path / "mine.toml"
    assert run_command(["import-sleep", str(path), "-o", str(scenario)]) == ExitCode.AS_EXPECTED
    capsys.readouterr()
    code = run_command(["run", str(scenario), "--lab", "model", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert code in (ExitCode.AS_EXPECTED, ExitCode.SURPRISE)
    assert {each["verdict"] for each in result["findings"][:3]} == {"HOLDS"}


def test_what_was_not_understood_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Counted, with the first examples; the scenario goes to stdout."""
    assert (
        run_command(["import-sleep", str(JOURNALS / "windows_evtx_dump.xml")])
        == ExitCode.AS_EXPECTED
    )
    printed = capsys.readouterr()
    assert "5 entries: 2 are of sleep, 0 of something else, 3 not understood" in printed.err
    assert "entry 5: breaks off" in printed.err
    assert printed.out.startswith("# Made by meshwake import-sleep from windows_evtx_dump.xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as", "nap"], "invalid value 'nap' for --as: expected one of suspend, pause"),
        (["--zone", "Mars/Olympus"], "invalid value 'Mars/Olympus' for --zone"),
        (["--corrected-after", "soon"], "--corrected-after"),
        (["--date-order", "year-first"], "expected one of day-first, month-first"),
        (["--corrected-after", "-3s"], "must not be negative"),
        (["--output", "/nowhere/x.toml"], "cannot be written"),
    ],
)
def test_wrong_options(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 and a sentence, never a traceback."""
    assert (
        run_command(["import-sleep", str(JOURNALS / "pmset_macbook.log"), *arguments])
        == ExitCode.BAD_INPUT
    )
    assert message in capsys.readouterr().err


def test_a_journal_without_sleep_has_nothing_to_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reported with how much was read."""
    (tmp_path / "j.json").write_text(
        (JOURNALS / "systemd_laptop.json").read_text().splitlines()[0] + "\n"
    )
    assert run_command(["import-sleep", str(tmp_path / "j.json")]) == ExitCode.BAD_INPUT
    assert "nothing to import" in capsys.readouterr().err


def test_every_sleep_can_be_taken_for_another_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """--as suspend: the mesh runs on the machine itself, not in a VM."""
    assert (
        run_command(["import-sleep", str(JOURNALS / "pmset_macbook.log"), "--as", "suspend"])
        == ExitCode.AS_EXPECTED
    )
    assert '"pause"' not in capsys.readouterr().out


def test_the_next_command_can_be_typed_as_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a name has a blank in it."""
    month = tmp_path / "Mein Monat.toml"
    journal = JOURNALS / "pmset_macbook.log"
    assert run_command(["import-sleep", str(journal), "--output", str(month)]) == 0
    shown = re.search(r"when: meshwake (.*); with", capsys.readouterr().err)
    assert shown is not None
    assert shlex.split(shown[1]) == ["run", str(month)]
