"""Which fix holds against which clock fault: every pair run on the model, judged like any run.

The verdict of a row is that of `recovers_within`: five waking minutes after a fault connections
work, and no later outage follows. Other columns: hours without connection a week, the longest of
them in one piece (awake), restarts, and certificates issued. A row is `confirmed_on` a release when
the same world was run on a real ztunnel with the same verdict; such runs are recorded
(confirmed.py) and never typed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from meshwake.analysis.confirmed import Confirmation, confirmations
from meshwake.checks.facts.traffic import failures
from meshwake.core.durations import NS_PER_S
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import Plan, PlannedFix
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.run import Run
from meshwake.core.scenario import Scenario
from meshwake.core.versions import Release, find
from meshwake.fixes import FIXES, DeployableFix, adapted
from meshwake.runner.execution import execute

WEEK_NS = 7 * 86_400 * NS_PER_S
VERDICT_OF = "recovers_within"
# The fields of a plan that make its world. Not lab, version and class: a confirmation on a real
# ztunnel is of the same world as the model's row.
_WORLD = (
    "seed",
    "starts_wall_s",
    "duration_ns",
    "lifetime_s",
    "backdate_s",
    "nodes",
    "gateways",
    "authority_node",
    "token_s",
    "pairs",
    "attempt_every_ns",
    "faults",
    "fix",
)


@dataclass(frozen=True)
class MatrixRow:
    """One fix against one fault. `outage_s_per_week` counts time awake, `recovery_s_worst` is the
    longest one of it at a time, from the wake on where it began asleep; `flooded`: the authority
    got requests without end, and the run was stopped there."""

    fix: str
    fault: str
    verdict: str
    because: str
    outage_s_per_week: float
    recovery_s_worst: float
    restarts: int
    restarts_per_week: float
    certificates: int
    flooded: bool
    confirmed_on: str | None = None
    seen_in_cluster: str | None = None

    def to_json(self) -> MutableJsonObject:
        """For programs."""
        return vars(self)


def plan_for(
    fix: DeployableFix, scenario: Scenario, release: Release, lab: str = "model", seed: int = 0
) -> Plan:
    """The plan of `scenario` with `fix` deployed as this repository has it. Raises BadInput."""
    plan = resolve(PlanRequest(scenario, lab, release.version, release.model_class, seed))
    deployed = PlannedFix(name=fix.name, manifest=fix.read_manifest())
    return adapted(plan.model_copy(update={"fix": deployed}))


def matrix(
    fixes: Iterable[str],
    scenarios: dict[str, Scenario],
    release: Release,
    seed: int = 0,
    report: Callable[[str, str], None] = lambda fix, fault: None,
) -> list[MatrixRow]:
    """Every fix against every fault, in order, on the model of `release`. `report` gets each pair
    before it runs."""
    # Releases of one class behave alike, so what one of them showed confirms the row of another.
    known = {
        key: each
        for key, each in confirmations().items()
        if find(each.version).behaviour_class == release.model_class
    }

    rows = []
    for name in fixes:
        for fault, scenario in scenarios.items():
            report(name, fault)
            plan = plan_for(FIXES[name], scenario, release, seed=seed)
            row = row_of(execute(plan), name, fault)
            rows.append(_with_confirmations(row, known, world_sha256(plan)))
    return rows


def row_of(executed: Run, fix: str, fault: str) -> MatrixRow:
    """What the matrix says of one run."""
    plan, history = executed.plan, executed.history
    finding = executed.finding(VERDICT_OF)
    weeks = plan.duration_ns / WEEK_NS

    outages_ns = [each.awake_ns for each in failures(plan, history)]

    # A lab may have a ztunnel for each identity: those of a node that restart together are one
    # restart.
    started = history.of("ztunnel_started", "proxy_started", cause=fix)
    restarts = len({(event.world_ns, event.node, event.kind) for event in started})

    return MatrixRow(
        fix=fix,
        fault=fault,
        verdict=finding.verdict.value,
        because=finding.because,
        outage_s_per_week=round(sum(outages_ns) / NS_PER_S / weeks, 3),
        recovery_s_worst=round(max(outages_ns, default=0) / NS_PER_S, 3),
        restarts=restarts,
        restarts_per_week=round(restarts / weeks, 2),
        certificates=len(history.of("csr_answered", outcome="issued")),
        flooded=bool(history.of("run_ended", reason="csr_flood")),
    )


def _with_confirmations(
    row: MatrixRow, known: Mapping[tuple[str, str], Confirmation], world: str
) -> MatrixRow:
    """With the releases on which the same verdict was seen, by a ztunnel alone and in a cluster."""

    def seen_on(lab: str) -> str | None:
        found = known.get((lab, world))
        # A real ztunnel with another verdict confirms nothing; the run itself was a surprise.
        if found is None or found.verdict != row.verdict:
            return None
        return found.version

    return replace(row, confirmed_on=seen_on("process"), seen_in_cluster=seen_on("kind"))


def world_sha256(plan: Plan) -> str:
    """Names what happens in `plan` and what is deployed, whatever lab it runs on, however a release
    is classed, and whatever comments a manifest has."""
    # Without defaults: a new field of plans does not make every confirmation void.
    dumped = plan.model_dump(mode="json", include=set(_WORLD), exclude_defaults=True)
    if plan.faults:
        # Not by their defaults: the kind of a fault is the default of its class.
        dumped["faults"] = [fault.used() for fault in plan.faults]

    if plan.fix is not None and plan.fix.manifest is not None:
        lines = plan.fix.manifest.splitlines()
        dumped["fix"]["manifest"] = [line for line in lines if not line.lstrip().startswith("#")]

    written = json.dumps(dumped, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()
