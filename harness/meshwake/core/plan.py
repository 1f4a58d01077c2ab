"""A plan: a scenario with nothing left open. It can be printed, hashed, saved, and run again to the
same history.

`resolve` turns a request (a scenario on one lab with one version) into a plan: every fault in its
place on the timeline, repeats and "*" written out, every number an integer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from meshwake.core.authority_state import AuthorityState
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.scenario import APART, EVERY_NODE, CheckName, Expect, Scenario, fault_times_ns

PLAN_FORMAT: Literal[1] = 1
FaultKind = Literal[
    "suspend",
    "pause",
    "step",
    "drift",
    "freeze",
    "ca_outage",
    "ca_hang",
    "ca_slow",
    "token_expired",
    "ca_clock",
    "ca_lifetime",
    "ca_root",
    "ca_root_change",
    "restart",
    "pod_restart",
]
ASLEEP_FAULTS = ("suspend", "pause")
# Waking time after a fault within which new connections must work again (check recovers_within). A
# plan needs it too: an attempt is made when it is over, so that the verdict does not hang on
# traffic.every.
RECOVERS_WITHIN_NS = 300 * NS_PER_S


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlannedFault(_Frozen):
    """One fault at one world time on one node (None: the authority). `index` names it in the
    history."""

    index: int
    kind: FaultKind
    node: str | None
    at_world_ns: int
    lasts_ns: int = 0
    corrected_after_ns: int = 0
    answers_after_ns: int = 0
    by_wall_ns: int = 0
    rate_numerator: int = 1
    rate_denominator: int = 1
    lifetime_s: int = 0
    identity: str | None = None
    corrected: bool = True

    @property
    def asleep_until_world_ns(self) -> int:
        """World time at which the node runs again (suspend, pause), or the fault's own time."""
        return self.at_world_ns + (self.lasts_ns if self.kind in ASLEEP_FAULTS else 0)

    @property
    def ends_world_ns(self) -> int:
        """World time at which the last effect of the fault on clocks or services has happened."""
        return self.at_world_ns + self.lasts_ns + self.corrected_after_ns

    @property
    def corrected_by_ns(self) -> int:
        """By how much the wall clock is put right after a pause; nothing where it stays behind."""
        return self.lasts_ns if self.kind == "pause" and self.corrected else 0

    @property
    def expected_drift_ns(self) -> int:
        """By how much this fault makes wall and monotonic clock of its node part."""
        if self.kind == "suspend":
            return self.lasts_ns
        if self.kind == "pause":
            return self.corrected_by_ns
        if self.kind == "step":
            return self.by_wall_ns
        if self.kind == "drift":
            return self.lasts_ns * self.rate_numerator // self.rate_denominator - self.lasts_ns
        return 0


class PlannedNode(_Frozen):
    """A node and the workload identities (namespace/serviceaccount) on it."""

    name: str
    identities: tuple[str, ...]


class PlannedGateway(_Frozen):
    """A gateway or waypoint on a node: one process of its own, whose certificate a pilot-agent
    renews."""

    name: str
    node: str
    identity: str
    lifetime_s: int


class PlannedFix(_Frozen):
    """What is deployed against the fault; `manifest` is the text a user would apply, read when
    planning."""

    name: str
    manifest: str | None = None
    ztunnel_namespace: str | None = None


ClockWay = Literal["engine", "command", "process"]


class PlannedCluster(_Frozen):
    """Where and how lab `kind` runs: which of the ways in which a cluster's clocks are moved, and
    on which cluster. `kubeconfig` None: one of ours, on kind, of this name or made of this; None
    and () where nothing was said. `known_as`: the context that may be used although it looks like a
    cluster that people depend on. `lapse`: idle time is skipped (clock "process" only); otherwise
    everything happens in real time."""

    clock: ClockWay = "engine"
    allow_own_clock: bool = False
    suspend_command: str | None = None
    profile: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    known_as: str | None = None
    name: str | None = None
    kubernetes: str | None = None
    workers: int | None = None
    with_parts: tuple[str, ...] = ()
    without_parts: tuple[str, ...] = ()
    mirror: str | None = None
    folder: str | None = None
    lapse: bool = False


class PlannedExpectation(_Frozen):
    """An expectation that applies to the version of the plan."""

    check: CheckName
    verdict: Literal["HOLDS", "BROKEN", "UNKNOWN"]
    because: str


class Plan(_Frozen):
    """Everything a lab needs to know. Times are world time in ns; `starts_wall_s` is Unix time at
    world time 0."""

    format: Literal[1] = PLAN_FORMAT
    scenario: str
    title: str
    lab: str
    version: str
    behaviour_class: str
    seed: int
    starts_wall_s: int
    duration_ns: Annotated[int, Field(gt=0)]
    lifetime_s: int
    backdate_s: int
    nodes: tuple[PlannedNode, ...]
    gateways: tuple[PlannedGateway, ...] = ()
    authority_node: str | None
    token_s: int | None = None
    pairs: tuple[tuple[str, str], ...]
    attempt_every_ns: int
    faults: tuple[PlannedFault, ...]
    fix: PlannedFix | None = None
    cluster: PlannedCluster | None = None
    expectations: tuple[PlannedExpectation, ...] = ()
    ztunnel_mode: Literal["dedicated", "in-pod"] = "dedicated"
    discovery: bool = False

    @property
    def sha256(self) -> str:
        """Names the plan: two plans with this in common give the same history on `model`."""
        # A plan without these is named as it was before there were plans with them.
        added = {"cluster": self.cluster, "gateways": self.gateways, "token_s": self.token_s}
        without = {name for name, value in added.items() if value is None or value == ()}
        without |= {"ztunnel_mode", "discovery"} if self.ztunnel_mode == "dedicated" else set()
        excluded: dict[str, Any] = dict.fromkeys(without, True)
        if self.cluster is not None:
            later = (
                "name",
                "kubernetes",
                "workers",
                "with_parts",
                "without_parts",
                "mirror",
                "folder",
                "lapse",
            )
            excluded["cluster"] = {name for name in later if not getattr(self.cluster, name)}
        unused = set()
        if not any(fault.lifetime_s or fault.identity for fault in self.faults):
            unused |= {"lifetime_s", "identity"}
        if not any(fault.answers_after_ns for fault in self.faults):
            unused |= {"answers_after_ns"}
        if all(fault.corrected for fault in self.faults):
            unused |= {"corrected"}
        if self.fix is not None and self.fix.ztunnel_namespace is None:
            excluded["fix"] = {"ztunnel_namespace"}
        if unused:
            excluded["faults"] = {"__all__": unused}
        return hashlib.sha256(self.model_dump_json(exclude=excluded).encode()).hexdigest()

    @property
    def half_life_s(self) -> Fraction:
        """Time from issue to the planned renewal, (L - B) / 2: ztunnel renews at the middle of the
        validity."""
        return Fraction(self.lifetime_s - self.backdate_s, 2)

    def node_of(self, identity: str) -> str:
        """The node on which `identity` lives."""
        gateways = (gateway.node for gateway in self.gateways if gateway.identity == identity)
        return next(
            (node.name for node in self.nodes if identity in node.identities), None
        ) or next(gateways)

    def authority_at(self, world_ns: int) -> AuthorityState:
        """How the authority dates and signs at `world_ns`; of several faults of a kind the one that
        began last."""
        active = {
            fault.kind: fault
            for fault in self.faults_on(None)
            if fault.at_world_ns <= world_ns < fault.ends_world_ns
        }
        clock, lifetime = active.get("ca_clock"), active.get("ca_lifetime")
        return AuthorityState(
            ahead_wall_ns=clock.by_wall_ns if clock else 0,
            lifetime_s=lifetime.lifetime_s if lifetime else None,
            root=1 if "ca_root" in active else 0,
        )

    def answers_after_ns(self, world_ns: int) -> int:
        """How long after a request that comes at `world_ns` the authority answers it; of several
        faults the last to begin says."""
        slow = [
            fault.answers_after_ns
            for fault in self.faults_on(None)
            if fault.kind == "ca_slow" and fault.at_world_ns <= world_ns < fault.ends_world_ns
        ]
        return slow[-1] if slow else 0

    def faults_on(self, node: str | None) -> tuple[PlannedFault, ...]:
        """The faults of one node in order of time; of the authority's service for None."""
        return tuple(fault for fault in self.faults if fault.node == node)


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


def resolve(case: PlanRequest) -> Plan:
    """The plan of `case`. Raises BadInput when the scenario lacks what the lab needs."""
    scenario, numbers = case.scenario, _numbers(case)
    nodes = tuple(
        PlannedNode(name=node.name, identities=tuple(node.identities)) for node in scenario.node
    )
    return Plan(
        scenario=scenario.name,
        title=scenario.title,
        lab=case.lab,
        version=case.version,
        behaviour_class=case.behaviour_class,
        seed=case.seed,
        starts_wall_s=int(scenario.starts.timestamp()),
        duration_ns=numbers.duration_ns,
        lifetime_s=numbers.lifetime_ns // NS_PER_S,
        backdate_s=numbers.backdate_ns // NS_PER_S,
        nodes=nodes,
        gateways=tuple(
            PlannedGateway(
                name=gateway.name,
                node=gateway.node,
                identity=gateway.identity,
                lifetime_s=numbers.lifetime_ns // NS_PER_S,
            )
            for gateway in scenario.gateway
        ),
        authority_node=_authority_node(scenario),
        token_s=scenario.authority.token // NS_PER_S
        if scenario.authority and scenario.authority.token
        else None,
        pairs=tuple((pair[0], pair[1]) for pair in scenario.traffic.pairs),
        attempt_every_ns=numbers.every_ns,
        faults=_place_faults(numbers.faults, nodes, numbers.duration_ns),
        fix=_planned_fix(scenario, case),
        cluster=case.cluster,
        expectations=tuple(
            PlannedExpectation(check=row.check, verdict=_verdict(row), because=row.because)
            for row in case.expectations
        ),
        ztunnel_mode=scenario.ztunnel.mode,
        discovery=scenario.ztunnel.workloads == "discovery",
    )


def _verdict(row: Expect) -> Literal["HOLDS", "BROKEN", "UNKNOWN"]:
    verdicts: dict[str, Literal["HOLDS", "BROKEN", "UNKNOWN"]] = {
        "holds": "HOLDS",
        "broken": "BROKEN",
        "unknown": "UNKNOWN",
    }
    return verdicts[row.verdict]


@dataclass(frozen=True)
class _Numbers:
    lifetime_ns: int
    backdate_ns: int
    duration_ns: int
    every_ns: int
    faults: list[Any]


def _numbers(case: PlanRequest) -> _Numbers:
    scenario = case.scenario
    if not case.real_time:
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
            "(lifetime, duration, fault); "
            "add one, or run without real time"
        )
    return _Numbers(
        short.lifetime,
        short.backdate,
        short.duration,
        short.every or scenario.traffic.every,
        list(scenario.fault if short.fault is None else short.fault),
    )


def _planned_fix(scenario: Scenario, case: PlanRequest) -> PlannedFix | None:
    fix = scenario.fix
    if fix is None:
        return None
    return PlannedFix(
        name=fix.name, manifest=case.manifest, ztunnel_namespace=fix.ztunnel_namespace
    )


def _authority_node(scenario: Scenario) -> str | None:
    if scenario.authority is None:
        return scenario.node[0].name
    return None if scenario.authority.node == APART else scenario.authority.node


def _place_faults(
    faults: list[Any], nodes: tuple[PlannedNode, ...], duration_ns: int
) -> tuple[PlannedFault, ...]:
    placed = []
    for order, fault in enumerate(faults):
        for at in fault_times_ns(fault, duration_ns):
            placed += [(at, order, node, fault) for node in _nodes_of(fault, nodes)]
    placed.sort(key=lambda entry: entry[:2])
    return tuple(
        _planned(index, at, node, fault) for index, (at, _, node, fault) in enumerate(placed)
    )


def _nodes_of(fault: Any, nodes: tuple[PlannedNode, ...]) -> list[str | None]:
    if hasattr(fault, "identity"):
        return [node.name for node in nodes if fault.identity in node.identities]
    if not hasattr(fault, "node"):
        return [None]
    if fault.node == EVERY_NODE:
        return [node.name for node in nodes]
    return [fault.node or nodes[0].name]


def _planned(index: int, at_world_ns: int, node: str | None, fault: Any) -> PlannedFault:
    rate = Fraction(getattr(fault, "rate", 1))
    return PlannedFault(
        index=index,
        kind=fault.kind,
        node=node,
        at_world_ns=at_world_ns,
        lasts_ns=getattr(fault, "lasts", 0),
        corrected_after_ns=getattr(fault, "corrected_after", 0) or 0,
        corrected=getattr(fault, "corrected_after", 0) is not None,
        answers_after_ns=getattr(fault, "answers_after", 0),
        by_wall_ns=getattr(fault, "by", 0),
        rate_numerator=rate.numerator,
        rate_denominator=rate.denominator,
        lifetime_s=getattr(fault, "lifetime", 0) // NS_PER_S,
        identity=getattr(fault, "identity", None),
    )
