"""What the pages of many runs know of each: a row of the table, a choice of the comparison."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from meshwake.core.plan import Plan
from meshwake.core.run import Run
from meshwake.report.html.sentence import sentence
from meshwake.report.result import Summary, summarise


@dataclass(frozen=True)
class ReportEntry:
    """One run. `id` names its page, "" for a case that did not run: that has only a summary.
    `sentence`: what was expected (sentence.py); `timeline` is the same for runs to which the same
    happens, whatever is deployed against it."""

    summary: Summary
    id: str = ""
    words: str = ""
    real_s: float = 0.0
    sentence: str = ""
    timeline: str = ""

    @property
    def verdict(self) -> str:
        """BROKEN, HOLDS or UNKNOWN, of the mesh; "" for a case that did not run."""
        return self.summary.headline.partition(": ")[0]  # summarise writes "BROKEN: ..."

    @property
    def happened(self) -> str:
        """The headline without its verdict."""
        return self.summary.headline.partition(": ")[2]


def entry_of(run: Run, name: str) -> ReportEntry:
    """The entry of a run whose page is `name`."""
    return ReportEntry(
        summary=summarise(run),
        id=name,
        words=run.label,
        real_s=run.real_s,
        sentence=sentence(run),
        timeline=_timeline(run.plan),
    )


def _timeline(plan: Plan) -> str:
    """A name for what happens. How soon a wall clock is corrected is left out: a fix may change
    that."""
    faults = [
        fault.model_dump(mode="json", exclude={"index", "corrected_after_ns", "corrected"})
        for fault in plan.faults
    ]

    # Where nothing happens, all that two runs have in common is their scenario.
    what = [plan.duration_ns, faults or plan.scenario]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
