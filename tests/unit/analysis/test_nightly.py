from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from meshwake.analysis import nightly
from meshwake.cli.app import run_command
from meshwake.core import versions
from meshwake.core.errors import ExitCode
from meshwake.labs.process.lab import LAB
from meshwake.ztunnel import binaries

from tests.support.scenarios import SURPRISING, UNKNOWN, small, write

TODAY = date(2026, 11, 25)
ON_TWO = ["--istio", "1.27.9", "--istio", "1.28.0"]
Night = Callable[..., tuple[int, dict[str, object], str]]


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Night:
    """Runs a night over one scenario; returns the exit code, summary.json and summary.md."""

    def run(text: str, *more: str, labs: str = "model") -> tuple[int, dict[str, object], str]:
        out = tmp_path / "night"
        code = run_command(
            [
                "nightly",
                str(write(tmp_path, text)),
                "--labs",
                labs,
                "--out",
                str(out),
                *ON_TWO,
                *more,
            ]
        )
        summary = json.loads((out / "summary.json").read_text())
        assert (out / "exit_code").read_text() == f"{code}\n"
        return code, summary, (out / "summary.md").read_text()

    return run


def test_a_night_as_expected(night: Night, tmp_path: Path) -> None:
    """Exit 0, a page that says so in its third line, and an issue to be closed."""
    code, summary, page = night(small())
    assert code == ExitCode.AS_EXPECTED
    assert page.splitlines()[2] == "**As expected** (exit 0): all 2 runs came out as expected."
    assert summary["surprises"] == []
    assert (tmp_path / "night" / "issue" / "action").read_text() == "close\n"


def test_a_surprise(night: Night, tmp_path: Path) -> None:
    """Exit 1, one line for all releases that say the same, the evidence kept, and an issue to be
    opened."""
    code, summary, page = night(SURPRISING)
    assert code == ExitCode.SURPRISE
    assert "2 of 2 runs are not as expected" in page
    assert page.count("newly broken") == 1
    assert "| small | model | 1.27.9, 1.28.0 | surprise: traffic_flows newly broken: " in page
    assert summary["surprises"] == [
        "small model 1.27.9 traffic_flows BROKEN",
        "small model 1.28.0 traffic_flows BROKEN",
    ]
    rows = [
        json.loads(line) for line in (tmp_path / "night" / "results.jsonl").read_text().splitlines()
    ]
    assert all((Path(row["run"]) / "history.jsonl").is_file() for row in rows)
    assert (tmp_path / "night" / "issue" / "action").read_text() == "open\n"
    assert (
        tmp_path / "night" / "issue" / "title"
    ).read_text() == "Nightly: 2 findings differ from what is known\n"


def test_what_is_not_broken_any_more_is_called_so(night: Night) -> None:
    """What upstream has mended."""
    text = small(('verdict = "holds"', 'verdict = "broken"'))
    assert "traffic_flows no longer broken: " in night(text)[2]


def test_an_unknown(night: Night, tmp_path: Path) -> None:
    """Exit 2; the issue is left alone, for it was not seen to be gone."""
    assert night(UNKNOWN)[0] == ExitCode.UNKNOWN
    assert (tmp_path / "night" / "issue" / "action").read_text() == "leave\n"


def test_a_lab_that_is_missing(night: Night) -> None:
    """Exit 4, and what ran is reported all the same; a night that could not look has not seen that
    all is well."""
    code, summary, page = night(small(('["model"]', '["model", "process"]')), labs="model,process")
    assert code == ExitCode.LAB_UNAVAILABLE
    assert "**A lab is missing** (exit 4): all 2 runs came out as expected." in page
    assert "- **process** did not run: no ztunnel binary of a known release in the cache" in page
    assert summary["issue"] == {"action": "leave", "title": "Nightly"}


def test_what_a_lab_never_does_is_left_out_and_named(
    night: Night, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fix that is another ztunnel: not run on a released one, which is not a fault of the night;
    on the model it is."""
    for version in ("1.27.9", "1.28.0"):
        place = binaries.place_of(version)
        place.parent.mkdir(parents=True)
        place.write_bytes(b"as released")
    monkeypatch.setattr(LAB, "missing", lambda ztunnel: [])
    patched = small(('["model"]', '["model", "process"]')) + '\n[fix]\nname = "boottime"\n'
    code, summary, page = night(patched, labs="model,process")
    assert code == ExitCode.AS_EXPECTED
    assert "**As expected** (exit 0): all 2 runs came out as expected." in page
    assert "- process leaves out what it cannot do: small (summary.json says why)" in page
    assert "ztunnel with that patch" in summary["left_out"]["process"]["small"]  # type: ignore[index]
    assert summary["issue"]["action"] == "close"  # type: ignore[index]


def test_a_surprise_counts_next_to_a_missing_lab(night: Night) -> None:
    """The most serious code, and the issue is opened all the same."""
    code, summary, _ = night(SURPRISING, labs="model,process")
    assert code == ExitCode.LAB_UNAVAILABLE
    assert summary["issue"]["action"] == "open"  # type: ignore[index]


def test_the_night_before_shows_what_is_new_and_what_is_gone(night: Night, tmp_path: Path) -> None:
    """A finding that was there yesterday is not news; one that is gone is named once."""
    before = tmp_path / "before.json"
    before.write_text(
        json.dumps(
            {"surprises": ["small model 1.27.9 traffic_flows BROKEN", "other kind 1.28.0 x HOLDS"]}
        )
    )
    _, summary, page = night(SURPRISING, "--previous", str(before))
    assert summary["new"] == ["small model 1.28.0 traffic_flows BROKEN"]
    assert "Gone since the night before: other kind 1.28.0 x HOLDS" in page


def test_a_broken_off_night_goes_on(
    night: Night, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is whole is not run again, half a line is; a night that is there is not written over by
    mistake."""
    night(SURPRISING)
    results = tmp_path / "night" / "results.jsonl"
    first, second = results.read_text().splitlines()
    marked = first.replace('"why": "', '"why": "kept: ')
    results.write_text(f"{marked}\n{second[:50]}")
    assert night(SURPRISING, "--resume")[0] == ExitCode.SURPRISE
    assert "results.jsonl:2: is not a whole result" in capsys.readouterr().err
    again = results.read_text().splitlines()
    assert again[0] == marked
    assert json.loads(again[1])["version"] == "1.28.0"
    assert run_command(["nightly", "--out", str(tmp_path / "night")]) == ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("labs", "words"), [("modle", "expected one of model, process"), (" , ", "names no lab")]
)
def test_labs_that_are_none(
    labs: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything runs."""
    assert (
        run_command(["nightly", "--labs", labs, "--out", str(tmp_path / "n")]) == ExitCode.BAD_INPUT
    )
    assert words in capsys.readouterr().err


def test_which_versions_run_where(empty_cache: Path) -> None:
    """Model: all whose class is known. Process: what is in the cache. Machine: of that the newest
    of each minor. Kind: pinned and supported."""
    for version in ("1.27.8", "1.27.9", "1.28.0", "1.99.0"):
        place = binaries.place_of(version)
        place.parent.mkdir(parents=True)
        place.touch()
    classified = tuple(row.version for row in versions.releases() if row.classified)
    assert nightly.versions_on("model", (), TODAY) == classified
    assert nightly.versions_on("process", (), TODAY) == ("1.27.8", "1.27.9", "1.28.0")
    assert nightly.versions_on("machine", (), TODAY) == ("1.27.9", "1.28.0")
    assert nightly.versions_on("process", ("1.28.0", "1.18.0"), TODAY) == ("1.28.0",)
    kind = nightly.versions_on("kind", (), TODAY)
    assert kind
    assert {versions.find(version).end_of_life for version in kind} <= {"", "2026-11"}
    assert "1.27.9" in nightly.versions_on("kind", (), date(2026, 4, 1))


def test_runs_are_kept_with_the_night_unless_configured_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One directory is one night: what an artefact is made of."""
    monkeypatch.delenv("MESHWAKE_RUNS")
    out = tmp_path / "night"
    path = write(tmp_path, SURPRISING)
    run_command(["nightly", str(path), "--labs", "model", "--out", str(out), "--istio", "1.28.0"])
    os.environ.pop("MESHWAKE_RUNS", None)
    assert list((out / "runs" / "small").glob("model-1.28.0-*/history.jsonl"))
