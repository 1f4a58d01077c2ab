"""The faults of a plan: one class a kind, each with the fields that this kind uses.

In JSON all kinds have the same thirteen fields, in one order, and those that a kind does not use
have the value that means nothing: that is the form of plans since their first version, by which
they are hashed (plan.py) and in which runs are saved. `flat` writes it and `read_planned_fault`
reads it; a fault with a value in a field that its kind does not use is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from meshwake.core.json_types import JsonObject, MutableJsonObject

# The fields of the JSON that only some kinds use, in their order, and their value that means "not
# used".
_NOT_USED: dict[str, int | bool | None] = {
    "lasts_ns": 0,
    "corrected_after_ns": 0,
    "answers_after_ns": 0,
    "by_wall_ns": 0,
    "rate_numerator": 1,
    "rate_denominator": 1,
    "lifetime_s": 0,
    "identity": None,
    "corrected": True,
}


class AnyPlannedFault(BaseModel):
    """What the faults of all kinds have: one world time, on one node (None: the authority). `index`
    names it in the history."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    index: int
    node: str | None
    at_world_ns: int

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_not_used(cls, fields: object) -> object:
        """A value that does mean something is left, for the refusal of unknown fields."""
        # pydantic refuses it, with its own words.
        if not isinstance(fields, Mapping):
            return fields
        kept = {}
        for name, value in fields.items():
            is_own = name in cls.model_fields
            # A field of another kind that does mean something is kept too, and is refused.
            if is_own or not _means_nothing(name, value):
                kept[name] = value
        return kept

    @property
    def duration_ns(self) -> int:
        """How long it was to last; 0 for what happens at one moment."""
        return 0

    @property
    def asleep_until_world_ns(self) -> int:
        """World time at which the node runs again (suspend, pause), or the fault's own time."""
        return self.at_world_ns

    @property
    def ends_world_ns(self) -> int:
        """World time at which the last effect of the fault on clocks or services has happened."""
        return self.at_world_ns + self.duration_ns

    @property
    def expected_drift_ns(self) -> int:
        """By how much this fault changes the drift between wall and monotonic clock of its node."""
        return 0

    def flat(self) -> MutableJsonObject:
        """As it is written: the fields of every kind, in the order of the module's docstring."""
        own = dict(self)
        # As every plan has them since the first version, whatever their order in the class.
        begins = {name: own.pop(name) for name in ("index", "kind", "node", "at_world_ns")}

        # The fields of the kind itself replace their "not used", in the place of the table: `|`
        # keeps the order of its left side.
        return begins | _NOT_USED | own

    def used(self) -> MutableJsonObject:
        """The fields of `flat` that mean something, its kind among them."""
        fields = self.flat()
        return {name: value for name, value in fields.items() if not _means_nothing(name, value)}


def _means_nothing(name: str, value: object) -> bool:
    """Whether `value` is what a field has where its kind does not use it."""
    # The fields of every kind, which always mean something.
    if name not in _NOT_USED:
        return False
    return value == _NOT_USED[name]


class _Lasting(AnyPlannedFault):
    """Has a length."""

    lasts_ns: int

    @property
    def duration_ns(self) -> int:
        """See AnyPlannedFault."""
        return self.lasts_ns


class _Asleep(_Lasting):
    """The node does not run meanwhile."""

    @property
    def asleep_until_world_ns(self) -> int:
        """See AnyPlannedFault."""
        return self.at_world_ns + self.lasts_ns


class PlannedSuspend(_Asleep):
    """See faults.Suspend."""

    kind: Literal["suspend"] = "suspend"

    @property
    def expected_drift_ns(self) -> int:
        """Wall time passes, and no monotonic time."""
        # All of it, at the wake: the kernel adds the time slept to CLOCK_REALTIME and not to
        # CLOCK_MONOTONIC (clock_gettime(2)).
        return self.lasts_ns


class PlannedPause(_Asleep):
    """See faults.Pause. `corrected` is False where the wall clock stays behind."""

    kind: Literal["pause"] = "pause"
    corrected_after_ns: int = 0
    corrected: bool = True

    @property
    def ends_world_ns(self) -> int:
        """With the correction of the wall clock."""
        return self.asleep_until_world_ns + self.corrected_after_ns

    @property
    def corrected_by_ns(self) -> int:
        """By how much the wall clock is corrected afterwards; 0 where it stays behind."""
        if not self.corrected:
            return 0
        return self.lasts_ns

    @property
    def expected_drift_ns(self) -> int:
        """No clock moves during the pause itself."""
        # The correction afterwards sets the wall clock only.
        return self.corrected_by_ns


class PlannedStep(AnyPlannedFault):
    """See faults.Step."""

    kind: Literal["step"] = "step"
    by_wall_ns: int

    @property
    def expected_drift_ns(self) -> int:
        """Only the wall clock is set."""
        return self.by_wall_ns


class PlannedDrift(_Lasting):
    """See faults.Drift. The rate is a fraction, so that an hour of it is exact to the
    nanosecond."""

    kind: Literal["drift"] = "drift"
    rate_numerator: int
    rate_denominator: int = 1

    @property
    def rate(self) -> Fraction:
        """Wall time that passes in a second of monotonic time."""
        return Fraction(self.rate_numerator, self.rate_denominator)

    @property
    def expected_drift_ns(self) -> int:
        """Where the node is awake all the time."""
        # In whole nanoseconds: a week times 41 (the rate 1.025 is 41/40) is over the 2**53 up to
        # which a float is exact.
        wall_ns = self.lasts_ns * self.rate_numerator // self.rate_denominator
        return wall_ns - self.lasts_ns


class PlannedFreeze(_Lasting):
    """See faults.Freeze."""

    kind: Literal["freeze"] = "freeze"


class PlannedCaOutage(_Lasting):
    """See faults.CaOutage."""

    kind: Literal["ca_outage"] = "ca_outage"


class PlannedCaHang(_Lasting):
    """See faults.CaHang."""

    kind: Literal["ca_hang"] = "ca_hang"


class PlannedCaSlow(_Lasting):
    """See faults.CaSlow."""

    kind: Literal["ca_slow"] = "ca_slow"
    answers_after_ns: int


class PlannedTokenExpired(_Lasting):
    """See faults.TokenExpired."""

    kind: Literal["token_expired"] = "token_expired"


class PlannedCaClock(_Lasting):
    """See faults.CaClock."""

    kind: Literal["ca_clock"] = "ca_clock"
    by_wall_ns: int


class PlannedCaLifetime(_Lasting):
    """See faults.CaLifetime."""

    kind: Literal["ca_lifetime"] = "ca_lifetime"
    lifetime_s: int


class PlannedCaRoot(_Lasting):
    """See faults.CaRoot."""

    kind: Literal["ca_root"] = "ca_root"


class PlannedCaRootChange(AnyPlannedFault):
    """See faults.CaRootChange."""

    kind: Literal["ca_root_change"] = "ca_root_change"


class PlannedZtunnelRestart(AnyPlannedFault):
    """See faults.Restart."""

    kind: Literal["restart"] = "restart"


class PlannedPodRestart(AnyPlannedFault):
    """See faults.PodRestart."""

    kind: Literal["pod_restart"] = "pod_restart"
    identity: str


PlannedFault: TypeAlias = Annotated[
    PlannedSuspend
    | PlannedPause
    | PlannedStep
    | PlannedDrift
    | PlannedFreeze
    | PlannedCaOutage
    | PlannedCaHang
    | PlannedCaSlow
    | PlannedTokenExpired
    | PlannedCaClock
    | PlannedCaLifetime
    | PlannedCaRoot
    | PlannedCaRootChange
    | PlannedZtunnelRestart
    | PlannedPodRestart,
    Field(discriminator="kind"),
]
# The two kinds during which a node does not run, and their words.
PlannedSleep: TypeAlias = PlannedSuspend | PlannedPause
ASLEEP_FAULTS = ("suspend", "pause")

PlannedFaultT = TypeVar("PlannedFaultT", bound=AnyPlannedFault)

_READER: TypeAdapter[Any] = TypeAdapter(PlannedFault)


def read_planned_fault(fields: JsonObject) -> PlannedFault:
    """The fault with these fields, of the class of its kind. Raises pydantic's ValidationError."""
    fault: PlannedFault = _READER.validate_python(fields)
    return fault


def event_of(fault: PlannedFaultT) -> PlannedFaultT:
    """The fault without its place in the plan: equal for faults that are one event on several
    nodes."""
    return fault.model_copy(update={"index": 0, "node": None})
