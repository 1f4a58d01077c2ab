"""What a fix is made of, and how the labs get it out of a plan.

A fix may change what runs (`adapt`: other lifetimes, other times at which a wall clock is
right), restart things at times that are known before the run (`restarts`), look at the world while
it runs (`watchers`), or be another ztunnel (`patch`). All of it is read from the manifest, script
or file that a user would really apply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from meshwake.clocks.virtual import Clocks
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.core.resources import CLUSTERS
from meshwake.guard.watch import PlannedRestart, Watcher

Patch = Literal["fresh-time-base", "boottime", "wall-polling"]
WHERE = CLUSTERS / "fixes"


class Deployment(NamedTuple):
    """What of a fix acts during a run."""

    restarts: tuple[PlannedRestart, ...] = ()
    watchers: tuple[Watcher, ...] = ()


def as_it_is(plan: Plan) -> Plan:
    """A fix that changes nothing of what runs."""
    return plan


def no_restarts(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    """A fix that plans nothing."""
    return []


def no_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    """A fix that looks at nothing."""
    return []


@dataclass(frozen=True)
class DeployableFix:
    """One thing that people deploy."""

    name: str
    # How it works, and who does it: for the table of docs/fixes.md.
    does: str
    source: str
    # A file below clusters/fixes/NAME.
    manifest: str | None = None
    # Four ways to act, of which a fix has one; the others do nothing.
    adapt: Callable[[Plan], Plan] = as_it_is
    restarts: Callable[[Plan, Clocks], list[PlannedRestart]] = no_restarts
    watchers: Callable[[Plan, Clocks], list[Watcher]] = no_watchers
    patch: Patch | None = None

    @property
    def manifest_path(self) -> Path | None:
        """Where its manifest lies in this repository."""
        if self.manifest is None:
            return None
        return WHERE / self.name / self.manifest

    def read_manifest(self) -> str | None:
        """The manifest that this repository has for it, for a scenario that names no other. Raises
        BadInput."""
        if self.manifest_path is None:
            return None
        try:
            return self.manifest_path.read_text(encoding="utf-8")
        except OSError as error:
            raise BadInput(
                f"{self.manifest_path}: cannot be read ({error.strerror}); write "
                "fix.manifest = the path of yours"
            ) from error


def manifest_of(plan: Plan) -> str:
    """What the user applied. Raises BadInput when the plan holds nothing."""
    assert plan.fix is not None
    if plan.fix.manifest is None:
        raise BadInput(
            f"fix {plan.fix.name!r} needs manifest = the path of the file that you would apply"
        )
    return plan.fix.manifest
