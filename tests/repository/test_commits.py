"""Every commit since the layout keeps the rule of CONTRIBUTING.md, and the rule can be broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tools.commit_rule import LONGEST, fault_of, subjects_of

# The commit that moved the package into its layout. Subjects before it were written without a rule.
LAYOUT_SUBJECT = "layout: package meshwake in harness/meshwake, rooms as drawn"


def git(*arguments: str) -> str:
    """What git prints in this repository; skips where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git history here: {error}")
    return done.stdout.strip()


def layout_commit() -> str:
    """Where the rule begins; skips in a clone that does not reach so far back."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone has no history; fetch-depth: 0 in the workflow fetches all")
    found = git("log", "--format=%H", "--fixed-strings", f"--grep={LAYOUT_SUBJECT}")
    if not found:
        pytest.skip("this history does not contain the layout commit")
    return found.splitlines()[-1]


def test_every_commit_keeps_the_rule() -> None:
    """`area: what`, at most 72 characters; merges are git's."""
    named = subjects_of(f"{layout_commit()}..HEAD")
    faults = [(commit, subject, fault_of(subject)) for commit, subject in named]
    assert [fault for fault in faults if fault[2]] == []


@pytest.mark.parametrize(
    "subject",
    [
        "checks: a renewal at the end of a run is not late",
        "labs/kind: wait for pods that are restarted",
        "kubernetes, guard: one client",
        "docs/adr: why UNKNOWN",
        "pyproject.toml: tomlkit",
        "x: " + "y" * (LONGEST - 3),
        "Merge branch 'main' into house",
    ],
)
def test_subjects_within_the_rule(subject: str) -> None:
    """Areas may be folders, files, or several."""
    assert fault_of(subject) is None


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "A process is awaited as the lab awaits it, by two passes",
        "checks: ",
        "checks:no space",
        "two words: are not an area",
        "checks: ends with a stop.",
        "x: " + "y" * (LONGEST - 2),
    ],
)
def test_subjects_that_break_it(subject: str) -> None:
    """Without an area, without a what, too long."""
    assert fault_of(subject) is not None


def test_the_hook_reads_the_first_line_of_a_message(tmp_path: Path) -> None:
    """As git passes it to commit-msg."""
    message = tmp_path / "COMMIT_EDITMSG"
    for text, code in (("docs: words\n\nA long reason. " * 9, 0), ("Words\n", 1)):
        message.write_text(text)
        done = subprocess.run(
            [sys.executable, "tools/commit_rule.py", str(message)],
            cwd=REPOSITORY,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code
