"""Four levels of reality, one vocabulary. A lab does what a plan says and records; it judges
nothing.

Every lab is a package with a module `lab` that keeps the promise of `Lab`. It is imported when it
is used, so that the model runs on systems without what the others need (namespaces, ptrace).

Within one world time the order is the same in every lab: faults first, then timers, then
connections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from meshwake.core.errors import LabUnavailable
from meshwake.core.extras import EXTRAS, lacking_of
from meshwake.core.history import Recorder
from meshwake.core.plan import Plan
from meshwake.core.refusal import invalid_choice

LAB_MODULES = {
    "model": "meshwake.labs.model.lab",
    "process": "meshwake.labs.process.lab",
    "machine": "meshwake.labs.machine.lab",
    "kind": "meshwake.labs.kind.lab",
}
# Labs whose subject is a ztunnel binary.
WITH_BINARY = ("process", "machine")
NO_BINARY = (
    "no ztunnel binary; pass --ztunnel PATH, or put one into the cache (see meshwake doctor)"
)
# Labs that take a scenario's numbers from its [real_time] table, unless idle time is skipped
# (PlannedCluster.lapse).
IN_REAL_TIME = ("kind",)


@dataclass(frozen=True)
class Toolbox:
    """What a lab may use in addition to the plan: the binary under test, a directory for logs, and
    what to call with world time in ns as the run goes on (often)."""

    ztunnel: Path | None
    work_dir: Path
    progress: Callable[[int], None] = lambda world_ns: None


class Lab(Protocol):
    """What every lab offers."""

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Why this lab cannot run on this machine, one sentence a reason, each with what to do; []
        when it can."""

    def refusals(self, plan: Plan) -> list[str]:
        """What in `plan` this lab cannot do, by name ("fault 1: ..."); [] when it can do all of
        it."""

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """Carries out `plan` and records what happens, `run_started` first, `run_ended` last.

        Raises LabUnavailable, SubjectFailed or HarnessFault; everything it started has ended when
        it returns.
        """


class LabNotInstalled:
    """A lab whose extra is not installed: it says so wherever a lab says why it cannot run."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def missing(self, ztunnel: Path | None) -> list[str]:
        """How to install it."""
        return [self.reason]

    def refusals(self, plan: Plan) -> list[str]:
        """None: what it could do is not the question."""
        return []

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """Raises LabUnavailable."""
        raise LabUnavailable(self.reason)


def load_lab(name: str) -> Lab:
    """The lab called `name`. Raises BadInput when there is none."""
    if name not in LAB_MODULES:
        raise invalid_choice("--lab", name, LAB_MODULES)

    # Looked at before the import, which would fail without the packages of an extra.
    lacking = lacking_of(name) if name in EXTRAS else None
    if lacking is not None:
        return LabNotInstalled(lacking)
    return cast(Lab, import_module(LAB_MODULES[name]).LAB)
