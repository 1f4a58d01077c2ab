from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from meshwake.checks import judge
from meshwake.clocks.movers.base import Meanwhile, Moved, alike, sleep_meanwhile
from meshwake.core.durations import NS_PER_S
from meshwake.core.outcome import OutcomeKind, compare
from meshwake.core.plan import PlannedCluster
from meshwake.core.planned_faults import PlannedFault
from meshwake.core.resolve import resolve
from meshwake.core.scenario import read_scenario
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.options import Options

from tests.support.paths import SCENARIOS
from tests.unit.cluster.simulated import Clock, SimulatedMover
from tests.unit.labs.kind.runs import cluster_of, run

ALL = {path: read_scenario(path) for path in sorted(SCENARIOS.rglob("*.toml"))}
# A simulated cluster runs no fix: those are run on the model, and on a
# real cluster.
FOR_KIND = [
    path for path, scenario in ALL.items() if "kind" in scenario.labs and scenario.fix is None
]
# Others are for a cluster only where idle time is skipped.
FILES = [path for path in FOR_KIND if ALL[path].real_time is not None]


class AwakeNodesWait(SimulatedMover):
    """As ProcessMover does it: the programs of a node are stopped in real time, and wake with
    monotonic behind (in a freeze with no clock behind); nodes that fall asleep together sleep once.
    """

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        group = [other for other in self.cluster.plan.faults if alike(other, fault)]
        if fault == group[0]:
            befores = {each.index: self._moment(str(each.node)) for each in group}
            for each in group if fault.kind == "suspend" else ():
                self.cluster.clocks[str(each.node)].monotonic_ns -= fault.duration_ns
            self.cluster.sleep(fault.duration_ns / NS_PER_S)
            self.moved = {
                each.index: Moved(
                    each, befores[each.index], self._moment(str(each.node)), skipped_world_ns=0
                )
                for each in group
            }
        return self.moved[fault.index]


def case_of(path: Path, version: str) -> Case:
    """The case as lab kind would run it, with the expectations that apply."""
    (case,) = Chooser(Options(lab="model", istio=(version,), real_time=True)).cases(
        read_scenario(path)
    )
    return replace(case, lab="kind", cluster=PlannedCluster())


@pytest.mark.parametrize("version", ["1.27.9", "1.30.3"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_comes_out_as_expected_on_a_simulated_cluster(
    path: Path, version: str
) -> None:
    """What pytest scenarios/ --lab kind would run, from its first look to its verdict."""
    of = resolve(case_of(path, version))
    alone = any(fault.kind in ("suspend", "freeze") and len(of.nodes) > 1 for fault in of.faults)
    cluster = cluster_of(of, clocks={node.name: Clock() for node in of.nodes} if alone else {})
    mover = AwakeNodesWait(cluster, name="process") if alone else SimulatedMover(cluster)
    history = run(of, cluster, mover, log=True)
    outcome = compare(of, judge(of, history))
    assert outcome.kind is OutcomeKind.AS_EXPECTED, outcome.why


def test_there_are_scenarios_for_clusters() -> None:
    """From the report, for one machine and for a node that sleeps alone."""
    assert {"ztunnel_1481", "two_nodes_of_one_machine", "one_node_sleeps_alone"} <= {
        path.stem for path in FILES
    }
