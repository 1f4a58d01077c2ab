from __future__ import annotations

import json
from pathlib import Path

import pytest
from meshwake.analysis.accept import acceptance
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.run import Run
from meshwake.core.scenario import Expect, parse_scenario, read_scenario
from meshwake.core.versions import find
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.support.scenarios import SURPRISING, small, write


def surprising_run(path: Path, version: str = "1.28.0") -> Run:
    options = Options(lab="model", istio=(version,))
    return run_case(choose(read_scenario(path), options)[0], options)


def expected(text: str) -> list[Expect]:
    return parse_scenario(text, "small.toml", "small").expect


def test_the_old_truth_ends_where_the_surprise_begins(tmp_path: Path) -> None:
    """Two rows: the old one until the release that surprised, the new one from there on, with its
    evidence."""
    path = write(tmp_path, f"{SURPRISING}\n# The last words.\n")
    run = surprising_run(path)
    change = acceptance(run.kept_at, path, "2026-11-25", "twenty hours are more than half a life")
    old, new = expected(change.new)
    assert (old.verdict, old.versions, old.until) == ("holds", ">=0", "1.28.0")
    assert (new.verdict, new.versions, new.until) == ("broken", ">=1.28.0", None)
    assert new.because == "twenty hours are more than half a life"
    assert new.evidence is not None
    assert f"plan {run.plan.sha256[:12]}" in new.evidence
    assert (
        "accepted 2026-11-25; found: default/client could not reach default/server" in new.evidence
    )
    assert change.new.startswith(change.old.split("because")[0].rsplit("\n", 1)[0]), (
        "what is before stays"
    )
    assert change.new.endswith("\n# The last words.\n")
    assert change.diff.count("\n+") - 1 == len(change.new.splitlines()) - len(
        change.old.splitlines()
    )


def test_then_it_comes_out_as_expected_and_older_releases_too(tmp_path: Path) -> None:
    """What was found is the truth from that release on; what is older is still expected to be as it
    was."""
    path = write(tmp_path, SURPRISING)
    assert run_command(["accept", str(surprising_run(path).kept_at), "--scenario", str(path)]) == 0
    assert (
        run_command(["run", str(path), "--lab", "model", "--istio", "1.28.0"])
        == ExitCode.AS_EXPECTED
    )
    assert (
        run_command(["run", str(path), "--lab", "model", "--istio", "1.27.9"]) == ExitCode.SURPRISE
    )


BUILD = 'version.BuildInfo{{GitRevision:"{}", BuildStatus:"{}", IstioVersion:"unknown"}}'


@pytest.mark.parametrize(
    ("built_from", "status", "message"),
    [
        ("1.28.0", "Clean", None),
        ("1.27.9", "Clean", "is a build of .*1.27.9"),
        ("1.28.0", "Modified", "does not know its own release"),
        (None, "Clean", "does not know its own release"),
    ],
)
def test_the_truth_of_a_release_is_written_from_its_own_binary_only(
    built_from: str | None, status: str, message: str | None, tmp_path: Path
) -> None:
    """A local build of 1.28.0 may have any change in it."""
    path = write(tmp_path, SURPRISING)
    history = surprising_run(path).kept_at / "history.jsonl"
    first, *rest = history.read_text().splitlines(keepends=True)
    started = json.loads(first)
    commit = find(built_from).commit if built_from else "0" * 40
    started["subject"] = {
        "kind": "ztunnel",
        "sha256": "a" * 64,
        "build": BUILD.format(commit, status),
    }
    history.write_text("".join([json.dumps(started) + "\n", *rest]))
    if message is None:
        assert acceptance(history.parent, path, "2026-11-25").sentences
    else:
        with pytest.raises(BadInput, match=message):
            acceptance(history.parent, path, "2026-11-25")


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The change is shown, and the file stays."""
    path = write(tmp_path, SURPRISING)
    words = [
        "accept",
        str(surprising_run(path).kept_at),
        "--scenario",
        str(path),
        "--dry-run",
    ]
    assert run_command(words) == 0
    assert path.read_text() == SURPRISING
    out, err = capsys.readouterr()
    assert '+until   = "1.28.0"' in out
    assert "nothing was written" in err


def test_a_file_of_ones_own_has_to_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run knows the name of its scenario only; the message has the option."""
    path = write(tmp_path, SURPRISING, "mine")
    run_command(["run", str(path), "--lab", "model"])
    assert run_command(["accept", "mine"]) == ExitCode.BAD_INPUT
    assert "its scenario, mine, does not come with meshwake" in capsys.readouterr().err
    assert run_command(["accept", "mine", "--scenario", str(path)]) == 0


def test_upper_bounds_stay(tmp_path: Path) -> None:
    """A row that ends before some release is split within its range only."""
    rows = 'versions = ">=1.21,<1.30"\nuntil = "1.29.5"\nbecause = "'
    path = write(tmp_path, SURPRISING.replace('because = "', rows))
    old, new = expected(acceptance(surprising_run(path).kept_at, path, "2026-11-25").new)
    assert (old.versions, old.until) == (">=1.21,<1.30", "1.28.0")
    assert (new.versions, new.until) == (">=1.28.0,<1.30", "1.29.5")


def test_a_row_that_begins_there_is_replaced(tmp_path: Path) -> None:
    """Nothing older would be left of it."""
    path = write(
        tmp_path, SURPRISING.replace('because = "', 'versions = ">=1.28.0-alpha.0"\nbecause = "')
    )
    only = expected(acceptance(surprising_run(path).kept_at, path, "2026-11-25").new)
    assert [(row.verdict, row.versions) for row in only] == [("broken", ">=1.28.0")]


def test_what_did_not_surprise_is_not_accepted(tmp_path: Path) -> None:
    """As expected, or unknown: there is nothing to learn from it."""
    as_expected = write(tmp_path, small())
    kept = Options(lab="model", istio=("1.28.0",), keep_run=True)
    saved = run_case(choose(read_scenario(as_expected), kept)[0], kept)
    with pytest.raises(BadInput, match="there is no surprise to accept"):
        acceptance(saved.kept_at, as_expected, "2026-11-25")


def test_a_file_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    """The run was planned with another expectation than the file has now."""
    path = write(tmp_path, SURPRISING)
    run = surprising_run(path)
    path.write_text(SURPRISING.replace('verdict = "holds"', 'verdict = "unknown"'))
    with pytest.raises(BadInput, match="run it again"):
        acceptance(run.kept_at, path, "2026-11-25")
    path.write_text(SURPRISING.replace('because = "', 'until = "1.20"\nbecause = "'))
    with pytest.raises(BadInput, match="expects nothing of traffic_flows on 1.28.0 any more"):
        acceptance(run.kept_at, path, "2026-11-25")


def test_comments_stay_with_the_row_that_they_are_above(tmp_path: Path) -> None:
    """A remark about the next row is not taken for one about the new row."""
    following = '# About renewals.\n[[expect]]\ncheck = "renewals_on_time"\nverdict = "broken"\n'
    path = write(tmp_path, f'{SURPRISING}\n{following}because = "late"\n')
    change = acceptance(surprising_run(path).kept_at, path, "2026-11-25")
    assert f"\n\n{following}" in change.new
    assert [line for line in change.diff.splitlines()[2:] if line.startswith("-")] == []


def test_rows_in_an_array_are_refused(tmp_path: Path) -> None:
    """They have no place for a row of their own, and the message says what has."""
    path = write(tmp_path, SURPRISING)
    run = surprising_run(path)
    head, _, row = SURPRISING.partition("[[expect]]")
    inline = ", ".join(line for line in row.splitlines() if line)
    top, tables = head.split("\n", 1)
    path.write_text(f"{top}\nexpect = [{{{inline}}}]\n{tables}")
    with pytest.raises(BadInput, match=r"write each row as a table \[\[expect\]\]"):
        acceptance(run.kept_at, path, "2026-11-25")
