"""Every command from the wheel, in another directory than the repository, with what the base
install brings."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.wheel.installed import Installed
from tests.support.paths import DATA
from tests.support.scenarios import small, write

# What the base install answers, and the exit code.
COMMANDS: tuple[tuple[str, int, str], ...] = (
    ("--version", 0, "meshwake 0.1.0"),
    ("-h", 0, "import-sleep"),
    ("", 0, "meshwake run nightly_sleep"),
    ("run mine.toml", 0, "as expected"),
    ("run mine.toml --istio 1.28.0 --json", 0, '"version": "1.28.0"'),
    ("run nightly_sleep --lab model", 0, "no_expired_certificate_served"),
    ("check kept", 0, "as expected"),
    ("plan mine.toml --lab model", 0, '"duration_ns"'),
    ("matrix --fix wake-guard --fault pause", 0, "wake-guard"),
    ("matrix --fix none --scenario nightly_sleep", 0, "nightly_sleep"),
    ("doctor", 0, "--lab auto would choose: model"),
    ("versions", 0, "1.28.0"),
    ("bisect lifetime_asked_for --check valid_certificate_kept --lab model", 1, "first"),
    ("probe --istio 1.28.0", 0, "1.28.0"),
    ("guard-trial --days 3", 0, "wake"),
    ("alerts kept", 0, "alert_before_outage"),
    ("nightly --labs model --istio 1.28.0 mine.toml", 0, "as expected"),
    ("import-sleep journal.xml -o slept.toml", 0, "sleep"),
    ("forecast --from saved", 1, "OUTAGE"),
    ("report kept", 0, "nightly"),
    ("fetch-kernel -h", 0, "kernel"),
    ("timers -h", 0, "timers"),
    ("accept kept --dry-run", 3, "as expected"),
    ("dashboard", 3, "checkout"),
)


@pytest.fixture(scope="module")
def work(base: Installed) -> Installed:
    """With a scenario of one's own, a kept run, a journal, a saved cluster."""
    write(base.work, small(), "mine")
    shutil.copytree(DATA / "histories" / "ztunnel_1481-1.31.0-rc.0", base.work / "kept")
    return base


@pytest.mark.parametrize(("line", "code", "expected"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_command(work: Installed, line: str, code: int, expected: str) -> None:
    """It answers as it does in a checkout."""
    done = work.run("meshwake", *line.split())
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr
