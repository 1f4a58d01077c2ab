"""meshwake run, check, plan, doctor: scenarios run and judged, here and now.

Of several runs the most serious one decides the exit code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from meshwake.cli.options import JsonOption, VerboseOption
from meshwake.cli.output import CommandExit, print_json, print_text, say
from meshwake.core.errors import BadInput, ExitCode, HarnessError
from meshwake.core.resources import SCENARIOS
from meshwake.core.scenario import read_scenario
from meshwake.core.versions import find
from meshwake.report.progress import ProgressLine
from meshwake.report.result import result
from meshwake.report.terminal import run_detail, show, summary_table
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.corpus import scenario_file, scenario_files
from meshwake.runner.flags import KEYWORD_OPTION, CaseFlags, RunCommandFlags, with_flags
from meshwake.runner.options import Options, options_from
from meshwake.runner.run import Progress, check_run
from meshwake.runner.suite import Ending, Suite, most_serious, run_suite, summary_of

if TYPE_CHECKING:
    from meshwake.runner.doctor import Health


def add_commands(app: typer.Typer) -> None:
    """Adds run, check, plan and doctor to `app`."""
    app.command()(run)
    app.command()(check)
    app.command()(plan)
    app.command()(doctor)


@with_flags(RunCommandFlags)
def run(
    named: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCENARIO",
            help="Files, directories of them, or names (meshwake list). With -k alone: of those "
            "that come with meshwake.",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    *,
    flags: RunCommandFlags,
) -> None:
    """Run scenarios and judge what happened."""
    options = options_from(flags)
    if flags.report is not None:
        from meshwake.report.html.folder import check_report_folder

        check_report_folder(flags.report, "--report")
    files = _files(named, flags.keyword)

    # One scenario, one release, one fix: a person wants to read all of it.
    alone = len(files) == 1 and len(options.istio) <= 1 and len(options.fixes) <= 1
    shown = _AsTheyEnd(options, as_json, in_full=verbose or alone, verbose=verbose)
    try:
        suite = run_suite(Suite(tuple(files), options, shown.watch, shown.report))
    except KeyboardInterrupt:
        shown.interrupted()
        raise
    finally:
        # The line of progress is overwritten in place; what follows must begin on its own line.
        shown.line.end()
    _show_suite(suite.endings, as_json)
    codes = [ending.exit_code for ending in suite.endings]

    # Last, when every result was printed: a full disk must not hide them.
    if flags.report is not None:
        from meshwake.cli.report import report_endings

        unwritten = report_endings(flags.report, suite.endings, quiet=as_json)
        if unwritten is not None:
            _say_error(unwritten)
            codes.append(unwritten.exit_code)
    raise CommandExit(most_serious(codes))


def _files(named: list[Path] | None, keyword: str) -> list[Path]:
    # Of nothing at all the whole corpus would be a surprise: minutes on a real ztunnel.
    if not named and not keyword.strip():
        raise BadInput(
            "SCENARIO is missing: give a file, a directory of them or a name (meshwake list), or "
            f"{KEYWORD_OPTION} EXPRESSION for some of those that come with meshwake"
        )
    return scenario_files(named or [SCENARIOS], keyword)


class _AsTheyEnd:
    """Shows cases while they run and as they end. Of many only those that need a look are shown in
    full; the table has the rest."""

    def __init__(self, options: Options, as_json: bool, in_full: bool, verbose: bool) -> None:
        self.line = ProgressLine(shown=not as_json)
        self._options, self._verbose = options, verbose
        self._as_json, self._in_full = as_json, in_full
        self._endings: list[Ending] = []

    def watch(self, case: Case) -> Progress:
        """Called with each case before it runs."""
        return self.line.watch(case.id, case.plan.duration_ns)

    def report(self, ending: Ending) -> None:
        """Called with how each case ended."""
        self._endings.append(ending)
        self.line.end()
        if ending.error is not None:
            _say_error(ending.error)
        elif not self._as_json and (self._in_full or _needs_a_look(ending, self._options)):
            _show_ending(ending, self._verbose)

    def interrupted(self) -> None:
        """After ^C: what had ended until then."""
        self.line.end()
        if self._endings and not self._as_json:
            show(Console(), summary_table([summary_of(ending) for ending in self._endings]))


def _needs_a_look(ending: Ending, options: Options) -> bool:
    """Of many runs: what was not expected. Fixes that are compared are expected to differ."""
    return ending.exit_code is not ExitCode.AS_EXPECTED and len(options.fixes) <= 1


def check(
    run_directory: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run that was kept, the name of its scenario, or latest."
        ),
    ],
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Judge a saved run again, with today's checks."""
    checked = check_run(run_directory)
    if as_json:
        print_json(result(checked))
    else:
        show(Console(), run_detail(checked, verbose))
    raise CommandExit(checked.outcome.exit_code)


@with_flags(CaseFlags)
def plan(
    file: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A file, or a name.")],
    *,
    flags: CaseFlags,
) -> None:
    """Print the plan of a scenario as JSON: every fault in its place, nothing left open."""
    options = Options(flags.lab, flags.istio, flags.ztunnel, flags.seed, real_time=flags.real_time)
    cases = Chooser(options).cases(read_scenario(scenario_file(file)))

    # Also of a case that cannot run here: the plan is what one wants to see of it.
    print_json(_one_or_all([case.plan.model_dump(mode="json") for case in cases]))
    for case in cases:
        if case.refusal is not None:
            say(f"{case.id}: would be refused: {case.refusal}")


def doctor(as_json: JsonOption = False) -> None:
    """Show which lab can run here, why another cannot, and what to install."""
    from meshwake.runner.doctor import examine

    health = examine()
    if as_json:
        print_json(health.to_json())
    else:
        _show_health(health)


# --- What is shown --------------------------------------------------------------------------------


def _show_suite(endings: Sequence[Ending], as_json: bool) -> None:
    if as_json:
        print_json(_one_or_all([_json_of(ending) for ending in endings]))
        return
    summaries = [summary_of(ending) for ending in endings]
    if len(endings) > 1:
        show(Console(), summary_table(summaries))

    # GitHub reads them from stdout of the job; elsewhere they would be noise.
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from meshwake.report.ci_formats import github_annotations

        print_text("\n".join(github_annotations(summaries)))


def _one_or_all(objects: list[dict[str, Any]]) -> Any:
    """One object for one run, an array for several."""
    return objects[0] if len(objects) == 1 else objects


def _show_ending(ending: Ending, verbose: bool) -> None:
    run = ending.run
    if run is None:
        return
    console = Console(markup=False)
    show(console, run_detail(run, verbose))
    console.print(f"lab {ending.case.chosen_because}", highlight=False, soft_wrap=True)
    if run.path is not None:
        console.print(f"evidence: {run.path}", highlight=False, soft_wrap=True)

    # A month from a machine's own journal: the next question is what a fix would have changed.
    if run.plan.recorded and run.plan.fix is None:
        _show_outlook(ending.case)
    console.print()


def _show_outlook(case: Case) -> None:
    """What a recorded month would be with a fix."""
    from meshwake.analysis.outlook import outlook

    lost = outlook(case.scenario, find(case.version))
    print_text(f"without mTLS while awake, on the model: {lost}")


def _show_health(health: Health) -> None:
    from meshwake.ztunnel import binaries

    console = Console(markup=False)
    table = Table("lab", "here", "why not, and what to do")
    for lab in health.labs:
        table.add_row(lab.lab, "yes" if lab.can_run else "no", "\n".join(lab.reasons))
    console.print(f"Python {health.python} on {health.system}", highlight=False)
    console.print(f"ztunnel binaries in {health.cache}:", highlight=False, soft_wrap=True)
    for version, path in health.ztunnels or [("none", "")]:
        console.print(f"  {version}  {path}".rstrip(), highlight=False, soft_wrap=True)
    for path in health.misplaced:
        place = binaries.place_of("VERSION")
        console.print(f"  not used: {path}", highlight=False, soft_wrap=True)
        console.print(f"            expected at {place}; or name it with --ztunnel", soft_wrap=True)
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


def _say_error(error: HarnessError) -> None:
    say(str(error))
    if error.evidence is not None:
        say(f"evidence: {error.evidence}")
