"""The plugin for pytest: every scenario file is collected, one test per case, and judged as
`meshwake run` judges it.

    pytest scenarios/ [-k nightly] [-n auto] [--meshwake-lab L] [--meshwake-istio V]
                      [--meshwake-ztunnel PATH] [--meshwake-seed N] [--meshwake-report DIR]

pytest finds it by its entry point, so it is on in every project that has meshwake installed: all
its options have the prefix, and a TOML file in a directory `scenarios` that holds no scenario is
left alone. pytest_short_options.py adds the names without the prefix.

A surprise fails its test with the finding, the evidence and the command that repeats it. A case
that cannot run here is skipped with its reason. At the end a table shows what happened, where the
evidence lies and why each lab was chosen. The fixture `mesh` is for tests that tell a timeline in
Python (harness/meshwake/runner/mesh.py).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.outcome import Comparison, OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.core.scenario import read_scenario
from meshwake.core.store import runs_dir
from meshwake.report.headline import headline, judged
from meshwake.report.html.folder import ReportEntry, ReportFolder, begin_report
from meshwake.report.result import Summary
from meshwake.report.terminal import plain, summary_table
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.mesh import Mesh, World, world_of
from meshwake.runner.options import (
    Options,
    add_ini_to_pytest,
    add_to_pytest,
    from_pytest,
    options_from,
)
from meshwake.runner.run import run_case
from meshwake.runner.suite import Ending, summary_of

PROPERTY = "meshwake"
_CHOOSER = pytest.StashKey[Chooser]()
_REPORT = pytest.StashKey[Path | None]()
_FAILED = pytest.StashKey[bool]()
# Other projects have directories called scenarios, too.
_SCENARIO_TABLE = re.compile(rb"^\s*\[\[\s*(node|fault|expect)\s*\]\]", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `meshwake run`, with a prefix, and a key of the settings for each."""
    add_to_pytest(parser.getgroup("meshwake", "time jumps under a service mesh"))
    add_ini_to_pytest(parser)


def pytest_configure(config: pytest.Config) -> None:
    """A wrong option is refused here, once, and not by every file."""
    config.addinivalue_line(
        "markers",
        "mesh(lifetime, backdate, every, fix): the world of the `mesh` fixture; durations as text",
    )
    try:
        flags = from_pytest(config.getoption, config.getini)
        config.stash[_CHOOSER] = Chooser(options_from(flags))
        config.stash[_REPORT] = flags.report
        # Of the processes of pytest-xdist only the first begins the report; all of them add to it.
        if flags.report is not None and not hasattr(config, "workerinput"):
            begin_report(flags.report)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


# --- Scenario files -------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """A TOML file is a scenario when it was named on the command line, or lies below a directory
    called scenarios and has a table of one."""
    if file_path.suffix != ".toml":
        return None
    if not parent.session.isinitpath(file_path):
        if "scenarios" not in file_path.parent.parts:
            return None
        if not _SCENARIO_TABLE.search(file_path.read_bytes()):
            return None
    collected: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
    return collected


class ScenarioFile(pytest.File):
    """One file; a bad one is an error of collection, with the reader's message."""

    def collect(self) -> Iterable[ScenarioItem]:
        """One item per case."""
        try:
            cases = self.config.stash[_CHOOSER].cases(read_scenario(self._written_path))
        except HarnessError as error:
            raise self.CollectError(str(error)) from error
        for case in cases:
            yield ScenarioItem.from_parent(self, name=case.id, case=case)

    @property
    def _written_path(self) -> Path:
        """As a person would type it: messages and commands to repeat show this path."""
        root = self.config.invocation_params.dir
        return self.path.relative_to(root) if self.path.is_relative_to(root) else self.path


class ScenarioItem(pytest.Item):
    """One case. Its row of the summary travels as a user property, which xdist carries between
    processes."""

    def __init__(self, *, case: Case, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        if case.refusal is not None:
            self._tell(Ending(case, error=LabUnavailable(case.refusal)))
            self.add_marker(pytest.mark.skip(reason=f"{case.lab}: {case.refusal}"))

    def runtest(self) -> None:
        """Takes the case through the pipeline; anything but `as expected` fails."""
        try:
            run = run_case(self.case, self.config.stash[_CHOOSER].options)
        except HarnessError as error:
            self._tell(Ending(self.case, error=error))
            raise
        self._tell(Ending(self.case, run=run))
        words = _canary_words(self.path, run) + _words(self.case, run)
        if words:
            raise _NotAsExpected("\n".join(words))

    def _tell(self, ending: Ending) -> None:
        report, run = self.config.stash[_REPORT], ending.run
        page = ReportFolder(report).add(run).id if report is not None and run else ""
        self.user_properties.append((PROPERTY, _row(ending, page)))

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
    if "canary" not in path.parts or run.plan.goal is not None:
        return []
    broken = any(
        row.expected is Verdict.BROKEN and row.finding.verdict is Verdict.BROKEN
        for row in run.outcome.comparisons
    )
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
            lines += _comparison_words(row)
    return [*lines, f"evidence: {run.path}", f"repeat:   {case.repeat_command}"]


def _comparison_words(row: Comparison) -> list[str]:
    return [
        f"{row.finding.check} is {row.finding.verdict}: {row.finding.because}",
        f"  expected {row.expected}: {row.expected_because}",
        *(f"  {evidence.world_s:>12.3f} s  {evidence.text}" for evidence in row.finding.evidence),
    ]


# --- The summary ----------------------------------------------------------------------------------


def _row(ending: Ending, page: str) -> str:
    summary, run = summary_of(ending), ending.run
    values = vars(summary) | {"run": str(summary.run) if summary.run else None}
    entry = (
        {"id": page, "words": run.label, "fix": run.fix_name, "real_s": run.real_s} if run else {}
    )
    return json.dumps(
        {"chosen_because": ending.case.chosen_because, "summary": values, "entry": entry}
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of all cases of this session, in the order of their names."""
    rows = _rows(terminalreporter)
    if not rows:
        return
    summaries = [_summary(row["summary"]) for row in rows]
    summaries.sort(key=lambda summary: (summary.scenario, summary.lab, summary.version))
    terminalreporter.section("meshwake")
    terminalreporter.write(plain(summary_table(summaries)))
    for because in sorted({row["chosen_because"] for row in rows}):
        terminalreporter.write_line(f"lab {because}")
    if not any(summary.run for summary in summaries):
        terminalreporter.write_line(
            f"evidence: no surprise, so none was kept; --keep-run keeps every run in {runs_dir()}/"
        )
    report = terminalreporter.config.stash[_REPORT]
    if report is not None:
        _write_report(terminalreporter, report, rows)


def _write_report(
    terminalreporter: pytest.TerminalReporter, directory: Path, rows: list[dict[str, Any]]
) -> None:
    nothing = {"id": "", "words": "", "fix": "", "real_s": 0.0}
    entries = [
        ReportEntry(**nothing | row["entry"], summary=_summary(row["summary"])) for row in rows
    ]
    entries.sort(
        key=lambda entry: (entry.summary.scenario, entry.summary.lab, entry.summary.version)
    )
    try:
        terminalreporter.write_line(f"report: {ReportFolder(directory).finish(entries)}")
    except HarnessError as error:
        terminalreporter.write_line(f"report: not written: {error}", red=True)


def _rows(terminalreporter: pytest.TerminalReporter) -> list[dict[str, Any]]:
    rows = {}
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        for name, value in getattr(report, "user_properties", ()):
            if name == PROPERTY:
                rows[report.nodeid] = json.loads(value)
    return list(rows.values())


def _summary(values: dict[str, Any]) -> Summary:
    return Summary(**values | {"run": Path(values["run"]) if values["run"] else None})


# --- The fixture ----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers that a test failed, for `mesh` to keep its evidence."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """A mesh on the lab and the version of the command line. What a failed test ran last is kept as
    evidence."""
    asked = request.config.stash[_CHOOSER].options
    marker = request.node.get_closest_marker("mesh")
    try:
        world = world_of(marker.args, marker.kwargs) if marker else World()
    except BadInput as error:
        pytest.fail(str(error), pytrace=False)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name).strip("-")
    story = Mesh(Options(**{**vars(asked), "keep_run": True}), name, pytest.skip, world)
    yield story
    failed = request.node.stash.get(_FAILED, False)
    for directory in story.directories if not asked.keep_run else ():
        if not (failed and directory is story.directories[-1]):
            directory.remove()
    if failed and story.directories:
        request.node.add_report_section(
            "teardown", "meshwake", f"evidence: {story.directories[-1].path}"
        )
