"""Lab `machine` on several guests as the driver's backend: this side sends commands, guest_agent.py
in each guest carries them out.

Time passes for all guests at once (clocks/guest/fleet.py), and world time is that time since the
ztunnels were started, which an observer outside the machines would count too.

    suspend   the node's kernel sleeps when the fault begins and is woken when it ends; the others
              go on meanwhile
    pause     the node's machine is stopped; then its wall clock is behind, and is corrected at the
              end of the fault
    drift     as in backend.py: the wall clock is set forward every few seconds

An authority on a node that sleeps is not there: nothing refuses a request, connections to it time
out. An authority without a node has a machine of its own, which never sleeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from meshwake.authority.server import Mode, RequestReport
from meshwake.clocks.guest.fleet import Fleet
from meshwake.clocks.virtual import clocks_of
from meshwake.core.authority_state import AuthorityState
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessFault
from meshwake.core.json_types import JsonObject, MutableJsonObject, list_at, text_at, texts_at
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import ASLEEP_FAULTS, PlannedFault
from meshwake.guard.watch import CertificateValidity, ObservedProcess
from meshwake.labs.backend import MeshProcess, ProcessKind, Recording, ReportedCertificate
from meshwake.labs.machine.backend import FLOOD_WINDOW_NS, FOLLOW_DRIFT_EVERY_NS, wait_until_end
from meshwake.labs.machine.node import AuthorityRequest, NodeRequest
from meshwake.labs.process.authority_control import AuthorityControl
from meshwake.labs.process.mesh import report_of
from meshwake.labs.process.workloads import process_name

APART = "authority"  # the guest of an authority without a node
_PROGRESS_EVERY_NS = 60 * NS_PER_S


def guests_of(plan: Plan) -> list[str]:
    """The guests that `plan` needs, by name: its nodes, and one for an authority without a node."""
    names = [node.name for node in plan.nodes]
    if plan.authority_node is not None:
        return names

    # A node of the plan may have the usual name of that one.
    free = (name for name in _names_like(APART) if name not in names)
    return [*names, next(free)]


def _names_like(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in range(2, 1000))


def requests_of(plan: Plan, ztunnel: str) -> dict[str, NodeRequest]:
    """What each guest gets to know at boot (see node.GuestNode)."""
    identities = {node.name: list(node.identities) for node in plan.nodes}
    everybody = sorted(identity for node in plan.nodes for identity in node.identities)
    authority: AuthorityRequest = {"backdate_s": plan.backdate_s, "identities": everybody}
    authority_guest = plan.authority_node or guests_of(plan)[-1]
    requests: dict[str, NodeRequest] = {}
    first = 0
    for name in guests_of(plan):
        own = identities.get(name, [])
        requests[name] = {
            "node": name,
            "identities": own,
            "first": first,
            "authority": authority if name == authority_guest else None,
            "ztunnel": ztunnel,
            "lifetime_s": plan.lifetime_s,
        }
        first += len(own)
    return requests


class _RemoteAuthority:
    """The authority in a guest: see authority_control.Controllable."""

    def __init__(self, fleet: Fleet, guest: str) -> None:
        self._fleet, self._guest = fleet, guest

    def set_mode(self, mode: Mode) -> None:
        self._fleet.order(self._guest, "mode", mode=mode)

    def set_state(self, state: AuthorityState) -> None:
        self._fleet.order(self._guest, "state", state=state.__dict__)


class FleetBackend:
    """See labs.backend.Backend. `fleet` has been booted, and passes what guests report by
    themselves to `received`."""

    flood_window_ns = FLOOD_WINDOW_NS
    # All at once: starting takes time, and world time begins with it.
    starts_together = True

    def __init__(self, plan: Plan, fleet: Fleet) -> None:
        self._plan, self._fleet = plan, fleet
        self.timeline = clocks_of(plan)
        self.jumps = 0
        self._guests = guests_of(plan)
        self._authority_guest = plan.authority_node or self._guests[-1]
        self._control = AuthorityControl(plan, _RemoteAuthority(fleet, self._authority_guest))
        self._authority_asleep = False
        self._began_ns: int | None = None  # in the fleet's time; None: before world time
        self._world_ns = 0
        self._last_clocks: dict[str, ClockReading] = {}
        self._started: dict[str, ClockReading] = {}
        self._csr_messages: list[RequestReport] = []
        self._drifting: set[int] = set()
        self._suspended: set[str] = set()
        self._stopped_nodes: set[str] = set()
        self._log_position = 0  # of the last attempt's source, when the attempt began

    def received(self, guest: str, message: JsonObject) -> None:
        """What a guest reports by itself."""
        reports: Any = list_at(message, "requests")
        self._csr_messages += reports

    @property
    def looks(self) -> int:
        """How often time leapt."""
        return self._fleet.leaps

    # Building

    def open(self, recording: Recording, stack: ExitStack) -> None:
        """See Backend. Everything ends with the guests, which the caller ends."""
        self._recording = recording
        introduced = self._fleet.order_each(dict.fromkeys(self._guests, ("introduce", {})))
        known = [
            {"identity": identity, "node": guest, "address": address}
            for guest, each in introduced.items()
            for identity, address in texts_at(each, "addresses").items()
        ]
        root = text_at(introduced, self._authority_guest, "root")
        connect = ("connect", {"workloads": known, "root": root})
        self._fleet.order_each(dict.fromkeys(self._guests, connect))

    def subject_details(self) -> MutableJsonObject:
        """See Backend."""
        return {"mode": self._plan.ztunnel_mode, "way_in": "socks5"}

    # Time

    @property
    def world_ns(self) -> int:
        """See Backend: as of the last reading of the clock."""
        return self._world_ns

    def _read_clock(self) -> None:
        if self._began_ns is not None:
            self._world_ns = max(self._world_ns, self._fleet.now_ns - self._began_ns)

    def event_world_ns(self, clocks: ClockReading | None) -> int:
        """See Backend."""
        self._read_clock()
        return self._world_ns

    def begin_time(self) -> None:
        """See Backend. Booting took time; the scenario's wall clock begins only now."""
        self._set_authority_mode()
        for guest in self._guests:
            clocks = self._fleet.clocks(guest)
            self._set_clocks(guest, clocks._replace(wall_ns=self._plan.starts_wall_s * NS_PER_S))
        self._began_ns = self._fleet.now_ns

    def next_world_ns(self) -> int | None:
        """See Backend: timers of ztunnels fire by themselves."""
        return wait_until_end(self._plan, self._world_ns)

    def advance(self, world_ns: int) -> None:
        """See Backend. A request for a certificate ends it early."""
        assert self._began_ns is not None
        self.jumps += 1
        self._read_clock()
        while self._world_ns < world_ns and not self._csr_messages:
            slice_ns = FOLLOW_DRIFT_EVERY_NS if self._drifting else _PROGRESS_EVERY_NS
            until_ns = self._began_ns + min(world_ns, self._world_ns + slice_ns)
            self._fleet.pass_until(until_ns, lambda: bool(self._csr_messages))
            self._read_clock()
            self._follow_drift()
            self._recording.time_passed()
        self._drain()

    def fire_timers(self) -> None:
        """See Backend: they have fired by themselves."""
        self._recording.settle()

    def catch_up(self) -> None:
        """See Backend: `_resume` has waited for that."""

    def clocks_jumped(self) -> None:
        """See Backend: the kernels keep their clocks."""

    def await_quiet(self) -> None:
        """See Backend."""
        self._fleet.await_quiet()
        self._drain()

    def _drain(self) -> None:
        self._read_clock()
        messages, self._csr_messages = self._csr_messages, []
        for message in messages:
            self._recording.csr_received(report_of(message))

    # Clocks

    def clocks(self, node: str) -> ClockReading:
        """See Backend. While the guest sleeps or is stopped: the last reading."""
        if not self._fleet.is_asleep(node):
            self._last_clocks[node] = self._fleet.clocks(node)
        return self._last_clocks[node]

    def measure(self, fault: PlannedFault) -> ClockReading:
        """See Backend."""
        return self.clocks(self._authority_guest if fault.node is None else fault.node)

    def _set_clocks(self, guest: str, clocks: ClockReading) -> None:
        """Sets the wall clock, as kernel_page.KernelClockPage does."""
        self._fleet.order(guest, "set_clocks", clocks=list(clocks))

    # ztunnels

    def processes(self, node: str, kind: ProcessKind) -> list[MeshProcess]:
        """See Backend. There are no proxies: a plan with some was refused."""
        if kind != "ztunnel":
            return []
        found = []
        for each in self._plan.nodes:
            if each.name == node:
                found += [MeshProcess(process_name(one), node, (one,)) for one in each.identities]
        return found

    def start(self, process: MeshProcess) -> ClockReading:
        """See Backend. A guest starts all of its ztunnels together: see `await_ready`."""
        self._started[process.name] = self.clocks(process.node)
        return self._started[process.name]

    def await_ready(self, processes: Sequence[MeshProcess]) -> None:
        """See Backend."""
        nodes = dict.fromkeys(process.node for process in processes)
        self._fleet.order_each(dict.fromkeys(nodes, ("start", {})))

    def stop(self, processes: Sequence[MeshProcess]) -> None:
        """See Backend. A guest ends all of its ztunnels together."""
        # Each node once, in the order of the processes.
        nodes = dict.fromkeys(process.node for process in processes)
        for node in nodes:
            self._fleet.order(node, "end")

    def remove_pod(self, identity: str) -> None:
        """See Backend: refused before the run (lab.py)."""
        raise HarnessFault("lab machine has no application pods")

    def add_pod(self, identity: str) -> None:
        """See Backend: refused before the run (lab.py)."""
        raise HarnessFault("lab machine has no application pods")

    def restart_applications(self, node: str) -> None:
        """See Backend: refused before the run (lab.py)."""
        raise HarnessFault("lab machine has no application pods")

    # Faults

    def prepare(self, fault: PlannedFault) -> None:
        """See Backend: what happens by itself at this moment comes before the fault."""
        self._recording.settle()

    def begin(self, fault: PlannedFault) -> None:
        """See Backend."""
        if fault.node is None:
            self._set_authority_mode()
        elif fault.kind == "drift":
            self._drifting.add(fault.index)
        elif fault.kind in (*ASLEEP_FAULTS, "freeze"):
            self._stop(fault.node, fault.kind)

    def wake(self, fault: PlannedFault) -> None:
        """See Backend."""
        assert fault.node is not None
        self._resume(fault.node)

    def end(self, fault: PlannedFault) -> int | None:
        """See Backend."""
        if fault.node is None:
            self._set_authority_mode()
        elif fault.kind in ("suspend", "freeze"):
            self._resume(fault.node)
        elif fault.kind == "drift":
            self._follow_drift()
            self._drifting.discard(fault.index)
        elif fault.kind in ("step", "pause"):
            return self._step_wall_clock(fault.node, fault.expected_drift_ns)
        return None

    def _stop(self, node: str, how: str) -> None:
        if how == "suspend":
            self._suspended.add(node)
            self._fleet.suspend(node)
        elif how == "pause":
            self._fleet.stop(node)
        else:
            self._fleet.order(node, "freeze", frozen=True)
        self._stopped_nodes.add(node)
        self._set_authority_mode()

    def _resume(self, node: str) -> None:
        if node in self._suspended:
            self._suspended.discard(node)
            self._fleet.wake(node)
        elif self._fleet.is_asleep(node):
            self._fleet.go_on(node)
        else:
            self._fleet.order(node, "freeze", frozen=False)
        self._stopped_nodes.discard(node)
        self._set_authority_mode()
        self._recording.settle()

    def _step_wall_clock(self, node: str, by_ns: int) -> int:
        clocks = self.clocks(node)
        self._set_clocks(node, clocks._replace(wall_ns=clocks.wall_ns + by_ns))
        return clocks.wall_ns

    def _follow_drift(self) -> None:
        """Sets the wall clock to what it shows on a node that drifts as planned."""
        for index in self._drifting:
            node = self._plan.faults[index].node
            assert node is not None
            if self._fleet.is_asleep(node):
                continue
            clocks = self.clocks(node)
            self._read_clock()
            planned = self.timeline[node].reading(self._world_ns)
            self._set_clocks(node, clocks._replace(wall_ns=planned.wall_ns))

    # The authority

    def _set_authority_mode(self) -> None:
        """One that sleeps takes no commands; it gets its mode when it wakes."""
        self._authority_asleep = self._fleet.is_asleep(self._authority_guest)
        if not self._authority_asleep:
            self._control.apply(self._world_ns, self._stopped_nodes)

    def authority_answers(self) -> bool:
        """See Backend."""
        if self._authority_asleep:
            return False
        return self._control.mode != "ca_outage"

    # Connections and state

    def _order(self, of: str, do: str, **arguments: Any) -> Any:
        """A command about the ztunnel of the identity `of`."""
        node = self._plan.node_of(of)
        return self._fleet.order(node, do, name=process_name(of), **arguments)

    def attempt(self, source: str, destination: str) -> str | None:
        """See Backend."""
        self._log_position = int(self._order(source, "log_size"))
        error = self._fleet.order(
            self._plan.node_of(source), "attempt", source=source, destination=destination
        )
        return None if error is None else str(error)

    def logged_error(self, source: str) -> str | None:
        """See Backend."""
        errors = self._order(source, "errors_since", position=self._log_position)
        return str(errors[0]) if errors else None

    def certificate_state(self, identity: str) -> ReportedCertificate | None:
        """See Backend. One whose ztunnel is stopped cannot be queried."""
        if self._plan.node_of(identity) in self._stopped_nodes:
            return None
        state = self._order(identity, "certificate_state", identity=identity)
        if state is None:
            return None
        return ReportedCertificate(*state)

    def observe(self, node: str) -> list[ObservedProcess]:
        """See Backend: what each ztunnel reports of its certificates, now."""
        observed = []
        for process in self.processes(node, "ztunnel"):
            validities = self._order(process.identities[0], "validities")
            held = tuple(CertificateValidity(*validity) for validity in validities)
            observed.append(
                ObservedProcess(process.name, "ztunnel", self._started[process.name], held)
            )
        return observed
