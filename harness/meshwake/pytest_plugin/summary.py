"""What pytest shows at the end: the table of all cases, and the pages, where they are to be written.

A row travels as text from the process that ran its case (pytest-xdist) to the one that writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from meshwake.core.errors import HarnessError
from meshwake.core.run import Run
from meshwake.core.store import runs_dir
from meshwake.pytest_plugin.session import SESSION, as_typed_in
from meshwake.report.ci_formats import github_annotations
from meshwake.report.html.entries import ReportEntry
from meshwake.report.html.folder import ReportFolder
from meshwake.report.result import Summary
from meshwake.report.terminal import plain, summary_table


def row_of(summary: Summary, report: Path | None, run: Run | None, chosen_because: str) -> str:
    """One case; its page is written at once, where pages are written."""
    shown: dict[str, Any] = {}
    if report is not None and run is not None:
        shown = dict(vars(ReportFolder(report, "--report").add(run)))
        # It comes once for all rows, below.
        del shown["summary"]

    values = dict(vars(summary))
    # JSON has no paths; `_summary` makes one of it again.
    if summary.run is not None:
        values["run"] = str(summary.run)
    return json.dumps({"chosen_because": chosen_because, "summary": values, "entry": shown})


def write_summary(terminalreporter: pytest.TerminalReporter, rows: list[str]) -> None:
    """All of this session, in the order of their names."""
    # With pytest-xdist rows come as workers finish; sorted, two sessions can be compared.
    read = sorted(map(json.loads, rows), key=_name)
    summaries = [_summary(row["summary"]) for row in read]

    terminalreporter.section("meshwake")
    terminalreporter.write(plain(summary_table(summaries)))

    # Each reason once: most cases of a session run on the same lab.
    reasons = sorted({row["chosen_because"] for row in read})
    lines = [f"lab {because}" for because in reasons]
    config = terminalreporter.config
    for line in lines + _remarks(summaries):
        terminalreporter.write_line(as_typed_in(config, line))

    # GitHub Actions reads them from the output of a job, and shows them at the files. They have
    # the command that repeats a run, with the options of `meshwake run`.
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in github_annotations(summaries):
            terminalreporter.write_line(line)

    report = terminalreporter.config.stash[SESSION].report
    if report is not None:
        _write_report(terminalreporter, report, read)


def _name(row: dict[str, Any]) -> tuple[str, ...]:
    summary = row["summary"]
    return summary["scenario"], summary["lab"], summary["version"]


def _remarks(summaries: list[Summary]) -> list[str]:
    """Where there is no evidence."""
    if any(summary.run for summary in summaries):
        return []
    keep = f"--keep-run keeps every run in {runs_dir()}/"
    return [f"evidence: no surprise, so none was kept; {keep}"]


def _write_report(
    terminalreporter: pytest.TerminalReporter, directory: Path, rows: list[dict[str, Any]]
) -> None:
    entries = [ReportEntry(_summary(row["summary"]), **row["entry"]) for row in rows]
    # A full disk takes the report and nothing else: the results are above it already.
    try:
        opened = ReportFolder(directory, "--report").finish(entries)
        terminalreporter.write_line(f"report: {opened}")
    except HarnessError as error:
        terminalreporter.write_line(f"report: not written: {error}", red=True)


def _summary(values: dict[str, Any]) -> Summary:
    run = values["run"]
    return Summary(**values | {"run": Path(run) if run else None})
