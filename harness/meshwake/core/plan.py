"""A plan: a scenario with nothing left open. It can be printed, hashed, saved, and run again to the
same history.

Every fault is in its place on the timeline, repeats and "*" are written out, every number is an
integer. resolve.py makes one.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializationInfo, field_serializer

from meshwake.core.authority_state import AuthorityState
from meshwake.core.dates import Dates, dates_of
from meshwake.core.durations import NS_PER_S
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.planned_faults import PlannedFault
from meshwake.core.scenario import CheckName

PLAN_FORMAT: Literal[1] = 1
# Time awake after a fault within which new connections must work again (check recovers_within). A
# plan needs it too: an attempt is made when it is over, so that the verdict does not depend on
# traffic.every.
RECOVERS_WITHIN_NS = 300 * NS_PER_S


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    cluster that is. None and () where an option was not given."""

    clock: ClockWay = "engine"
    allow_own_clock: bool = False
    suspend_command: str | None = None
    profile: str | None = None
    # None: a cluster of ours on kind, of the name and with the parts below.
    kubeconfig: str | None = None
    context: str | None = None
    # The context that may be used although it looks like a cluster that people depend on.
    known_as: str | None = None
    name: str | None = None
    kubernetes: str | None = None
    workers: int | None = None
    with_parts: tuple[str, ...] = ()
    without_parts: tuple[str, ...] = ()
    mirror: str | None = None
    folder: str | None = None
    # Idle time is skipped (clock "process" only); otherwise everything happens in real time.
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
    `dates_from_wall_s` is Unix time at world time 0 for that, None where a scenario has no date;
    `dates_zone` is the zone of the people who know them (core/zones.py), None for UTC."""

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
    dates_zone: str | None = None

    @field_serializer("faults")
    def _flat_faults(
        self, faults: tuple[PlannedFault, ...], info: SerializationInfo
    ) -> list[MutableJsonObject]:
        """All fields of every fault, but those that the context names (see sha256)."""
        left_out: frozenset[str] = info.context or frozenset()
        written = []
        for fault in faults:
            fields = fault.flat()
            for name in left_out:
                del fields[name]
            written.append(fields)
        return written

    @property
    def sha256(self) -> str:
        """Names the plan: two plans with this in common give the same history on `model`."""
        # pydantic's `exclude` does not reach into what a serializer of ours returns.
        text = self.model_dump_json(
            exclude=_unused_fields(self), context=_unused_in_faults(self.faults)
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def dates(self) -> Dates | None:
        """How moments are shown as dates; None where they have none."""
        return dates_of(self.dates_from_wall_s, self.dates_zone)

    @property
    def is_in_time_lapse(self) -> bool:
        """Whether it runs on a cluster whose idle time is skipped."""
        if self.cluster is None:
            return False
        return self.cluster.lapse

    @property
    def half_life_s(self) -> Fraction:
        """Time from issue to the planned renewal, (L - B) / 2: ztunnel renews at the middle of the
        validity."""
        return Fraction(self.lifetime_s - self.backdate_s, 2)

    def node_of(self, identity: str) -> str:
        """The node of `identity`. Raises KeyError where the plan has no such identity."""
        for node in self.nodes:
            if identity in node.identities:
                return node.name

        # A gateway has one identity of its own, which `nodes` do not list.
        for gateway in self.gateways:
            if gateway.identity == identity:
                return gateway.node
        raise KeyError(identity)

    def authority_at(self, world_ns: int) -> AuthorityState:
        """How the authority dates and signs at `world_ns`; of several faults of a kind the one that
        began last."""
        state = AuthorityState()
        # In the order in which they began, so that the last of a kind overwrites the others.
        for fault in self._active_on_authority(world_ns):
            if fault.kind == "ca_clock":
                state = state._replace(ahead_wall_ns=fault.by_wall_ns)
            elif fault.kind == "ca_lifetime":
                state = state._replace(lifetime_s=fault.lifetime_s)
            elif fault.kind == "ca_root":
                # The second of two. A change of the root itself (ca_root_change) is not a state of
                # the authority alone: it rewrites the root file of every node.
                state = state._replace(root=1)
        return state

    def answers_after_ns(self, world_ns: int) -> int:
        """How long after a request that comes at `world_ns` the authority answers it; of several
        faults the one that began last."""
        answers_after_ns = 0
        # As in authority_at: the last overwrites the others.
        for fault in self._active_on_authority(world_ns):
            if fault.kind == "ca_slow":
                answers_after_ns = fault.answers_after_ns
        return answers_after_ns

    def _active_on_authority(self, world_ns: int) -> list[PlannedFault]:
        """Those that have begun and not ended, in the order in which they began."""
        active = []
        for fault in self.faults_on(None):
            # A fault of a moment, such as a change of root, is never active: what it does lasts.
            has_begun = fault.at_world_ns <= world_ns
            has_ended = fault.ends_world_ns <= world_ns
            if has_begun and not has_ended:
                active.append(fault)
        return active

    def faults_on(self, node: str | None) -> tuple[PlannedFault, ...]:
        """The faults of one node in order of time; of the authority's service for None."""
        found = [fault for fault in self.faults if fault.node == node]
        return tuple(found)


# --- The name of a plan ---------------------------------------------------------------------------

# Fields came to plans one after the other. A plan that does not use one is hashed without it, so
# that it has the name under which its runs were saved before there was that field.
_LATER = ("cluster", "gateways", "goal", "token_s")
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
    unused: dict[str, Any] = {"recorded": True, "dates_from_wall_s": True, "dates_zone": True}

    # True leaves out a whole field, a set of names those fields within it.
    unused |= dict.fromkeys(_not_set(plan, _LATER), True)
    if plan.cluster is not None:
        unused["cluster"] = _not_set(plan.cluster, _LATER_IN_CLUSTER)

    # `discovery` came with the mode, and is False for a dedicated ztunnel.
    if plan.ztunnel_mode == "dedicated":
        unused["ztunnel_mode"] = True
        unused["discovery"] = True

    if plan.fix is not None and plan.fix.ztunnel_namespace is None:
        unused["fix"] = {"ztunnel_namespace"}
    return unused


def _not_set(model: BaseModel, fields: tuple[str, ...]) -> set[str]:
    """Those of `fields` that have the value that means nothing: None, False or empty."""
    return {name for name in fields if not getattr(model, name)}


def _unused_in_faults(faults: tuple[PlannedFault, ...]) -> frozenset[str]:
    """The fields that no fault of the plan uses."""
    # Not more than these: the other fields were there from the first plan on, and are in every
    # hash.
    unused = {"lifetime_s", "identity", "answers_after_ns", "corrected"}
    for fault in faults:
        used = unused & fault.used().keys()
        # These two came together, and are hashed together.
        if used & {"lifetime_s", "identity"}:
            used |= {"lifetime_s", "identity"}
        unused -= used
    return frozenset(unused)
