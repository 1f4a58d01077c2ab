"""The model of one run, as the driver's backend: processes that renew, the authority, and their
timers.

Timers lie in simpy's queue, in integer nanoseconds of world time. All clocks are known in advance
(clocks/virtual.py), so a timer of a node becomes one moment of world time: when its monotonic clock
will have reached the due time and its processes run. Within one moment timers fire first, then
processes that have just started report their state; of two timers the one that was set first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import IntEnum
from random import Random
from typing import Any

import simpy

from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.fixes import patch_of
from meshwake.guard.watch import CertificateValidity, ObservedProcess
from meshwake.labs.backend import (
    CsrReport,
    IssuedCertificate,
    MeshProcess,
    ProcessKind,
    Recording,
    ReportedCertificate,
    processes_of,
)
from meshwake.labs.limits import CSR_FLOOD_WINDOW_NS
from meshwake.labs.model.authority import Answer, ModelAuthority
from meshwake.labs.model.proxy import Proxy
from meshwake.labs.model.timing import Due
from meshwake.labs.model.tokens import Tokens
from meshwake.labs.model.traffic import connection_error
from meshwake.labs.model.ztunnel import BEHAVIOURS, ModelZtunnel


class Priority(IntEnum):
    """The order within one world time."""

    TIMERS = 0
    REPORTS = 1


class _Moment(simpy.Event):
    """simpy's Timeout, with a priority of ours."""

    def __init__(
        self, env: simpy.Environment, world_ns: int, priority: Priority, happen: Callable[[], None]
    ) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.callbacks.append(lambda event: happen())

        # simpy compares priorities only; that these are not its own two does not matter to it.
        env.schedule(self, priority, world_ns - env.now)  # type: ignore[arg-type]


class ModelBackend:
    """See labs.backend.Backend. Nothing takes time, and nothing happens by itself but timers."""

    flood_window_ns = CSR_FLOOD_WINDOW_NS
    starts_together = False

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.timeline = clocks_of(plan)
        self.world_ns = 0
        self._env = simpy.Environment(0)
        self._authority = ModelAuthority(plan, self.timeline[plan.authority_node])
        self._tokens = Tokens(plan.token_s, self.timeline, plan.authority_node)
        self._behaviour = BEHAVIOURS[plan.behaviour_class]
        self._timing = patch_of(plan) or "as-released"

        # What runs, by name; what each identity's process is called, and where it is.
        self._running: dict[str, ModelZtunnel | Proxy] = {}
        self._started_ns: dict[str, int] = {}
        self._process_of = {
            identity: process.name
            for process in processes_of(self._plan)
            for identity in process.identities
        }
        self._node_of = {
            identity: process.node
            for process in processes_of(self._plan)
            for identity in process.identities
        }
        self._starts = 0  # of ztunnels; seeds their chance
        self._begun = False

        # Which timer of an identity counts: every new one makes those before it void.
        self._armed: defaultdict[str, int] = defaultdict(int)

        # By how much faults have stepped a node's wall clock at one moment.
        self._stepped_ns: defaultdict[tuple[str | None, int], int] = defaultdict(int)

    def open(self, recording: Recording, stack: ExitStack) -> None:
        """See Backend."""
        self._recording = recording

    def subject_details(self) -> MutableJsonObject:
        """See Backend."""
        return {}

    # Time

    def begin_time(self) -> None:
        """See Backend: it is 0 already."""

    def next_world_ns(self) -> int | None:
        """See Backend."""
        due_ns = self._env.peek()  # infinity when the queue is empty
        return None if due_ns == simpy.core.Infinity else int(due_ns)

    def advance(self, world_ns: int) -> None:
        """See Backend."""
        self._begun = True
        self.world_ns = world_ns

    def fire_timers(self) -> None:
        """See Backend."""
        while self._env.peek() <= self.world_ns:
            self._env.step()

    def catch_up(self) -> None:
        """See Backend."""
        self.fire_timers()

    def clocks_jumped(self) -> None:
        """See Backend: each reading says whether it is one before the jumps of its moment."""

    def event_world_ns(self, clocks: ClockReading | None) -> int:
        """See Backend."""
        return self.world_ns

    def await_quiet(self) -> None:
        """See Backend: it always is."""

    def _at(
        self, world_ns: int, priority: Priority, happen: Callable[..., None], *about: Any
    ) -> None:
        if world_ns < self._plan.duration_ns:
            _Moment(self._env, world_ns, priority, lambda: happen(*about))

    # Clocks

    def clocks(self, node: str) -> ClockReading:
        """See Backend."""
        return self.timeline[node].reading(self.world_ns)

    def measure(self, fault: PlannedFault) -> ClockReading:
        """See Backend. Several faults may happen at this one moment: a wall clock that two of them
        step shows the first step before the second."""
        if fault.kind in ("restart", "pod_restart"):
            return self.timeline[fault.node].reading(self.world_ns)
        node = self._plan.authority_node if fault.node is None else fault.node
        clocks = self.timeline[node].reading_before(self.world_ns)
        return clocks._replace(wall_ns=clocks.wall_ns + self._stepped_ns[node, self.world_ns])

    # Processes

    def processes(self, node: str, kind: ProcessKind) -> list[MeshProcess]:
        """See Backend. A node's ztunnel is called as the node is; gateways have names of their
        own."""
        wanted = (node, kind)
        every = processes_of(self._plan)
        return [process for process in every if (process.node, process.kind) == wanted]

    def start(self, process: MeshProcess) -> ClockReading:
        """See Backend."""
        clock = self.timeline[process.node]
        base = clock.reading(self.world_ns) if self._begun else clock.reading_before(0)
        self._running[process.name] = self._made(process, base)
        self._started_ns[process.name] = self.world_ns
        return base

    def _made(self, process: MeshProcess, base: ClockReading) -> ModelZtunnel | Proxy:
        if process.kind == "proxy":
            gateway = next(each for each in self._plan.gateways if each.name == process.name)
            return Proxy(gateway.identity, gateway.lifetime_s, base)
        random = Random(f"{self._plan.seed} {process.node} {self._starts}")
        self._starts += 1
        return ModelZtunnel(
            process.identities, self._behaviour, self._plan.lifetime_s, base, random, self._timing
        )

    def await_ready(self, processes: Sequence[MeshProcess]) -> None:
        """See Backend: the first requests are made with the timers of this moment."""
        for process in processes:
            running = self._running[process.name]
            self._tokens.pod_started(process.name, process.node, self.world_ns)
            for identity in running.states:
                self._request_at(Due(running.base.monotonic_ns), identity)
            self._at(self.world_ns, Priority.REPORTS, self._record_states, process.name)

    def _record_states(self, process: str) -> None:
        for identity in self._running[process].states:
            self._recording.record_state(identity)

    def stop(self, processes: Sequence[MeshProcess]) -> None:
        """See Backend: what starts in its place makes its timers void."""

    def remove_pod(self, identity: str) -> None:
        """See Backend: it is gone when another one comes."""

    def add_pod(self, identity: str) -> None:
        """See Backend. Its ztunnel drops the certificate and requests another at once; the time
        base of that ztunnel stays what it was."""
        self._request_again(identity, self._node_of[identity])

    def restart_applications(self, node: str) -> None:
        """See Backend."""
        for identity in self._running[node].states:
            self._request_again(identity, node)

    def _request_again(self, identity: str, node: str) -> None:
        now = self.clocks(node)
        process = self._running[node]
        process.forget(identity, now)
        if not process.is_requesting(identity):  # else the answer under way serves the new pod too
            self._request_at(Due(now.monotonic_ns), identity)

    # Requests to the authority

    def _request_at(self, due: Due, identity: str) -> None:
        """A process waits for one thing for each identity: what it waited for before is void."""
        self._armed[identity] += 1
        world_ns = due.world_ns(self.timeline[self._node_of[identity]], self.world_ns)
        self._at(world_ns, Priority.TIMERS, self._request, identity, self._armed[identity])

    def _request(self, identity: str, armed: int) -> None:
        process = self._running[self._process_of[identity]]

        # The timer of a process that has ended, or one that another has replaced.
        if armed != self._armed[identity]:
            return
        if not process.has_free_slot:
            process.enqueue(identity, self.world_ns)
            return
        answer = self._answer(identity, process)
        if answer.outcome == "slow":
            self._recording.record_csr(CsrReport(identity, "taken"))
            self._at(answer.answers_world_ns, Priority.TIMERS, self._answer_late, identity, armed)
        elif answer.outcome != "not_trusted":  # no lab's authority gets to know of such a request
            self._record_answer(identity, answer)
        self._deliver(identity, process, answer)

    def _answer(self, identity: str, process: ModelZtunnel | Proxy) -> Answer:
        """An authority that is up checks the token first."""
        # pilot-agent connects again after every failure; a ztunnel before root reload trusts what
        # it read at its start.
        reloads = isinstance(process, Proxy) or self._behaviour.reloads_root
        name = self._process_of[identity]
        root_of_ns = self.world_ns if reloads else self._started_ns[name]
        answer = self._authority.answer(process.requested_lifetime_s, self.world_ns, root_of_ns)

        # One that is down refuses everything, whatever token comes with it.
        if answer.outcome not in ("issued", "slow"):
            return answer
        if self._tokens.accepted(name, self.world_ns):
            return answer
        return Answer("unauthenticated")

    def _answer_late(self, identity: str, armed: int) -> None:
        """Has no effect when the requesting process has ended, or has lost the connection."""
        if armed == self._armed[identity]:
            requested_lifetime_s = self._running[self._process_of[identity]].requested_lifetime_s
            answer = self._authority.late_answer(requested_lifetime_s, self.world_ns)
            self._record_answer(identity, answer)
            self._deliver_when_running(identity, answer)

    def _record_answer(self, identity: str, answer: Answer) -> None:
        issued = answer.certificate
        certificate = issued and IssuedCertificate(
            issued.serial, issued.not_before_wall_s, issued.not_after_wall_s
        )
        self._recording.record_csr(CsrReport(identity, answer.outcome, certificate))

    def _deliver_when_running(self, identity: str, answer: Answer) -> None:
        """An answer has come; a node that sleeps takes it when it wakes."""
        runs_world_ns = self.timeline[self._node_of[identity]].world_ns_when_running(self.world_ns)
        self._at(
            runs_world_ns,
            Priority.TIMERS,
            self._deliver_late,
            identity,
            self._armed[identity],
            answer,
        )

    def _deliver_late(self, identity: str, armed: int, answer: Answer) -> None:
        process = self._running[self._process_of[identity]]
        if armed != self._armed[identity]:
            return
        self._deliver(identity, process, answer)

        # The answer has freed a slot, and what waited for one is sent at once.
        while (waiting := process.next_queued()) is not None:
            self._request(waiting, self._armed[waiting])

    def _deliver(self, identity: str, process: ModelZtunnel | Proxy, answer: Answer) -> None:
        due = process.due_after(identity, answer, self.clocks(self._node_of[identity]))
        self._recording.record_state(identity)
        if answer.outcome != "slow":
            self._recording.count_csr()
        if due is not None:
            self._request_at(due, identity)

    # Faults: clocks and authority know theirs from the plan

    def prepare(self, fault: PlannedFault) -> None:
        """See Backend."""

    def begin(self, fault: PlannedFault) -> None:
        """See Backend."""
        if fault.kind != "ca_root_change":
            return
        # As in the process lab, which replaces its authority: what is not answered then is lost.
        for process in self._running.values():
            requesting = filter(process.is_requesting, process.states)
            for identity in requesting:
                self._deliver_when_running(identity, Answer("lost"))

    def wake(self, fault: PlannedFault) -> None:
        """See Backend."""

    def end(self, fault: PlannedFault) -> int | None:
        """See Backend."""
        if fault.kind not in ("step", "pause"):
            return None
        wall_before_ns = self.measure(fault).wall_ns
        self._stepped_ns[fault.node, self.world_ns] += fault.expected_drift_ns
        return wall_before_ns

    # Connections

    def attempt(self, source: str, destination: str) -> str | None:
        """See Backend."""
        return connection_error(
            self._running[self._process_of[source]].states[source],
            self.clocks(self._node_of[source]),
            self._running[self._process_of[destination]].states[destination],
            self.clocks(self._node_of[destination]),
        )

    def logged_error(self, source: str) -> str | None:
        """See Backend: what `attempt` returns is all there is."""
        return None

    # State

    def certificate_state(self, identity: str) -> ReportedCertificate:
        """See Backend."""
        state = self._running[self._process_of[identity]].states[identity]
        held = state.certificate
        if held is None:
            return ReportedCertificate(state.state, None, None)
        return ReportedCertificate(state.state, held.serial, held.not_after_wall_s)

    def observe(self, node: str) -> list[ObservedProcess]:
        """See Backend."""
        found = []
        for process in processes_of(self._plan):
            if process.node == node:
                running = self._running[process.name]
                held = _certificates_of(running)
                found.append(ObservedProcess(process.name, process.kind, running.base, held))
        return found

    def authority_answers(self) -> bool:
        """See Backend."""
        return self._authority.is_ready(self.world_ns)


def _certificates_of(process: ModelZtunnel | Proxy) -> tuple[CertificateValidity, ...]:
    return tuple(
        CertificateValidity(
            identity,
            state.certificate.not_before_wall_s * NS_PER_S,
            state.certificate.not_after_wall_s * NS_PER_S,
        )
        for identity, state in process.states.items()
        if state.certificate is not None
    )
