"""What is imported is a scenario that runs, and breaks as the machine would have: on the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.scenario import read_scenario

from tests.unit.importers.test_order import HOUR_S, STARTS_S, YEAR_S, entry, two_boots


def run(
    tmp_path: Path, lines: list[str], capsys: pytest.CaptureFixture[str], *options: str
) -> dict[str, Any]:
    (tmp_path / "journal").write_text("\n".join(lines) + "\n")
    scenario = tmp_path / "mine.toml"
    assert (
        run_command(["import-sleep", str(tmp_path / "journal"), "-o", str(scenario), *options]) == 0
    )
    capsys.readouterr()
    run_command(["run", str(scenario), "--lab", "model", "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {each["check"]: each["verdict"] for each in result["findings"]}


@pytest.mark.parametrize("behind_s", [0, 50, HOUR_S])
def test_a_reboot_makes_ztunnel_late_by_nothing(
    tmp_path: Path, behind_s: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One night of nine hours and a clock an hour behind after the reboot do no harm, together or
    alone."""
    result = run(tmp_path, two_boots(behind_s), capsys)
    assert verdicts(result)["clock_fault_happened"] == "HOLDS"
    assert verdicts(result)["no_expired_certificate_served"] == "HOLDS"
    assert not result["outages"]


@pytest.mark.parametrize(
    "behind_s", [20 * HOUR_S * 2, 2 * YEAR_S, STARTS_S - 7], ids=["days", "years", "1970"]
)
def test_a_clock_that_is_set_minutes_after_a_boot_breaks_what_was_issued_before(
    tmp_path: Path, behind_s: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not before the clock is set, and not at the boot itself, where the clock goes back by as
    much."""
    result = run(tmp_path, two_boots(behind_s), capsys)
    assert verdicts(result)["clock_fault_happened"] == "HOLDS"
    assert verdicts(result)["no_expired_certificate_served"] == "BROKEN"
    set_at_s = 60 + 30 * HOUR_S + 600 + 300
    assert min(outage["from_world_s"] for outage in result["outages"]) == pytest.approx(
        set_at_s, abs=5
    )


def test_a_clock_that_was_ahead_makes_certificates_that_are_not_valid_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Set back by five hours after six minutes."""
    lines = [
        entry(STARTS_S, 3),
        entry(STARTS_S + 355, 358),
        entry(STARTS_S + 360 - 5 * HOUR_S, 363),
    ]
    result = run(tmp_path, [*lines, entry(STARTS_S + 5 * HOUR_S, 3 + 10 * HOUR_S)], capsys)
    assert verdicts(result)["traffic_flows"] == "BROKEN"
    assert min(outage["from_world_s"] for outage in result["outages"]) == pytest.approx(420, abs=10)


MAC = (
    "2026-11-23 21:00:00 +0000 Sleep               \tEntering Sleep state due to 'Clamshell Sleep'",
    "2026-11-24 11:00:00 +0000 Wake                \tWake from Deep Idle [CDNVA] : due to lid",
    "2026-11-24 21:00:00 +0000 Sleep               \tEntering Sleep state due to 'Clamshell Sleep'",
    "2026-11-25 11:00:00 +0000 Wake                \tWake from Deep Idle [CDNVA] : due to lid",
    "2026-11-26 11:00:00 +0000 Assertions          \tx",
)


def test_a_clock_that_is_never_corrected_delays_no_renewal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """28 hours of pause break a mesh whose clock is corrected, and none whose clocks all stay
    behind."""
    corrected = run(tmp_path, list(MAC), capsys)
    assert verdicts(corrected)["no_expired_certificate_served"] == "BROKEN"
    behind = run(tmp_path, list(MAC), capsys, "--corrected-after", "never")
    assert (
        verdicts(behind)["clock_fault_happened"]
        == verdicts(behind)["no_expired_certificate_served"]
        == "HOLDS"
    )
    assert [fault["measured_wall_s"] for fault in behind["clock_faults"]] == [0, 0]


def test_chrony_corrects_a_clock_that_nothing_else_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And by that breaks the mesh, as a correction does."""
    run(tmp_path, list(MAC), capsys, "--corrected-after", "never")
    scenario = tmp_path / "mine.toml"
    scenario.write_text(scenario.read_text() + '\n[fix]\nname = "chrony-makestep"\n')
    assert run_command(["run", str(scenario), "--lab", "model", "--json"]) == ExitCode.SURPRISE
    assert (
        verdicts(json.loads(capsys.readouterr().out))["no_expired_certificate_served"] == "BROKEN"
    )


def test_one_correction_may_follow_several_sleeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written down as pauses that nothing corrects, and a step by all of them."""
    run(tmp_path, list(MAC), capsys, "--corrected-after", "never")
    scenario = tmp_path / "mine.toml"
    text = scenario.read_text() + '\n[[fault]]\nkind = "step"\nat = "1d16h"\nby = "28h"\n'
    scenario.write_text(text)
    assert [fault.kind for fault in read_scenario(scenario).fault] == ["pause", "pause", "step"]
    run_command(["run", str(scenario), "--lab", "model", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert verdicts(result)["clock_fault_happened"] == "HOLDS"
    assert min(outage["from_world_s"] for outage in result["outages"]) == pytest.approx(
        40 * HOUR_S, abs=5
    )


def test_a_journal_that_ends_with_a_wake_is_long_enough_to_show_a_recovery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one does that was filtered for sleeps. A fix that acts two minutes after the last wake was
    UNKNOWN."""
    # The certificate of Monday is renewed at 20:01 and, after a day awake, at 08:01 on Tuesday; at
    # the last wake it has expired.
    lines = [
        "2026-10-05 08:01:00 +0200 Wake  \tWake from Deep Idle [CDNVA] : due to EC.LidOpen/Lid Open "
        "Using BATT (Charge:78%)",
        "2026-10-06 15:00:00 +0200 Sleep  \tEntering Sleep state due to 'Clamshell Sleep'"
        ":TCPKeepAlive=active Using Batt (Charge:80%) 75600 secs",
        "2026-10-07 12:00:00 +0200 Wake  \tWake from Deep Idle [CDNVA] : due to EC.LidOpen/Lid Open "
        "Using BATT (Charge:78%)",
    ]
    broken = verdicts(run(tmp_path, lines, capsys))
    assert broken["recovers_within"] == "BROKEN"
    run_command(
        ["run", str(tmp_path / "mine.toml"), "--lab", "model", "--fix", "wake-guard", "--json"]
    )
    guarded = json.loads(capsys.readouterr().out)
    assert verdicts(guarded)["recovers_within"] == "HOLDS"
