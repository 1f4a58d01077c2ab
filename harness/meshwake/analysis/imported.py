"""Machines of a sweep that really slept like that: scenarios that import-sleep wrote, read
again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from meshwake.analysis.populations import RecordedMachine, machine_fault
from meshwake.core import versions
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import read_scenario
from meshwake.runner.corpus import scenario_files


def recorded_machines(paths: Iterable[Path]) -> tuple[RecordedMachine, ...]:
    """The machine of each scenario, of files and of folders of them: what happened to its first
    node. Raises BadInput where that is nothing."""
    release = versions.newest()
    found = []
    for path in scenario_files(paths):
        scenario = read_scenario(path)
        found.append(
            _machine(
                path,
                resolve(PlanRequest(scenario, "model", release.version, release.behaviour_class)),
            )
        )
    return tuple(found)


def _machine(path: Path, plan: Plan) -> RecordedMachine:
    faults = tuple(machine_fault(fault) for fault in plan.faults_on(plan.nodes[0].name))
    if not faults:
        raise BadInput(
            f"--imported {path}: nothing happens to node {plan.nodes[0].name}; expected a "
            "scenario as "
            "`meshwake import-sleep` writes it"
        )
    return RecordedMachine(plan.scenario, plan.duration_ns, faults)
