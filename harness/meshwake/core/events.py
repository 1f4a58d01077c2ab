"""The kinds of events in a history, and the data that each kind promises.

An event says on which node something happened, what the three clocks of that node showed, and the
data of its kind. There is one class a kind: it names the data and their types, for the labs that
write and for the checks and reports that read. On disk an event is one line of JSON, its data in
the order in which the lab gave them; a class is a typed view of that line and changes nothing in
it. So data that a newer meshwake adds to a kind are read, kept and written again, and only data
that are missing make a line unreadable.

The types are promises of the lab that wrote the line; reading does not check them. A check that
stumbles over a wrong one raises, and its finding is UNKNOWN (checks/__init__.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault
from meshwake.core.json_types import MutableJsonObject

Outcome = Literal["issued", "refused", "hung", "unauthenticated"]
T = TypeVar("T")


class Datum(Generic[T]):
    """One datum of a kind of event: `identity = Datum[str]()` reads `event.data["identity"]`."""

    def __set_name__(self, owner: type[Event], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, event: None, owner: type[Event]) -> Datum[T]: ...

    @overload
    def __get__(self, event: Event, owner: type[Event]) -> T: ...

    def __get__(self, event: Event | None, owner: type[Event]) -> T | Datum[T]:
        # Read from the class, as __init_subclass__ does to find the names.
        if event is None:
            return self

        # A promise, not a check: see the module.
        value: T = event.data[self._name]
        return value


# kind -> its class, and the names of the data that an event of the kind must have.
EVENT_TYPES: dict[str, type[Event]] = {}
KINDS: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Event:
    """Something that happened; what, its class says. `node` and `clocks` are None for what happened
    on no node (an authority on a machine of its own has its own clocks, and node None)."""

    kind: ClassVar[str] = ""

    world_ns: int
    node: str | None
    clocks: ClockReading | None
    data: dict[str, Any] = field(default_factory=dict)

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        EVENT_TYPES[kind] = cls

        # In the order in which the class has them: lines that lack data list them in it.
        data = [name for name, value in vars(cls).items() if isinstance(value, Datum)]
        KINDS[kind] = tuple(data)

    @staticmethod
    def of_kind(
        world_ns: int,
        kind: str,
        node: str | None,
        clocks: ClockReading | None,
        data: MutableJsonObject,
    ) -> Event:
        """An event of the class that `kind` names. Raises HarnessFault for an unknown kind, and
        when data are missing that the kind promises."""
        # A lab that records what no check can read has a defect, and must not go on.
        wrong = _wrong(kind, data)
        if wrong:
            raise HarnessFault(f"{wrong}; see harness/meshwake/core/events.py")
        return EVENT_TYPES[kind](world_ns, node, clocks, data)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def to_line(self) -> str:
        """The event as one line of JSON, keys always in the same order."""
        line: MutableJsonObject = {"world_ns": self.world_ns, "kind": self.kind, "node": self.node}

        # All three clocks are null for what happened on no node.
        readings = self.clocks or [None] * len(ClockReading._fields)
        line |= zip(ClockReading._fields, readings, strict=True)
        return json.dumps(line | self.data, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def from_line(line: str) -> Event:
        """Raises ValueError, KeyError, TypeError or AttributeError when the line is not an
        event."""
        raw = json.loads(line)
        # What is left in `raw` after the common fields is the data of the kind.
        world_ns = _whole(raw.pop("world_ns"))
        kind, node = raw.pop("kind"), raw.pop("node")
        if not isinstance(node, str | None):
            raise TypeError(f"node is {node!r}, not a name")

        # All three clocks are null, or none is.
        readings = [raw.pop(name) for name in ClockReading._fields]
        clocks = None
        if any(reading is not None for reading in readings):
            clocks = ClockReading(*map(_whole, readings))

        # Not of_kind: there a wrong event is a fault of a lab, here it is one of the file.
        wrong = _wrong(kind, raw)
        if wrong:
            raise KeyError(wrong)
        return EVENT_TYPES[kind](world_ns, node, clocks, raw)


def _wrong(kind: str, data: MutableJsonObject) -> str:
    """What keeps `data` from being an event of `kind`; "" when nothing does."""
    if kind not in EVENT_TYPES:
        return f"unknown kind of event {kind!r}"

    # More than these may be there: a newer meshwake may have written them.
    missing = [name for name in KINDS[kind] if name not in data]
    if not missing:
        return ""
    return f"event {kind!r} lacks {', '.join(missing)}"


def _whole(value: object) -> int:
    # Not isinstance: True is an int, too.
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a whole number of nanoseconds")
    return value


# The run


class RunStarted(Event, kind="run_started"):
    """`subject` describes what was tested: a model's class; a binary's digest and its own
    version."""

    format = Datum[int]()
    lab = Datum[str]()
    version = Datum[str | None]()
    subject = Datum[object]()


class RunEnded(Event, kind="run_ended"):
    """`csr_flood`: stopped early, after a bounded number of requests to the authority."""

    reason = Datum[Literal["duration", "csr_flood"]]()


# Processes and pods


class ZtunnelStarted(Event, kind="ztunnel_started"):
    """`process` names it; `cause` is "start", "restart" or the fix that did it."""

    process = Datum[str]()
    identities = Datum[list[str]]()
    cause = Datum[str]()


class ZtunnelStopped(Event, kind="ztunnel_stopped"):
    """The process ended, and what it held with it."""

    process = Datum[str]()
    cause = Datum[str]()


class ProxyStarted(Event, kind="proxy_started"):
    """As ZtunnelStarted, of a gateway or waypoint."""

    process = Datum[str]()
    identities = Datum[list[str]]()
    cause = Datum[str]()


class ProxyStopped(Event, kind="proxy_stopped"):
    """As ZtunnelStopped, of a gateway or waypoint."""

    process = Datum[str]()
    cause = Datum[str]()


class ApplicationsRestarted(Event, kind="applications_restarted"):
    """All application pods of the node were replaced."""

    cause = Datum[str]()


class JobEnded(Event, kind="job_ended"):
    """A job of the fix's CronJob ended, in a real cluster. `cron_job` is namespace/name, `outcome`
    complete or failed, `message` what the job controller reports."""

    cron_job = Datum[str]()
    job = Datum[str]()
    outcome = Datum[str]()
    message = Datum[str]()


class PodReplaced(Event, kind="pod_replaced"):
    """One pod was replaced: its ztunnel drops its certificate and requests another."""

    identity = Datum[str]()


# Certificates


class CsrTaken(Event, kind="csr_taken"):
    """A slow authority has taken a request; its result is in the CsrAnswered that follows."""

    identity = Datum[str]()


class CsrAnswered(Event, kind="csr_answered"):
    """The authority's side of a request. `serial` and the dates are None unless it was issued."""

    identity = Datum[str]()
    outcome = Datum[Outcome]()
    serial = Datum[str | None]()
    not_before_wall_s = Datum[int | None]()
    not_after_wall_s = Datum[int | None]()


class CertificateState(Event, kind="certificate_state"):
    """ztunnel's side of a certificate, by its admin interface, recorded when it has changed.
    `state`: "Initializing", "Available", "Unavailable: ..."; the others are of the certificate that
    it holds, or None."""

    identity = Datum[str]()
    state = Datum[str]()
    serial = Datum[str | None]()
    not_after_wall_s = Datum[int | None]()


# Traffic


class ConnectionAttempted(Event, kind="connection_attempted"):
    """One new connection through the mesh; `node` is the source's. `error` is None when it
    worked."""

    source = Datum[str]()
    destination = Datum[str]()
    ok = Datum[bool]()
    error = Datum[str | None]()


# Faults


class FaultBegan(Event, kind="fault_began"):
    """`fault` is its index in the plan. Clocks are measured inside the subject."""

    fault = Datum[int]()
    fault_kind = Datum[str]()


class NodeWoke(Event, kind="node_woke"):
    """Of a pause only: processes run again, and the wall clock is still behind."""

    fault = Datum[int]()
    fault_kind = Datum[str]()


class FaultEnded(Event, kind="fault_ended"):
    """`wall_before_ns`: the wall clock just before the lab stepped it at this event (a step, or the
    late correction of a pause); None where nothing was stepped."""

    fault = Datum[int]()
    fault_kind = Datum[str]()
    wall_before_ns = Datum[int | None]()


# Alerting, for scenarios that deploy it


class AlertsEvaluated(Event, kind="alerts_evaluated"):
    """The names of the alerting rules that were evaluated."""

    rules = Datum[list[str]]()


class AlertFired(Event, kind="alert_fired"):
    """An alert began to fire."""

    alert = Datum[str]()


class AlertsReceived(Event, kind="alerts_received"):
    """What Alertmanager has been handed."""

    alerts = Datum[list[Any]]()


# Of a whole cluster (lab kind): evidence, which no check reads


class ConnectionNotAttempted(Event, kind="connection_not_attempted"):
    """No attempt was made, so none was refused."""

    source = Datum[str]()
    destination = Datum[str]()
    error = Datum[str]()


class RouteAttempted(Event, kind="route_attempted"):
    """One new connection by way of the waypoint or Gateway `via`."""

    source = Datum[str]()
    destination = Datum[str]()
    via = Datum[str]()
    ok = Datum[bool]()
    error = Datum[str | None]()


class ObservationFailed(Event, kind="observation_failed"):
    """Something that is polled could not be reached; recorded once until it can be again."""

    what = Datum[str]()
    error = Datum[str]()


class IstiodSeen(Event, kind="istiod_seen"):
    """Where istiod runs, when that is new; `node` is the plan's, if it is one."""

    kubernetes_node = Datum[str]()


class ProxyCertificate(Event, kind="proxy_certificate"):
    """The certificate of an Envoy: a gateway's or a waypoint's."""

    proxy = Datum[str]()
    subject = Datum[str]()
    serial = Datum[str]()
    not_after_wall_s = Datum[int]()


class TokenSeen(Event, kind="token_seen"):
    """The token with which a ztunnel authenticates to istiod, when kubelet changed it."""

    pod = Datum[str]()
    expires_wall_s = Datum[int]()


class LogLine(Event, kind="log_line"):
    """A line of ztunnel's log; `match` is what it is evidence of (ztunnel/logs.py)."""

    process = Datum[str]()
    match = Datum[str]()
    line = Datum[str]()


class FlowsSeen(Event, kind="flows_seen"):
    """By Hubble, since the last such event."""

    agent = Datum[str]()
    forwarded = Datum[int]()
    dropped = Datum[int]()
    drop_reasons = Datum[dict[str, int]]()
