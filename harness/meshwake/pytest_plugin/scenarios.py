"""Scenario files as tests: one per case, judged as `meshwake run` judges it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from meshwake.checks.format import dated
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.core.outcome import Comparison, OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.core.scenario import read_scenario
from meshwake.pytest_plugin.session import ROW, SESSION, as_typed_in
from meshwake.pytest_plugin.summary import row_of
from meshwake.report.ci_formats import properties
from meshwake.report.headline import headline, judged
from meshwake.runner.choose import Case
from meshwake.runner.run import run_case
from meshwake.runner.suite import Ending, summary_of


class ScenarioFile(pytest.File):
    """One file; a bad one is an error of collection, with the reader's message."""

    def collect(self) -> Iterable[ScenarioItem]:
        """One item per case."""
        try:
            scenario = read_scenario(self._written_path)
            cases = self.config.stash[SESSION].chooser.cases(scenario)
        except HarnessError as error:
            raise self.CollectError(str(error)) from error

        for case in cases:
            yield ScenarioItem.from_parent(self, name=case.id, case=case)

    @property
    def _written_path(self) -> Path:
        """As a person would type it: messages and commands to repeat show this path."""
        root = self.config.invocation_params.dir
        if self.path.is_relative_to(root):
            return self.path.relative_to(root)
        return self.path


class ScenarioItem(pytest.Item):
    """One case. JUnit shows what came of it as properties."""

    def __init__(self, *, case: Case, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        # Skipped at collection, but with a row of its own: a case that did not run must not look as
        # if there were none.
        if case.refusal is not None:
            self._remember(Ending(case, error=LabUnavailable(case.refusal)))
            reason = as_typed_in(self.config, f"{case.lab}: {case.refusal}")
            self.add_marker(pytest.mark.skip(reason=reason))

    def runtest(self) -> None:
        """Takes the case through the pipeline; anything but `as expected` fails."""
        try:
            run = run_case(self.case, self.config.stash[SESSION].options)
        except HarnessError as error:
            self._remember(Ending(self.case, error=error))
            raise
        self._remember(Ending(self.case, run=run))

        # The canary first: where it fails, no other line of the session can be believed.
        words = _canary_words(self.path, run) + _words(self.case, run)
        if words:
            raise _NotAsExpected("\n".join(words))

    def _remember(self, ending: Ending) -> None:
        summary = summary_of(ending)
        self.user_properties += properties(summary)

        # With a report this writes the page of the run too, which needs its history.
        report = self.config.stash[SESSION].report
        self.stash[ROW] = row_of(summary, report, ending.run, self.case.chosen_because)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The message alone where it is meant for a person, a traceback where the harness itself is
        at fault."""
        error = excinfo.value
        if isinstance(error, HarnessError) and error.evidence is not None:
            return f"{error}\nevidence: {error.evidence}"
        if isinstance(error, (_NotAsExpected, HarnessError)):
            return str(error)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """What pytest shows as the place and the name."""
        return self.path, 0, self.name


class _NotAsExpected(Exception):
    """A surprise or an unknown, with all a person needs to look into it."""


def _canary_words(path: Path, run: Run) -> list[str]:
    # With a goal it is judged by that, and its own expectations are left out.
    if "canary" not in path.parts or run.plan.goal is not None:
        return []

    # "As expected" alone is not enough: a canary without an expectation of BROKEN would pass too.
    broken = [
        row.finding.check
        for row in run.outcome.comparisons
        if row.expected is row.finding.verdict is Verdict.BROKEN
    ]
    if broken and run.outcome.kind is OutcomeKind.AS_EXPECTED:
        return []
    return [
        "the harness itself is broken: this canary must come out BROKEN; believe no other "
        "result of this run"
    ]


def _words(case: Case, run: Run) -> list[str]:
    if run.outcome.kind is OutcomeKind.AS_EXPECTED:
        return []

    first = headline(run)
    lines = [f"{first.verdict}: {first.text}", judged(run)]

    for row in run.outcome.comparisons:
        if row.kind is not OutcomeKind.AS_EXPECTED:
            # Seconds of a scenario with dates, such as an imported night, are shown as dates.
            lines += (dated(line, run.plan.dates) for line in _comparison_words(row))

    return [
        *lines,
        f"evidence: {run.path}",
        f"repeat:   {case.repeat_command}",
    ]


def _comparison_words(row: Comparison) -> list[str]:
    return [
        f"{row.finding.check} is {row.finding.verdict}: {row.finding.because}",
        f"  expected {row.expected}: {row.expected_because}",
        *(f"  {evidence.world_s:>12.3f} s  {evidence.text}" for evidence in row.finding.evidence),
    ]
