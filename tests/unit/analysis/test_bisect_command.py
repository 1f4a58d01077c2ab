"""`meshwake bisect` as a person types it: on the model, with its log; on binaries where this
machine has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode
from meshwake.core.store import runs_dir
from meshwake.labs import load_lab
from meshwake.ztunnel import binaries

from tests.support.scenarios import small, write

ASK = ["bisect", "ca_away_at_renewal", "--check", "valid_certificate_kept"]
RANGE = ["--good", "1.28.0", "--bad", "1.26.0"]
ON_MODEL = [*ASK, *RANGE, "--lab", "model"]
KEYS = {"scenario", "check", "lab", "first_good", "first_bad", "tested"}


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The keys that are promised, null where there is none, and the evidence of each version."""
    assert run_command([*ON_MODEL, "--json"]) == ExitCode.AS_EXPECTED
    result = printed(capsys)
    assert result.keys() >= KEYS
    assert (result["first_good"], result["first_bad"], result["lab"]) == ("1.28.0", None, "model")
    by_version = {row["version"]: row for row in result["tested"]}
    assert by_version["1.27.9"]["verdict"] == "BROKEN"
    assert "dropped a certificate" in by_version["1.27.9"]["evidence"]["because"]
    assert [row["seed"] for row in by_version["1.28.0"]["runs"]] == [0, 1, 2]


def test_as_a_person_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The first version, both sides with evidence that is there, how sure; and only that is
    kept."""
    assert run_command(ON_MODEL) == ExitCode.AS_EXPECTED
    out = capsys.readouterr().out
    assert "the first good version is 1.28.0; the last bad one before it is 1.27.9" in out
    assert (
        "sure: no release lies between the two, and each side had the same verdict in 3 runs" in out
    )
    evidence = [
        Path(line.split("evidence: ")[1]) for line in out.splitlines() if "evidence: " in line
    ]
    assert all((path / "history.jsonl").is_file() for path in evidence)
    kept = {path.name.split("-")[1] for path in (runs_dir() / "ca_away_at_renewal").glob("model-*")}
    assert kept == {"1.27.9", "1.28.0"}
    assert len(evidence) == len(list((runs_dir() / "ca_away_at_renewal").glob("model-*"))) == 2


def test_the_log_gives_the_answer_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Replayed, without a run; cut in half by a kill, gone on with."""
    run_command([*ON_MODEL, "--json"])
    first = printed(capsys)
    log = Path(first["log"])
    whole = log.read_text()
    assert run_command(["bisect", "--replay", str(log), "--json"]) == ExitCode.AS_EXPECTED
    assert printed(capsys) == first
    log.write_text(whole[: len(whole) * 2 // 3])
    assert run_command(["bisect", "--replay", str(log), "--json"]) == ExitCode.UNKNOWN
    assert printed(capsys)["first_good"] is None
    assert run_command(["bisect", "--resume", str(log), "--json"]) == ExitCode.AS_EXPECTED
    again = capsys.readouterr()
    assert json.loads(again.out)["first_good"] == "1.28.0"
    assert "was cut in half and is tested again" in again.err
    assert len(log.read_text().splitlines()) == len(whole.splitlines())


def test_a_damaged_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By line; a log about another scenario is not gone on with."""
    path = write(tmp_path, small())
    words = ["bisect", str(path), "--check", "traffic_flows", *RANGE, "--lab", "model", "--json"]
    assert run_command(words) == ExitCode.SURPRISE
    log = Path(printed(capsys)["log"])
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], '{"version": "1.26.0"}', *lines[2:], ""]))
    assert run_command(["bisect", "--resume", str(log)]) == ExitCode.BAD_INPUT
    assert f"{log}:2: is not a run of a bisect" in capsys.readouterr().err
    log.write_text("\n".join([*lines, ""]))
    write(tmp_path, small(("8h", "9h")))
    assert run_command(["bisect", "--resume", str(log)]) == ExitCode.BAD_INPUT
    assert "is about another" in capsys.readouterr().err
    for text, message in (
        ("", "has no whole line"),
        ("{}\n", "is not the first line of a log"),
        ('{"format": 9}\n', "format 9"),
    ):
        log.write_text(text)
        assert run_command(["bisect", "--replay", str(log)]) == ExitCode.BAD_INPUT
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            [*ASK, "--good", "1.99.0", "--bad", "1.27.9"],
            ExitCode.BAD_INPUT,
            "--good 1.99.0: has no row",
        ),
        ([*ASK, "--good", "1.28.0", "--bad", "1.28.0"], ExitCode.BAD_INPUT, "are both 1.28.0"),
        (
            [*ASK, "--good", "1.27.9", "--bad", "1.28.0", "--lab", "model"],
            ExitCode.BAD_INPUT,
            "are they swapped?",
        ),
        ([*ASK, "--good", "1.28.0"], ExitCode.BAD_INPUT, "--bad is missing"),
        ([*ASK[:2], *RANGE], ExitCode.BAD_INPUT, "--check is missing"),
        (
            [*ASK[:3], "valid_certificate", *RANGE],
            ExitCode.BAD_INPUT,
            "did you mean 'valid_certificate_kept'?",
        ),
        (
            ["bisect", "no_such", *ASK[2:]],
            ExitCode.BAD_INPUT,
            "no such scenario",
        ),
        (["bisect"], ExitCode.BAD_INPUT, "SCENARIO is missing"),
        (
            [*ASK, *RANGE, "--lab", "process"],
            ExitCode.LAB_UNAVAILABLE,
            "no ztunnel binary for 1.28.0",
        ),
        (
            [*ASK, "--good", "1.31.1", "--bad", "1.27.9", "--lab", "model"],
            ExitCode.LAB_UNAVAILABLE,
            "is not known:",
        ),
        (["bisect", "--resume", "a", "--replay", "b"], ExitCode.BAD_INPUT, "give one of them"),
        (["bisect", "--replay", "nowhere.jsonl"], ExitCode.BAD_INPUT, "give the log of a bisect"),
    ],
)
def test_bad_input_is_reported_plainly(
    words: list[str],
    code: ExitCode,
    message: str,
    empty_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was found, what is allowed, what to do; never a traceback."""
    assert run_command(words) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_bisect_that_is_broken_off_can_be_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """^C, or a machine that is gone in the middle: the answers so far are in the log that is
    named."""
    from meshwake.analysis.attempt import ScenarioExperiment

    real, ran = ScenarioExperiment.__call__, list[str]()

    def until_the_third(self: ScenarioExperiment, version: str, seed: int) -> Any:
        ran.append(version)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return real(self, version, seed)

    monkeypatch.setattr(ScenarioExperiment, "__call__", until_the_third)
    assert run_command(ON_MODEL) == 130
    log = capsys.readouterr().err.split("meshwake bisect --resume ")[1].splitlines()[0]
    assert run_command(["bisect", "--resume", log, "--json"]) == ExitCode.AS_EXPECTED
    assert printed(capsys)["first_good"] == "1.28.0"


@pytest.mark.slow(reason="runs real ztunnels")
def test_on_real_binaries(capsys: pytest.CaptureFixture[str]) -> None:
    """The first release that keeps a valid certificate, found on the ztunnels of the cache."""
    found = [binaries.find(version) for version in ("1.27.9", "1.28.0")]
    if found[0] is None or found[1] is None:
        pytest.skip(
            "no ztunnel 1.27.9 and 1.28.0 in the cache (meshwake doctor says where it belongs)"
        )
    if reasons := load_lab("process").missing(found[0].path):
        pytest.skip(reasons[0])
    words = [
        *ASK,
        "--good",
        "1.28.0",
        "--bad",
        "1.27.9",
        "--lab",
        "process",
        "--repeat",
        "1",
        "--json",
    ]
    assert run_command(words) == ExitCode.AS_EXPECTED
    result = printed(capsys)
    assert (result["first_good"], result["exact"], result["lab"]) == ("1.28.0", True, "process")


@pytest.mark.slow(reason="runs every release")
def test_a_damaged_cache_is_reported(empty_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not a program any more shows nothing about a release: UNKNOWN, with the reason, and
    nothing is concluded."""
    for version in ("1.27.9", "1.28.0"):
        place = binaries.place_of(version)
        place.parent.mkdir(parents=True)
        place.write_text("cut in the middle")
        place.chmod(0o755)
    if reasons := load_lab("process").missing(binaries.place_of("1.28.0")):
        pytest.skip(reasons[0])
    words = [*ASK, "--good", "1.28.0", "--bad", "1.27.9", "--lab", "process"]
    assert run_command(words) == ExitCode.UNKNOWN
    out = capsys.readouterr().out
    assert "1.27.9 is UNKNOWN, which is neither good nor bad: the run failed" in out
    assert "first good version is" not in out
