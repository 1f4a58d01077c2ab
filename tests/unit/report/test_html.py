"""The folder of a report: what lies in it, that it opens offline, and what happens when it cannot
be written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.run import Run
from meshwake.core.store import runs_dir
from meshwake.report.html import folder
from meshwake.report.html.content import again, data
from meshwake.report.html.folder import begin_report, write_report
from meshwake.report.result import Summary

from tests.support.scenarios import SURPRISING, small, write
from tests.unit.report.runs import ISSUE_1481, NIGHTS, RECORDED, modelled, recorded

REFUSED = Summary("elsewhere", "process", "1.31.0", "refused", why="no ztunnel binary")


@pytest.fixture(autouse=True)
def no_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_one_run_is_the_first_page(tmp_path: Path) -> None:
    """A reader of index.html sees the run itself."""
    opened = write_report(tmp_path / "report", [modelled()])
    assert opened.read_text() == next((tmp_path / "report").glob("small-*.html")).read_text()
    assert {
        "junit.xml",
        "summary.md",
        "assets/plotly.min.js",
        "assets/report.js",
        "assets/report.css",
    } <= names(tmp_path / "report")


def test_several_runs_have_a_table_and_can_be_compared(tmp_path: Path) -> None:
    """Those that did not run are in it too, with their reason."""
    write_report(tmp_path / "report", [recorded(NIGHTS), recorded(ISSUE_1481)], [REFUSED])
    index = ((tmp_path / "report") / "index.html").read_text()
    for word in ("nightly_sleep", "ztunnel_1481", "elsewhere", "no ztunnel binary", "compare.html"):
        assert word in index
    assert "<h1>3 runs: 2 as expected, 1 refused</h1>" in index
    assert "1 h 7 m of 3 h without mTLS, first on day 0 at 00:47" in index
    assert ((tmp_path / "report") / "compare.html").is_file()
    assert "elsewhere" in ((tmp_path / "report") / "junit.xml").read_text()


def test_a_page_begins_with_what_happens_to_the_mesh(tmp_path: Path) -> None:
    """The sentence of the terminal, then what was expected, then the rest."""
    opened = write_report(tmp_path / "report", [modelled()]).read_text()
    happened = opened.index("without mTLS, first on day")
    expected = opened.index("Not as expected, a regression: \u201cConnections always work\u201d")
    assert opened.index("<h1>") < happened < expected < opened.index('class="facts"')


def test_every_page_has_the_command_that_repeats_its_run(tmp_path: Path) -> None:
    """Also of a run that was not kept; of one whose command was never recorded a page says so."""
    run = modelled()
    pages = [
        write_report(tmp_path / name, [each]).read_text()
        for name, each in (("new", run), ("old", replace(run, repeat="")))
    ]
    version = run.plan.version
    assert f"meshwake run small.toml --lab model --istio {version} --seed 0" in pages[0]
    assert "The command of this run was not recorded." in pages[1]
    (corpus,) = again(recorded(NIGHTS))[:1]
    assert corpus["command"] == "meshwake run nightly_sleep --lab process --istio 1.28.0 --seed 0"


def test_the_places_of_a_finding_can_all_be_seen(tmp_path: Path) -> None:
    """The first five, and the others behind a line that opens."""
    run = recorded(NIGHTS)
    opened = write_report(tmp_path / "report", [run]).read_text()
    rest = run.finding("renewals_on_time").rest
    assert rest
    assert f"<summary>and {len(rest)} more, from " in opened
    assert "more from here on" not in opened
    for place in rest:
        assert place.text in opened


def test_an_imported_month_has_its_own_dates(tmp_path: Path) -> None:
    """On the page and in what its timelines are drawn from; nothing is left as day 1."""
    month = small(
        ('duration = "2d"', 'duration = "2d"\nrecorded_from = 2026-11-23T16:00:00Z'),
        ('lasts = "8h"', 'lasts = "20h"'),
    )
    folder = tmp_path / "report"
    opened = write_report(folder, [modelled(month)]).read_text()
    script = next((folder / "data").glob("*.js")).read_text()
    for text in (opened, script):
        assert "Wed 2026-11-25 03:59" in text
        assert not re.search(r"day \d+ \d\d:\d\d", text)
    assert "every ztunnel was started at Mon 2026-11-23 16:00:00" in opened


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """Every file that a page names lies in the folder; no address of another machine is loaded."""
    write_report(tmp_path / "report", [recorded(NIGHTS), recorded(ISSUE_1481)])
    for page in (tmp_path / "report").glob("*.html"):
        for place in re.findall(r'(?:src|href)="([^"#?]+)', page.read_text()):
            assert place.startswith("data:,") or ((tmp_path / "report") / place).is_file(), (
                page.name,
                place,
            )
    assert "http" not in ((tmp_path / "report") / "assets" / "report.js").read_text()
    assert "url(" not in ((tmp_path / "report") / "assets" / "report.css").read_text()


def test_the_library_is_there_once(tmp_path: Path) -> None:
    """Five megabytes for the folder, not for each page."""
    write_report(tmp_path / "report", [recorded(NIGHTS), recorded(ISSUE_1481)])
    big = [
        name
        for name in names(tmp_path / "report")
        if ((tmp_path / "report") / name).stat().st_size > 2_000_000
    ]
    assert big == ["assets/plotly.min.js"]


def test_what_a_run_says_cannot_become_markup(tmp_path: Path) -> None:
    """A title and an error message are text, in the page and in the script."""
    evil = "</script><img src=x onerror=alert(1)>"
    run = modelled(
        small(
            ('"One suspend, too short to matter"', f"'{evil}'"), ('lasts = "8h"', 'lasts = "20h"')
        )
    )
    events = [
        replace(e, data=e.data | {"error": evil}) if e.data.get("error") else e for e in run.history
    ]
    bad = Run(run.plan, type(run.history)(events), run.findings)
    write_report(tmp_path / "report", [bad])
    assert evil not in ((tmp_path / "report") / "index.html").read_text()
    script = data(bad, "x")
    assert json.loads(script[len("MESHWAKE.add(") : -3])["nodes"][0]["tracks"]


def test_an_earlier_report_gives_way_and_nothing_else(tmp_path: Path) -> None:
    """Old pages do not stay among the new ones; a foreign folder is refused."""
    write_report(tmp_path / "report", [recorded(NIGHTS), recorded(ISSUE_1481)])
    write_report(tmp_path / "report", [modelled()])
    assert not list((tmp_path / "report").glob("nightly*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(BadInput, match=r"^--report .*mine: holds thesis\.tex and no report"):
        begin_report(tmp_path / "mine", "--report")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_two_runs_of_one_plan_have_two_pages(tmp_path: Path) -> None:
    """Neither writes over the other."""
    write_report(tmp_path / "report", [modelled(), modelled()])
    assert len(list((tmp_path / "report").glob("small-*.html"))) == 2


def test_a_full_disk_is_reported_and_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is kept and shown as ever; only the report is missing."""

    def full(self: Path, *arguments: object, **more: object) -> int:
        raise OSError(28, "No space left on device")

    scenario = write(tmp_path, SURPRISING)
    run = folder.ReportFolder._write

    def write_nothing(self: folder.ReportFolder, name: str, text: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", full)
            run(self, name, text)

    monkeypatch.setattr(folder.ReportFolder, "_write", write_nothing)
    code = run_command(
        ["run", str(scenario), "--lab", "model", "--report", str(tmp_path / "report")]
    )
    out, err = capsys.readouterr()
    assert code == ExitCode.BAD_INPUT
    assert "No space left on device" in err and "the runs themselves are untouched" in err
    assert "BROKEN  traffic_flows" in out
    assert (runs_dir() / "small" / "latest" / "history.jsonl").is_file()


@pytest.mark.parametrize(
    ("command", "option"),
    [(["run", "SCENARIO", "--lab", "model"], "--report"), (["report", "RUN"], "--output")],
)
def test_a_folder_that_cannot_be_names_the_option_that_was_typed(
    tmp_path: Path, command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` calls it --report, `report` --output."""
    places = {"SCENARIO": str(write(tmp_path, small())), "RUN": str(RECORDED / NIGHTS)}
    (tmp_path / "file").touch()
    where = str(tmp_path / "file" / "pages")
    typed = [places.get(word, word) for word in command]
    assert run_command([*typed, option, where]) == ExitCode.BAD_INPUT
    printed = capsys.readouterr()
    assert f"{option} {where}: cannot be written (Not a directory)" in printed.err
    assert printed.out == ""


def test_a_report_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing ran, and no folder is left of the attempt; nor where the scenario is refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    command = ["run", str(write(tmp_path, small())), "--lab", "model", "--report"]
    assert run_command([*command, str(tmp_path / "mine")]) == ExitCode.BAD_INPUT
    assert not runs_dir().exists()
    assert "holds thesis.tex and no report" in capsys.readouterr().err
    new = str(tmp_path / "a" / "b")
    assert run_command(["run", "no-such-scenario", "--report", new]) == ExitCode.BAD_INPUT
    assert not (tmp_path / "a").exists()


def test_the_summary_of_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appended to the file that GitHub names, after what is there."""
    place = tmp_path / "summary"
    place.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    write_report(tmp_path / "report", [modelled()])
    assert place.read_text().startswith("before\n### meshwake: 1 run: 1 not as expected")


# --- Bad input ------------------------------------------------------------------------------------


def broken_run(tmp_path: Path, text: str) -> Path:
    """A recorded run whose history is `text`."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "plan.json").write_text((RECORDED / ISSUE_1481 / "plan.json").read_text())
    (path / "history.jsonl").write_text(text)
    return path


HISTORY = (RECORDED / ISSUE_1481 / "history.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty or does not begin with run_started"),
        (HISTORY[:-40], "237: is not an event of a history"),
        (
            HISTORY.replace('"format":1', '"format":7', 1),
            "was written in format 7, this meshwake reads format 1",
        ),
    ],
    ids=["empty", "half a line", "another format"],
)
def test_a_broken_run_is_named_and_nothing_is_written(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written, with what to do."""
    path = broken_run(tmp_path, text)
    code = run_command(
        ["report", str(RECORDED / NIGHTS), str(path), "--output", str(tmp_path / "report")]
    )
    assert code == ExitCode.BAD_INPUT
    assert words in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_run_that_was_killed_is_shown_as_far_as_it_went(tmp_path: Path) -> None:
    """Cut after a whole line: a page with what there is, and UNKNOWN where it matters."""
    path = broken_run(tmp_path, "".join(HISTORY.splitlines(keepends=True)[:60]))
    assert run_command(["report", str(path), "--output", str(tmp_path / "report")]) == 0
    assert "the run broke off at" in (tmp_path / "report" / "index.html").read_text()


def test_a_run_without_any_clock_has_a_page(tmp_path: Path) -> None:
    """Only its first line."""
    path = broken_run(tmp_path, HISTORY.splitlines(keepends=True)[0])
    assert run_command(["report", str(path), "--output", str(tmp_path / "report")]) == 0
    assert "there is nothing to draw" in (tmp_path / "report" / "index.html").read_text()


def test_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Strip and findings, without a browser."""
    assert run_command(["report", str(RECORDED / ISSUE_1481)]) == 0
    out = capsys.readouterr().out
    assert "vm: asleep 17 m in 1 sleep" in out
    assert "BROKEN  recovers_within" in out


def test_no_line_ends_within_a_date() -> None:
    """A hyphen is where a browser breaks a line; everything else in the text is escaped."""
    shown = folder._unbroken_dates("<b> first on Tue 2026-10-06 12:19")
    assert shown == '&lt;b&gt; first on Tue <span class="date">2026-10-06</span> 12:19'
