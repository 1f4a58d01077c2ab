"""Several scenario files: every file is read before anything runs, every case is chosen, and an
error ends its own case only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from meshwake.core.errors import BadInput, ExitCode, HarnessError
from meshwake.core.run import Run
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.report.result import Summary, summarise
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.corpus import scenario_files
from meshwake.runner.options import Options
from meshwake.runner.run import Progress, ignore_progress, run_case

# Of several runs the most serious ending is the exit code: who has to act first, the furthest from
# a verdict before the others.
MOST_SERIOUS_FIRST = (
    ExitCode.HARNESS_FAULT,
    ExitCode.BAD_INPUT,
    ExitCode.LAB_UNAVAILABLE,
    ExitCode.SURPRISE,
    ExitCode.UNKNOWN,
    ExitCode.AS_EXPECTED,
)


@dataclass(frozen=True)
class Ending:
    """How one case ended: with a run, or with the error that stopped it."""

    case: Case
    run: Run | None = None
    error: HarnessError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of this case alone."""
        if self.error is not None:
            return self.error.exit_code
        if self.run is not None:
            return self.run.outcome.exit_code

        # With neither a result nor an error something here did not do its work.
        return ExitCode.HARNESS_FAULT

    @property
    def word(self) -> str:
        """The outcome in one word, as tables and JSON show it."""
        if self.run is not None:
            return self.run.outcome.kind.value

        # A lab that cannot run here is not a failure of the case.
        if self.exit_code is ExitCode.LAB_UNAVAILABLE:
            return "refused"
        return "error"

    @property
    def evidence(self) -> Path | None:
        """The directory with the evidence, where one was kept."""
        if self.run is not None:
            return self.run.path
        if self.error is not None:
            return self.error.evidence
        return None


@dataclass(frozen=True)
class Suite:
    """What is to run, and what has come of it so far. `watch` is called with each case before it
    runs, `report` with how it ended."""

    paths: tuple[Path, ...]
    options: Options
    watch: Callable[[Case], Progress] = lambda case: ignore_progress
    report: Callable[[Ending], None] = lambda ending: None
    endings: tuple[Ending, ...] = ()


def run_suite(suite: Suite) -> Suite:
    """Runs all of `suite`. Raises BadInput, before anything runs, when a file is wrong."""
    scenarios = read_scenarios(suite.paths)

    # One for all: it looks at the binary and at the machine once.
    chooser = Chooser(suite.options)

    # Chosen before any runs: a range that covers no release is found at once.
    cases = [case for scenario in scenarios for case in chooser.cases(scenario)]

    endings = []
    for case in cases:
        ending = _run_one(case, suite)
        suite.report(ending)
        endings.append(ending)
    return replace(suite, endings=tuple(endings))


def _run_one(case: Case, suite: Suite) -> Ending:
    try:
        # Before it is watched: a case that was refused has no progress to show.
        case.require_runnable()
        progress = suite.watch(case)
        return Ending(case, run=run_case(case, suite.options, progress))
    except HarnessError as error:
        return Ending(case, error=error)


def read_scenarios(paths: Iterable[Path]) -> list[Scenario]:
    """The scenarios in all files of `paths`. Raises BadInput that names every bad file."""
    # Every file is read before the first complaint, so that one edit can mend all of them.
    scenarios, refusals = [], []
    for path in scenario_files(paths):
        try:
            scenarios.append(read_scenario(path))
        except BadInput as error:
            refusals.append(str(error))
    if refusals:
        raise BadInput("\n".join(refusals))
    return scenarios


def most_serious(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of several runs together."""
    return min(codes, key=MOST_SERIOUS_FIRST.index, default=ExitCode.AS_EXPECTED)


def summary_of(ending: Ending) -> Summary:
    """The row of one case in a table of many, whether it ran or not."""
    case = ending.case
    # The file is the case's: a run that is read again does not know where its scenario is written.
    if ending.run is not None:
        return replace(summarise(ending.run), file=case.scenario.path)

    return Summary(
        case.scenario.name,
        case.lab,
        case.version,
        ending.word,
        why=str(ending.error),
        run=ending.evidence,
        file=case.scenario.path,
    )
