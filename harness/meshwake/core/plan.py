"""A plan: a scenario with nothing left open. It can be printed, hashed, saved, and run again to the
same history.

Every fault is in its place on the timeline, repeats and "*" are written out, every number is an
integer. resolve.py makes one.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from meshwake.core.authority_state import AuthorityState
from meshwake.core.durations import NS_PER_S
from meshwake.core.faults import FaultKind
from meshwake.core.scenario import CheckName

PLAN_FORMAT: Literal[1] = 1
ASLEEP_FAULTS = ("suspend", "pause")
# Waking time after a fault within which new connections must work again (check recovers_within). A
# plan needs it too: an attempt is made when it is over, so that the verdict does not depend on
# traffic.every.
RECOVERS_WITHIN_NS = 300 * NS_PER_S


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlannedFault(_Frozen):
    """One fault at one world time on one node (None: the authority). `index` names it in the
    history. Of the other fields a kind uses those of its class in faults.py; `corrected` is False
    for a pause after which the wall clock stays behind."""

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
        """By how much the wall clock is corrected after a pause; 0 where it stays behind."""
        return self.lasts_ns if self.kind == "pause" and self.corrected else 0

    @property
    def expected_drift_ns(self) -> int:
        """By how much this fault changes the drift between wall and monotonic clock of its node."""
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
    """What is deployed against the fault. `manifest`: the text that a user would apply, read when
    the plan was made."""

    name: str
    manifest: str | None = None
    ztunnel_namespace: str | None = None


ClockWay = Literal["engine", "command", "process"]


class PlannedCluster(_Frozen):
    """Where and how lab `kind` runs: in which way the clocks of a cluster are moved, and which
    cluster that is. `kubeconfig` None: one of ours, on kind, of this name or with these parts;
    None and () where an option was not given. `known_as`: the context that may be used although it
    looks like a cluster that people depend on. `lapse`: idle time is skipped (clock "process"
    only); otherwise everything happens in real time."""

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


# What a run is judged by instead of the expectations of its scenario.
Goal = Literal["holds"]


class PlannedExpectation(_Frozen):
    """An expectation that applies to the version of the plan."""

    check: CheckName
    verdict: Literal["HOLDS", "BROKEN", "UNKNOWN"]
    because: str


class Plan(_Frozen):
    """Everything a lab needs to know. Times are world time in ns; `starts_wall_s` is Unix time at
    world time 0. Of a history that really happened (`recorded`) results are shown with its dates:
    `dates_from_wall_s` is Unix time at world time 0 for that, None where a scenario has no date."""

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
    goal: Goal | None = None
    recorded: bool = False
    dates_from_wall_s: int | None = None

    @property
    def sha256(self) -> str:
        """Names the plan: two plans with this in common give the same history on `model`."""
        text = self.model_dump_json(exclude=_unused_fields(self))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def half_life_s(self) -> Fraction:
        """Time from issue to the planned renewal, (L - B) / 2: ztunnel renews at the middle of the
        validity."""
        return Fraction(self.lifetime_s - self.backdate_s, 2)

    def node_of(self, identity: str) -> str:
        """The node of `identity`. Raises StopIteration where the plan has no such identity."""
        for node in self.nodes:
            if identity in node.identities:
                return node.name
        return next(gateway.node for gateway in self.gateways if gateway.identity == identity)

    def authority_at(self, world_ns: int) -> AuthorityState:
        """How the authority dates and signs at `world_ns`; of several faults of a kind the one that
        began last."""
        active = {fault.kind: fault for fault in self._active_on_authority(world_ns)}
        clock, lifetime = active.get("ca_clock"), active.get("ca_lifetime")
        return AuthorityState(
            ahead_wall_ns=clock.by_wall_ns if clock else 0,
            lifetime_s=lifetime.lifetime_s if lifetime else None,
            root=1 if "ca_root" in active else 0,
        )

    def answers_after_ns(self, world_ns: int) -> int:
        """How long after a request that comes at `world_ns` the authority answers it; of several
        faults the one that began last."""
        active = self._active_on_authority(world_ns)
        slow = [fault.answers_after_ns for fault in active if fault.kind == "ca_slow"]
        return slow[-1] if slow else 0

    def _active_on_authority(self, world_ns: int) -> list[PlannedFault]:
        """Those that have begun and not ended, in the order in which they began."""
        return [
            fault
            for fault in self.faults_on(None)
            if fault.at_world_ns <= world_ns < fault.ends_world_ns
        ]

    def faults_on(self, node: str | None) -> tuple[PlannedFault, ...]:
        """The faults of one node in order of time; of the authority's service for None."""
        return tuple(fault for fault in self.faults if fault.node == node)


# --- The name of a plan ---------------------------------------------------------------------------

# Fields came to plans one after the other. A plan that does not use one is hashed without it, so
# that it has the name under which its runs were saved before there was that field.
_LATER_IN_CLUSTER = (
    "name",
    "kubernetes",
    "workers",
    "with_parts",
    "without_parts",
    "mirror",
    "folder",
    "lapse",
)


def _unused_fields(plan: Plan) -> dict[str, Any]:
    """What of `plan` is not hashed, in the form of pydantic's `exclude`."""
    # What only changes how a result is shown.
    unused: dict[str, Any] = {"recorded": True, "dates_from_wall_s": True}
    if plan.cluster is None:
        unused["cluster"] = True
    else:
        cluster = plan.cluster
        unused["cluster"] = {name for name in _LATER_IN_CLUSTER if not getattr(cluster, name)}
    if not plan.gateways:
        unused["gateways"] = True
    if plan.goal is None:
        unused["goal"] = True
    if plan.token_s is None:
        unused["token_s"] = True
    if plan.ztunnel_mode == "dedicated":
        unused["ztunnel_mode"] = unused["discovery"] = True
    if plan.fix is not None and plan.fix.ztunnel_namespace is None:
        unused["fix"] = {"ztunnel_namespace"}
    in_faults = _unused_in_faults(plan.faults)
    if in_faults:
        unused["faults"] = {"__all__": in_faults}
    return unused


def _unused_in_faults(faults: tuple[PlannedFault, ...]) -> set[str]:
    """The fields that no fault of the plan uses."""
    unused = {"lifetime_s", "identity", "answers_after_ns", "corrected"}
    for fault in faults:
        # These two came together, and are hashed together.
        if fault.lifetime_s or fault.identity:
            unused -= {"lifetime_s", "identity"}
        if fault.answers_after_ns:
            unused.discard("answers_after_ns")
        if not fault.corrected:
            unused.discard("corrected")
    return unused
