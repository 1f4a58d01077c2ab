"""What a lab is to the driver (driver.py): clocks, the authority and processes that hold
certificates.

The driver decides what happens and when, and records it. A backend makes it happen, and reports
what comes of it by the calls of `Recording`. Everything is on one thread.

    time       timeline, world_ns, next_world_ns, advance, fire_timers, catch_up, clocks_jumped
    clocks     clocks, measure, event_world_ns
    processes  processes, start, await_ready, stop; remove_pod, add_pod, restart_applications
    faults     prepare, begin, wake, end
    connect    attempt, logged_error
    state      await_quiet, certificate_state, observe, authority_answers
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol

from meshwake.clocks.virtual import Clocks
from meshwake.core.clock_reading import ClockReading
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.guard.watch import ObservedProcess

ProcessKind = Literal["ztunnel", "proxy"]


@dataclass(frozen=True)
class MeshProcess:
    """A process that holds certificates: a ztunnel, or a proxy (a gateway or waypoint with its
    pilot-agent)."""

    name: str
    node: str
    identities: tuple[str, ...]
    kind: ProcessKind = "ztunnel"


def processes_of(plan: Plan) -> list[MeshProcess]:
    """Every process of the plan. A node's ztunnel is called as the node is; gateways have names of
    their own."""
    ztunnels = [MeshProcess(node.name, node.name, node.identities) for node in plan.nodes]
    gateways = [
        MeshProcess(gateway.name, gateway.node, (gateway.identity,), "proxy")
        for gateway in plan.gateways
    ]
    return ztunnels + gateways


@dataclass(frozen=True)
class ReportedCertificate:
    """What a process reports of one certificate; serial and not-after are None while it holds
    none."""

    state: str
    serial: str | None
    not_after_wall_s: int | None


@dataclass(frozen=True)
class IssuedCertificate:
    """Valid from `not_before_wall_s` to `not_after_wall_s`, both included."""

    serial: str
    not_before_wall_s: int
    not_after_wall_s: int


@dataclass(frozen=True)
class CsrReport:
    """What the authority did with one certificate signing request. `outcome`: as in the event
    csr_answered, or "taken" where a slow authority will answer later. `certificate` when it was
    issued. `clocks`: those of the requesting node at that moment, where the report is recorded
    later."""

    identity: str
    outcome: str
    certificate: IssuedCertificate | None = None
    clocks: ClockReading | None = None


class Recording(Protocol):
    """What a backend may ask of the driver."""

    def csr_received(self, report: CsrReport) -> None:
        """The authority did this. Recorded when the world is quiet, together with other reports of
        the same moment in an order that does not depend on which packet came first. Raises
        CsrFlood when there were too many."""

    def record_csr(self, report: CsrReport) -> None:
        """As `csr_received`, but recorded at once and not counted."""

    def count_csr(self) -> None:
        """A request was answered. Raises CsrFlood when there were too many."""

    def record_state(self, identity: str) -> None:
        """The state of a certificate may have changed: records it if it has."""

    def time_passed(self) -> None:
        """For a backend in which `advance` takes long: reports progress."""

    def settle(self) -> None:
        """Waits until nothing more happens by itself at this moment, and records what did."""


class Backend(Protocol):
    """One run of one lab. World time is in ns since the run began; clocks are of nodes, None names
    the machine of an authority that has no node."""

    @property
    def timeline(self) -> Clocks:
        """The planned clocks of every node, as from `clocks_of(plan)`."""

    @property
    def flood_window_ns(self) -> int:
        """World time within which too many requests are a flood (limits.py)."""

    @property
    def starts_together(self) -> bool:
        """Whether the processes of all nodes are started at once, or node by node."""

    def open(self, recording: Recording, stack: ExitStack) -> None:
        """Makes everything but the processes; `stack` ends all of it, those too."""

    def subject_details(self) -> MutableJsonObject:
        """What the backend adds to the subject of run_started."""

    # Time

    @property
    def world_ns(self) -> int:
        """Now. Never goes back."""

    def begin_time(self) -> None:
        """World time begins: it is 0 when this returns."""

    def next_world_ns(self) -> int | None:
        """When something that the backend has to do is due next (a timer); None: nothing."""

    def advance(self, world_ns: int) -> None:
        """Time passes until `world_ns`. Where it passes by itself this may return earlier, when
        there is something to record."""

    def fire_timers(self) -> None:
        """What waited for a time that has come goes on, and all that follows from it at this
        moment has happened when this returns."""

    def catch_up(self) -> None:
        """Processes that run again after a freeze do what was overdue."""

    def clocks_jumped(self) -> None:
        """The faults of this moment are done: clocks show what they show after them."""

    def event_world_ns(self, clocks: ClockReading | None) -> int:
        """The world time of an event that is recorded now, with these clocks (None: none)."""

    # Clocks

    def clocks(self, node: str) -> ClockReading:
        """What the clocks of `node` show."""

    def measure(self, fault: PlannedFault) -> ClockReading:
        """The clocks that `fault` concerns, read inside the subject where there is one; the
        authority's for a fault of its service."""

    # Processes

    def processes(self, node: str, kind: ProcessKind) -> Sequence[MeshProcess]:
        """Those that the plan has on `node`."""

    def start(self, process: MeshProcess) -> ClockReading:
        """Starts it; returns the clocks of its node at its start."""

    def await_ready(self, processes: Sequence[MeshProcess]) -> None:
        """These have been started: returns when they serve and will request certificates."""

    def stop(self, processes: Sequence[MeshProcess]) -> None:
        """Ends them."""

    def remove_pod(self, identity: str) -> None:
        """The pod of `identity` is deleted."""

    def add_pod(self, identity: str) -> None:
        """Another pod of `identity` is created."""

    def restart_applications(self, node: str) -> None:
        """All application pods of `node` are replaced."""

    # Faults: what the driver records lies between these calls

    def prepare(self, fault: PlannedFault) -> None:
        """`fault` is about to begin; it is measured and recorded after this."""

    def begin(self, fault: PlannedFault) -> None:
        """`fault` begins."""

    def wake(self, fault: PlannedFault) -> None:
        """The node of a pause runs again; its wall clock is still behind."""

    def end(self, fault: PlannedFault) -> int | None:
        """`fault` ends. Returns the wall clock just before it was stepped, in ns; None when nothing
        was."""

    # Connections

    def attempt(self, source: str, destination: str) -> str | None:
        """One new connection through the mesh: None when it worked, else what the client saw."""

    def logged_error(self, source: str) -> str | None:
        """The reason that the ztunnel of `source` logged for the last attempt, if it did."""

    # State

    def await_quiet(self) -> None:
        """Returns when nothing more happens by itself at this moment."""

    def certificate_state(self, identity: str) -> ReportedCertificate | None:
        """What its process reports now; None when it cannot be queried, or does not know it yet."""

    def observe(self, node: str) -> list[ObservedProcess]:
        """See guard.watch.View.seen."""

    def authority_answers(self) -> bool:
        """See guard.watch.View."""
