"""From a scenario to a plan: every fault in its place on the timeline, repeats and "*" written out,
every number an integer."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.faults import (
    EVERY_NODE,
    CaClock,
    CaLifetime,
    CaRootChange,
    CaSlow,
    Drift,
    Fault,
    NodeFault,
    Pause,
    PodRestart,
    Restart,
    Step,
    fault_times_ns,
)
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import (
    Goal,
    Plan,
    PlannedCluster,
    PlannedExpectation,
    PlannedFix,
    PlannedGateway,
    PlannedNode,
)
from meshwake.core.planned_faults import PlannedFault, read_planned_fault
from meshwake.core.scenario import Expect, Scenario
from meshwake.core.scenario_checks import APART

_VERDICTS: dict[str, Literal["HOLDS", "BROKEN", "UNKNOWN"]] = {
    "holds": "HOLDS",
    "broken": "BROKEN",
    "unknown": "UNKNOWN",
}


@dataclass(frozen=True)
class PlanRequest:
    """What a plan is made from: a scenario on one lab with one version. The runner's `Case` adds
    which binary runs it and why it was chosen."""

    scenario: Scenario
    lab: str
    version: str
    behaviour_class: str
    seed: int = 0
    real_time: bool = False
    expectations: tuple[Expect, ...] = ()
    manifest: str | None = None
    cluster: PlannedCluster | None = None
    goal: Goal | None = None


def resolve(request: PlanRequest) -> Plan:
    """The plan of `request`. Raises BadInput when the scenario lacks what the lab needs."""
    scenario, numbers = request.scenario, _numbers(request)
    lifetime_s = numbers.lifetime_ns // NS_PER_S
    nodes = tuple(
        PlannedNode(name=node.name, identities=tuple(node.identities)) for node in scenario.node
    )
    return Plan(
        scenario=scenario.name,
        title=scenario.title,
        lab=request.lab,
        version=request.version,
        behaviour_class=request.behaviour_class,
        seed=request.seed,
        starts_wall_s=int(scenario.starts.timestamp()),
        duration_ns=numbers.duration_ns,
        lifetime_s=lifetime_s,
        backdate_s=numbers.backdate_ns // NS_PER_S,
        nodes=nodes,
        gateways=_gateways(scenario, lifetime_s),
        authority_node=_authority_node(scenario),
        token_s=_token_s(scenario),
        pairs=tuple((pair[0], pair[1]) for pair in scenario.traffic.pairs),
        attempt_every_ns=numbers.every_ns,
        faults=_place_faults(numbers.faults, nodes, numbers.duration_ns),
        fix=_planned_fix(request),
        cluster=request.cluster,
        expectations=_expectations(request),
        ztunnel_mode=scenario.ztunnel.mode,
        discovery=scenario.ztunnel.workloads == "discovery",
        goal=request.goal,
        recorded=scenario.recorded_from is not None,
        dates_from_wall_s=_dates_from_wall_s(request),
        dates_zone=None if request.real_time else scenario.recorded_zone,
    )


def _dates_from_wall_s(request: PlanRequest) -> int | None:
    """Those of the recorded history, or of the scenario's own `starts`. In real time the timeline
    is that of [real_time], and the dates are today's."""
    scenario = request.scenario
    if request.real_time:
        return None
    if scenario.recorded_from is not None:
        return int(scenario.recorded_from.timestamp())

    # The default is an arbitrary Monday: its dates mean nothing to a reader.
    if "starts" not in scenario.model_fields_set:
        return None
    return int(scenario.starts.timestamp())


def _gateways(scenario: Scenario, lifetime_s: int) -> tuple[PlannedGateway, ...]:
    return tuple(
        PlannedGateway(
            name=gateway.name,
            node=gateway.node,
            identity=gateway.identity,
            lifetime_s=lifetime_s,
        )
        for gateway in scenario.gateway
    )


def _token_s(scenario: Scenario) -> int | None:
    """None where tokens never expire."""
    if scenario.authority is None:
        return None
    token_ns = scenario.authority.token
    return None if token_ns is None else token_ns // NS_PER_S


def _expectations(request: PlanRequest) -> tuple[PlannedExpectation, ...]:
    # A goal takes their place: they are written for what the scenario deploys, and a goal judges
    # another fix, too.
    if request.goal is not None:
        return ()
    return tuple(
        PlannedExpectation(check=row.check, verdict=_VERDICTS[row.verdict], because=row.because)
        for row in request.expectations
    )


@dataclass(frozen=True)
class _Numbers:
    """The numbers of a scenario: its own, or those of its [real_time] table."""

    lifetime_ns: int
    backdate_ns: int
    duration_ns: int
    every_ns: int
    faults: list[Fault]


def _numbers(request: PlanRequest) -> _Numbers:
    scenario = request.scenario
    if not request.real_time:
        certificate = scenario.certificate
        return _Numbers(
            certificate.lifetime,
            certificate.backdate,
            scenario.duration,
            scenario.traffic.every,
            list(scenario.fault),
        )
    short = scenario.real_time
    if short is None:
        raise BadInput(
            f"{scenario.path}: has no [real_time] table, which a run in real time needs "
            "(lifetime, duration, fault); add one, or run without real time"
        )

    # What [real_time] leaves out is as in the scenario; an empty `fault` means none.
    return _Numbers(
        short.lifetime,
        short.backdate,
        short.duration,
        short.every or scenario.traffic.every,
        list(scenario.fault if short.fault is None else short.fault),
    )


def _planned_fix(request: PlanRequest) -> PlannedFix | None:
    fix = request.scenario.fix
    if fix is None:
        return None
    return PlannedFix(
        name=fix.name, manifest=request.manifest, ztunnel_namespace=fix.ztunnel_namespace
    )


def _authority_node(scenario: Scenario) -> str | None:
    # As on a cluster of one machine, where istiod sleeps with all the others.
    if scenario.authority is None:
        return scenario.node[0].name
    node = scenario.authority.node
    return None if node == APART else node


# --- Faults ---------------------------------------------------------------------------------------


def _place_faults(
    faults: list[Fault], nodes: tuple[PlannedNode, ...], duration_ns: int
) -> tuple[PlannedFault, ...]:
    """Every fault at each of its times on each of its nodes, in order of time; at one time in the
    order of the file."""
    placed = []
    for order, fault in enumerate(faults):
        on_nodes = _nodes_of(fault, nodes)
        for at_ns in fault_times_ns(fault, duration_ns):
            placed += [(at_ns, order, node, fault) for node in on_nodes]

    # Stable, so that faults on several nodes at one time stay in the order of the nodes.
    placed.sort(key=lambda entry: entry[:2])

    planned = []
    for index, (at_ns, _, node, fault) in enumerate(placed):
        begins = {"index": index, "kind": fault.kind, "node": node, "at_world_ns": at_ns}
        planned.append(read_planned_fault(begins | _own_fields(fault)))
    return tuple(planned)


def _nodes_of(fault: Fault, nodes: tuple[PlannedNode, ...]) -> list[str | None]:
    """Where `fault` happens; [None] for the authority."""
    if isinstance(fault, NodeFault):
        return _named_nodes(fault.node, nodes)
    if not isinstance(fault, PodRestart):
        return [None]

    # An identity is on one node only, as scenario_checks.py has made sure.
    return [node.name for node in nodes if fault.identity in node.identities]


def _named_nodes(name: str | None, nodes: tuple[PlannedNode, ...]) -> list[str | None]:
    """Without a name it is the first, of which a scenario that passed its checks has only one."""
    if name is None:
        return [nodes[0].name]
    if name == EVERY_NODE:
        return [node.name for node in nodes]
    return [name]


def _own_fields(fault: Fault) -> MutableJsonObject:
    """What only faults of this kind have, as plans call it."""
    # By class and not by getattr with a default: so mypy knows each field, and a kind that lacks
    # one is an error.
    own: MutableJsonObject = {}

    # Every kind but these lasts for some time.
    if not isinstance(fault, Step | Restart | PodRestart | CaRootChange):
        own["lasts_ns"] = fault.lasts

    match fault:
        case Pause():
            # None where the wall clock stays behind, which a plan has in a field of its own.
            own["corrected_after_ns"] = fault.corrected_after or 0
            own["corrected"] = fault.corrected_after is not None
        case Step() | CaClock():
            own["by_wall_ns"] = fault.by
        case Drift():
            # 1.025 as 41/40, which no float is.
            rate = Fraction(fault.rate)
            own["rate_numerator"] = rate.numerator
            own["rate_denominator"] = rate.denominator
        case CaSlow():
            own["answers_after_ns"] = fault.answers_after
        case CaLifetime():
            own["lifetime_s"] = fault.lifetime // NS_PER_S
        case PodRestart():
            own["identity"] = fault.identity
    return own
