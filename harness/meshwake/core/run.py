"""A run: a plan, what happened when it was carried out, and what every check found.

`execute` (harness/meshwake/runner/execution.py) makes one, `check_run` makes one of a run that was
saved; everything that shows, counts or compares runs takes this value. What was expected is in the
plan, so the outcome follows from the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from meshwake.core.errors import HarnessFault
from meshwake.core.history import History
from meshwake.core.outcome import Finding, Outcome, Verdict, compare
from meshwake.core.plan import Plan


@dataclass(frozen=True)
class Run:
    """One plan carried out and judged. `real_s`: what it cost in real time; `path`: the directory
    where it was kept, None for a run that was not; `repeat`: the command that does the same again,
    "" where no command does (a test with the `mesh` fixture) or none was recorded."""

    plan: Plan
    history: History
    findings: tuple[Finding, ...]
    real_s: float = 0.0
    path: Path | None = None
    repeat: str = ""

    @cached_property
    def outcome(self) -> Outcome:
        """The findings compared with what the plan expects. Raises ValueError when an expected
        check has no finding."""
        return compare(self.plan, self.findings)

    def finding(self, check: str) -> Finding:
        """What `check` found. Raises KeyError when there is no check of this name."""
        by_name = {finding.check: finding for finding in self.findings}
        return by_name[check]

    def verdict(self, check: str) -> Verdict:
        """The verdict of `check`. Raises KeyError when there is no check of this name."""
        return self.finding(check).verdict

    @property
    def kept_at(self) -> Path:
        """The directory of a run that was kept. Raises HarnessFault when it was not kept."""
        if self.path is None:
            raise HarnessFault(f"the run of {self.label} was not kept")
        return self.path

    @property
    def fix_name(self) -> str:
        """What was deployed; "none" for ztunnel as released."""
        fix = self.plan.fix
        if fix is None:
            return "none"
        return fix.name

    @property
    def label(self) -> str:
        """One line that distinguishes this run from others."""
        plan = self.plan
        label = f"{plan.scenario} on {plan.lab}, ztunnel {plan.version}"

        # Most runs deploy nothing, which a line need not repeat.
        if self.fix_name == "none":
            return label
        return f"{label}, {self.fix_name}"

    @property
    def slug(self) -> str:
        """A name for files: the same for the same plan on every machine."""
        plan = self.plan
        scenario = plan.scenario or "unnamed"
        name = f"{scenario}-{plan.lab}-{plan.version}-{plan.sha256[:8]}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
