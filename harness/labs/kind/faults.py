"""The faults of a plan, carried out on a cluster.

    suspend   the mover moves the clocks (wall and boottime, or whatever it can); world time jumps by the sleep
    pause     nothing moves while a VM stands: world time jumps, the nodes wake with their wall clocks behind, and
              `corrected_after` later the mover sets those right. So it is a jump, a wait, and a step
    step      the mover sets the wall clock
    restart   the ztunnel of the node is ended; its DaemonSet starts another
    ca_outage istiod is scaled to nothing, and back

The user's own suspend command does suspend and pause whole, and takes as long as it takes.
A fault of several nodes at one time is one fault of the machine they share, and is moved once where clocks are shared.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import groupby
from typing import Any, Protocol

from harness.errors import HarnessFault
from harness.labs.kind.clocks import ClockSource
from harness.labs.kind.kubernetes import Kubernetes, Unreachable
from harness.labs.kind.session import Session
from harness.plan import PlannedFault

ISTIOD_LABELS = {"app": "istiod"}
ISTIO_NAMESPACE = "istio-system"
RESTARTED_WITHIN_S, SCALED_WITHIN_S = 180.0, 240.0
CLOCKS_SHARED = ("engine", "command")


class ClockMover(ClockSource, Protocol):
    """What of a mover (clocks/mover.py) is needed here."""

    name: str

    def move(self, fault: PlannedFault) -> Any:
        """Carries out a suspend, a pause or a step whole."""


class Faults:
    """See session.FaultsOfRun. The times of what is still to come are those of the plan; what takes longer than it
    should (a restart) delays only what would lie within it."""

    def __init__(self, session: Session, mover: ClockMover, kubernetes: Kubernetes) -> None:
        self._session, self._mover, self._kubernetes = session, mover, kubernetes
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._istiod_replicas: int | None = None
        # Sorted, those of one moment that differ in nothing but their node stand side by side.
        alike = sorted(session.plan.faults, key=_but_its_node)
        for _, group in groupby(alike, key=_but_its_node):
            self._plan(list(group))

    def next_world_ns(self) -> int | None:
        """See FaultsOfRun."""
        return self._agenda[0][0] if self._agenda else None

    def do_next(self) -> None:
        """See FaultsOfRun."""
        heapq.heappop(self._agenda)[2]()

    def undo(self) -> None:
        """Brings istiod back, if a run ends while it is away."""
        if self._istiod_replicas is not None:
            self._scale_istiod(self._istiod_replicas)
            self._istiod_replicas = None

    def _at(self, world_ns: int, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (world_ns, self._count, do))

    def _plan(self, group: list[PlannedFault]) -> None:
        first = group[0]
        whole = first.kind == "suspend" or (first.kind == "pause" and self._mover.name == "command")
        if whole:
            self._at(first.at_world_ns, lambda: self._sleep(group))
        elif first.kind == "pause":
            self._at(first.at_world_ns, lambda: self._pause(group))
        elif first.kind == "step":
            self._at(first.at_world_ns, lambda: self._step(group))
        elif first.kind == "restart":
            self._at(first.at_world_ns, lambda: self._restart(group))
        elif first.kind == "ca_outage":
            self._at(first.at_world_ns, lambda: self._istiod_goes(first))
        else:
            raise HarnessFault(f"fault {first.index}: {first.kind} should have been refused before the run")

    # Clocks

    def _sleep(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._move(group)
        for fault in group:
            self._record("fault_ended", fault, wall_before_ns=None)

    def _move(self, group: list[PlannedFault]) -> None:
        """Moves clocks, and lets world time jump by what they slept: by as much as the node's wall clock went on and our
        own did not. That is all of an injected sleep, and nothing of one that we sat through."""
        world, real = self._session.world, self._session.setting.real
        node = group[0].node or self._session.plan.nodes[0].name
        wall_before_ns, real_before_ns = self._mover.read(node).wall_ns, real.monotonic_ns()
        for fault in group[:1] if self._mover.name in CLOCKS_SHARED else group:
            self._mover.move(fault)
        if group[0].kind == "step":
            return
        wall_ns = self._mover.read(node).wall_ns - wall_before_ns
        world.jump(wall_ns - (real.monotonic_ns() - real_before_ns))

    def _pause(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._session.world.jump(group[0].lasts_ns)
        for fault in group:
            self._record("node_woke", fault)
        self._at(self._session.world.now_ns + group[0].corrected_after_ns, lambda: self._correct(group))

    def _correct(self, group: list[PlannedFault]) -> None:
        steps = {"kind": "step", "by_wall_ns": group[0].lasts_ns, "lasts_ns": 0, "corrected_after_ns": 0}
        self._move([fault.model_copy(update=steps) for fault in group])
        self._record_stepped(group, group[0].lasts_ns)

    def _step(self, group: list[PlannedFault]) -> None:
        for fault in group:
            self._record("fault_began", fault)
        self._move(group)
        self._record_stepped(group, group[0].by_wall_ns)

    def _record_stepped(self, group: list[PlannedFault], by_wall_ns: int) -> None:
        for fault in group:
            assert fault.node is not None
            # Between two looks a clock runs as ours does, so the last look still knows where it would be.
            wall_before_ns = self._session.clocks.at(fault.node, self._session.world.now_ns).wall_ns
            self._record("fault_ended", fault, wall_before_ns=wall_before_ns)

    def _record(self, kind: str, fault: PlannedFault, **data: Any) -> None:
        """With the clocks of the fault's node, read at this moment inside it."""
        node = fault.node or self._session.plan.authority_node or self._session.plan.nodes[0].name
        world_ns, clocks = self._session.clocks.measure(node)
        self._session.ledger.add(world_ns, kind, fault.node, clocks, fault=fault.index, fault_kind=fault.kind, **data)

    # Processes

    def _restart(self, group: list[PlannedFault]) -> None:
        self._session.cause = "restart"
        for fault in group:
            assert fault.node is not None
            self._record("fault_began", fault)
            self._restart_on(fault.node)
            self._record("fault_ended", fault, wall_before_ns=None)
        self._session.cause = ""

    def _restart_on(self, node: str) -> None:
        old = self._session.process_of(node)
        self._kubernetes.end_pod(old)
        what = f"a new ztunnel on node {node}"
        self._session.wait_until(what, RESTARTED_WITHIN_S, lambda: self._is_new(node, old.process))

    def _is_new(self, node: str, process: str) -> bool:
        return self._session.process_of(node).process != process

    def _istiod_goes(self, fault: PlannedFault) -> None:
        found = self._kubernetes.read("Deployment.apps", ISTIO_NAMESPACE, "istiod") or {}
        self._istiod_replicas = max(int(found.get("spec", {}).get("replicas") or 1), 1)
        self._scale_istiod(0)
        self._await_istiod(0)
        self._record("fault_began", fault)
        lasts_until_ns = self._session.world.now_ns + fault.lasts_ns
        self._at(lasts_until_ns, lambda: self._istiod_comes(fault))

    def _istiod_comes(self, fault: PlannedFault) -> None:
        wanted, self._istiod_replicas = self._istiod_replicas or 1, None
        self._scale_istiod(wanted)
        self._await_istiod(wanted)
        self._record("fault_ended", fault, wall_before_ns=None)

    def _scale_istiod(self, replicas: int) -> None:
        self._kubernetes.patch("Deployment.apps", ISTIO_NAMESPACE, "istiod", {"spec": {"replicas": replicas}})

    def _await_istiod(self, replicas: int) -> None:
        def there() -> bool:
            try:
                pods = self._kubernetes.pods(ISTIO_NAMESPACE, ISTIOD_LABELS)
            except Unreachable:
                return False
            return len(pods) == replicas and all(pod.ready for pod in pods)

        self._session.wait_until(f"{replicas} ready istiod", SCALED_WITHIN_S, there)


def _but_its_node(fault: PlannedFault) -> tuple[int, str, int, int, int]:
    return fault.at_world_ns, fault.kind, fault.lasts_ns, fault.corrected_after_ns, fault.by_wall_ns
