"""The faults that a scenario can have: jumps of clocks, and troubles of services.

One class a kind. The kinds are keys of scenario files (scenarios/README.md); plan.py places them on
the timeline.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from meshwake.core.scenario_values import (
    CorrectedAfter,
    IdentityName,
    Length,
    Rate,
    Seconds,
    StepBy,
    Strict,
    WorldTime,
)

ClockFaultKind = Literal["suspend", "pause", "step", "drift", "freeze"]
ServiceFaultKind = Literal[
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
FaultKind = ClockFaultKind | ServiceFaultKind
CLOCK_FAULTS: tuple[str, ...] = get_args(ClockFaultKind)
SERVICE_FAULTS: tuple[str, ...] = get_args(ServiceFaultKind)
EVERY_NODE = "*"


class TimedFault(Strict):
    """Something that happens at a world time, and again with `every`."""

    at: WorldTime
    every: Length | None = None

    @property
    def lasts_world_ns(self) -> int:
        """How long the fault takes on the timeline, in world time; 0 for a moment."""
        # Fields of some kinds only. `corrected_after` is None where the wall clock stays behind.
        lasts_ns: int = getattr(self, "lasts", 0)
        corrected_after_ns: int = getattr(self, "corrected_after", 0) or 0
        return lasts_ns + corrected_after_ns


class NodeFault(TimedFault):
    """A fault of one node; of all with "*". Which one must be named where there are several."""

    node: str | None = None


class Suspend(NodeFault):
    """The kernel sleeps: wall and boottime jump at the wake, monotonic does not."""

    kind: Literal["suspend"]
    lasts: Length


class Pause(NodeFault):
    """The whole VM stops, all clocks with it; the wall clock is corrected some time after, or stays
    behind (None)."""

    kind: Literal["pause"]
    lasts: Length
    corrected_after: CorrectedAfter


class Step(NodeFault):
    """The wall clock is set, forward or back; nothing else moves."""

    kind: Literal["step"]
    by: StepBy


class Drift(NodeFault):
    """The wall clock runs at another rate than the monotonic one."""

    kind: Literal["drift"]
    lasts: Length
    rate: Rate


class Freeze(NodeFault):
    """The processes are stopped (docker pause, SIGSTOP); all clocks go on."""

    kind: Literal["freeze"]
    lasts: Length


class CaOutage(TimedFault):
    """The authority answers every request with UNAVAILABLE."""

    kind: Literal["ca_outage"]
    lasts: Length


# Not a kind of outage: a ztunnel retries what was refused, and waits for ever for an answer
# (docs/falsifier.md).
class CaHang(TimedFault):
    """The authority accepts requests and never answers them, not even after the fault has ended."""

    kind: Literal["ca_hang"]
    lasts: Length


class CaSlow(TimedFault):
    """The authority answers each request that comes during the fault this long after it came, by
    its own clock, and signs it then."""

    kind: Literal["ca_slow"]
    lasts: Length
    answers_after: Length


class TokenExpired(TimedFault):
    """The authority answers every request with UNAUTHENTICATED."""

    kind: Literal["token_expired"]
    lasts: Length


class CaRootChange(TimedFault):
    """From now on the authority serves a certificate of a new root, and the root file of every node
    has that root. Connections to it that were open are closed."""

    kind: Literal["ca_root_change"]


class CaClock(TimedFault):
    """The authority's own wall clock is ahead, or behind with a negative `by`: certificates are
    dated by it."""

    kind: Literal["ca_clock"]
    lasts: Length
    by: StepBy


class CaLifetime(TimedFault):
    """The authority issues certificates of this lifetime, whatever was requested."""

    kind: Literal["ca_lifetime"]
    lasts: Length
    lifetime: Seconds


class CaRoot(TimedFault):
    """The authority signs with another root, which holders of older certificates do not trust.
    To the end of the scenario: a root change without a common bundle; for a while: a wrong chain.
    """

    kind: Literal["ca_root"]
    lasts: Length


class Restart(NodeFault):
    """Every ztunnel of the node is stopped and started again."""

    kind: Literal["restart"]


class PodRestart(TimedFault):
    """The pod of an identity is replaced by another: a fresh certificate, from the same ztunnel."""

    kind: Literal["pod_restart"]
    identity: IdentityName


Fault = Annotated[
    Suspend
    | Pause
    | Step
    | Drift
    | Freeze
    | CaOutage
    | CaHang
    | CaSlow
    | TokenExpired
    | CaClock
    | CaLifetime
    | CaRoot
    | CaRootChange
    | Restart
    | PodRestart,
    Field(discriminator="kind"),
]


def fault_times_ns(fault: TimedFault, duration_ns: int) -> range:
    """World times at which `fault` begins, repeats included, all before the end."""
    # A range, so that a typing error such as every = "1ms" costs no memory before it is refused.
    if fault.every is None:
        return range(fault.at, fault.at + 1)
    return range(fault.at, duration_ns, fault.every)
