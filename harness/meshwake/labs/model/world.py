"""The world of one run: nodes with clocks, their ztunnels, the authority, and an event queue in
world time.

The queue is simpy's, in integer nanoseconds. All clocks are known in advance (clocks/virtual.py),
so a timer of a node becomes one moment of world time: when its monotonic clock will have reached
the due time and its processes run. Within one moment the order is that of `Phase`; within a phase,
that in which things were put into the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import IntEnum
from random import Random
from typing import Any

import simpy

from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import HISTORY_FORMAT, Recorder
from meshwake.core.plan import Plan, PlannedFault, PlannedGateway
from meshwake.fixes import patch_of
from meshwake.guard.watch import Held, Seen
from meshwake.labs.agenda import Agenda
from meshwake.labs.limits import FloodGuard
from meshwake.labs.model.authority import Answer, Authority
from meshwake.labs.model.proxy import Proxy
from meshwake.labs.model.timing import Due
from meshwake.labs.model.tokens import Tokens
from meshwake.labs.model.traffic import connection_error
from meshwake.labs.model.ztunnel import BEHAVIOURS, CertificateState, Ztunnel
from meshwake.labs.probes import ProbeSchedule


class Phase(IntEnum):
    """The order of what happens at one world time: first what the plan does (in the order of
    labs/agenda.py), then timers fire, then comes what had to wait for processes that were frozen
    until now, then connections are attempted."""

    AGENDA = 0
    TIMERS = 1
    AFTER_TIMERS = 2
    CONNECTIONS = 3


class _Moment(simpy.Event):
    """simpy's Timeout, with a phase as its priority."""

    def __init__(
        self, env: simpy.Environment, world_ns: int, phase: Phase, happen: Callable[[], None]
    ) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.callbacks.append(lambda event: happen())
        # simpy compares priorities only; that there are more than its own two is of no account to
        # it.
        env.schedule(self, phase, world_ns - env.now)  # type: ignore[arg-type]


class World:
    """Carries out `plan` once, and tells `recorder` what happens."""

    def __init__(self, plan: Plan, recorder: Recorder, progress: Callable[[int], None]) -> None:
        self._plan, self._recorder, self._progress = plan, recorder, progress
        self._env = simpy.Environment(0)
        self._ended = False
        self._clocks = clocks_of(plan)
        self._authority = Authority(plan, self._clocks[plan.authority_node])
        self._behaviour = BEHAVIOURS[plan.behaviour_class]
        self._identities = {node.name: node.identities for node in plan.nodes}
        self._nodes = {identity: node.name for node in plan.nodes for identity in node.identities}
        # A node's ztunnel is called as the node is; gateways have names of their own.
        self._process_of = dict(self._nodes)
        for gateway in plan.gateways:
            self._nodes[gateway.identity], self._process_of[gateway.identity] = (
                gateway.node,
                gateway.name,
            )
        self._processes: dict[str, Ztunnel | Proxy] = {}
        self._started_ns: dict[str, int] = {}
        self._armed: defaultdict[str, int] = defaultdict(int)
        self._tokens = Tokens(plan.token_s, self._clocks, plan.authority_node)
        self._timing = patch_of(plan) or "as-released"
        self._expiry_logged_wall_ns: dict[str, int] = {}
        self._starts = 0
        self._told: dict[str, CertificateState | None] = {}
        self._stepped_ns: defaultdict[tuple[str | None, int], int] = defaultdict(int)
        self._guard = FloodGuard(len(self._nodes))
        self._probes = ProbeSchedule(plan, self._clocks)
        self._probing_world_ns: int | None = None
        self._agenda = Agenda(plan, self._clocks)

    def run(self) -> None:
        """The whole plan, from run_started to run_ended."""
        subject = {"kind": "model", "behaviour_class": self._plan.behaviour_class}
        self._record(
            "run_started",
            None,
            format=HISTORY_FORMAT,
            lab="model",
            version=self._plan.version,
            subject=subject,
        )
        for node in self._plan.nodes:
            self._start(node.name, self._clocks[node.name].reading_before(0), "start")
        for gateway in self._plan.gateways:
            self._start_proxy(gateway, self._clocks[gateway.node].reading_before(0), "start")
        self._await_agenda()
        self._await_probe()
        while not self._ended and self._env.peek() < self._plan.duration_ns:
            self._env.step()
            self._progress(self._now_ns)
        if not self._ended:
            self._record_at(self._plan.duration_ns, "run_ended", None, None, reason="duration")

    @property
    def _now_ns(self) -> int:
        """World time. simpy would take fractions; nobody gives it any."""
        return int(self._env.now)

    def _at(self, world_ns: int, phase: Phase, happen: Callable[..., None], *about: Any) -> None:
        if world_ns < self._plan.duration_ns:
            _Moment(self._env, world_ns, phase, lambda: happen(*about))

    def _await_agenda(self) -> None:
        world_ns = self._agenda.next_world_ns()
        if world_ns is not None:
            self._at(world_ns, Phase.AGENDA, self._do_agenda)

    def _do_agenda(self) -> None:
        if self._agenda.keep_due(self, self._now_ns):
            self._at(self._now_ns, Phase.AFTER_TIMERS, self._do_agenda)
        else:
            self._await_agenda()

    # ztunnels, gateways and waypoints

    def _start(self, node: str, base: ClockReading, cause: str) -> None:
        identities = self._identities[node]
        random = Random(f"{self._plan.seed} {node} {self._starts}")
        self._starts += 1
        self._record_at(
            self._now_ns,
            "ztunnel_started",
            node,
            base,
            process=node,
            identities=list(identities),
            cause=cause,
        )
        ztunnel = Ztunnel(
            identities, self._behaviour, self._plan.lifetime_s, base, random, self._timing
        )
        self._expiry_logged_wall_ns.pop(node, None)
        self._begin(ztunnel, node, node, base)

    def _start_proxy(self, gateway: PlannedGateway, base: ClockReading, cause: str) -> None:
        self._record_at(
            self._now_ns,
            "proxy_started",
            gateway.node,
            base,
            process=gateway.name,
            identities=[gateway.identity],
            cause=cause,
        )
        self._begin(
            Proxy(gateway.identity, gateway.lifetime_s, base), gateway.name, gateway.node, base
        )

    def _begin(self, process: Ztunnel | Proxy, name: str, node: str, base: ClockReading) -> None:
        self._processes[name], self._started_ns[name] = process, self._now_ns
        self._tokens.pod_started(name, node, self._now_ns)
        self._probes.ztunnel_started(tuple(process.states), self._now_ns)
        for identity in process.states:
            self._told[identity] = None
            self._ask_at(Due(base.monotonic_ns), identity)
        self._at(self._now_ns, Phase.CONNECTIONS, self._tell_all, name)

    def restart(self, node: str, cause: str) -> None:
        """See agenda.Keeper."""
        self._record("ztunnel_stopped", node, process=node, cause=cause)
        self._start(node, self._clocks[node].reading(self._now_ns), cause)
        self._await_probe()

    def restart_proxies(self, node: str, cause: str) -> None:
        """See agenda.Keeper."""
        for gateway in self._plan.gateways:
            if gateway.node == node:
                self._record("proxy_stopped", node, process=gateway.name, cause=cause)
                self._start_proxy(gateway, self._clocks[node].reading(self._now_ns), cause)
        self._await_probe()

    def restart_applications(self, node: str, cause: str) -> None:
        """See agenda.Keeper."""
        self._record("applications_restarted", node, cause=cause)
        for identity in self._processes[node].states:
            self._fetch_anew(identity, node)

    def _replace_pod(self, identity: str, node: str) -> None:
        """Its ztunnel forgets the certificate and asks for another at once; its time base stays
        what it was."""
        self._record("pod_replaced", node, identity=identity)
        self._told[identity] = None
        self._probes.ztunnel_started((identity,), self._now_ns)
        self._fetch_anew(identity, node)
        self._await_probe()

    def _fetch_anew(self, identity: str, node: str) -> None:
        now = self._clocks[node].reading(self._now_ns)
        self._processes[node].forget(identity, now)
        if not self._processes[node].is_asking(
            identity
        ):  # else the answer that is awaited serves the new pod too
            self._ask_at(Due(now.monotonic_ns), identity)

    def _ask_at(self, due: Due, identity: str) -> None:
        """A process waits for one thing for each identity: what it waited for before is forgotten."""
        self._armed[identity] += 1
        world_ns = due.world_ns(self._clocks[self._nodes[identity]], self._now_ns)
        self._at(world_ns, Phase.TIMERS, self._ask, identity, self._armed[identity])

    def _ask(self, identity: str, armed: int) -> None:
        process = self._processes[self._process_of[identity]]
        if armed != self._armed[identity]:
            return
        if not process.may_ask:
            process.wait_in_line(identity, self._now_ns)
            return
        answer = self._answer(identity, process)
        if answer.outcome == "slow":
            self._record("csr_taken", self._nodes[identity], identity=identity)
            self._at(answer.answers_world_ns, Phase.TIMERS, self._answer_late, identity, armed)
        elif answer.outcome != "not_trusted":  # of such a request nobody hears, in no lab
            self._record_answer(self._nodes[identity], identity, answer)
        self._take_in(identity, process, answer)

    def _answer_late(self, identity: str, armed: int) -> None:
        """Nothing comes of it when who asked is no more, or has lost the connection."""
        if armed == self._armed[identity]:
            asks_for_s = self._processes[self._process_of[identity]].asks_for_s
            answer = self._authority.late_answer(asks_for_s, self._now_ns)
            self._record_answer(self._nodes[identity], identity, answer)
            self._hand_over(identity, answer)

    def _hand_over(self, identity: str, answer: Answer) -> None:
        """What was waited for has come; a node that is asleep takes it in when it wakes."""
        runs_world_ns = self._clocks[self._nodes[identity]].world_ns_when_running(self._now_ns)
        self._at(
            runs_world_ns, Phase.TIMERS, self._take_in_late, identity, self._armed[identity], answer
        )

    def _take_in_late(self, identity: str, armed: int, answer: Answer) -> None:
        process = self._processes[self._process_of[identity]]
        if armed != self._armed[identity]:
            return
        self._take_in(identity, process, answer)
        while (waiting := process.next_in_line()) is not None:
            self._ask(waiting, self._armed[waiting])

    def _take_in(self, identity: str, process: Ztunnel | Proxy, answer: Answer) -> None:
        clocks = self._clocks[self._nodes[identity]].reading(self._now_ns)
        due = process.due_after(identity, answer, clocks)
        self._tell(identity)
        if answer.outcome != "slow" and self._guard.is_flooded_by(self._now_ns):
            self._record("run_ended", None, reason="csr_flood")
            self._ended = True
        elif due is not None:
            self._ask_at(due, identity)

    def _answer(self, identity: str, process: Ztunnel | Proxy) -> Answer:
        """An authority that is there looks at the token first."""
        # pilot-agent connects anew after every failure; a ztunnel before root reload trusts what it
        # read at its start.
        reloads = isinstance(process, Proxy) or self._behaviour.reloads_root
        root_of_ns = self._now_ns if reloads else self._started_ns[self._process_of[identity]]
        answer = self._authority.answer(process.asks_for_s, self._now_ns, root_of_ns)
        refused = answer.outcome in ("issued", "slow") and not self._tokens.accepted(
            self._process_of[identity], self._now_ns
        )
        return Answer("unauthenticated") if refused else answer

    def _record_answer(self, node: str, identity: str, answer: Answer) -> None:
        certificate = answer.certificate
        self._record(
            "csr_answered",
            node,
            identity=identity,
            outcome=answer.outcome,
            serial=certificate.serial if certificate else None,
            not_before_wall_s=certificate.not_before_wall_s if certificate else None,
            not_after_wall_s=certificate.not_after_wall_s if certificate else None,
        )
        if certificate is not None:
            serial, not_before_wall_s, not_after_wall_s, _ = certificate
            self._probes.certificate_issued(
                identity, serial, not_before_wall_s, not_after_wall_s, self._now_ns
            )
            self._await_probe()

    def _tell_all(self, process: str) -> None:
        for identity in self._processes[process].states:
            self._tell(identity)

    def _tell(self, identity: str) -> None:
        """Records what ztunnel says of `identity`, if that is new."""
        state = self._processes[self._process_of[identity]].states[identity]
        if state == self._told[identity]:
            return
        self._told[identity] = state
        held = state.certificate
        self._record(
            "certificate_state",
            self._nodes[identity],
            identity=identity,
            state=state.state,
            serial=held.serial if held else None,
            not_after_wall_s=held.not_after_wall_s if held else None,
        )
        if held is None:
            self._probes.certificate_lost(identity, self._now_ns)
            self._await_probe()

    # Faults: clocks and service know theirs by themselves; here they are told, and ztunnels started
    # anew.

    def begin(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        self._record_fault("fault_began", fault)
        if fault.kind == "ca_root_change":
            for process in self._processes.values():
                for identity in filter(process.is_asking, process.states):
                    self._hand_over(identity, Answer("lost"))

    def wake(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        self._record_fault("node_woke", fault)

    def restart_by_fault(self, fault: PlannedFault, node: str) -> None:
        """See agenda.Keeper."""
        self._record("fault_began", node, fault=fault.index, fault_kind=fault.kind)
        if fault.identity is None:
            self.restart(node, "restart")
        else:
            self._replace_pod(fault.identity, node)
        self._record(
            "fault_ended", node, fault=fault.index, fault_kind=fault.kind, wall_before_ns=None
        )

    def end(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        if fault.kind not in ("step", "pause"):
            self._record_fault("fault_ended", fault, wall_before_ns=None)
            return
        wall_before_ns = self._clocks_amid_faults(fault).wall_ns
        self._stepped_ns[fault.node, self._now_ns] += fault.expected_drift_ns
        self._record_fault("fault_ended", fault, wall_before_ns=wall_before_ns)

    def _record_fault(self, kind: str, fault: PlannedFault, **data: Any) -> None:
        clocks = self._clocks_amid_faults(fault)
        self._record_at(
            self._now_ns, kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data
        )

    def _clocks_amid_faults(self, fault: PlannedFault) -> ClockReading:
        """The clocks of the fault's node (the authority's for its service) while several faults may
        happen at this one moment: a wall clock that two of them step shows the first step before
        the second."""
        node = self._plan.authority_node if fault.node is None else fault.node
        clocks = self._clocks[node].reading_before(self._now_ns)
        return clocks._replace(wall_ns=clocks.wall_ns + self._stepped_ns[node, self._now_ns])

    # Connections

    def _await_probe(self) -> None:
        world_ns = self._probes.next_world_ns()
        if world_ns is not None and world_ns != self._probing_world_ns:
            self._probing_world_ns = world_ns
            self._at(world_ns, Phase.CONNECTIONS, self._probe, world_ns)

    def _probe(self, world_ns: int) -> None:
        if world_ns != self._probing_world_ns:
            return
        for source, destination in self._probes.take(world_ns):
            self._attempt(source, destination)
        self._await_probe()

    def _attempt(self, source: str, destination: str) -> None:
        here, there = self._nodes[source], self._nodes[destination]
        clocks = self._clocks[here].reading(self._now_ns)
        error = connection_error(
            self._processes[self._process_of[source]].states[source],
            clocks,
            self._processes[self._process_of[destination]].states[destination],
            self._clocks[there].reading(self._now_ns),
        )
        if error is not None and "expired" in error:
            # Both ends log it: one what it found, the other the alert that it was sent.
            self._expiry_logged_wall_ns[here] = clocks.wall_ns
            self._expiry_logged_wall_ns[there] = self._clocks[there].reading(self._now_ns).wall_ns
        self._record_at(
            self._now_ns,
            "connection_attempted",
            here,
            clocks,
            source=source,
            destination=destination,
            ok=error is None,
            error=error,
        )

    # What a fix sees: see fixes.watch.View

    @property
    def world_ns(self) -> int:
        """See View."""
        return self._now_ns

    def clocks(self, node: str) -> ClockReading:
        """See View."""
        return self._clocks[node].reading(self._now_ns)

    def seen(self, node: str) -> list[Seen]:
        """See View."""
        ztunnel = self._processes[node]
        gateways = [gateway.name for gateway in self._plan.gateways if gateway.node == node]
        return [
            Seen(node, "ztunnel", ztunnel.base, _held(ztunnel)),
            *(
                Seen(name, "proxy", self._processes[name].base, _held(self._processes[name]))
                for name in gateways
            ),
        ]

    def authority_answers(self) -> bool:
        """See View."""
        return self._authority.is_ready(self._now_ns)

    def expiry_logged(self, node: str, since_wall_ns: int) -> bool:
        """See View."""
        return self._expiry_logged_wall_ns.get(node, since_wall_ns - 1) >= since_wall_ns

    # Recording

    def _record(self, kind: str, node: str | None, **data: Any) -> None:
        clocks = None if node is None else self._clocks[node].reading(self._now_ns)
        self._record_at(self._now_ns, kind, node, clocks, **data)

    def _record_at(
        self, world_ns: int, kind: str, node: str | None, clocks: ClockReading | None, **data: Any
    ) -> None:
        self._recorder.record(world_ns, kind, node, clocks, **data)


def _held(process: Ztunnel | Proxy) -> tuple[Held, ...]:
    return tuple(
        Held(
            identity,
            state.certificate.not_before_wall_s * NS_PER_S,
            state.certificate.not_after_wall_s * NS_PER_S,
        )
        for identity, state in process.states.items()
        if state.certificate is not None
    )
