"""What the README shows is what the program prints; what it recommends to write works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from meshwake.report.terminal import plain, summary_table
from meshwake.runner.options import Options
from meshwake.runner.suite import Suite, run_suite, summary_of

from tests.support.paths import DATA, REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "scenarios" / "README.md",
]
CONSOLE = re.compile(r"```console\n\$ (meshwake [^\n]*)\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(command, output, id=f"{page.name}: {command}")
    for page in PAGES
    for command, output in CONSOLE.findall(page.read_text())
]


def test_the_readme_has_examples() -> None:
    """Else the next test would judge nothing."""
    assert CONSOLE.search((REPOSITORY / "README.md").read_text())


@pytest.mark.parametrize(("command", "output"), EXAMPLES)
def test_an_example_prints_what_the_page_shows(
    command: str, output: str, empty_cache: Path
) -> None:
    """Every console block is run, on a machine without a binary, and its output compared to the
    letter; a last line `...` in the page leaves out the rest. A run reports its lab on stderr, and
    nothing else."""
    words = [sys.executable, "-m", "meshwake", *shlex.split(command)[1:]]
    environment = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"(?:lab \w+: [^\n]*\n)?\s*", done.stderr)
    if output.endswith("\n...\n"):
        assert done.stdout.startswith(output.removesuffix("...\n"))
    else:
        assert done.stdout == output


def test_the_fixture_of_the_readme_works(pytester: pytest.Pytester, empty_cache: Path) -> None:
    """The test that the README shows is collected and passes."""
    code = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert code
    pytester.makepyfile(code[1])
    pytester.runpytest("-p", "meshwake.pytest_plugin", "-p", "no:cacheprovider").assert_outcomes(
        passed=1
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scenarios_that_a_page_names_exist(page: Path) -> None:
    """A page speaks of scenarios and tests that are there."""
    for target in re.findall(r"`((?:scenarios|tests|harness|clusters)/[\w/.]+)`", page.read_text()):
        assert (REPOSITORY / target).exists(), target


def test_the_table_of_the_corpus_is_what_the_corpus_gives(empty_cache: Path) -> None:
    """Every scenario is in it, with the outcome, the outage and the first failure that the model
    finds too; what the falsifier found is in docs/falsifier.md."""
    corpus = tuple(
        path
        for path in sorted((REPOSITORY / "scenarios").rglob("*.toml"))
        if path.parent.name != "found"
    )
    text = (REPOSITORY / "docs" / "corpus.md").read_text()
    row = r"^ (\w+) +(?:process|model) +\S+ +(as expected|surprise|unknown) +(.*?) {2,}(.*?)$"
    listed = re.findall(row, text, re.MULTILINE)
    suite = run_suite(Suite(paths=corpus, options=Options(lab="model", istio=("1.31.0-rc.0",))))
    table = plain(summary_table([summary_of(ending) for ending in suite.endings]))
    found = re.findall(row, table, re.MULTILINE)
    assert sorted(listed) == sorted(found)
    assert len(listed) == len(corpus)


def test_the_readme_counts_the_recorded_histories() -> None:
    """Each of them is judged again on every test run."""
    names = [path.parent.name for path in (DATA / "histories").glob("*/history.jsonl")]
    clusters = sum("-kind-" in name for name in names)
    sentence = (
        f"{len(names)} recorded histories, {len(names) - clusters} of real binaries and "
        f"{clusters} of real clusters"
    )
    assert sentence in " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
