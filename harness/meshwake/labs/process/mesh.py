"""The half of a backend that is the same wherever ztunnels run in namespaces of this kernel: the
network, the authority, ztunnels and connections.

The other half is time. Lab `process` moves virtual clocks (backend.py here); in lab `machine` time
passes by itself in a guest (machine/backend.py).
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from meshwake.authority.begin import Begun
from meshwake.authority.server import AuthorityProcess, RequestReport, spawn
from meshwake.clocks.quiescence.detector import QuiescenceDetector
from meshwake.clocks.quiescence.sockets import SocketsOfNamespace
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.guard.watch import CertificateValidity, ObservedProcess
from meshwake.labs.backend import (
    CsrReport,
    IssuedCertificate,
    MeshProcess,
    ProcessKind,
    Recording,
    ReportedCertificate,
)
from meshwake.labs.process.authority_control import AuthorityControl
from meshwake.labs.process.inpod import InPod
from meshwake.labs.process.modes import Mode
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, Network, in_namespace, listen
from meshwake.labs.process.processor import Processor
from meshwake.labs.process.traffic import EchoTraffic
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import ZtunnelProcess, await_listening, discovery_entry
from meshwake.ztunnel.ports import ISTIOD_PORT

STARTS_WITHIN_S = 60.0
LISTENING_POLL_S = 0.005
# Of each identity, an authority with a new root numbers on from here: a serial names one
# certificate of a run.
SERIALS_OF_A_ROOT = 100_000


class ProcessMesh(ABC):
    """See labs.backend.Backend, of which this is everything but time, and how clock faults begin.

    `binary` is the ztunnel, `directory` where it logs. An authority process that has `begun` is
    used; a `processor` is where everything runs.
    """

    starts_together = False
    # Kinds of faults for which the programs of a node are stopped when they begin, and run again
    # when they end. Where a kernel really sleeps it stops and resumes them itself.
    stops_for: frozenset[str] = frozenset()
    resumes_after: frozenset[str] = frozenset()

    def __init__(
        self,
        plan: Plan,
        binary: Path,
        directory: Path,
        detector: Callable[[Callable[[], bool]], QuiescenceDetector] = QuiescenceDetector,
        begun: Begun | None = None,
        processor: Processor | None = None,
    ) -> None:
        self.plan, self._binary, self._directory = plan, binary, directory
        self._begun, self._processor = begun, processor
        self._detector = detector(self._drain)
        self.pages: dict[str | None, ClockPage] = {}
        self._ztunnels: dict[str, ZtunnelProcess] = {}
        self._started: dict[str, ClockReading] = {}
        self._page_of_process: dict[int, ClockPage] = {}
        self._handshakes: list[socket.socket] = []
        self._stopped_nodes: set[str] = set()
        self._removed: dict[str, Workload] = {}  # pods that have no successor yet
        self._log_position = 0  # of the last attempt's source, when the attempt began
        self._roots = 1

    # What the other half provides

    @property
    @abstractmethod
    def world_ns(self) -> int:
        """See Backend."""

    @abstractmethod
    def new_page(self) -> ClockPage:
        """The clocks of one node."""

    @abstractmethod
    def set_first_clocks(self) -> None:
        """All pages have been made: they show the clocks of world time 0 when this returns."""

    @abstractmethod
    def new_mode(self, network: Network) -> Mode:
        """How ztunnels run."""

    @abstractmethod
    def csr_reported(self, message: RequestReport) -> None:
        """The authority reported a request: see AuthorityProcess.requests."""

    # Building

    def open(self, recording: Recording, stack: ExitStack) -> None:
        """See Backend."""
        self.recording, self._stack = recording, stack
        network = Network()
        stack.callback(network.close)
        self._make_pages(stack)
        self.authority = self._start_authority()
        self.control = AuthorityControl(self.plan, self.authority)
        if self._processor is not None:
            self._processor.bind()
            self._processor.bind(self.authority.pid)
        self._mode = self.new_mode(network)
        stack.callback(self._mode.close)
        self._workloads = self._mode.workloads
        self._specs = {spec.name: spec for spec in self._mode.specs}
        self._spec_of = {
            identity: spec for spec in self._mode.specs for identity in spec.identities
        }
        self._watch(stack)
        self._publish_workloads()
        self._traffic = EchoTraffic(self._workloads, self._mode.redirects)
        stack.callback(self._traffic.close)
        stack.callback(self._end_ztunnels)

    def _make_pages(self, stack: ExitStack) -> None:
        nodes = [node.name for node in self.plan.nodes]
        # The authority lives on one of the nodes; None is a machine of its own, which has clocks
        # too.
        for node in dict.fromkeys([*nodes, self.plan.authority_node]):
            self.pages[node] = self.new_page()
            stack.callback(self.pages[node].close)
        self.set_first_clocks()

    def _start_authority(self) -> AuthorityProcess:
        with listen(AUTHORITY_ADDRESS, ISTIOD_PORT) as listener:
            authority = spawn(
                self.pages[self.plan.authority_node].file,
                listener,
                AUTHORITY_ADDRESS,
                self._directory,
                self.plan.backdate_s,
                tuple(sorted(identity for node in self.plan.nodes for identity in node.identities)),
                (self._roots - 1) * SERIALS_OF_A_ROOT,
                self._begun,
            )
        self._begun = None
        self._stack.callback(authority.close)

        # It has no timers (authority/server.py), so no wait of it ends by a clock that is moved.
        self._detector.processes["authority"] = WatchedProcess(
            authority.pid, "authority", waits_virtually=False
        )
        return authority

    def _watch(self, stack: ExitStack) -> None:
        self._detector.watch_sockets("authority", SocketsOfNamespace("authority"))
        for spec in self._specs.values():
            self._watch_namespace(spec.name, spec.namespace, spec)
        for workload in self._workloads.values():
            self._watch_pod(workload)
        stack.callback(self._detector.close)

    def _watch_pod(self, workload: Workload) -> None:
        spec = self._spec_of[workload.identity]
        if workload.namespace != spec.namespace:
            self._watch_namespace(workload.identity, workload.namespace, spec)

    def _watch_namespace(self, name: str, namespace: int, spec: ZtunnelSpec) -> None:
        with in_namespace(namespace):
            self._detector.watch_namespace(name, spec.name)

    def _publish_workloads(self) -> None:
        if not self.plan.discovery:
            return
        entries = [discovery_entry(workload) for workload in self._workloads.values()]
        self.authority.set_workloads(entries)

    def subject_details(self) -> MutableJsonObject:
        """See Backend."""
        return {"mode": self.plan.ztunnel_mode, "way_in": self._mode.way_in}

    # Clocks

    def clocks(self, node: str) -> ClockReading:
        """See Backend."""
        return self.pages[node].get()

    def measure(self, fault: PlannedFault) -> ClockReading:
        """See Backend. The first ztunnel of the node reads them."""
        if fault.node is None:
            return self.pages[self.plan.authority_node].get()
        if fault.kind == "pod_restart":
            # Nothing happens to the clocks, so no program is woken to read them.
            return self.pages[fault.node].get()
        return self._ztunnels_on(fault.node)[0].read_clocks()

    def step_wall_clock(self, fault: PlannedFault) -> int:
        """Steps the wall clock of the fault's node as the fault wants it (a step, or the late
        correction of a pause). Returns the wall clock before, in ns."""
        clocks = self.measure(fault)
        self.recording.settle()
        stepped = clocks._replace(wall_ns=clocks.wall_ns + fault.expected_drift_ns)
        self.pages[fault.node].set(stepped)
        return clocks.wall_ns

    # ztunnels

    def processes(self, node: str, kind: ProcessKind) -> list[MeshProcess]:
        """See Backend. There are no proxies: a plan with some was refused."""
        if kind != "ztunnel":
            return []
        specs = [spec for spec in self._specs.values() if spec.node == node]
        return [MeshProcess(spec.name, spec.node, spec.identities) for spec in specs]

    def start(self, process: MeshProcess) -> ClockReading:
        """See Backend."""
        spec = self._specs[process.name]
        page = self.pages[spec.node]
        environment = dict(self._mode.environment(spec, self.authority.root_file))
        ztunnel = ZtunnelProcess(self._binary, spec, page, self._directory, environment)
        self._ztunnels[spec.name] = ztunnel
        self._page_of_process[ztunnel.watched.pid] = page
        self._detector.processes[spec.name] = ztunnel.watched
        self._started[spec.name] = page.get()
        return self._started[spec.name]

    def await_ready(self, processes: Sequence[MeshProcess]) -> None:
        """See Backend."""
        started = [self._ztunnels[process.name] for process in processes]
        await_listening(started, self._mode.ports, STARTS_WITHIN_S, LISTENING_POLL_S)
        for ztunnel in started:
            self._handshakes += self._mode.prime(ztunnel)

    def stop(self, processes: Sequence[MeshProcess]) -> None:
        """See Backend."""
        for process in processes:
            self._ztunnels.pop(process.name).end()

    def restart_applications(self, node: str) -> None:
        """See Backend: refused before the run (lab.py)."""
        raise HarnessFault("lab process has no application pods")

    def remove_pod(self, identity: str) -> None:
        """See Backend."""
        assert isinstance(self._mode, InPod)
        self._traffic.pod_removed(identity)
        self._removed[identity] = self._mode.remove_pod(identity)
        self._publish_workloads()
        self.recording.settle()
        self._detector.forget_namespace(identity)

    def add_pod(self, identity: str) -> None:
        """See Backend."""
        assert isinstance(self._mode, InPod)
        before = self._removed.pop(identity)
        workload = self._mode.add_pod(identity, before.node, before.life + 1)
        self._watch_pod(workload)
        self._traffic.pod_added(identity)
        self._publish_workloads()

    def running(self) -> Iterator[tuple[str, WatchedProcess]]:
        """The ztunnels that are not stopped: their node, and the process."""
        for ztunnel in self._ztunnels.values():
            watched = ztunnel.watched
            if not watched.stopped:
                yield ztunnel.spec.node, watched

    # Faults

    def prepare(self, fault: PlannedFault) -> None:
        """See Backend. First stopped, then measured: to be measured wakes a program, and a timer
        that is due at this very moment would still fire before the fault."""
        if fault.node is None:
            return
        if fault.kind == "restart":
            self.stop_processes(fault.node)
        elif fault.kind in self.stops_for:
            self.stop_node(fault.node)

    def end(self, fault: PlannedFault) -> int | None:
        """See Backend."""
        if fault.node is None:
            self.set_authority_mode()
        elif fault.kind in self.resumes_after:
            self.resume_node(fault.node)
        elif fault.kind in ("step", "pause"):
            return self.step_wall_clock(fault)
        return None

    def stop_processes(self, node: str) -> None:
        """Stops the ztunnels of `node`, as a freezer does."""
        for ztunnel in self._ztunnels_on(node):
            ztunnel.watched.stop()

    def stop_node(self, node: str) -> None:
        """The programs of `node` stop; so does the authority if it is there."""
        self._stopped_nodes.add(node)
        self.stop_processes(node)
        self.set_authority_mode()

    def resume_node(self, node: str) -> None:
        """The reverse of `stop_node`. What was overdue has been done when this returns."""
        # Pages already show the clocks before any jump at this moment: a correction of the wall
        # clock that is due when the node wakes comes after it, in a step of its own.
        self._stopped_nodes.discard(node)

        # First the authority: a ztunnel requests what is overdue the moment it runs, and on a busy
        # machine it was refused now and then by an authority that was still set to refuse.
        self.set_authority_mode()
        for ztunnel in self._ztunnels_on(node):
            ztunnel.watched.resume()
        self.recording.settle()

    def _end_ztunnels(self) -> None:
        for ztunnel in self._ztunnels.values():
            ztunnel.end()

    def _ztunnels_on(self, node: str) -> list[ZtunnelProcess]:
        return [ztunnel for ztunnel in self._ztunnels.values() if ztunnel.spec.node == node]

    # The authority

    def set_authority_mode(self) -> None:
        """The authority behaves as the plan has it now."""
        self.control.apply(self.world_ns, self._stopped_nodes)

    def authority_answers(self) -> bool:
        """See Backend."""
        return self.control.mode != "ca_outage"

    def change_root(self) -> None:
        """The authority ends, and one with another root replaces it; every ztunnel's root file has
        the new one."""
        self.authority.close()
        self._detector.processes.pop("authority").close()
        self._roots += 1
        self.authority = self._start_authority()
        self.control = AuthorityControl(self.plan, self.authority)
        self._publish_workloads()
        self.set_authority_mode()

    # Connections

    def attempt(self, source: str, destination: str) -> str | None:
        """See Backend."""
        self._log_position = self._ztunnel_of(source).log_size()
        return self._traffic.attempt(source, destination, self._is_quiet)

    def logged_error(self, source: str) -> str | None:
        """See Backend."""
        return next(iter(self._ztunnel_of(source).errors_since(self._log_position)), None)

    def _ztunnel_of(self, identity: str) -> ZtunnelProcess:
        return self._ztunnels[self._spec_of[identity].name]

    # State

    @property
    def looks(self) -> int:
        """How often it was checked whether everything is quiet: the cost of the run."""
        return self._detector.polls

    def await_quiet(self) -> None:
        """See Backend."""
        self._detector.wait_until_quiescent(self.monotonic_now_ns)
        if self._handshakes:
            for handshake in self._handshakes:
                handshake.close()
            self._handshakes.clear()
            self._detector.wait_until_quiescent(self.monotonic_now_ns)

    def _is_quiet(self) -> bool:
        return self._detector.is_quiescent(self.monotonic_now_ns)

    def monotonic_now_ns(self, watched: WatchedProcess) -> int:
        """The monotonic clock of a process; 0 for one that is on the kernel's own."""
        page = self._page_of_process.get(watched.pid)
        return page.get().monotonic_ns if page else 0

    def _drain(self) -> bool:
        """Takes in what the authority, handshakes and echo servers have; whether there was any."""
        messages = self.authority.requests()
        for message in messages:
            self.csr_reported(message)

        # All are read, also when one of them had something.
        read = [_discard(handshake) for handshake in self._handshakes]
        served = self._traffic.serve()
        return served or any(read) or bool(messages)

    def certificate_state(self, identity: str) -> ReportedCertificate | None:
        """See Backend."""
        name = self._spec_of[identity].name
        ztunnel = self._ztunnels.get(name)
        if ztunnel is None:
            return None

        # One that is stopped does not answer, and the run would wait for it.
        if ztunnel.watched.stopped:
            return None
        return ztunnel.certificate_state(identity)

    def observe(self, node: str) -> list[ObservedProcess]:
        """See Backend: what each ztunnel reports of its certificates, now."""
        observed = []
        for ztunnel in self._ztunnels_on(node):
            held = tuple(CertificateValidity(*validity) for validity in ztunnel.validities())
            self.recording.settle()
            started = self._started[ztunnel.spec.name]
            observed.append(ObservedProcess(ztunnel.spec.name, "ztunnel", started, held))
        return observed


def report_of(message: RequestReport, clocks: ClockReading | None = None) -> CsrReport:
    """What AuthorityProcess.requests returned, as the driver wants it."""
    identity = message["identity"]
    if "taken" in message:
        return CsrReport(identity, "taken", clocks=clocks)
    issued = None
    if message["outcome"] == "issued":
        serial = message["serial"]
        not_before_wall_s = message["not_before_wall_s"]
        not_after_wall_s = message["not_after_wall_s"]
        # They are None only of what was not issued.
        assert serial is not None
        assert not_before_wall_s is not None
        assert not_after_wall_s is not None
        issued = IssuedCertificate(serial, not_before_wall_s, not_after_wall_s)
    return CsrReport(identity, message["outcome"], issued, clocks)


def _discard(handshake: socket.socket) -> bool:
    """Reads what ztunnel answers to a handshake that was only to wake it: unread it would look as
    if something were under way."""
    with suppress(BlockingIOError, OSError):
        return bool(handshake.recv(65536))
    return False
