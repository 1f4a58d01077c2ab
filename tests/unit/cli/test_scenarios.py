"""meshwake new: a file of one's own to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.resources import SCENARIOS
from meshwake.core.scenario import read_scenario
from meshwake.runner.choose import read_manifest


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_model(*words: str) -> int:
    return run_command(["run", *words, "--lab", "model"])


@pytest.mark.parametrize("name", ["mine", "mine.toml", "scenarios/mine", "v1.2"])
def test_what_it_writes_fails_without_a_fix_and_not_with_one(name: str) -> None:
    """And has the suffix by which pytest and `run` know it, in a folder that need not be there."""
    assert run_command(["new", name]) == ExitCode.AS_EXPECTED
    written = f"{name.removesuffix('.toml')}.toml"
    assert run_model(written) == ExitCode.SURPRISE
    assert run_model(written, "--fix", "wake-guard") == ExitCode.AS_EXPECTED


def test_it_names_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line runs as it is printed."""
    assert run_command(["new", "my week"]) == ExitCode.AS_EXPECTED
    printed = capsys.readouterr().out
    for line in ("run", "run 'my week.toml' --fix wake-guard", "matrix --scenario"):
        assert f"  meshwake {line}" in printed
    assert run_command(["matrix", "--scenario", "my week.toml"]) == ExitCode.AS_EXPECTED


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even by a second `new`."""
    Path("mine.toml").write_text("title = 1\n", encoding="utf-8")
    assert run_command(["new", "mine"]) == ExitCode.BAD_INPUT
    assert "mine.toml: exists already" in capsys.readouterr().err
    assert Path("mine.toml").read_text(encoding="utf-8") == "title = 1\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine", "--from", "nosuch"], "nosuch: no such scenario"),
        (["mine", "--from", "."], "is a directory"),
        (["taken/mine"], "taken/mine.toml: cannot be written"),
        ([""], "expected the name of a file"),
        (["/"], "expected the name of a file"),
    ],
)
def test_what_cannot_be_written_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence, and nothing is left."""
    Path("taken").write_text("", encoding="utf-8")
    assert run_command(["new", *words]) == ExitCode.BAD_INPUT
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["taken"]


@pytest.mark.parametrize("file", sorted(SCENARIOS.rglob("*.toml")), ids=lambda file: file.stem)
def test_every_scenario_can_be_copied(file: Path) -> None:
    """And means the same elsewhere, the file of its fix too."""
    name = file.relative_to(SCENARIOS).with_suffix("").as_posix()
    assert run_command(["new", "copy", "--from", name]) == ExitCode.AS_EXPECTED
    copied, own = read_scenario(Path("copy.toml")), read_scenario(file)
    assert copied.model_copy(update={"path": own.path, "name": own.name}) == own
    assert read_manifest(copied) == read_manifest(own)
