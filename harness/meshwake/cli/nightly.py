"""meshwake nightly: the whole corpus on all versions, and what changed since the night before."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from meshwake.analysis.nightly import (
    RESULTS_FILE,
    CaseResult,
    NightlyRequest,
    open_result_log,
    run_night,
)
from meshwake.analysis.nightly_report import NightlyReport
from meshwake.cli.options import JsonOption, SeedOption
from meshwake.cli.output import CommandExit, cut, print_json, print_text, say
from meshwake.core.errors import BadInput
from meshwake.core.outcome import OutcomeKind
from meshwake.core.resources import SCENARIOS
from meshwake.runner.corpus import scenario_files
from meshwake.runner.flags import SelectFlags, with_flags


def add_commands(app: typer.Typer) -> None:
    """Adds nightly to `app`."""
    app.command("nightly")(nightly)


@with_flags(SelectFlags)
def nightly(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Scenarios; without: the whole corpus."),
    ] = None,
    labs: Annotated[str, typer.Option("--labs", help="Separated by commas.")] = "model,process",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIRECTORY", help="Where the results are kept.")
    ] = Path("nightly"),
    istio: Annotated[
        list[str] | None,
        typer.Option("--istio", metavar="VERSION", help="Only this release; may be repeated."),
    ] = None,
    seed: SeedOption = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Binaries run at a time.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a night that was interrupted.")
    ] = False,
    previous: Annotated[
        Path | None,
        typer.Option("--previous", metavar="SUMMARY", help="The summary.json of the night before."),
    ] = None,
    as_json: JsonOption = False,
    *,
    flags: SelectFlags,
) -> None:
    """Run the full corpus on all versions and report what changed since last night."""
    # Read first: the night may write over the file that it is compared with.
    before = _previous(previous)

    # And what was typed is checked: a night that is refused must leave no results to go on with.
    names = _lab_names(labs)
    chosen = tuple(scenario_files(files or [SCENARIOS], flags.keyword))
    result_log = open_result_log(out, resume, say)

    # Runs that surprise are kept next to the results, so that one folder is the whole night; a
    # workflow uploads it.
    os.environ.setdefault("MESHWAKE_RUNS", str(out / "runs"))
    request = NightlyRequest(
        names,
        chosen,
        tuple(istio or ()),
        seed,
        jobs or os.cpu_count() or 1,
    )
    try:
        night = run_night(request, result_log, datetime.now(UTC).date(), _report_row)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"what had ended is kept in {out}; --resume goes on with it")
        raise
    report = NightlyReport(night, before)
    _write_night(out, report)
    if as_json:
        print_json(report.to_json())
    else:
        print_text(report.page().rstrip("\n"))
        say(f"kept in {out}: summary.md, summary.json, {RESULTS_FILE}")
    raise CommandExit(night.exit_code)


def _lab_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise BadInput("--labs: names no lab; for example --labs model,process")
    return names


def _report_row(row: CaseResult) -> None:
    """Progress. Of the quick model only what was not as expected."""
    if row.lab != "model" or row.outcome != OutcomeKind.AS_EXPECTED:
        say(cut(f"  {row.lab:<8} {row.version:<12} {row.scenario:<30} {row.outcome}"))


def _previous(path: Path | None) -> frozenset[str] | None:
    """The surprises of the night before; None when it does not exist or cannot be read, because a
    night must not be lost over it."""
    if path is None or not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(summary.get("surprises", []))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        say(f"--previous {path}: cannot be read ({error}); everything unexpected counts as new")
        return None


def _write_night(out: Path, report: NightlyReport) -> None:
    """What people and the workflow read. The parts of the issue are files of their own, for a shell
    script without JSON."""
    page, summary = report.page(), report.to_json()
    (out / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (out / "summary.md").write_text(page, encoding="utf-8")
    (out / "exit_code").write_text(f"{summary['exit_code']}\n", encoding="utf-8")
    issue = out / "issue"
    issue.mkdir(exist_ok=True)
    parts = {
        "action": report.issue["action"],
        "title": report.issue["title"],
        "body.md": page,
    }
    for name, text in parts.items():
        (issue / name).write_text(f"{text.rstrip()}\n", encoding="utf-8")
