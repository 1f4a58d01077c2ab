"""One run as plain values: the JSON object that `meshwake run --json` prints, and one row of a
table of runs.

Times are seconds to the millisecond. A list that cannot be derived from a damaged history is null,
not empty: empty would say that nothing happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

from meshwake.checks.facts.certificates import Renewal, renewals
from meshwake.checks.facts.clocks import ClockFault, clock_faults
from meshwake.checks.facts.traffic import Outage, outages
from meshwake.checks.format import dated
from meshwake.core.dates import Dates, dates_of
from meshwake.core.durations import seconds
from meshwake.core.outcome import Comparison
from meshwake.core.run import Run
from meshwake.report.headline import headline, judged, lost_connections

_Derived = TypeVar("_Derived")


class EvidenceRow(TypedDict):
    """One event that a finding rests on."""

    world_s: float | None
    text: str
    data: Mapping[str, object]


class FindingRow(TypedDict):
    """What one check found; `expected` None: the scenario expects nothing of it."""

    check: str
    verdict: str
    expected: str | None
    because: str
    evidence: list[EvidenceRow]


class RenewalRow(TypedDict):
    """One renewal of a certificate."""

    node: str
    identity: str
    issued_world_s: float
    due_world_s: float
    done_world_s: float | None
    late_s: float | None


class OutageRow(TypedDict):
    """A time in which a pair could not connect; `to_world_s` None: until the end of the run."""

    pair: list[str]
    from_world_s: float
    to_world_s: float | None


class ClockFaultRow(TypedDict):
    """A clock fault as it was planned and as it was measured; None: the clocks were not read."""

    kind: str
    node: str | None
    asked_s: float
    measured_wall_s: float | None
    measured_monotonic_s: float | None
    measured_boottime_s: float | None


class Cost(TypedDict):
    """Real time and world time of a run."""

    real_s: float
    world_s: float


class Result(TypedDict):
    """The object of docs/reference.md; null where a damaged history does not allow it."""

    scenario: str
    lab: str
    version: str
    seed: int
    outcome: str
    exit_code: int
    findings: list[FindingRow]
    renewals: list[RenewalRow] | None
    outages: list[OutageRow] | None
    clock_faults: list[ClockFaultRow] | None
    cost: Cost


def result(run: Run) -> Result:
    """One run, keys in the order of docs/reference.md."""
    plan, history, outcome = run.plan, run.history, run.outcome
    return {
        "scenario": plan.scenario,
        "lab": plan.lab,
        "version": plan.version,
        "seed": plan.seed,
        "outcome": outcome.kind.value,
        "exit_code": int(outcome.exit_code),
        "findings": [_finding(row) for row in outcome.comparisons],
        "renewals": _or_null(lambda: [_renewal(renewal) for renewal in renewals(plan, history)]),
        "outages": _or_null(lambda: [_outage(outage) for outage in outages(plan, history)]),
        "clock_faults": _or_null(
            lambda: [_clock_fault(fault) for fault in clock_faults(plan, history)]
        ),
        "cost": {"real_s": round(run.real_s, 3), "world_s": seconds(history.end_world_ns)},
    }


def _or_null(derive: Callable[[], _Derived]) -> _Derived | None:
    try:
        return derive()
    except Exception:  # noqa: BLE001
        # judge() met the same error and has named it in every finding; here it must not hide them.
        return None


def _finding(row: Comparison) -> FindingRow:
    return {
        "check": row.finding.check,
        "verdict": row.finding.verdict.value,
        "expected": row.expected.value if row.expected else None,
        "because": row.finding.because,
        "evidence": [
            {"world_s": evidence.world_s, "text": evidence.text, "data": evidence.data}
            for evidence in row.finding.evidence
        ],
    }


def _renewal(renewal: Renewal) -> RenewalRow:
    return {
        "node": renewal.node,
        "identity": renewal.identity,
        "issued_world_s": renewal.issued_world_s,
        "due_world_s": renewal.due_world_s,
        "done_world_s": renewal.done_world_s,
        "late_s": renewal.late_s,
    }


def _outage(outage: Outage) -> OutageRow:
    return {
        "pair": list(outage.pair),
        "from_world_s": outage.from_world_s,
        "to_world_s": outage.to_world_s,
    }


def _clock_fault(fault: ClockFault) -> ClockFaultRow:
    measured = fault.measured
    return {
        "kind": fault.planned.kind,
        "node": fault.planned.node,
        "asked_s": seconds(fault.planned_ns),
        "measured_wall_s": seconds(measured.wall_ns) if measured else None,
        "measured_monotonic_s": seconds(measured.monotonic_ns) if measured else None,
        "measured_boottime_s": seconds(measured.boottime_ns) if measured else None,
    }


@dataclass(frozen=True)
class Summary:
    """One row of a table of runs. `outage_ns`: time awake during which any pair was out; None
    where the case did not run. `why`: what was unexpected, or why it did not run; `run`: where the
    evidence lies; `dates_from_wall_s`, `dates_zone`: as the plan has them. `headline` and
    `judged`: what happens to the mesh, and what that is against the expectations (report/headline.py); `repeat`:
    the command that does the same again; `file`: where the scenario is written. They are "" where
    that is not known."""

    scenario: str
    lab: str
    version: str
    outcome: str
    outage_ns: int | None = None
    first_failure_world_ns: int | None = None
    why: str = ""
    run: Path | None = None
    dates_from_wall_s: int | None = None
    dates_zone: str | None = None
    fix: str = ""
    goal: str = ""
    headline: str = ""
    judged: str = ""
    repeat: str = ""
    file: str = ""

    @property
    def dates(self) -> Dates | None:
        """How moments are shown as dates; None where they have none."""
        return dates_of(self.dates_from_wall_s, self.dates_zone)


def summarise(run: Run) -> Summary:
    """The row of one run."""
    plan, outcome = run.plan, run.outcome
    lost, first = lost_connections(run), headline(run)
    return Summary(
        scenario=plan.scenario,
        lab=plan.lab,
        version=plan.version,
        outcome=outcome.kind.value,
        outage_ns=lost.outage_ns,
        first_failure_world_ns=lost.first_world_ns,
        why=dated(outcome.why, plan.dates),
        run=run.path,
        dates_from_wall_s=plan.dates_from_wall_s,
        dates_zone=plan.dates_zone,
        fix=run.fix_name,
        goal=plan.goal or "",
        headline=f"{first.verdict}: {first.text}",
        judged=judged(run),
        repeat=run.repeat,
    )
