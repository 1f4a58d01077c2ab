"""The plugin for pytest: every scenario file is collected, one test per case, and judged as
`meshwake run` judges it.

    pytest scenarios/ [-k nightly] [-n auto] [--meshwake-lab L] [--meshwake-istio V]
                      [--meshwake-ztunnel PATH] [--meshwake-seed N] [--meshwake-report DIR]

pytest finds it by its entry point, so it is on in every project that has meshwake installed: all
its options have the prefix, a TOML file in a directory `scenarios` that holds no scenario is left
alone, and nothing of meshwake but the names of the options is imported until it is used.
short_options.py adds the names without the prefix.

A surprise fails its test with the finding, the evidence and the command that repeats it. A case
that cannot run here is skipped with its reason. At the end a table shows what happened, where the
evidence lies and why each lab was chosen. The fixture `mesh` is for tests with a timeline in Python
(harness/meshwake/runner/mesh.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from meshwake.core.errors import BadInput, HarnessError
from meshwake.pytest_plugin.session import ROW, SESSION, Session, as_typed_in
from meshwake.runner.flags import (
    add_ini_to_pytest,
    add_to_pytest,
    from_pytest,
    variables_behind,
)

if TYPE_CHECKING:
    from meshwake.runner.mesh import Mesh

_FAILED = pytest.StashKey[bool]()
# Other projects have directories called scenarios, too.
# Of a table that was mistyped the beginning is enough: its file is reported, not left out.
_SCENARIO_TABLE = re.compile(rb"^\s*\[\[?\s*(node|fault|expect|traffic)\b", re.MULTILINE)


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
        session = Session(from_pytest(config.getoption, config.getini))
        config.stash[SESSION] = session
        # Of the processes of pytest-xdist only the first begins the report; all of them add to it.
        session.begin(is_first=not hasattr(config, "workerinput"))
    except HarnessError as error:
        message = "\n".join([str(error), *variables_behind(str(error))])
        # In the words of the options that this project has.
        raise pytest.UsageError(as_typed_in(config, message)) from error


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A TOML file is a scenario when it was named on the command line, or lies below a directory
    called scenarios and has a table of one."""
    if file_path.suffix != ".toml":
        return None

    # One that was named is read whatever is in it, so that a mistake in it is reported.
    is_named = parent.session.isinitpath(file_path)
    if not is_named:
        # Every pyproject.toml of every project comes by here, so the cheap question comes first.
        if "scenarios" not in file_path.parent.parts:
            return None
        if not _is_scenario(file_path):
            return None

    from meshwake.pytest_plugin.scenarios import ScenarioFile

    collected: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
    return collected


def _is_scenario(path: Path) -> bool:
    """Also one that PowerShell's `>` has written: UTF-16, in which each letter has a zero byte."""
    return _SCENARIO_TABLE.search(path.read_bytes().replace(b"\0", b"")) is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers that a test failed, for `mesh` to keep its evidence, and hands a row of the summary
    to the report. pytest-xdist carries it between processes; JUnit does not show it."""
    if call.excinfo is not None and isinstance(call.excinfo.value, BadInput):
        call.excinfo = _at_the_line_of_the_test(call.excinfo.value)

    report = yield

    # Of set-up, call and teardown one failure is enough, and each has a report of its own.
    failed_before = item.stash.get(_FAILED, False)
    item.stash[_FAILED] = failed_before or report.failed

    row = item.stash.get(ROW, None)
    # An attribute of the report: with xdist a report is sent as JSON, with all that vars() has.
    if row is not None:
        vars(report)["meshwake_row"] = row
        # One row for each test, however many reports follow.
        del item.stash[ROW]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of all cases of this session."""
    rows: dict[str, str] = {}
    # Skipped, failed and passed alike: the row of a case travels with whatever became of it.
    for reports in terminalreporter.stats.values():
        for report in reports:
            # Warnings are among them, and reports of other tests.
            if "meshwake_row" in vars(report):
                rows[report.nodeid] = vars(report)["meshwake_row"]

    if rows:
        from meshwake.pytest_plugin.summary import write_summary

        write_summary(terminalreporter, list(rows.values()))


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """A mesh on the lab and the version of the command line. What a failed test ran last is kept as
    evidence."""
    from meshwake.pytest_plugin.fixture import made_for

    made = made_for(request)
    yield made.mesh
    made.finish(failed=request.node.stash.get(_FAILED, False))


@pytest.fixture(scope="session")
def new_mesh(request: pytest.FixtureRequest) -> Callable[..., Mesh]:
    """Makes a new mesh on the lab and the version of the command line whenever it is called: for
    `@given`, which runs a test many times. It takes the words of the marker `mesh`."""
    from meshwake.runner.mesh import new_mesh as made

    return partial(made, request.config.stash[SESSION].options, pytest.skip)


def _at_the_line_of_the_test(mistake: BadInput) -> pytest.ExceptionInfo[BaseException]:
    """A mistake in a test, such as a fault at 0 s, whose message says all: what pytest shows of it
    ends with the line of the test, without what meshwake and pydantic called to find out."""
    mistake.__cause__ = None
    mistake.__suppress_context__ = True

    package = str(Path(__file__).parents[1])
    shown: TracebackType | None = None

    # From the inside out, as a traceback is linked: each frame names the one that it called.
    for frame, line in reversed(list(walk_tb(mistake.__traceback__))):
        is_ours = frame.f_code.co_filename.startswith(package)
        if not is_ours:
            shown = TracebackType(shown, frame, frame.f_lasti, line)
    return pytest.ExceptionInfo.from_exception(mistake.with_traceback(shown))
