"""The world of one run: nodes with clocks, ztunnels, the authority, and world time, which moves
when all is quiet.

One loop: when nothing is left to do by itself, world time goes to the next thing that anybody waits
for (a fault of the plan, a timer of a ztunnel, a connection to attempt). There the faults happen,
then the timers, then connections.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from meshwake.authority.begin import Begun
from meshwake.authority.server import AuthorityProcess, Mode, State, spawn
from meshwake.clocks.quiescence.detector import QuiescenceDetector
from meshwake.clocks.quiescence.sockets import SocketsOfNamespace
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage
from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessFault, SubjectFailed
from meshwake.core.history import HISTORY_FORMAT, Event
from meshwake.core.plan import ASLEEP_FAULTS, Plan, PlannedFault
from meshwake.guard.watch import Held, Seen
from meshwake.labs.agenda import Agenda
from meshwake.labs.limits import FloodGuard
from meshwake.labs.probes import ProbeSchedule
from meshwake.labs.process.inpod import InPod
from meshwake.labs.process.modes import Mode as ZtunnelMode
from meshwake.labs.process.modes import mode_of
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, Network, inside, listen
from meshwake.labs.process.places import Home, Place
from meshwake.labs.process.processor import Processor
from meshwake.labs.process.traffic import Traffic
from meshwake.labs.process.ztunnel import CertificateState, Ztunnel, workload
from meshwake.ztunnel.logs import EXPIRED
from meshwake.ztunnel.ports import ISTIOD_PORT

# Ahead of any real monotonic clock, so that deadlines which programs hand to the kernel as absolute
# times never come: behind it they would end at once, and the program would spin.
MONOTONIC_START_NS = 10**18
STARTS_WITHIN_S = 60.0
KICKS_AT_ONE_TIME_MAX = 10_000
# What ztunnel logs of a certificate that ran out, in every release; see the manifest of
# log-watchdog.
# A ztunnel that watches its root file looks every half second of real time, and takes a change in
# when the file has been left alone for two seconds by its clock.
FILE_LEFT_ALONE_NS = 2 * NS_PER_S
WATCHERS_LOOK_WITHIN_S = 1.5
# Of each identity, an authority with a new root numbers on from here: a serial names one
# certificate of a run.
SERIALS_OF_A_ROOT = 100_000
_MODE_BY_PRECEDENCE: tuple[Mode, ...] = ("ca_hang", "ca_outage", "token_expired", "ca_slow")


class CsrFlood(Exception):
    """Requests came without end and without time passing; the run ends here, on purpose."""


class World:
    """Everything of one run. `tell` takes each event as it happens, `progress` world time now and
    then. An authority that has `begun` is used; a `processor` is where it all runs."""

    def __init__(
        self,
        plan: Plan,
        ztunnel: Path,
        directory: Path,
        tell: Callable[[Event], None],
        progress: Callable[[int], None],
        begun: Begun | None = None,
        processor: Processor | None = None,
    ) -> None:
        self.plan, self._ztunnel, self._directory = plan, ztunnel, directory
        self._tell, self._progress = tell, progress
        self._begun, self._processor = begun, processor
        self.now_world_ns = 0
        self.jumps = 0  # how often time went on
        self._clocks = clocks_of(plan, MONOTONIC_START_NS)
        self._probes = ProbeSchedule(plan, self._clocks)
        self._agenda = Agenda(plan, self._clocks)
        self._started: dict[str, ClockReading] = {}
        self._expiry_logged_wall_ns: dict[str, int] = {}
        self._requests: list[dict[str, Any]] = []
        self._answers_world_ns: dict[
            int, int
        ] = {}  # what a slow authority has taken, and when it answers
        self._flood = FloodGuard(sum(len(node.identities) for node in plan.nodes))
        self._states: dict[str, CertificateState | None] = {}
        self._failing: set[tuple[str, str]] = set()
        self._knocks: list[socket.socket] = []
        self._stopped_nodes: set[str] = set()
        self._authority_mode: Mode = "up"
        self._authority_state = State()
        self._ztunnels: dict[str, Ztunnel] = {}
        self._page_of_process: dict[int, ClockPage] = {}
        self._roots = 1
        self._root_taken_in_world_ns: int | None = None
        self._stillness = QuiescenceDetector(self._drain)

    def run(self, subject: dict[str, Any]) -> None:
        """The whole plan, from run_started to run_ended. What it started has ended when it returns
        or raises."""
        with ExitStack() as stack:
            self._build(stack)
            self._record(
                "run_started",
                None,
                None,
                format=HISTORY_FORMAT,
                lab="process",
                version=self.plan.version,
                subject=subject | {"mode": self.plan.ztunnel_mode, "way_in": self._mode.way_in},
            )
            try:
                self._set_authority_mode()  # it may be away from the beginning
                for node in self.plan.nodes:
                    self._start_ztunnels(node.name, "start")
                while (next_ns := self._next_world_ns()) < self.plan.duration_ns:
                    self._move_to(next_ns)
                    self._let_watchers_look()
                    self._do_agenda()
                    self._answer_late()
                    self._fire_timers()
                    self._attempt_connections()
                self._move_to(self.plan.duration_ns)
                self._record("run_ended", None, None, reason="duration")
            except CsrFlood:
                self._record_requests()
                self._record("run_ended", None, None, reason="csr_flood")

    @property
    def looks(self) -> int:
        """How often it was looked whether the world is quiet: the cost of the run."""
        return self._stillness.polls

    # Building

    def _build(self, stack: ExitStack) -> None:
        self._stack = stack
        network = Network()
        stack.callback(network.close)
        self._pages: dict[str | None, ClockPage] = {}
        for name in dict.fromkeys(
            (*(node.name for node in self.plan.nodes), self.plan.authority_node)
        ):
            self._pages[name] = self._new_page()
            stack.callback(self._pages[name].close)
        self._set_pages(before_jumps=True)
        self._authority = self._start_authority(stack)
        if self._processor is not None:
            self._processor.bind()
            self._processor.bind(self._authority.pid)
        self._mode = self._new_mode(network)
        stack.callback(self._mode.close)
        self._places = self._mode.places
        self._homes = {home.name: home for home in self._mode.homes}
        self._home_of = {
            identity: home for home in self._mode.homes for identity in home.identities
        }
        self._watch(stack)
        self._tell_workloads()
        self._traffic = Traffic(self._places, self._mode.redirects)
        stack.callback(self._traffic.close)
        stack.callback(self._end_ztunnels)

    def _new_page(self) -> ClockPage:
        """The clocks of a node. (Lab `machine` gives the kernel's own.)"""
        return ClockPage("fixed")

    def _new_mode(self, network: Network) -> ZtunnelMode:
        """How its ztunnels run. (Lab `machine` has one of its own.)"""
        return mode_of(self.plan, network, self._directory)

    def _start_authority(self, stack: ExitStack) -> AuthorityProcess:
        with listen(AUTHORITY_ADDRESS, ISTIOD_PORT) as listener:
            authority = spawn(
                self._pages[self.plan.authority_node].file,
                listener,
                AUTHORITY_ADDRESS,
                self._directory,
                self.plan.backdate_s,
                tuple(sorted(identity for node in self.plan.nodes for identity in node.identities)),
                (self._roots - 1) * SERIALS_OF_A_ROOT,
                self._begun,
            )
        self._begun = None
        stack.callback(authority.close)
        return authority

    def _watch(self, stack: ExitStack) -> None:
        self._stillness.processes["authority"] = WatchedProcess(
            self._authority.pid, "authority", waits_virtually=False
        )
        self._stillness.watch_sockets("authority", SocketsOfNamespace("authority"))
        for home in self._homes.values():
            self._watch_namespace(home.name, home.namespace, home)
        for place in self._places.values():
            self._watch_pod(place)
        stack.callback(self._stillness.close)

    def _watch_pod(self, place: Place) -> None:
        home = self._home_of[place.identity]
        if place.namespace != home.namespace:
            self._watch_namespace(place.identity, place.namespace, home)

    def _watch_namespace(self, name: str, namespace: int, home: Home) -> None:
        with inside(namespace):
            self._stillness.watch_namespace(name, home.name)

    def _tell_workloads(self) -> None:
        if self.plan.discovery:
            self._authority.set_workloads([workload(place) for place in self._places.values()])

    # ztunnels

    def _start_ztunnels(self, node: str, cause: str) -> None:
        started = [
            self._start_ztunnel(home, cause) for home in self._homes.values() if home.node == node
        ]
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not all(ztunnel.listening(self._mode.ports) for ztunnel in started):
            for ztunnel in started:
                ztunnel.check_alive()
            if time.monotonic() > give_up:
                raise SubjectFailed(
                    f"the ztunnels of node {node} did not listen within "
                    f"{STARTS_WITHIN_S:.0f} s; see {self._directory}"
                )
            time.sleep(0.005)
        for ztunnel in started:
            self._probes.ztunnel_started(ztunnel.home.identities, self.now_world_ns)
            self._knocks += self._mode.welcome(ztunnel)
        self._settle()

    def _start_ztunnel(self, home: Home, cause: str) -> Ztunnel:
        told = dict(self._mode.environment(home, self._authority.root_file))
        ztunnel = Ztunnel(self._ztunnel, home, self._pages[home.node], self._directory, told)
        self._ztunnels[home.name] = ztunnel
        self._page_of_process[ztunnel.watched.pid] = self._pages[home.node]
        self._stillness.processes[home.name] = ztunnel.watched
        for identity in home.identities:
            self._states.pop(identity, None)
        self._started[home.name] = self._pages[home.node].get()
        self._expiry_logged_wall_ns.pop(home.node, None)
        self._record(
            "ztunnel_started",
            home.node,
            process=home.name,
            identities=list(home.identities),
            cause=cause,
        )
        return ztunnel

    def restart(self, node: str, cause: str) -> None:
        """See agenda.Keeper."""
        for ztunnel in self._ztunnels_on(node):
            self._ztunnels.pop(ztunnel.home.name).end()
            self._record("ztunnel_stopped", node, process=ztunnel.home.name, cause=cause)
        self._start_ztunnels(node, cause)

    def restart_applications(self, node: str, cause: str) -> None:
        """See agenda.Keeper: refused before the run (lab.py)."""
        raise HarnessFault(f"{cause}: lab process has no application pods")

    def restart_proxies(self, node: str, cause: str) -> None:
        """See agenda.Keeper: there are none, and a plan with some was refused before the run
        (lab.py)."""

    def _end_ztunnels(self) -> None:
        for ztunnel in self._ztunnels.values():
            ztunnel.end()

    def _ztunnels_on(self, node: str) -> list[Ztunnel]:
        return [ztunnel for ztunnel in self._ztunnels.values() if ztunnel.home.node == node]

    # Time

    def _next_world_ns(self) -> int:
        candidates = [self.plan.duration_ns]
        if (agenda_ns := self._agenda.next_world_ns()) is not None:
            candidates.append(agenda_ns)
        if (probe_ns := self._probes.next_world_ns()) is not None:
            candidates.append(probe_ns)
        candidates += self._answers_world_ns.values()
        for ztunnel in self._ztunnels.values():
            watched = ztunnel.watched
            if not watched.stopped and (due_ns := watched.due_monotonic_ns()) is not None:
                clock = self._clocks[ztunnel.home.node]
                candidates.append(clock.world_ns_at_monotonic(due_ns, self.now_world_ns))
        return min(candidates)

    def _move_to(self, world_ns: int) -> None:
        self.jumps += world_ns > self.now_world_ns
        self.now_world_ns = max(world_ns, self.now_world_ns)
        self._set_pages(before_jumps=True)
        self._progress(self.now_world_ns)

    def _set_pages(self, before_jumps: bool) -> None:
        for node, page in self._pages.items():
            clock = self._clocks[node]
            page.set(
                clock.reading_before(self.now_world_ns)
                if before_jumps
                else clock.reading(self.now_world_ns)
            )

    def _fire_timers(self) -> None:
        for _ in range(KICKS_AT_ONE_TIME_MAX):
            due = [ztunnel.watched for ztunnel in self._ztunnels.values() if self._is_due(ztunnel)]
            if not due:
                return
            for watched in due:
                watched.wake(self._monotonic_now_ns(watched))
            self._settle()
        names = ", ".join(watched.name for watched in due)
        raise HarnessFault(f"{names}: a timer is due again and again while its clock stands still")

    def _answer_late(self) -> None:
        """A slow authority answers what it took long enough ago."""
        due = [
            taken
            for taken, world_ns in self._answers_world_ns.items()
            if world_ns <= self.now_world_ns
        ]
        for taken in due:
            del self._answers_world_ns[taken]
        if due:
            self._authority.answer(due)
            self._settle()

    def _is_due(self, ztunnel: Ztunnel) -> bool:
        watched = ztunnel.watched
        if watched.stopped or (due_ns := watched.due_monotonic_ns()) is None:
            return False
        return due_ns <= self._pages[ztunnel.home.node].get().monotonic_ns

    def _settle(self) -> None:
        """Lets everything happen that happens by itself at this moment, and records it."""
        self._stillness.wait_until_quiescent(self._monotonic_now_ns)
        while self._requests or self._knocks:
            for knock in self._knocks:
                knock.close()
            self._knocks.clear()
            for identity in self._record_requests():
                self._record_state(identity)
            self._stillness.wait_until_quiescent(self._monotonic_now_ns)

    def _monotonic_now_ns(self, watched: WatchedProcess) -> int:
        page = self._page_of_process.get(watched.pid)
        return page.get().monotonic_ns if page else 0

    def _drain(self) -> bool:
        requests = self._authority.requests()
        for request in requests:
            self._requests.append(request)
            if "taken" not in request and self._flood.is_flooded_by(self.now_world_ns):
                raise CsrFlood
        knocked = [_swallow(knock) for knock in self._knocks]
        return self._traffic.serve() or any(knocked) or bool(requests)

    # Faults

    def _do_agenda(self) -> None:
        next_ns = self._agenda.next_world_ns()
        if next_ns is None or next_ns > self.now_world_ns:
            return  # clocks jump only where a fault begins, wakes or ends
        while self._agenda.keep_due(self, self.now_world_ns):
            pass  # what was overdue has been done: whoever is resumed is waited for
        self._set_pages(before_jumps=False)

    def restart_by_fault(self, fault: PlannedFault, node: str) -> None:
        """See agenda.Keeper."""
        if fault.identity is None:
            for ztunnel in self._ztunnels_on(node):
                ztunnel.watched.stop()  # as in `begin`: a timer due at this very moment comes after the fault
            self._record_fault("fault_began", fault)
            self.restart(node, "restart")
            self._record_fault("fault_ended", fault, wall_before_ns=None)
            return
        clocks = self._pages[node].get()  # nothing happens to them, so nobody is woken to tell them
        self._record("fault_began", node, clocks, fault=fault.index, fault_kind=fault.kind)
        self._replace_pod(fault.identity, node)
        self._record(
            "fault_ended",
            node,
            clocks,
            fault=fault.index,
            fault_kind=fault.kind,
            wall_before_ns=None,
        )

    def _replace_pod(self, identity: str, node: str) -> None:
        """The pod of `identity` goes, and everybody hears of it; then another one comes."""
        assert isinstance(self._mode, InPod)
        self._record("pod_replaced", node, identity=identity)
        self._traffic.gone(identity)
        life = self._places[identity].life + 1
        self._mode.remove_pod(identity)
        self._tell_workloads()
        self._settle()
        self._stillness.forget_namespace(identity)
        self._states.pop(identity, None)
        place = self._mode.add_pod(identity, node, life)
        self._watch_pod(place)
        self._traffic.came(identity)
        self._probes.ztunnel_started((identity,), self.now_world_ns)
        self._tell_workloads()
        self._settle()

    def begin(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        if fault.node is not None and fault.kind in (*ASLEEP_FAULTS, "freeze"):
            # First stopped, then measured: to be measured wakes a program, and a timer that is due
            # at this very moment would still fire before the fault.
            self._stop_node(fault.node)
        self._record_fault("fault_began", fault)
        if fault.kind == "ca_root_change":
            self._change_root()
        if fault.node is None:
            self._set_authority_mode()

    def wake(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        assert fault.node is not None
        self._resume_node(fault.node)
        self._record_fault("node_woke", fault)

    def end(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        wall_before_ns = None
        if fault.node is None:
            self._set_authority_mode()
        elif fault.kind in ("suspend", "freeze"):
            self._resume_node(fault.node)
        elif fault.kind in ("step", "pause"):
            clocks = self._measure(fault.node)
            wall_before_ns = clocks.wall_ns
            by_ns = fault.by_wall_ns if fault.kind == "step" else fault.corrected_by_ns
            self._pages[fault.node].set(clocks._replace(wall_ns=wall_before_ns + by_ns))
        self._record_fault("fault_ended", fault, wall_before_ns=wall_before_ns)

    def _change_root(self) -> None:
        """The authority ends, and one with another root takes its place; every ztunnel's root file
        has the new one."""
        self._settle()
        self._authority.close()
        self._stillness.processes.pop("authority").close()
        self._roots += 1
        self._authority = self._start_authority(self._stack)
        self._stillness.processes["authority"] = WatchedProcess(
            self._authority.pid, "authority", waits_virtually=False
        )
        self._authority_state = State()
        self._answers_world_ns.clear()  # lost with the authority that had taken them
        self._tell_workloads()
        self._set_authority_mode()
        self._root_taken_in_world_ns = self.now_world_ns + FILE_LEFT_ALONE_NS
        self._settle()

    def _let_watchers_look(self) -> None:
        """Once the new root file has lain there for long enough by the clocks, it is given the real
        time in which those that watch it notice."""
        if (
            self._root_taken_in_world_ns is not None
            and self.now_world_ns >= self._root_taken_in_world_ns
        ):
            self._root_taken_in_world_ns = None
            time.sleep(WATCHERS_LOOK_WITHIN_S)
            self._settle()

    def _stop_node(self, node: str) -> None:
        self._stopped_nodes.add(node)
        for ztunnel in self._ztunnels_on(node):
            ztunnel.watched.stop()
        self._set_authority_mode()

    def _resume_node(self, node: str) -> None:
        # The page already shows the clocks before any jump at this moment: a correction of the wall
        # clock that is due at the moment of waking comes after it, in a step of its own.
        self._stopped_nodes.discard(node)
        # First the authority: a ztunnel asks for what is overdue the moment it runs, and on a busy
        # machine it was refused now and then by an authority that was still told to be away.
        self._set_authority_mode()
        for ztunnel in self._ztunnels_on(node):
            ztunnel.watched.resume()
        self._settle()

    def _set_authority_mode(self) -> None:
        active = {
            fault.kind
            for fault in self.plan.faults_on(None)
            if fault.at_world_ns <= self.now_world_ns < fault.ends_world_ns
        }
        if self.plan.authority_node in self._stopped_nodes:
            # Nobody is there to accept a request, not even one that would never be answered. What a
            # node sees of a machine asleep is a time-out; here it is a refusal, at once.
            active = {"ca_outage"}
        self._authority_mode = next((mode for mode in _MODE_BY_PRECEDENCE if mode in active), "up")
        self._authority.set_mode(self._authority_mode)
        state = State(**self.plan.authority_at(self.now_world_ns)._asdict())
        if state != self._authority_state:
            self._authority_state = state
            self._authority.set_state(state)

    def _measure(self, node: str) -> ClockReading:
        """The clocks of a node as the first of its ztunnels sees them, read inside it."""
        clocks = self._ztunnels_on(node)[0].read_clocks()
        self._settle()
        return clocks

    def _record_fault(self, kind: str, fault: PlannedFault, **data: Any) -> None:
        clocks = (
            self._pages[self.plan.authority_node].get()
            if fault.node is None
            else self._measure(fault.node)
        )
        self._record(kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data)

    # Connections

    def _attempt_connections(self) -> None:
        if (next_ns := self._probes.next_world_ns()) is None or next_ns > self.now_world_ns:
            return
        for source, destination in self._probes.take(self.now_world_ns):
            ztunnel = self._ztunnel_of(source)
            logged = ztunnel.log_size()
            error = self._traffic.attempt(source, destination, self._is_quiet)
            self._settle()
            if error is not None:
                error = next(iter(ztunnel.errors_since(logged)), error)
            node = self._places[source].node
            self._record(
                "connection_attempted",
                node,
                source=source,
                destination=destination,
                ok=error is None,
                error=error,
            )
            if error is not None and (source, destination) not in self._failing:
                # An outage begins: what do both ends say of themselves? Later in it only a request
                # can change that.
                self._record_state(source)
                self._record_state(destination)
                self._settle()
            if error is not None and EXPIRED.search(error):
                for name in {node, self._places[destination].node}:
                    self._expiry_logged_wall_ns[name] = self._pages[name].get().wall_ns
            (self._failing.discard if error is None else self._failing.add)((source, destination))

    def _ztunnel_of(self, identity: str) -> Ztunnel:
        return self._ztunnels[self._home_of[identity].name]

    def _is_quiet(self) -> bool:
        return self._stillness.is_quiescent(self._monotonic_now_ns)

    # What a fix sees: see fixes.watch.View

    @property
    def world_ns(self) -> int:
        """See View."""
        return self.now_world_ns

    def clocks(self, node: str) -> ClockReading:
        """See View."""
        return self._pages[node].get()

    def seen(self, node: str) -> list[Seen]:
        """See View. What each ztunnel itself says of its certificates, now."""
        found = []
        for ztunnel in self._ztunnels_on(node):
            held = tuple(Held(*validity) for validity in ztunnel.validities())
            self._settle()
            found.append(Seen(ztunnel.home.name, "ztunnel", self._started[ztunnel.home.name], held))
        return found

    def authority_answers(self) -> bool:
        """See View."""
        return self._authority_mode != "ca_outage"

    def expiry_logged(self, node: str, since_wall_ns: int) -> bool:
        """See View."""
        return self._expiry_logged_wall_ns.get(node, since_wall_ns - 1) >= since_wall_ns

    # Recording

    def _record(
        self, kind: str, node: str | None, clocks: ClockReading | None = None, **data: Any
    ) -> None:
        if clocks is None and node is not None:
            clocks = self._pages[node].get()
        self._tell(Event(self.now_world_ns, kind, node, clocks, data))

    def _record_requests(self) -> list[str]:
        """Records what the authority was asked, in an order that does not depend on which packet
        came first; returns whose certificates it concerns."""
        requests = sorted(self._requests, key=lambda request: str(request["identity"]))
        self._requests.clear()
        for request in requests:
            identity = request["identity"]
            if "taken" in request:
                self._record("csr_taken", self._places[identity].node, identity=identity)
                self._answers_world_ns[request["taken"]] = self._answer_world_ns()
                continue
            self._record("csr_answered", self._places[identity].node, **request)
            if request["outcome"] == "issued":
                self._probes.certificate_issued(
                    identity,
                    request["serial"],
                    request["not_before_wall_s"],
                    request["not_after_wall_s"],
                    self.now_world_ns,
                )
        return sorted({request["identity"] for request in requests})

    def _answer_world_ns(self) -> int:
        """When the slow authority answers what it takes now."""
        clock = self._clocks[self.plan.authority_node]
        due_ns = clock.reading(self.now_world_ns).monotonic_ns + self.plan.answers_after_ns(
            self.now_world_ns
        )
        return clock.world_ns_at_monotonic(due_ns, self.now_world_ns)

    def _record_state(self, identity: str) -> None:
        """Asks ztunnel what it holds, and records it when that is new."""
        ztunnel = self._ztunnels.get(self._home_of[identity].name)
        if ztunnel is None or ztunnel.watched.stopped:
            return
        state = ztunnel.certificate_state(identity)
        if state == self._states.get(identity, None) or state is None:
            return
        self._states[identity] = state
        self._record(
            "certificate_state",
            self._places[identity].node,
            identity=identity,
            state=state.state,
            serial=state.serial,
            not_after_wall_s=state.not_after_wall_s,
        )
        if state.serial is None:
            self._probes.certificate_lost(identity, self.now_world_ns)


def _swallow(knock: socket.socket) -> bool:
    """Takes what ztunnel answers to a knock; nobody needs it, but unread it would look like
    something under way."""
    with suppress(BlockingIOError, OSError):
        return bool(knock.recv(65536))
    return False
