"""meshwake run | check | plan | doctor: scenarios run and judged, here and now.

Results go to stdout, everything else to stderr. Of several runs the most serious one decides the
exit code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from meshwake.cli.ending import Ended
from meshwake.core.errors import ExitCode, HarnessError
from meshwake.core.extras import require
from meshwake.core.scenario import read_scenario
from meshwake.report.progress import ProgressLine
from meshwake.report.result import result
from meshwake.report.terminal import run_detail, show, summary_table
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.corpus import scenario_file
from meshwake.runner.doctor import Health, examine
from meshwake.runner.options import AUTO, LabWords, Options, planned_cluster, with_words
from meshwake.runner.run import Progress, check_run
from meshwake.runner.suite import Ending, Suite, most_serious, run_suite, summary_of

LabOption = Annotated[str, typer.Option("--lab", help="auto, model, process, machine or kind.")]
IstioOption = Annotated[
    list[str] | None,
    typer.Option("--istio", metavar="VERSION", help="The release under test; may be repeated."),
]
ZtunnelOption = Annotated[
    Path | None, typer.Option("--ztunnel", metavar="PATH", help="The ztunnel binary under test.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Chooses what is left to chance, such as retry delays.")
]
KeepOption = Annotated[
    bool, typer.Option("--keep-run", help="Keep the run even when it came out as expected.")
]
RealTimeOption = Annotated[
    bool, typer.Option("--real-time", help="Use the numbers of the [real_time] table.")
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--as-class",
        metavar="CLASS",
        help="Lab model: the behaviour class to run, whatever the release's.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Write pages for a browser to this folder."),
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show all evidence.")]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="SCENARIO...", help="Files, directories of them, or names (meshwake list)."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Adds run, check, plan and doctor to `app`."""
    app.command()(run)
    app.command()(check)
    app.command()(plan)
    app.command()(doctor)


@with_words(LabWords)
def run(
    files: FilesArgument,
    lab: LabOption = AUTO,
    istio: IstioOption = None,
    ztunnel: ZtunnelOption = None,
    seed: SeedOption = 0,
    keep_run: KeepOption = False,
    as_class: ClassOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    *,
    words: LabWords,
) -> None:
    """Run scenarios and judge what happened."""
    if report is not None:
        require("report")  # before anything runs
    cluster = planned_cluster(lab, words)
    options = Options(
        lab, tuple(istio or ()), ztunnel, seed, keep_run, words.real_time, cluster, as_class
    )
    line = ProgressLine(shown=not as_json)
    # Of many runs only those are shown in full that somebody must look at; the table has the rest.
    alone = len(files) == 1 and not files[0].is_dir() and len(options.istio) <= 1

    def watch(case: Case) -> Progress:
        return line.watch(case.id, case.plan.duration_ns)

    def tell(ending: Ending) -> None:
        line.end()
        if ending.error is not None:
            _say(ending.error)
        elif not as_json and (verbose or alone or ending.exit_code is not ExitCode.AS_EXPECTED):
            _show_ending(ending, verbose)

    try:
        suite = run_suite(Suite(tuple(files), options, watch, tell))
    finally:
        line.end()
    if as_json:
        _print_json([_json_of(ending) for ending in suite.endings])
    elif len(suite.endings) > 1:
        show(Console(), summary_table([summary_of(ending) for ending in suite.endings]))
    codes = [ending.exit_code for ending in suite.endings]
    if report is not None:
        from meshwake.cli.report import report_endings

        unwritten = report_endings(report, suite.endings, quiet=as_json)
        if unwritten is not None:
            _say(unwritten)
            codes.append(unwritten.exit_code)
    raise Ended(most_serious(codes))


def check(
    run_directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run that was kept, or a 'latest'.")
    ],
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Judge a saved run again, with today's checks."""
    checked = check_run(run_directory)
    if as_json:
        _print_json([result(checked)])
    else:
        show(Console(), run_detail(checked, verbose))
    raise Ended(checked.outcome.exit_code)


def plan(
    file: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A file, or a name.")],
    lab: LabOption = AUTO,
    istio: IstioOption = None,
    ztunnel: ZtunnelOption = None,
    seed: SeedOption = 0,
    real_time: RealTimeOption = False,
) -> None:
    """Print the plan of a scenario as JSON: every fault in its place, nothing left open."""
    options = Options(lab, tuple(istio or ()), ztunnel, seed, real_time=real_time)
    cases = Chooser(options).cases(read_scenario(scenario_file(file)))
    _print_json([case.plan.model_dump(mode="json") for case in cases])
    for case in cases:
        if case.refusal is not None:
            _print_error(f"{case.id}: would be refused: {case.refusal}")


def doctor(as_json: JsonOption = False) -> None:
    """Say which lab can run here, why another cannot, and what to install."""
    health = examine()
    if as_json:
        _print_json([health.to_json()])
    else:
        _show_health(health)


def _say(error: HarnessError) -> None:
    _print_error(str(error))
    if error.evidence is not None:
        _print_error(f"evidence: {error.evidence}")


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(objects: list[dict[str, Any]]) -> None:
    """One object for one run, an array for several."""
    print(json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, ensure_ascii=False))


def _show_ending(ending: Ending, verbose: bool) -> None:
    run = ending.run
    if run is None:
        return
    console = Console()
    show(console, run_detail(run, verbose))
    console.print(f"lab {ending.case.chosen_because}", highlight=False, soft_wrap=True)
    if run.path is not None:
        console.print(f"evidence: {run.path}", highlight=False, soft_wrap=True)
    console.print()


def _show_health(health: Health) -> None:
    console = Console()
    table = Table("lab", "here", "why not, and what to do")
    for lab in health.labs:
        table.add_row(lab.lab, "yes" if lab.can_run else "no", "\n".join(lab.reasons))
    console.print(f"Python {health.python} on {health.system}", highlight=False)
    console.print(f"ztunnel binaries in {health.cache}:", highlight=False, soft_wrap=True)
    for version, path in health.ztunnels or [("none", "")]:
        console.print(f"  {version}  {path}".rstrip(), highlight=False, soft_wrap=True)
    show(console, table)
    console.print(f"--lab auto would choose: {health.auto}", highlight=False)


def _json_of(ending: Ending) -> dict[str, Any]:
    case = ending.case
    evidence = str(ending.evidence) if ending.evidence else None
    if ending.run is not None:
        return result(ending.run) | {"chosen_because": case.chosen_because, "run": evidence}
    return {
        "scenario": case.scenario.name,
        "lab": case.lab,
        "version": case.version,
        "seed": case.seed,
        "outcome": ending.word,
        "exit_code": int(ending.exit_code),
        "error": str(ending.error),
        "run": evidence,
    }
