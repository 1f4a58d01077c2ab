"""docs/reference.md is a promise to scripts: its tables are those of the code."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from meshwake.checks import ASSUMPTIONS, CHECKS
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.faults import Fault
from meshwake.core.json_types import objects_at
from meshwake.core.scenario import CheckName, Scenario, parse_scenario
from meshwake.report.result import result
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.runner.suite import MOST_SERIOUS_FIRST

from tests.support.paths import DOCS
from tests.support.scenarios import SMALL

TEXT = (DOCS / "reference.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_exit_codes() -> None:
    """Every number with its name, and which of several decides."""
    rows = re.findall(r"^\| (\d) \| (\w+) \|", section("Exit codes"), re.MULTILINE)
    assert rows == [(str(int(code)), code.name) for code in ExitCode]
    first, *rest = (str(int(code)) for code in MOST_SERIOUS_FIRST)
    assert f"decides: {first}, then {', '.join(rest)}." in section("Exit codes")


def test_checks() -> None:
    """Every check, and no other."""
    assert set(re.findall(r"^\| `(\w+)`", section("Checks"), re.MULTILINE)) == {
        *CHECKS,
        *ASSUMPTIONS,
    }
    assert set(get_args(CheckName)) == set(CHECKS)


def test_json_fields() -> None:
    """Every key of a result is in the table."""
    options = Options(lab="model")
    saved = run_case(choose(parse_scenario(SMALL, "small.toml", "small"), options)[0], options)
    named = set(re.findall(r"`(\w+)(?:\[\])?`", section("JSON")))
    found = dict(result(saved))
    keys = set(found)
    for listed in ("findings", "renewals", "clock_faults"):
        keys |= set(objects_at(found, listed)[0])
    assert keys <= named


def test_scenario_keys() -> None:
    """Every key that the reader knows is in the table."""
    named = set(re.findall(r"`(\w+)`", section("Scenario keys")))
    tables = {
        "certificate",
        "node",
        "gateway",
        "authority",
        "traffic",
        "fault",
        "fix",
        "real_time",
        "expect",
    }
    keys = set(Scenario.model_fields) - {"name", "path"} - tables
    for kind in get_args(get_args(Fault)[0]):
        keys |= set(kind.model_fields)
    assert keys <= named


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of `meshwake run --help` is in the table."""
    assert run_command(["run", "--help"]) == 0
    for option in set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {
        "--help",
        "--verbose",
    }:
        assert f"`{option}" in section("Commands")
