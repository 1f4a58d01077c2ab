"""What the falsifier found and the repository keeps: each still breaks its fix, and is on its
page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from meshwake.analysis.falsify import file_name
from meshwake.core.outcome import Verdict
from meshwake.core.scenario import read_scenario
from meshwake.fixes import FIXES
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.support.paths import REPOSITORY

FOUND = sorted((REPOSITORY / "scenarios" / "found").glob("*.toml"))
ROWS = dict(
    re.findall(
        r"^\| `([\w-]+)` \| (.*?) \|",
        (REPOSITORY / "docs" / "falsifier.md").read_text(),
        re.MULTILINE,
    )
)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_it_still_breaks(path: Path) -> None:
    """On the model of the newest release; who mends a fix removes its file and says so on the
    page."""
    options = Options(lab="model")
    scenario = read_scenario(path)
    saved = run_case(choose(scenario, options)[0], options)
    verdicts = {finding.check: finding.verdict for finding in saved.findings}
    assert verdicts[scenario.expect[0].check] is Verdict.BROKEN


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_the_page_names_it(path: Path) -> None:
    """In the words of its title."""
    scenario = read_scenario(path)
    fix = scenario.fix.name if scenario.fix else "none"
    assert scenario.title.split(":")[0] == ROWS[fix]
    assert path.stem == file_name(fix, scenario.expect[0].check)


def test_every_fix_is_on_the_page() -> None:
    """Broken, or nothing found."""
    assert set(ROWS) == set(FIXES)
    unbroken = {fix for fix, words in ROWS.items() if words.startswith("nothing found")}
    assert {path.stem for path in FOUND} == {
        file_name(fix, "recovers_within") for fix in set(FIXES) - unbroken
    }
