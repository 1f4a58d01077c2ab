"""Places where a command will write are tried before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.outputs import try_file, try_folder


def test_trying_leaves_nothing_behind(tmp_path: Path) -> None:
    """No folder, no file, and a file that is there as it was."""
    try_folder(tmp_path / "a" / "b", "--output")
    try_file(tmp_path / "new", "--output")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    try_file(tmp_path / "file", "--output")
    try_folder(tmp_path, "--output")
    assert (tmp_path / "file").read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["file/x", "file/x/y"])
def test_what_cannot_be_written_is_named_with_its_option(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    for attempt in (try_folder, try_file):
        with pytest.raises(BadInput, match=rf"^--output {tmp_path / place}: cannot be written \("):
            attempt(tmp_path / place, "--output")


def test_a_folder_in_place_of_a_file_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="give another folder"):
        try_folder(tmp_path / "file", "--output")
    with pytest.raises(BadInput, match=r"\(Is a directory\); give another file"):
        try_file(tmp_path, "--output")


@pytest.mark.parametrize(
    "command",
    [
        ["falsify", "--fix", "none", "--output", "PLACE"],
        ["matrix", "--write", "PLACE"],
        ["import-sleep", "no-such-journal", "--output", "PLACE"],
        ["clocks", "--output", "PLACE"],
        ["timers", "--output", "PLACE"],
        ["sweep", "--output", "PLACE"],
        ["nightly", "--out", "PLACE"],
    ],
    ids=lambda command: command[0],
)
def test_commands_try_their_outputs_first(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before minutes of work, with the option's value in the message."""
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "x")
    typed = [place if word == "PLACE" else word for word in command]
    assert run_command(typed) == ExitCode.BAD_INPUT
    printed = capsys.readouterr()
    assert place in printed.err
    assert "Not a directory" in printed.err
    assert printed.out == ""
