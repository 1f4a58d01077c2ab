"""The one run loop: every lab that skips time is driven by it.

    while world time is left:
        time passes until the next scheduled action, timer or connection attempt
        scheduled actions (schedule.py): faults begin and end, processes restart, fixes poll
        timers fire
        connections are attempted (probes.py)

The driver decides when, records what happens, and keeps what no lab may do in its own way: which
event has which data, when a certificate's state is news, what counts as a flood of requests. How
things happen is the backend's (backend.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from meshwake.core.clock_reading import ClockReading
from meshwake.core.events import Event
from meshwake.core.history import HISTORY_FORMAT
from meshwake.core.json_types import JsonObject
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.guard.watch import ObservedProcess
from meshwake.labs.backend import Backend, CsrReport, MeshProcess, ProcessKind, ReportedCertificate
from meshwake.labs.limits import CsrFlood, FloodGuard
from meshwake.labs.probes import ProbeSchedule
from meshwake.labs.schedule import Schedule
from meshwake.ztunnel.logs import EXPIRED


class Driver:
    """Carries out `plan` on `backend`. `record` gets every event as it happens, `progress` the
    world time now and then.

    Is the Executor of its own schedule (schedule.py), the View of fixes (guard/watch.py) and the
    Recording of its backend (backend.py).
    """

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        record: Callable[[Event], None],
        progress: Callable[[int], None],
    ) -> None:
        self._plan, self._backend = plan, backend
        self._append, self._progress = record, progress
        self._schedule = Schedule(plan, backend.timeline)
        self._probes = ProbeSchedule(plan, backend.timeline)
        self._flood = FloodGuard(len(_identities_of(plan)), backend.flood_window_ns)

        # What the authority reported and is not recorded yet, until everything is quiet.
        self._reports: list[CsrReport] = []
        self._states: dict[str, ReportedCertificate] = {}

        # Pairs that are in an outage.
        self._failing: set[tuple[str, str]] = set()
        self._node_of = {identity: plan.node_of(identity) for identity in _identities_of(plan)}
        self._expiry_logged_wall_ns: dict[str, int] = {}

    def run(self, subject: JsonObject) -> None:
        """The whole plan, from run_started to run_ended. What was started has ended when this
        returns or raises."""
        with ExitStack() as stack:
            self._backend.open(self, stack)
            self._record_start(subject)
            try:
                self._start_all()
                while (next_ns := self._next_world_ns()) < self._plan.duration_ns:
                    self._step(next_ns)
                self._advance(self._plan.duration_ns)
                reason = "duration"
            # Time would never go on: a ztunnel that requests without a pause has always something
            # to do now.
            except CsrFlood:
                self._record_reports()
                reason = "csr_flood"
            self._record("run_ended", None, reason=reason)

    def _record_start(self, subject: JsonObject) -> None:
        self._record(
            "run_started",
            None,
            format=HISTORY_FORMAT,
            lab=self._plan.lab,
            version=self._plan.version,
            subject={**subject, **self._backend.subject_details()},
        )

    def _start_all(self) -> None:
        self._backend.begin_time()
        nodes = [node.name for node in self._plan.nodes]

        # Guests start together, since each takes its time; elsewhere one node after the other, so
        # that the same plan has the same order of events.
        groups = [nodes] if self._backend.starts_together else [[node] for node in nodes]
        for group in groups:
            self._start(self._on(group, "ztunnel"), "start")
        self._start(self._on(nodes, "proxy"), "start")

    def _on(self, nodes: Sequence[str], kind: ProcessKind) -> list[MeshProcess]:
        return [process for node in nodes for process in self._backend.processes(node, kind)]

    # The loop

    def _next_world_ns(self) -> int:
        duration_ns = self._plan.duration_ns
        if self._backend.world_ns >= duration_ns - 1:
            # Where time passes by itself, it may have passed what was still due before the end.
            return duration_ns
        times = [
            self._schedule.next_world_ns(),
            self._probes.next_world_ns(),
            self._backend.next_world_ns(),
        ]
        return min([duration_ns, *(time_ns for time_ns in times if time_ns is not None)])

    def _step(self, next_world_ns: int) -> None:
        # The order at one world time: what is planned (faults, restarts, polls of fixes), then what
        # programs do because a time has come, and only then connections, which see all of it.
        self._advance(next_world_ns)
        self._run_schedule()
        self._backend.fire_timers()
        self._attempt_connections()

    def _advance(self, world_ns: int) -> None:
        self._backend.advance(world_ns)
        self.time_passed()
        for identity in self._record_reports():  # of requests that came while time passed
            self.settle()
            self.record_state(identity)

    def _run_schedule(self) -> None:
        next_ns = self._schedule.next_world_ns()
        if next_ns is None or next_ns > self._backend.world_ns:
            return
        while self._schedule.run_due(self, self._backend.world_ns):
            self._backend.catch_up()
        self._backend.clocks_jumped()  # they jump only where a fault begins, wakes or ends

    # Scheduled actions: see schedule.Executor

    def begin(self, fault: PlannedFault) -> None:
        """See Executor."""
        self._backend.prepare(fault)
        self._record_fault("fault_began", fault)
        self._backend.begin(fault)

    def wake(self, fault: PlannedFault) -> None:
        """See Executor."""
        self._backend.wake(fault)
        self._record_fault("node_woke", fault)

    def end(self, fault: PlannedFault) -> None:
        """See Executor."""
        wall_before_ns = self._backend.end(fault)
        self._record_fault("fault_ended", fault, wall_before_ns=wall_before_ns)

    def restart_by_fault(self, fault: PlannedFault, node: str) -> None:
        """See Executor."""
        self._backend.prepare(fault)
        self._record_fault("fault_began", fault)
        if fault.kind == "pod_restart":
            self._replace_pod(fault.identity, node)
        else:
            self.restart(node, "restart")
        self._record_fault("fault_ended", fault, wall_before_ns=None)

    def restart(self, node: str, cause: str) -> None:
        """See Executor."""
        self._restart(self._backend.processes(node, "ztunnel"), cause)

    def restart_proxies(self, node: str, cause: str) -> None:
        """See Executor."""
        for proxy in self._backend.processes(node, "proxy"):
            self._restart([proxy], cause)

    def restart_applications(self, node: str, cause: str) -> None:
        """See Executor."""
        self._record("applications_restarted", node, cause=cause)
        self._backend.restart_applications(node)

    def _restart(self, processes: Sequence[MeshProcess], cause: str) -> None:
        self._backend.stop(processes)
        for process in processes:
            self._record(f"{process.kind}_stopped", process.node, process=process.name, cause=cause)
        self._start(processes, cause)

    def _start(self, processes: Sequence[MeshProcess], cause: str) -> None:
        for process in processes:
            clocks = self._backend.start(process)
            self._forget(process)
            self._record(
                f"{process.kind}_started",
                process.node,
                clocks,
                process=process.name,
                identities=list(process.identities),
                cause=cause,
            )
        self._backend.await_ready(processes)
        for process in processes:
            self._probes.ztunnel_started(process.identities, self._backend.world_ns)
        self.settle()

    def _forget(self, process: MeshProcess) -> None:
        """What was known of it before it started."""
        for identity in process.identities:
            self._states.pop(identity, None)
        if process.kind == "ztunnel":
            self._expiry_logged_wall_ns.pop(process.node, None)

    def _replace_pod(self, identity: str, node: str) -> None:
        self._record("pod_replaced", node, identity=identity)
        self._backend.remove_pod(identity)
        self._states.pop(identity, None)
        self._backend.add_pod(identity)
        self._probes.ztunnel_started((identity,), self._backend.world_ns)
        self.settle()

    # Connections

    def _attempt_connections(self) -> None:
        next_ns = self._probes.next_world_ns()
        if next_ns is None or next_ns > self._backend.world_ns:
            return
        for source, destination in self._probes.take(self._backend.world_ns):
            self._attempt(source, destination)

    def _attempt(self, source: str, destination: str) -> None:
        error = self._backend.attempt(source, destination)
        self.settle()
        if error is not None:
            # A client only sees that its connection was closed; the reason is in its ztunnel's log.
            error = self._backend.logged_error(source) or error
        self._record(
            "connection_attempted",
            self._node_of[source],
            source=source,
            destination=destination,
            ok=error is None,
            error=error,
        )
        pair = (source, destination)
        if error is None:
            self._failing.discard(pair)
            return
        if pair not in self._failing:
            # An outage begins: what does either end report? Later in it only a request can change
            # that.
            self._failing.add(pair)
            self.record_state(source)
            self.record_state(destination)
            self.settle()
        if EXPIRED.search(error):
            self._note_expiry(pair)

    def _note_expiry(self, pair: tuple[str, str]) -> None:
        """Both ends log it: one what it found, the other the alert that it received."""
        for node in {self._node_of[identity] for identity in pair}:
            self._expiry_logged_wall_ns[node] = self._backend.clocks(node).wall_ns

    # What a backend reports: see backend.Recording

    def csr_received(self, report: CsrReport) -> None:
        """See Recording."""
        self._reports.append(report)
        if report.outcome != "taken":
            self.count_csr()

    def count_csr(self) -> None:
        """See Recording."""
        if self._flood.is_flooded_by(self._backend.world_ns):
            raise CsrFlood

    def time_passed(self) -> None:
        """See Recording."""
        self._progress(self._backend.world_ns)

    def settle(self) -> None:
        """See Recording."""
        self._backend.await_quiet()
        # Recording a state may query a process, and what it does meanwhile is reported again.
        while self._reports:
            for identity in self._record_reports():
                self.record_state(identity)
            self._backend.await_quiet()

    def _record_reports(self) -> list[str]:
        """Records what the authority reported; returns whose certificates it concerns."""
        # Requests of one moment come in the order in which threads of the programs ran. Sorted, the
        # same plan gives the same history.
        reports = sorted(self._reports, key=lambda report: report.identity)
        self._reports.clear()
        for report in reports:
            self.record_csr(report)
        return sorted({report.identity for report in reports})

    def record_csr(self, report: CsrReport) -> None:
        """See Recording."""
        identity, issued = report.identity, report.certificate
        node = self._node_of[identity]
        if report.outcome == "taken":
            self._record("csr_taken", node, report.clocks, identity=identity)
            return
        self._record(
            "csr_answered",
            node,
            report.clocks,
            identity=identity,
            outcome=report.outcome,
            serial=issued.serial if issued else None,
            not_before_wall_s=issued.not_before_wall_s if issued else None,
            not_after_wall_s=issued.not_after_wall_s if issued else None,
        )
        if issued is not None:
            self._probes.certificate_issued(
                identity,
                issued.serial,
                issued.not_before_wall_s,
                issued.not_after_wall_s,
                self._backend.world_ns,
            )

    def record_state(self, identity: str) -> None:
        """See Recording."""
        state = self._backend.certificate_state(identity)
        if state is None or state == self._states.get(identity):
            return
        self._states[identity] = state
        self._record(
            "certificate_state",
            self._node_of[identity],
            identity=identity,
            state=state.state,
            serial=state.serial,
            not_after_wall_s=state.not_after_wall_s,
        )
        if state.serial is None:
            self._probes.certificate_lost(identity, self._backend.world_ns)

    # What fixes observe: see guard.watch.View

    @property
    def world_ns(self) -> int:
        """See View."""
        return self._backend.world_ns

    def clocks(self, node: str) -> ClockReading:
        """See View."""
        return self._backend.clocks(node)

    def seen(self, node: str) -> list[ObservedProcess]:
        """See View."""
        observed = self._backend.observe(node)
        self.settle()
        return observed

    def authority_answers(self) -> bool:
        """See View."""
        return self._backend.authority_answers()

    def expiry_logged(self, node: str, since_wall_ns: int) -> bool:
        """See View."""
        # Without an entry in the log: a moment before the time in question.
        return self._expiry_logged_wall_ns.get(node, since_wall_ns - 1) >= since_wall_ns

    # Recording

    def _record_fault(self, kind: str, fault: PlannedFault, **data: Any) -> None:
        clocks = self._backend.measure(fault)
        self.settle()
        self._record(kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data)

    def _record(
        self, kind: str, node: str | None, clocks: ClockReading | None = None, **data: Any
    ) -> None:
        if clocks is None and node is not None:
            clocks = self._backend.clocks(node)
        self._append(Event.of_kind(self._backend.event_world_ns(clocks), kind, node, clocks, data))


def _identities_of(plan: Plan) -> list[str]:
    of_nodes = [identity for node in plan.nodes for identity in node.identities]
    return of_nodes + [gateway.identity for gateway in plan.gateways]
