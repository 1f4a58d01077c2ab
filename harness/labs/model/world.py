"""The world of one run: nodes with clocks, their ztunnels, the authority, and an event queue in world time.

The queue is simpy's, in integer nanoseconds. All clocks are known in advance (clocks/virtual.py), so a timer of a node
becomes one moment of world time: when its monotonic clock will have reached the due time and its processes run. Within
one moment the order is that of `Phase`; within a phase, that in which things were put into the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import IntEnum
from random import Random
from typing import Any

import simpy

from harness.clocks.reading import ClockReading
from harness.clocks.virtual import clocks_of
from harness.history import HISTORY_FORMAT, Recorder
from harness.labs.agenda import agenda, keep
from harness.labs.limits import FloodGuard
from harness.labs.model.authority import Answer, Authority
from harness.labs.model.traffic import connection_error
from harness.labs.model.ztunnel import BEHAVIOURS, CertificateState, Ztunnel
from harness.labs.probes import ProbeSchedule
from harness.plan import Plan, PlannedFault


class Phase(IntEnum):
    """The order of what happens at one world time: first what the plan does (in the order of labs/agenda.py), then
    timers fire, then connections are attempted."""

    AGENDA = 0
    TIMERS = 1
    CONNECTIONS = 2


class _Moment(simpy.Event):
    """simpy's Timeout, with a phase as its priority."""

    def __init__(self, env: simpy.Environment, world_ns: int, phase: Phase, happen: Callable[[], None]) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.callbacks.append(lambda event: happen())
        # simpy compares priorities only; that there are more than its own two is of no account to it.
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
        self._nodes = {identity: node.name for node in plan.nodes for identity in node.identities}
        self._ztunnels: dict[str, Ztunnel] = {}
        self._starts = 0
        self._told: dict[str, CertificateState | None] = {}
        self._pods = dict.fromkeys(self._nodes, 0)  # how many each identity has had before the one it has
        self._stepped_ns: defaultdict[tuple[str | None, int], int] = defaultdict(int)
        self._guard = FloodGuard(len(self._nodes))
        self._probes = ProbeSchedule(plan, self._clocks)
        self._probing_world_ns: int | None = None

    def run(self) -> None:
        """The whole plan, from run_started to run_ended."""
        subject = {"kind": "model", "behaviour_class": self._plan.behaviour_class}
        self._record(
            "run_started", None, format=HISTORY_FORMAT, lab="model", version=self._plan.version, subject=subject
        )
        for node in self._plan.nodes:
            self._start(node.name, self._clocks[node.name].reading_before(0), "start")
        for appointment in agenda(self._plan, self._clocks):
            self._at(appointment.world_ns, Phase.AGENDA, keep, appointment, self)
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

    # ztunnels

    def _start(self, node: str, base: ClockReading, cause: str) -> None:
        identities = next(each.identities for each in self._plan.nodes if each.name == node)
        random = Random(f"{self._plan.seed} {node} {self._starts}")
        self._starts += 1
        ztunnel = Ztunnel(identities, self._behaviour, self._plan.lifetime_s, base, random)
        self._ztunnels[node] = ztunnel
        self._record_at(
            self._now_ns, "ztunnel_started", node, base, process=node, identities=list(identities), cause=cause
        )
        self._probes.ztunnel_started(identities, self._now_ns)
        for identity in identities:
            self._told[identity] = None
            self._ask_at(base.monotonic_ns, ztunnel, identity)
        self._at(self._now_ns, Phase.CONNECTIONS, self._tell_all, node)

    def restart(self, node: str, cause: str) -> None:
        """See agenda.Keeper."""
        self._record("ztunnel_stopped", node, process=node, cause=cause)
        self._start(node, self._clocks[node].reading(self._now_ns), cause)
        self._await_probe()

    def _replace_pod(self, identity: str, node: str) -> None:
        """Its ztunnel forgets the certificate and asks for another at once; its time base stays what it was."""
        self._record("pod_replaced", node, identity=identity)
        ztunnel, now = self._ztunnels[node], self._clocks[node].reading(self._now_ns)
        ztunnel.forget(identity, now)
        self._pods[identity] += 1
        self._told[identity] = None
        self._probes.ztunnel_started((identity,), self._now_ns)
        self._ask_at(now.monotonic_ns, ztunnel, identity)
        self._await_probe()

    def _ask_at(self, due_monotonic_ns: int, ztunnel: Ztunnel, identity: str) -> None:
        clock = self._clocks[self._nodes[identity]]
        world_ns = clock.world_ns_at_monotonic(due_monotonic_ns, self._now_ns)
        self._at(world_ns, Phase.TIMERS, self._ask, ztunnel, identity, self._pods[identity])

    def _ask(self, ztunnel: Ztunnel, identity: str, pod: int) -> None:
        node = self._nodes[identity]
        if self._ztunnels[node] is not ztunnel or self._pods[identity] != pod or not ztunnel.may_ask:
            return
        answer = self._authority.answer(ztunnel.asks_for_s, self._now_ns)
        self._record_answer(node, identity, answer)
        due_monotonic_ns = ztunnel.answered(identity, answer, self._clocks[node].reading(self._now_ns))
        self._tell(identity)
        if self._guard.is_flooded_by(self._now_ns):
            self._record("run_ended", None, reason="csr_flood")
            self._ended = True
        elif due_monotonic_ns is not None:
            self._ask_at(due_monotonic_ns, ztunnel, identity)

    def _record_answer(self, node: str, identity: str, answer: Answer) -> None:
        outcome, certificate = answer
        self._record(
            "csr_answered",
            node,
            identity=identity,
            outcome=outcome,
            serial=certificate.serial if certificate else None,
            not_before_wall_s=certificate.not_before_wall_s if certificate else None,
            not_after_wall_s=certificate.not_after_wall_s if certificate else None,
        )
        if certificate is not None:
            serial, not_before_wall_s, not_after_wall_s, _ = certificate
            self._probes.certificate_issued(identity, serial, not_before_wall_s, not_after_wall_s, self._now_ns)
            self._await_probe()

    def _tell_all(self, node: str) -> None:
        for identity in self._ztunnels[node].states:
            self._tell(identity)

    def _tell(self, identity: str) -> None:
        """Records what ztunnel says of `identity`, if that is new."""
        state = self._ztunnels[self._nodes[identity]].states[identity]
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

    # Faults: clocks and service know theirs by themselves; here they are told, and ztunnels started anew.

    def begin(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        self._record_fault("fault_began", fault)

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
        self._record("fault_ended", node, fault=fault.index, fault_kind=fault.kind, wall_before_ns=None)

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
        self._record_at(self._now_ns, kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data)

    def _clocks_amid_faults(self, fault: PlannedFault) -> ClockReading:
        """The clocks of the fault's node (the authority's for its service) while several faults may happen at this one
        moment: a wall clock that two of them step shows the first step before the second."""
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
            self._ztunnels[here].states[source],
            clocks,
            self._ztunnels[there].states[destination],
            self._clocks[there].reading(self._now_ns),
        )
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

    # Recording

    def _record(self, kind: str, node: str | None, **data: Any) -> None:
        clocks = None if node is None else self._clocks[node].reading(self._now_ns)
        self._record_at(self._now_ns, kind, node, clocks, **data)

    def _record_at(self, world_ns: int, kind: str, node: str | None, clocks: ClockReading | None, **data: Any) -> None:
        self._recorder.record(world_ns, kind, node, clocks, **data)
