from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from meshwake.checks import judge
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.store import LATEST, kept_runs, runs_dir
from meshwake.runner import doctor

from tests.support.scenarios import SMALL, SURPRISING, UNKNOWN, small, write

DESIGN_KEYS = {
    "scenario",
    "lab",
    "version",
    "seed",
    "outcome",
    "exit_code",
    "findings",
    "renewals",
    "outages",
    "clock_faults",
    "cost",
}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (small(), ExitCode.AS_EXPECTED),
        (SURPRISING, ExitCode.SURPRISE),
        (UNKNOWN, ExitCode.UNKNOWN),
        (small(('lasts = "8h"', 'lasts = "8"')), ExitCode.BAD_INPUT),
        (small(('["model"]', '["process"]')), ExitCode.LAB_UNAVAILABLE),
    ],
)
def test_exit_codes(text: str, code: ExitCode, tmp_path: Path) -> None:
    """Each way a run can end has its own number."""
    assert run_command(["run", str(write(tmp_path, text)), "--lab", "model"]) == code


def test_a_run_as_a_person_sees_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was found, why this lab was chosen, and where the evidence lies, on stdout; nothing on
    stderr."""
    run_command(["run", str(write(tmp_path, SURPRISING)), "--lab", "model"])
    out, err = capsys.readouterr()
    assert "BROKEN  traffic_flows  (surprise: expected HOLDS)" in out
    assert "lab model: chosen with --lab" in out
    assert f"evidence: {runs_dir()}" in out
    assert err == ""


def test_json_of_one_run_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The keys of the reference, and the exit code of the command."""
    code = run_command(["run", str(write(tmp_path, SURPRISING)), "--lab", "model", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() >= DESIGN_KEYS
    assert printed["exit_code"] == code == ExitCode.SURPRISE
    assert Path(printed["run"]).is_dir()
    assert printed["outages"][0]["pair"] == ["default/client", "default/server"]


def test_json_of_several_runs_is_an_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refused one among them is an object with its error; stderr says it too."""
    good, refused = (
        write(tmp_path, name="good"),
        write(tmp_path, small(('["model"]', '["process"]')), "refused"),
    )
    code = run_command(["run", str(good), str(refused), "--lab", "model", "--json"])
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert [one["outcome"] for one in printed] == ["as expected", "refused"]
    assert printed[1]["error"] in err
    assert code == printed[1]["exit_code"] == ExitCode.LAB_UNAVAILABLE


def test_of_many_runs_only_those_are_shown_that_need_a_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are a line of the table."""
    good, bad = write(tmp_path, name="good"), write(tmp_path, SURPRISING, "bad")
    run_command(["run", str(good), str(bad), "--lab", "model"])
    out = capsys.readouterr().out
    assert "bad on model" in out
    assert "good on model" not in out
    assert re.search(r"good +model +\S+ +as expected", out)


def test_an_expression_selects_what_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of many that is left is shown in full, as if its file had been named."""
    for name in ("vm_pause", "nights", "weekly_nights"):
        write(tmp_path, name=name)
    only = ["-k", "nights and not weekly", "--lab", "model"]
    assert run_command(["run", str(tmp_path), *only]) == 0
    out = capsys.readouterr().out
    assert "nights on model" in out and "HOLDS   traffic_flows" in out
    assert run_command(["run", str(tmp_path), *only, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"] == "nights"


def test_an_expression_alone_selects_from_those_that_list_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By name and folder, in both commands; without it and without a file nothing runs."""
    assert run_command(["list", "-k", "canary", "--json"]) == 0
    listed = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert run_command(["run", "-k", "canary", "--lab", "model", "--json"]) == 0
    assert listed == [json.loads(capsys.readouterr().out)["scenario"]]
    assert run_command(["run", "--lab", "model"]) == ExitCode.BAD_INPUT
    assert "SCENARIO is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "list", "nightly"])
def test_an_expression_that_selects_nothing(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Is refused before anything runs or is written, by each command that takes one."""
    monkeypatch.chdir(tmp_path)
    assert run_command([command, "-k", "nightly_slep"]) == ExitCode.BAD_INPUT
    assert "did you mean 'nightly_sleep'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_check_judges_a_kept_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Same exit code, same findings."""
    run_command(["run", str(write(tmp_path, SURPRISING)), "--lab", "model", "--json"])
    ran = json.loads(capsys.readouterr().out)
    assert run_command(["check", str(runs_dir() / "small" / LATEST), "--json"]) == ExitCode.SURPRISE
    assert json.loads(capsys.readouterr().out)["findings"] == ran["findings"]
    assert run_command(["check", str(runs_dir() / "small" / LATEST)]) == ExitCode.SURPRISE
    assert "BROKEN  traffic_flows" in capsys.readouterr().out


def test_check_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is not a run: exit 3, and what a run is."""
    assert run_command(["check", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert "not a run" in capsys.readouterr().err


def test_plan_prints_every_fault_in_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON, and nothing runs."""
    path = write(tmp_path, small(('lasts = "8h"', 'lasts = "8h"\nevery = "24h"')))
    assert run_command(["plan", str(path), "--lab", "model", "--seed", "7"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["seed"] == 7
    assert [fault["at_world_ns"] // 3_600_000_000_000 for fault in plan["faults"]] == [15, 39]
    assert not runs_dir().exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "x.toml", "--lap", "model"],
        ["walk"],
        ["run", "x.toml", "--seed", "many"],
        ["run", "x.toml"],
    ],
)
def test_usage_errors_are_bad_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """3, not the 2 of other programs, which here means unknown."""
    assert run_command(arguments) == ExitCode.BAD_INPUT
    assert "Traceback" not in capsys.readouterr().err


def test_help_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """And lists the commands."""
    assert run_command(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("run", "check", "plan", "doctor", "versions"):
        assert command in out


@pytest.mark.parametrize(
    "words", [["run", "nowhere.toml"], ["run", "--lab", "modle"], ["check", "x"]]
)
def test_a_refusal_is_an_annotation_of_the_job(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one the job is red, and the reason is somewhere in its log."""
    assert run_command(words) == ExitCode.BAD_INPUT
    message = capsys.readouterr().err
    assert "::error" not in message

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run_command(words) == ExitCode.BAD_INPUT
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(message)
    annotation = printed.err.removeprefix(message)
    assert annotation.startswith("::error title=meshwake::") and annotation.count("\n") == 1


def interrupt(*_: object) -> None:
    """As if ^C were typed in the middle of what this is put in the place of."""
    raise KeyboardInterrupt


def test_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """^C ends with 130 and leaves no run, which it says; with --keep-run it stays."""
    monkeypatch.setattr("meshwake.runner.execution.judge", interrupt)
    assert run_command(["run", str(write(tmp_path)), "--lab", "model"]) == 130
    assert not runs_dir().exists()
    printed = capsys.readouterr().err
    assert "interrupted\n" in printed and "not kept; --keep-run keeps" in printed
    assert run_command(["run", str(write(tmp_path)), "--lab", "model", "--keep-run"]) == 130
    (kept,) = kept_runs()
    assert f"recorded until then: {kept}" in capsys.readouterr().err


def test_an_interrupted_night_can_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """^C says where the results are, and how to take them up."""
    monkeypatch.setattr("meshwake.runner.execution.judge", interrupt)
    monkeypatch.setenv("MESHWAKE_RUNS", str(tmp_path / "runs"))
    out = tmp_path / "night"
    typed = ["nightly", str(write(tmp_path)), "--labs", "model", "--istio", "1.30.0"]
    assert run_command([*typed, "--out", str(out)]) == 130
    assert f"what had ended is kept in {out}; --resume goes on" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("MESHWAKE_RUNS", str(tmp_path / "runs"))
    assert run_command([*typed, "--out", str(out), "--resume"]) == 0


def test_interrupted_among_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that had ended are in the table."""
    files = [write(tmp_path, name=name) for name in ("first", "second")]
    judging = iter([judge])

    def then_interrupt(*arguments: Any) -> Any:
        try:
            return next(judging)(*arguments)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("meshwake.runner.execution.judge", then_interrupt)
    assert run_command(["run", *map(str, files), "--lab", "model"]) == 130
    printed = capsys.readouterr()
    assert "as expected" in printed.out and "first" in printed.out
    assert "second" not in printed.out
    assert "interrupted" in printed.err


def test_kept_runs_are_listed_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest first; `latest`, and a scenario's name, are accepted where runs are."""
    assert run_command(["check", "latest"]) == ExitCode.BAD_INPUT
    assert "no run is kept" in capsys.readouterr().err
    for name in ("older", "newer"):
        path = write(tmp_path, name=name)
        assert run_command(["run", str(path), "--lab", "model", "--keep-run"]) == 0
    for at_s, run in enumerate(sorted(runs_dir().glob("*/model-*/result.json"))):
        os.utime(run, (1_700_000_000 + at_s * 60,) * 2)
    capsys.readouterr()
    assert run_command(["runs"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "as expected  " in first and "/older/" in first and "/newer/" in second
    for word, scenario in (("latest", "older"), ("newer", "newer"), ("newer/latest", "newer")):
        assert run_command(["check", word]) == 0
        assert f"{scenario} on model" in capsys.readouterr().out
    assert run_command(["report", "latest"]) == 0
    assert "older on model" in capsys.readouterr().out


def test_a_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 5 without a traceback on the screen; it lies in the directory of the run."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("meshwake.runner.execution.judge", fail)
    assert run_command(["run", str(write(tmp_path)), "--lab", "model"]) == ExitCode.HARNESS_FAULT
    err = capsys.readouterr().err
    assert "this is a fault of meshwake: ZeroDivisionError: by zero" in err
    assert "Traceback" not in err
    assert list(runs_dir().rglob("traceback.txt"))


def test_a_fault_outside_any_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-v shows the traceback, since no directory keeps it."""

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(doctor, "examine", fail)
    assert run_command(["doctor"]) == ExitCode.HARNESS_FAULT
    assert "Traceback" not in capsys.readouterr().err


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row, as a table and as JSON."""
    assert run_command(["versions"]) == 0
    assert "1.28.0" in capsys.readouterr().out
    assert run_command(["versions", "--json"]) == 0
    rows = {row["version"]: row["behaviour_class"] for row in json.loads(capsys.readouterr().out)}
    assert rows["1.28.0"] == "D"
    assert run_command(["versions", "--plain", "--newest-of-each-minor", "--since", "1.27"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1.27.9 docker.io/istio/ztunnel:1.27.9"
    assert run_command(["versions", "--since", "soon"]) == ExitCode.BAD_INPUT


def program(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """The command as a shell starts it, with its own output streams."""
    return subprocess.run(
        [sys.executable, "-m", "meshwake", *arguments],
        capture_output="stdout" not in settings,
        timeout=60,
        check=False,
        **settings,
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_an_output_that_is_not_unicode(encoding: str, tmp_path: Path) -> None:
    """Windows gives a file the code page of the machine, which has no mark of a real ztunnel and
    not every name: both are escaped."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    shown = program("matrix", "--fix", "none", "--fault", "suspend", env=environment)
    assert shown.returncode == 0, shown.stderr
    assert rb"\u25cf" in shown.stdout
    month = write(tmp_path, name="Woche_\N{GREEK SMALL LETTER OMEGA}")
    shown = program("run", str(month), "--lab", "model", env=environment)
    assert shown.returncode == 0, shown.stderr
    assert rb"Woche_\u03c9 on model" in shown.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["matrix", "--fault", "drift"]]
)
def test_a_full_disk_is_not_a_fault_of_ours(arguments: list[str]) -> None:
    """The output of a command that is written to a file."""
    with Path("/dev/full").open("w") as full:
        ended = program(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == ExitCode.BAD_INPUT
    assert b"the output: cannot be written (No space left on device)" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
def test_a_file_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """As in an archive from an old system: refused by name, before anything runs."""
    path = tmp_path / os.fsdecode(b"M\xf6in.toml")
    path.write_text(SMALL)
    ended = program("run", str(path), "--lab", "model")
    assert ended.returncode == ExitCode.BAD_INPUT
    assert b"the file's name is not UTF-8; rename the file" in ended.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(13, "Permission denied", "/home/x"), 3, "/home/x: cannot be used (Permis"),
        # Of tracing a process, for example: no file of the user's is in the way.
        (PermissionError(13, "Permission denied"), 5, "this is a fault of meshwake"),
    ],
)
def test_a_file_that_may_not_be_used(
    error: OSError,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wherever it was opened, it is the user's to mend."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    assert run_command(["doctor"]) == code
    assert message in capsys.readouterr().err
