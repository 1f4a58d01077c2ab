"""A month that really happened has the dates of the people who lived it, whatever command shows it:
none writes "day 2 07:58" of one. JSON keeps seconds of world time, and texts as the checks write
them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.cli.commands import COMMANDS
from meshwake.core.resources import SCENARIOS
from meshwake.testing import new_mesh

from tests.support.scenarios import SURPRISING, write

MOMENT = re.compile(r"\bday \d+( at)? \d\d:\d\d")
IN_BERLIN = 'recorded_from = 2026-10-23T12:00:00Z\nrecorded_zone = "Europe/Berlin"\n'

# Each leaves or shows a run of `month.toml`, whose surprise begins the next morning. `{month}`: its
# file; `{outage}`: one of which releases differ.
SHOWING = (
    "run {month} --lab model",
    "run {month} --lab model -v --report pages",
    "run {month} --lab model --istio 1.28.0 --istio 1.30.0 --report pair",
    "report latest -v",
    "report latest --output pages",
    "runs",
    "check latest -v",
    "accept latest --scenario {month} --dry-run",
    "accept latest --scenario {month}",
    "matrix --scenario {month} --long --fix none",
    "bisect {month} --check traffic_flows --lab model",
    "bisect {outage} --check valid_certificate_kept --lab model",
    "nightly {month} --labs model --istio 1.30.0",
    "run {month} --lab model --goal holds",
    "sweep --imported {month} --jobs 1 --fix none --output swept",
)
# And what shows no moment of a scenario, with the reason.
OTHERS = {
    **dict.fromkeys(("list", "new", "plan", "import-sleep"), "runs nothing"),
    **dict.fromkeys(("up", "status", "down", "guard", "forecast"), "about a cluster, as it is now"),
    **dict.fromkeys(("fetch", "fetch-kernel", "versions", "doctor"), "about files and machines"),
    **dict.fromkeys(("clock", "clocks", "timers"), "has no scenario"),
    **dict.fromkeys(("falsify", "guard-trial"), "draws its own timelines"),
    "dashboard": "about the corpus",
    "alerts": "needs promtool: tests/integration/alerts",
    "probe": "needs a binary; shows an attempt, as bisect does",
}


def test_every_command_is_here() -> None:
    """Whether it shows moments or not."""
    assert {line.split()[0] for line in SHOWING} | OTHERS.keys() == COMMANDS.keys()


@pytest.mark.slow(reason="runs fifteen commands, one of them with forty pages")
def test_no_command_counts_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdout, on stderr, and in the pages and files that people read."""
    monkeypatch.chdir(tmp_path)
    month = write(tmp_path, IN_BERLIN + SURPRISING, "month")
    of_corpus = (SCENARIOS / "ca_away_at_renewal.toml").read_text(encoding="utf-8")
    outage = write(tmp_path, IN_BERLIN + of_corpus, "outage")
    original = month.read_text()
    for line in SHOWING:
        words = [word.format(month=month, outage=outage) for word in line.split()]
        code = run_command(words)
        printed = capsys.readouterr()
        assert code in (0, 1), (line, printed.err)
        assert not MOMENT.search(printed.out + printed.err), line
    # `accept` wrote what was found.
    assert month.read_text() != original
    written = [
        path
        for path in tmp_path.rglob("*")
        if path.suffix in {".toml", ".md", ".html", ".js", ".xml", ".txt"}
    ]
    assert {path.name for path in written} >= {"month.toml", "summary.md", "index.html"}
    assert [path for path in written if MOMENT.search(path.read_text(encoding="utf-8"))] == []


def test_an_assertion_of_a_test_that_fails(tmp_path: Path) -> None:
    """On the fixture `mesh` with such a month."""
    mesh = new_mesh()
    mesh.scenario(str(write(tmp_path, IN_BERLIN + SURPRISING, "month")))
    with pytest.raises(
        AssertionError, match=r"is BROKEN, .* at Sun 2026-10-25 \d\d:\d\d"
    ) as failed:
        mesh.assert_holds("traffic_flows")
    assert not MOMENT.search(str(failed.value))
