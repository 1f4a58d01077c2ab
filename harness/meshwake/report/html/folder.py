"""Writes a report: one folder that opens offline and can be sent, kept or published as it is.

    index.html           all runs; the page of the run itself when there is only one
    NAME.html            one run: timelines, findings with their evidence, renewals, the plan
    compare.html         two runs of the folder on one time axis
    assets/, data/       plotly.js once, our script and style; what timelines are drawn from
    junit.xml            one test case a run, for whatever reads JUnit
    summary.md           the table as Markdown; also appended to $GITHUB_STEP_SUMMARY where GitHub sets it

Pages are made one by one (`add`), so that each worker of a parallel test run can make its own; who
has all the entries makes the rest (`finish`). A file is written under a temporary name and renamed,
so it is whole or missing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshwake.checks.format import lasting
from meshwake.core.durations import seconds
from meshwake.core.errors import BadInput
from meshwake.core.extras import require
from meshwake.core.outcome import OutcomeKind, Verdict
from meshwake.core.outputs import try_file, try_folder
from meshwake.core.run import Run
from meshwake.report.ci_formats import junit_xml, markdown
from meshwake.report.html.content import data, page
from meshwake.report.html.entries import ReportEntry, entry_of
from meshwake.report.result import Summary
from meshwake.report.tally import tally

if TYPE_CHECKING:
    from markupsafe import Markup

_ASSETS = ("report.css", "report.js")
_DATE = re.compile(r"\b(\d{4}-\d\d-\d\d)\b")


class ReportFolder:
    """The folder at `path`, which was given with `option`. Raises LabUnavailable without the extra
    `report`, BadInput where it cannot be written: every method may."""

    def __init__(self, path: Path, option: str) -> None:
        require("report")
        from jinja2 import Environment, PackageLoader, StrictUndefined

        self.path, self._option = path, option
        self._pages = Environment(
            loader=PackageLoader("meshwake.report.html"),
            autoescape=True,  # names and reasons come from files and programs
            undefined=StrictUndefined,  # a misspelt name fails a test, and shows no gap on a page
            trim_blocks=True,
        )
        self._pages.filters["unbroken_dates"] = _unbroken_dates
        self._shared = {"version": version("meshwake")}

    def add(self, run: Run, many: bool = True) -> ReportEntry:
        """Writes the page of one run. `many`: there will be others to link to."""
        name = self._claim(run.slug)
        self._write(f"data/{name}.js", data(run, name))
        self._write(f"{name}.html", self._page("run.html.j2", run=page(run, name), many=many))
        return entry_of(run, name)

    def finish(self, entries: list[ReportEntry]) -> Path:
        """Writes what needs all runs; returns the page to open."""
        # Not before it is needed: it takes as long as the rest of a command.
        from plotly.offline import get_plotlyjs

        self._write("assets/plotly.min.js", get_plotlyjs())
        for asset in _ASSETS:
            self._write(
                f"assets/{asset}",
                files("meshwake.report.html").joinpath("assets", asset).read_text("utf-8"),
            )
        runs = [entry for entry in entries if entry.id]

        # Of a single run a table would be one line to click.
        if len(entries) == 1 and runs:
            self._write(
                "index.html", (self.path / f"{runs[0].id}.html").read_text(encoding="utf-8")
            )
        else:
            self._write(
                "index.html", self._page("index.html.j2", many=len(runs) > 1, **_table(entries))
            )
        if len(runs) > 1:
            self._write("compare.html", self._page("compare.html.j2", runs=runs, many=True))
        self._write("junit.xml", junit_xml([(entry.summary, entry.real_s) for entry in entries]))
        self._write("summary.md", markdown([entry.summary for entry in entries]))
        _append_to_github_summary(markdown([entry.summary for entry in entries]))
        return self.path / "index.html"

    def _page(self, template: str, **values: Any) -> str:
        return self._pages.get_template(template).render(**self._shared, **values)

    def _claim(self, name: str) -> str:
        """`name`, or with a number behind it where another run of the same plan has it already."""
        for number in range(1, 10_000):
            claimed = name if number == 1 else f"{name}-{number}"
            try:
                (self.path / "data").mkdir(parents=True, exist_ok=True)
                # "x": of two workers of a parallel test run only one makes the file.
                (self.path / "data" / f"{claimed}.js").open("x").close()
            except FileExistsError:
                continue
            except OSError as error:
                raise self._cannot(error) from error
            return claimed
        raise BadInput(
            f"{self._option} {self.path}: holds 10000 pages of one plan; give an empty folder"
        )

    def _write(self, name: str, text: str) -> None:
        place = self.path / name
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                fresh.write_text(text, encoding="utf-8")
                fresh.replace(place)
            finally:
                fresh.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> BadInput:
        return BadInput(
            f"{self._option} {self.path}: the report cannot be written ({error.strerror}); give "
            "another folder, with room for about 5 MB and 1 MB a run; the runs themselves are "
            "untouched"
        )


def check_report_folder(path: Path, option: str) -> None:
    """Whether a new report can be written at `path`, which was given with `option`: found out
    before anything runs. An earlier report there may be replaced. Raises BadInput for what cannot
    be written, or holds anything else, LabUnavailable without the extra `report`."""
    require("report")
    if path.exists() and not path.is_dir():
        raise BadInput(f"{option} {path}: is a file; give a folder for the report")
    try_folder(path, option)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try_file(Path(summary), "GITHUB_STEP_SUMMARY")
    if not path.is_dir():
        return

    # A new report deletes the files of an old one: not in a folder that holds something else, such
    # as a home directory.
    is_report = (path / "assets" / "report.js").is_file()
    strange = [] if is_report else [each.name for each in path.iterdir()]
    if strange:
        raise BadInput(
            f"{option} {path}: holds {', '.join(sorted(strange)[:3])} and no report; give a "
            "folder that is new or empty"
        )


def begin_report(path: Path, option: str) -> ReportFolder:
    """The folder for a new report. An earlier report there gives way; anything else stays and is
    refused."""
    check_report_folder(path, option)
    for old in [*path.glob("*.html"), *path.glob("data/*.js")]:
        old.unlink(missing_ok=True)
    return ReportFolder(path, option)


def write_report(
    path: Path, runs: Iterable[Run], others: Iterable[Summary] = (), option: str = "--output"
) -> Path:
    """The whole report of `runs`, and of `others`, which did not run; returns the page to open.
    `option`: what was typed before `path`."""
    folder, shown = begin_report(path, option), list(runs)
    rest = [ReportEntry(each) for each in others]
    entries = [folder.add(run, many=len(shown) + len(rest) > 1) for run in shown]
    return folder.finish([*entries, *rest])


def _table(entries: list[ReportEntry]) -> dict[str, Any]:
    most_ns = max((entry.summary.outage_ns or 0 for entry in entries), default=0)
    return {
        "dated": any(entry.summary.dates for entry in entries),
        "headline": tally([entry.summary for entry in entries]),
        "verdicts": _verdicts(entries),
        "entries": [_row(entry, most_ns) for entry in entries],
    }


def _verdicts(entries: list[ReportEntry]) -> list[tuple[str, str]]:
    """What happens to the mesh, with in how many of the runs."""
    # Those that did not run have no verdict, and are not counted here.
    found = Counter(entry.verdict for entry in entries)
    return [
        (verdict.value, f"in {found[verdict]}")
        for verdict in (Verdict.BROKEN, Verdict.HOLDS, Verdict.UNKNOWN)
        if found[verdict]
    ]


def _row(entry: ReportEntry, most_ns: int) -> dict[str, Any]:
    """One line of the table. The value to sort by is -1 where there is none."""
    summary = entry.summary
    row = asdict(summary) | {
        "id": entry.id,
        "verdict": entry.verdict,
        "happened": entry.happened,
    }
    row |= {"outage": "-", "outage_s": -1, "share": 0, "why": _why(entry)}
    if summary.outage_ns is not None:
        row["outage"] = lasting(summary.outage_ns) if summary.outage_ns else "none"
        row["outage_s"] = seconds(summary.outage_ns)
    if summary.outage_ns:
        row["share"] = round(100 * summary.outage_ns / most_ns, 1)
    return row


def _unbroken_dates(text: str) -> Markup:
    """`text` for a page, where no line ends within a date: a hyphen is a place to break one."""
    from markupsafe import Markup

    # Every second piece is a date. What is joined is escaped, unless it is Markup already.
    pieces: list[str] = _DATE.split(text)
    pieces[1::2] = [Markup('<span class="date">{}</span>').format(date) for date in pieces[1::2]]
    return Markup().join(pieces)


def _why(entry: ReportEntry) -> str:
    """Nothing of a run that was as expected; else the reason, without its word."""
    if entry.summary.outcome == OutcomeKind.AS_EXPECTED.value:
        return ""
    return entry.sentence or entry.summary.why


def _append_to_github_summary(text: str) -> None:
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        return
    try:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInput(
            f"GITHUB_STEP_SUMMARY={place}: cannot be written ({error.strerror}); unset it"
        ) from error
