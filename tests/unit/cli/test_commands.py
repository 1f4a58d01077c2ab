"""The table that `meshwake --help` is written from, against what the modules really add."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from meshwake.cli.app import app, run_command
from meshwake.cli.commands import COMMANDS
from meshwake.core.errors import ExitCode

SHOWN_MOST = 16


@pytest.mark.parametrize("module", sorted({entry.module for entry in COMMANDS.values()}))
def test_the_table_has_what_a_module_adds(module: str) -> None:
    """No more, no less."""
    own = typer.Typer()
    import_module(f"meshwake.cli.{module}").add_commands(own)
    added = set(typer.main.get_group(own).commands)
    assert added == {entry.name for entry in COMMANDS.values() if entry.module == module}


def test_lines_fit_on_a_terminal() -> None:
    """Of 80 columns, uncut; what most people need is at most 16 lines, run first."""
    shown = [entry for entry in COMMANDS.values() if entry.section]
    assert len(shown) <= SHOWN_MOST
    assert shown[0].name == "run"
    assert all(len(entry.summary) <= 62 for entry in COMMANDS.values())


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that few people need."""
    assert run_command([option]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """-h works there, too."""
    assert run_command(["run", "-h"]) == 0
    assert "--lab" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_marks_an_argument_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """typer itself puts brackets and dots around the name of one: [FILE]..., not [[FILE...]]..."""
    assert run_command([command, "-h"]) == 0
    usage, _, _ = capsys.readouterr().out.partition("\n\n")
    assert re.search(r"\.\.\.[\]}]|\[\[", usage) is None, usage


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """As pyproject.toml has it."""
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == "meshwake 0.1.0\n"


def test_alone_it_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    """A first run, before all options."""
    assert run_command([]) == 0
    assert "meshwake run nightly_sleep" in capsys.readouterr().out


def test_a_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With the nearest one."""
    assert run_command(["matrx"]) == ExitCode.BAD_INPUT
    assert "'matrix'" in capsys.readouterr().err


def test_names_are_completed(capsys: pytest.CaptureFixture[str]) -> None:
    """By the shell's own question, without an import of any command."""
    group = typer.main.get_command(app)
    context = group.make_context("meshwake", ["run"], resilient_parsing=True)
    found = [item.value for item in group.shell_complete(context, "fo")]
    assert found == ["forecast"]


def test_help_imports_no_command() -> None:
    """So it costs what Python and typer cost."""
    program = (
        "import sys; from meshwake.cli.app import run_command; run_command(['--help']); "
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    heavy = {"pydantic", "rich", "cryptography", "jinja2", "httpx", "simpy", "yaml"}
    assert loaded & heavy == set()
