"""The one way from a plan to its findings: the lab acts and records, then every check judges what
was recorded.

Whatever asks for a verdict (a run, the matrix, a sweep, the falsifier, a confirmation, a trial of
the guard) asks here. Calling a check directly passes the assumptions by, and a world in which
nothing could be judged would count as one in which nothing broke.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshwake.checks import judge
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan
from meshwake.labs import Toolbox, load_lab


@dataclass(frozen=True)
class Execution:
    """A plan, what happened, and what every check says of it."""

    plan: Plan
    history: History
    findings: tuple[Finding, ...]

    def finding(self, check: str) -> Finding:
        """What `check` found. Raises KeyError when no check is called so."""
        found = {finding.check: finding for finding in self.findings}
        return found[check]

    def verdict(self, check: str) -> Verdict:
        """The verdict of `check`. Raises KeyError when no check is called so."""
        return self.finding(check).verdict


def execute(
    plan: Plan, toolbox: Toolbox | None = None, recorder: Recorder | None = None
) -> Execution:
    """Runs `plan` on its lab and judges what happened. `toolbox`: without one, no binary and no
    directory for logs; `recorder`: where events go as they happen, by default only into memory.
    Raises what the lab raises; judging never raises."""
    recorder = recorder or Recorder()
    try:
        load_lab(plan.lab).run(plan, toolbox or Toolbox(None, Path()), recorder)
    finally:
        recorder.close()
    return Execution(plan, recorder.history, judge(plan, recorder.history))
