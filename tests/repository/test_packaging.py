"""What a fresh machine meets first: the Makefile, the locked list of packages, the settings of the
tools."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {
    name: (REPOSITORY / name).read_text(encoding="utf-8")
    for name in ("requirements.lock", "requirements-dev.lock")
}
LOCK, DEV_LOCK = LOCKS.values()
PINS, DEV_PINS = (
    dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", lock, re.MULTILINE)) for lock in LOCKS.values()
)
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]
# What `make scenarios` runs. `fetch` brings `process`.
OF_SCENARIOS = [
    *PYPROJECT["project"]["dependencies"],
    *EXTRAS["fetch"],
    *EXTRAS["process"],
    *EXTRAS["pytest"],
    *GROUPS["build"],
]
OF_TESTS = [
    *OF_SCENARIOS,
    *itertools.chain.from_iterable(EXTRAS.values()),
    *(each for each in GROUPS["dev"] if isinstance(each, str)),
]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("lock", "pins", "wanted"), [(LOCK, PINS, OF_SCENARIOS), (DEV_LOCK, DEV_PINS, OF_TESTS)]
)
def test_every_dependency_is_locked_with_hashes(
    lock: str, pins: dict[str, str], wanted: list[str]
) -> None:
    """What pyproject.toml asks for is locked, in a version it allows."""
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == "meshwake":  # an extra within an extra
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock)
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)


def test_the_locks_agree() -> None:
    """The developers' packages are installed over those of the scenarios: the same versions."""
    assert PINS.items() <= DEV_PINS.items()


def test_scenarios_install_only_what_they_run() -> None:
    """Nothing of the developers' tools, of Dask, of plotly, of a cluster."""
    for name in ("mypy", "ruff", "selenium", "pyarrow", "distributed", "plotly", "docker", "kr8s"):
        assert name in DEV_PINS
        assert name not in PINS


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_the_lock_names_no_place(lock: str) -> None:
    """No registry, no directory of a machine: it installs from wherever its user installs from."""
    assert not re.search(r"://|--index|--find-links|/home/|/root/|/work/|/tmp/", lock)


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_the_lock_is_for_every_system(lock: str) -> None:
    """What only one system needs has a marker."""
    assert re.search(r"^pyroute2==\S+ ; sys_platform == 'linux'", lock, re.MULTILINE)
    assert re.search(r"^colorama==\S+ ; sys_platform == 'win32'", lock, re.MULTILINE)


def test_every_ignored_rule_has_its_reason() -> None:
    """On the same line: a rule is not switched off in silence."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    lint = text.split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.pydocstyle]")[0]
    rules = [line for line in lint.splitlines() if re.match(r'\s+"[A-Z]+\d*",', line)]
    assert rules
    assert [line for line in rules if not re.search(r"# \S.{4,}", line)] == []


def test_conftest_only_names_the_plugin() -> None:
    """Everything else is in harness/meshwake/pytest_plugin.py, where it is tested."""
    code = (REPOSITORY / "conftest.py").read_text(encoding="utf-8").split('"""')[2]
    assert code.strip() == (
        'pytest_plugins = ["meshwake.pytest_plugin", "meshwake.pytest_plugin.short_options"]'
    )


def test_the_build_machine_runs_the_tests_and_nothing_else() -> None:
    """.ci/run ends in `make test`; bash reads it without complaint."""
    script = REPOSITORY / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("exec make test")
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


@needs_make
def test_make_alone_lists_the_targets() -> None:
    """Every target with a word on what it does."""
    listed = make().stdout
    for target in ("setup", "develop", "scenarios", "test", "check", "bench", "lock", "clean"):
        assert re.search(rf"make {target} +\w", listed)


@needs_make
def test_a_missing_python_is_reported_clearly(tmp_path: Path) -> None:
    """What is needed, and how to get it."""
    ended = make("setup", "PYTHON=", f"VENV={tmp_path / 'venv'}")
    assert ended.returncode != 0
    assert "needs Python 3.11 or newer, and none was found" in ended.stderr
    assert "apt install python3" in ended.stderr


@needs_make
def test_a_missing_venv_is_reported_clearly(tmp_path: Path) -> None:
    """Debian ships Python without it."""
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    ended = make("setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert ended.returncode != 0
    assert "apt install python3-venv" in ended.stderr


@needs_make
def test_set_up_is_done_once(tmp_path: Path) -> None:
    """With the stamp there is nothing to do; a new lock sets up again."""
    stamp = tmp_path / ".set-up"
    stamp.touch()
    newest_s = max(
        (REPOSITORY / name).stat().st_mtime for name in ("requirements.lock", "pyproject.toml")
    )
    os.utime(stamp, (newest_s + 1, newest_s + 1))
    assert make("--dry-run", "setup", f"VENV={tmp_path}").stdout.strip() in (
        "",
        "make: Nothing to be done for 'setup'.",
    )
    os.utime(stamp, (1, 1))
    assert "--require-hashes" in make("--dry-run", "setup", f"VENV={tmp_path}").stdout


@needs_make
def test_tests_install_the_developers_packages_too(tmp_path: Path) -> None:
    """`make scenarios` does not; both set up the rest first."""
    venv = f"VENV={tmp_path}"
    assert "-r requirements-dev.lock" in make("--dry-run", "test", venv).stdout
    only_scenarios = make("--dry-run", "scenarios", venv).stdout
    assert "-r requirements.lock" in only_scenarios
    assert "requirements-dev.lock" not in only_scenarios
