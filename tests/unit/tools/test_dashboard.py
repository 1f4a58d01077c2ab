from __future__ import annotations

import json
from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode

from tests.support.scenarios import SURPRISING, small, write
from tools import dashboard


@pytest.mark.slow(reason="runs the corpus on every behaviour class")
def test_the_page_of_the_repository_is_up_to_date() -> None:
    """The model's part is computed again, the rest comes from what is recorded; run `meshwake
    dashboard` when stale."""
    assert dashboard.PAGE.read_text(encoding="utf-8") == dashboard.make_page()


def test_what_was_recorded_is_of_scenarios_that_are_there() -> None:
    """And every row names the program that ran, and the plan."""
    names = {path.stem for path in dashboard.CORPUS.rglob("*.toml")}
    rows = json.loads(dashboard.SEEN.read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert row["scenario"] in names
        assert row["lab"] != "model"
        assert row["plan"] and row["findings"] and row["day"]
        assert row["subject"] or row["lab"] == "kind"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One scenario, and nothing seen yet."""
    write(tmp_path / "corpus", small(('["model"]', '["model", "process"]')))
    return tmp_path / "corpus"


def night_of(directory: Path, **row: object) -> Path:
    """What a night leaves."""
    entry = {
        "scenario": "small",
        "lab": "process",
        "version": "1.28.0",
        "outcome": "as expected",
        "exit_code": 0,
        "why": "",
        "plan": "0123456789abcdef",
        "subject": "fedcba9876543210",
        "findings": {"traffic_flows": "HOLDS"},
    }
    night = directory / "night"
    night.mkdir(exist_ok=True)
    (night / "summary.json").write_text('{"day": "2026-11-25"}')
    (night / "results.jsonl").write_text(json.dumps(entry | row) + "\n")
    return night


def test_a_night_is_recorded_and_shown(corpus: Path, tmp_path: Path) -> None:
    """With day and digest; the model's rows are not recorded, they are computed; the newest row
    counts."""
    seen = tmp_path / "seen.json"
    assert dashboard.record(night_of(tmp_path, lab="model"), seen, corpus) == 0
    assert dashboard.record(night_of(tmp_path), seen, corpus) == 1
    page = dashboard.make_page(corpus, seen)
    assert "| small | holds | holds | holds | holds | holds | holds |" in page
    assert "## Seen on lab process" in page
    assert "| small | holds | 2026-11-25 |" in page
    assert "- 1.28.0: sha256 fedcba9876543210..." in page
    surprise = {"outcome": "surprise", "findings": {"traffic_flows": "BROKEN"}}
    assert dashboard.record(night_of(tmp_path, **surprise), seen, corpus) == 1
    assert "| small | **!** traffic | 2026-11-25 |" in dashboard.make_page(corpus, seen)
    unknown = {"outcome": "unknown", "findings": {"traffic_flows": "UNKNOWN"}}
    dashboard.record(night_of(tmp_path, **unknown), seen, corpus)
    assert "| small | **!** holds ?traffic | 2026-11-25 |" in dashboard.make_page(corpus, seen)


def test_what_was_seen_of_an_older_scenario_is_marked(corpus: Path, tmp_path: Path) -> None:
    """The scenario has changed since: the row is still evidence, of something else."""
    seen = tmp_path / "seen.json"
    dashboard.record(night_of(tmp_path), seen, corpus)
    write(corpus, SURPRISING)
    page = dashboard.make_page(corpus, seen)
    assert "| small | holds † | 2026-11-25 |" in page
    assert "**!** traffic" in page.split("## Seen")[0], "the model's part says what is now"


def test_what_is_not_a_night_is_refused(corpus: Path, tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(BadInput, match="is not a night"):
        dashboard.record(tmp_path, tmp_path / "seen.json", corpus)
    night = night_of(tmp_path)
    (night / "results.jsonl").write_text('{"scenario"')
    with pytest.raises(BadInput, match="run the night again with --resume"):
        dashboard.record(night, tmp_path / "seen.json", corpus)


def test_check_says_when_the_page_is_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit 1, and nothing is written; then it is written."""
    page = tmp_path / "versions.md"
    monkeypatch.setattr(dashboard, "PAGE", page)
    monkeypatch.setattr(dashboard, "make_page", lambda: "as it should be\n")
    assert dashboard.main(["--check"]) == ExitCode.SURPRISE
    assert not page.exists()
    assert dashboard.main([]) == 0
    assert dashboard.main(["--check"]) == 0
    assert page.read_text() == "as it should be\n"


def test_what_cannot_be_recorded_has_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with every command: 3, and a sentence."""
    assert dashboard.main(["--record", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert "is not a night" in capsys.readouterr().err


def test_the_command_runs_the_program_of_the_repository(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With its options and its exit code."""
    assert run_command(["dashboard", "--record", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert "is not a night" in capfd.readouterr().err
    assert run_command(["dashboard", "--record", "x", "--check"]) == ExitCode.BAD_INPUT
