"""Who moves the clocks of a cluster: the plan says which way, here it is put together."""

from __future__ import annotations

from collections.abc import Mapping

from harness.clocks.mover import Mover
from harness.clocks.process_mover import ProcessMover
from harness.errors import LabUnavailable
from harness.labs.kind.clocks import RealTime
from harness.labs.kind.kubernetes import OUR_LABELS, Kubernetes
from harness.labs.kind.node_channel import NAMESPACE, HelpedMover, PodChannel, install_helper
from harness.labs.kind.ways import Place
from harness.plan import Plan, PlannedCluster

NOT_BUILT_YET = ("engine", "command")


def mover_refusals(plan: Plan) -> list[str]:
    """What of the plan the chosen way cannot do, by name; touches nothing."""
    way = (plan.cluster or PlannedCluster()).clock
    if way in NOT_BUILT_YET:
        return [f"--clock {way}: is not built yet; use --clock process"]
    return ProcessMover(plan, _nobody()).refusals(plan)


def make_mover(
    plan: Plan, place: Place, kubernetes: Kubernetes, node_names: Mapping[str, str], real: RealTime
) -> Mover:
    """The mover for `plan` on a cluster; not prepared yet."""
    channel = PodChannel(kubernetes, node_names)
    nodes = set(node_names.values())
    return HelpedMover(
        plan,
        channel,
        before=lambda: install_helper(kubernetes, real, nodes, place.name),
        after=lambda: None if place.ours else _take_helper_away(kubernetes),
    )


def _take_helper_away(kubernetes: Kubernetes) -> None:
    """Its namespace carries our label; what is in it goes with it."""
    assert OUR_LABELS
    kubernetes.delete_ours("Namespace", None, NAMESPACE)


class _Nobody:
    def send(self, node: str, request: Mapping[str, object]) -> dict[str, object]:
        raise LabUnavailable("a mover that is only asked for refusals has no way to a node")


def _nobody() -> _Nobody:
    return _Nobody()
