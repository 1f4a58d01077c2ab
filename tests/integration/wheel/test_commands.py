"""Every command from the wheel, in another directory than the repository, with what the base
install brings."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime

import pytest

from tests.integration.wheel.installed import Installed
from tests.support.paths import DATA
from tests.support.scenarios import small, write

# What the base install answers, and the exit code.
COMMANDS: tuple[tuple[str, int, str], ...] = (
    ("--version", 0, "meshwake 0.1.0"),
    ("-h", 0, "import-sleep"),
    ("", 0, "meshwake run nightly_sleep"),
    ("list", 0, "nightly_sleep"),
    ("run mine.toml", 0, "as expected"),
    ("run mine.toml --istio 1.28.0 --json", 0, '"version": "1.28.0"'),
    ("run nightly_sleep --lab model", 0, "no_expired_certificate_served"),
    ("run nightly_slep", 3, "did you mean 'nightly_sleep'"),
    ("run scenarios --lab model", 0, "weekly_restart_nightly_sleep"),
    ("check kept", 0, "as expected"),
    ("plan mine.toml --lab model", 0, '"duration_ns"'),
    ("matrix --fix wake-guard --fault pause", 0, "wake-guard"),
    ("matrix --fix weekly-restart --scenario nightly_sleep", 0, "nightly_sleep"),
    ("doctor", 0, "meshwake[process]"),
    ("doctor", 0, "--lab auto would choose: model"),
    ("doctor --json", 0, "pip install 'meshwake[machine]'"),
    ("doctor --json", 0, "pip install 'meshwake[process]'"),
    ("versions", 0, "1.28.0"),
    ("bisect ca_away_at_renewal --check valid_certificate_kept --lab model", 0, "1.28.0"),
    ("probe --istio 1.28.0", 0, "1.28.0"),
    ("guard install --print", 0, "kind: DaemonSet"),
    ("guard alerts", 0, "PrometheusRule"),
    ("guard-trial --days 3", 0, "recovers_within  HOLDS"),
    ("alerts kept", 0, "alert_before_outage"),
    ("nightly --labs model --istio 1.28.0 mine.toml", 0, "1.28.0"),
    ("import-sleep journal.xml -o slept.toml", 0, "sleep"),
    ("forecast --from saved --sleep 9h", 1, "OUTAGE"),
    ("report kept", 0, "ztunnel_1481"),
    ("fetch-kernel -h", 0, "kernel"),
    ("timers -h", 0, "timers"),
    ("down -h", 0, "--all"),
    ("accept kept --dry-run", 3, "as expected"),
    ("dashboard", 3, "run it from a checkout"),
)
# What needs an extra says which, in one sentence, with exit code 4.
WITH_EXTRA: tuple[tuple[str, str], ...] = (
    ("up --dry-run", "kind"),
    ("status", "kind"),
    ("run mine.toml --report out", "report"),
    ("report kept --output out", "report"),
    ("falsify --fix none --budget 2s", "search"),
    ("sweep --machines 1", "sweep"),
    ("fetch 1.28.0", "fetch"),
    ("forecast --kubeconfig nowhere", "kind"),
    ("guard status", "kind"),
    ("run short_sleep --lab kind", "kind"),
)
# With the extra they get as far as they can without a network, an engine, a binary.
WITH_EVERYTHING: tuple[tuple[str, int, str], ...] = (
    ("up --dry-run", 0, "up meshwake-core"),
    ("run mine.toml --report out", 0, "report: out/index.html"),
    ("report kept --output pages", 0, "open pages/index.html"),
    ("falsify --fix none --budget 3s", 1, "scenario: found/"),
    ("sweep --machines 1 --days 3 --fix none --population homelab", 0, "rows in sweep"),
    ("fetch 1.28.0 --from nowhere", 3, "nowhere"),
    ("forecast --kubeconfig nowhere", 3, "nowhere"),
    ("run nightly_sleep --lab machine --istio 1.28.0", 4, "ztunnel"),
)


def prepared(installed: Installed) -> Installed:
    """With a scenario of one's own, a kept run, a journal, a saved cluster."""
    write(installed.work, small(), "mine")
    shutil.copytree(DATA / "histories" / "ztunnel_1481-1.31.0-rc.0", installed.work / "kept")
    shutil.copytree(DATA / "saved" / "laptop", installed.work / "saved")
    shutil.copy(DATA / "journals" / "hyper_v_worker.xml", installed.work / "journal.xml")
    return installed


@pytest.fixture(scope="module")
def plain(base: Installed) -> Installed:
    return prepared(base)


@pytest.fixture(scope="module")
def full(everything: Installed) -> Installed:
    return prepared(everything)


@pytest.mark.parametrize(("line", "code", "expected"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_base(plain: Installed, line: str, code: int, expected: str) -> None:
    """It answers as it does in a checkout."""
    done = plain.run("meshwake", *line.split())
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr


@pytest.mark.parametrize(("line", "extra"), WITH_EXTRA, ids=[c[0] for c in WITH_EXTRA])
def test_without_its_extra(plain: Installed, line: str, extra: str) -> None:
    """One sentence, no traceback, nothing begun."""
    done = plain.run("meshwake", *line.split())
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stderr.strip().endswith(f"pip install 'meshwake[{extra}]'")
    assert done.stdout == ""
    assert not (plain.work / "out").exists()


@pytest.mark.parametrize(
    ("line", "code", "expected"), WITH_EVERYTHING, ids=[c[0] for c in WITH_EVERYTHING]
)
def test_with_every_extra(full: Installed, line: str, code: int, expected: str) -> None:
    """As far as it goes on this machine."""
    done = full.run("meshwake", *line.split())
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr


def test_python_m(plain: Installed) -> None:
    """`python -m meshwake` is `meshwake`; the guard starts as well."""
    done = plain.run("python", "-m", "meshwake", "--version")
    assert (done.returncode, done.stdout) == (0, "meshwake 0.1.0\n")
    assert plain.run("python", "-m", "meshwake.guard", "--help").returncode == 0


def test_a_folder_called_harness_is_in_nobodys_way(plain: Installed) -> None:
    """The package was called so once."""
    own = plain.work / "harness"
    own.mkdir()
    (own / "__init__.py").touch()
    assert plain.run("meshwake", "run", "mine.toml", "--lab", "model").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="clocks of a process are moved on Linux")
def test_clock_exec(plain: Installed) -> None:
    """A program of one's own on another date."""
    done = plain.run("meshwake", "clock", "exec", "--step", "400d", "--", "date", "+%Y")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > datetime.now(UTC).year


def test_completion(plain: Installed) -> None:
    """bash asks with variables; the script comes from --show-completion."""
    completion = {
        "_MESHWAKE_COMPLETE": "complete_bash",
        "COMP_WORDS": "meshwake fo",
        "COMP_CWORD": "1",
    }
    assert plain.run("meshwake", **completion).stdout.split() == ["forecast"]
    # The script is that of the shell which started it; a CI runner may have none.
    typed = plain.run("bash", "-c", "meshwake --show-completion; exit")
    assert "_MESHWAKE_COMPLETE" in typed.stdout, typed.stderr
