"""The map of harness/meshwake/__init__.py is enforced by import-linter's contracts in
pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import PACKAGE, REPOSITORY

LINT = Path(sys.executable).with_name("lint-imports")
ONLY_LINUX = (
    "meshwake.labs.process",
    "meshwake.clocks.vdso",
    "meshwake.clocks.quiescence",
    "pyroute2",
)
WITHIN_S = 120


def lint(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, *arguments], cwd=cwd, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )


def test_imports_go_downwards() -> None:
    """Every contract is kept."""
    completed = lint()
    assert completed.returncode == 0, completed.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("labs/model/lab.py", "from meshwake.checks import derive"),
        ("checks/facts/clocks.py", "from meshwake.labs import probes"),
        ("labs/kind/lab.py", "from meshwake.labs.process import world"),
        ("core/plan.py", "from meshwake.clocks import virtual"),
        ("report/result.py", "from meshwake.runner import pipeline"),
        ("cli/app.py", "from meshwake import pytest_plugin"),
        ("guard/watch.py", "from meshwake.core import plan"),
    ],
)
def test_a_contract_is_broken_by(tmp_path: Path, module: str, line: str) -> None:
    """A rule that never fails checks nothing: a copy of the package with one import too many is
    refused."""
    package = tmp_path / "meshwake"
    for file in PACKAGE.rglob("*.py"):
        copy = package / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text(encoding="utf-8")
        copy.write_text(f"{text}\n{line}\n" if file == PACKAGE / module else text, encoding="utf-8")
    rules = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "importlinter" in rules["tool"]
    (tmp_path / "pyproject.toml").write_bytes((REPOSITORY / "pyproject.toml").read_bytes())
    completed = lint("--no-cache", cwd=tmp_path)
    assert completed.returncode == 1, completed.stdout


def test_the_doors_import_nothing_that_only_linux_has() -> None:
    """`meshwake` and the plugin start anywhere; what only Linux has is imported when its lab is
    used."""
    program = "import sys, meshwake.cli.app, meshwake.pytest_plugin; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    wrong = [name for name in loaded if name.startswith(ONLY_LINUX)]
    assert wrong == []
