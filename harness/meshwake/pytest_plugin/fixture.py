"""The fixture `mesh`: what a test had run last is kept as evidence when it failed, and shown on a
page when pages are written."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from meshwake.core.errors import BadInput
from meshwake.core.outcome import OutcomeKind
from meshwake.pytest_plugin.session import ROW, SESSION
from meshwake.pytest_plugin.summary import row_of
from meshwake.report.result import summarise
from meshwake.runner.mesh import Mesh, World, world_of


class MadeMesh:
    """One mesh, for one test."""

    def __init__(self, request: pytest.FixtureRequest, world: World) -> None:
        session = request.config.stash[SESSION]
        self._node, self._report = request.node, session.report
        self._keep_all = session.options.keep_run

        # The name becomes that of a directory; a parametrised test has brackets and spaces in it.
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name).strip("-")

        # Every run is kept until `finish` has seen how the test ended. Fixes and goals of the
        # command line are for scenario files: a test deploys its own.
        options = replace(session.options, keep_run=True, fixes=(), goal=None)
        self.mesh = Mesh(options, name, pytest.skip, world)

    def finish(self, failed: bool) -> None:
        """After the test: evidence of a failure stays, other runs go."""
        directories = self.mesh.directories
        if not directories:
            return

        if self._report is not None:
            self._node.stash[ROW] = self._row(failed)

        # In the report of the test, next to its traceback.
        if failed:
            evidence = f"evidence: {directories[-1].path}"
            self._node.add_report_section("teardown", "meshwake", evidence)

        # Each answer ran the whole timeline again, so the last run has all of it.
        if not self._keep_all:
            for directory in directories[:-1] if failed else directories:
                directory.remove()

    def _row(self, failed: bool) -> str:
        """The last run, judged by what the test asserted; the test itself is its outcome."""
        run = self.mesh.as_asserted()
        outcome = OutcomeKind.SURPRISE if failed else OutcomeKind.AS_EXPECTED
        ending = "failed" if failed else "passed"
        claim = f"test {self._node.nodeid} {ending}"

        # The page must not link to a directory that `finish` removes.
        kept = run.path if failed or self._keep_all else None

        summary = replace(
            summarise(run),
            outcome=outcome.value,
            why=claim,
            judged=claim,
            run=kept,
        )
        return row_of(summary, self._report, run, self.mesh.chosen_because)


def made_for(request: pytest.FixtureRequest) -> MadeMesh:
    """The mesh of one test, in the world of its marker. A mistake in the marker fails the test."""
    world = _world(request.node.get_closest_marker("mesh"))
    if isinstance(world, BadInput):
        pytest.fail(str(world), pytrace=False)
    return MadeMesh(request, world)


def _world(marker: pytest.Mark | None) -> World | BadInput:
    """Returned, not raised: pytest would show where."""
    if marker is None:
        return World()

    try:
        return world_of(marker.args, marker.kwargs)
    except BadInput as error:
        return error
