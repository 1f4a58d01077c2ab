"""The loop of one run: carries out the plan, and observes the cluster meanwhile.

    while world time is left:
        faults that are due
        connections that are due
        polls that are due
        events are recorded in order (reorder_buffer.py)
        time passes, in real time or in leaps over idle time (pace.py)

Whatever may block (a connection that hangs for five seconds, a port that is slow to open) runs on
other threads; only this thread changes state, so nothing here is locked. Before a fault everything
under way is awaited, so that no poll and no attempt spans a jump of the clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from meshwake.clocks.movers.base import NoProgramToRead
from meshwake.clocks.virtual import NodeClock, clocks_of
from meshwake.cluster.observe import Gateways, Seen, SeenCertificates, Ztunnels, istiod_nodes
from meshwake.cluster.real_time import HostTime, NodeClocks, WorldTime
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.errors import HarnessFault, SubjectFailed
from meshwake.core.history import HISTORY_FORMAT, Recorder
from meshwake.core.json_types import JsonObject, text_at
from meshwake.core.plan import Plan
from meshwake.fixes.wake_guard import NAME as GUARD
from meshwake.kubernetes.api import Kubernetes, LocalFailure, Pod, Unreachable
from meshwake.labs.backend import MeshProcess, processes_of
from meshwake.labs.kind.pace import TICK_S, LapsePace, Pace, RealTimePace, TimeSkipper
from meshwake.labs.kind.renewals import Renewals
from meshwake.labs.kind.reorder_buffer import HELD_BACK_NS, ReorderBuffer
from meshwake.labs.kind.traffic import (
    EXEC_WITHIN_S,
    Client,
    ConnectionAttempt,
    ConnectionProbe,
    Route,
)
from meshwake.labs.probes import ProbeSchedule

# ztunnel shows only the certificate that it has now: one that was replaced between two polls is
# never seen (refusals.LIFETIME_MIN_S).
POLL_EVERY_NS = 2 * NS_PER_S
# In time lapse the pace polls when there is something to see (a renewal that is due); the regular
# poll is only there for what nothing announces.
LAPSE_POLL_EVERY_NS = 10 * NS_PER_S
# So that a clock that something else has set shows in the history; each reading is a command in a
# node.
CLOCKS_EVERY_NS = 15 * NS_PER_S
LOST_TIMEOUT_NS = 120 * NS_PER_S
ISTIOD_EVERY_NS = 5 * NS_PER_S
# istiod collects changes for 100 ms and pushes them to the ztunnels. On a busy machine a request was
# refused 0.1 s after the API server had reported the gateway as ready.
ROUTED_AFTER_READY_NS = 3 * NS_PER_S
# Movers that move the clocks of all machines of a cluster together.
CLOCKS_SHARED = ("engine", "command")
PENDING_WITHIN_S = EXEC_WITHIN_S + 10.0
_LOCALLY = "this machine's way to"


class ClusterWatcher(Protocol):
    """Polls something other than ztunnel at a regular interval; see watchers.py."""

    @property
    def name(self) -> str:
        """What is polled, for messages."""

    @property
    def every_s(self) -> float:
        """How often, in real time."""

    @property
    def reads_logs(self) -> bool:
        """Whether it reads logs of ztunnel: in time lapse those are read before each leap that
        follows a failure."""

    def poll(self) -> list[WatcherEvent]:
        """What it observes; the same observation twice in a row is recorded once. Raises
        Unreachable."""


@dataclass(frozen=True)
class WatcherEvent:
    """An event of a watcher. `key` names what it is about: only a change of it is recorded.
    `node`: a node of the plan."""

    kind: str
    key: str
    data: JsonObject = field(hash=False)
    node: str | None = None


@dataclass(frozen=True)
class Setting:
    """What a session works with. `routes` are the plan's pairs first; `clients` by identity."""

    plan: Plan
    kubernetes: Kubernetes
    real: HostTime
    executor: Executor
    node_names: Mapping[str, str]
    routes: tuple[Route, ...]
    clients: Mapping[str, Client]
    subject: JsonObject
    watchers: tuple[ClusterWatcher, ...] = ()
    progress: Callable[[int], None] = lambda world_ns: None
    # Shown by `meshwake status` while a fault is under way.
    report_under_way: Callable[[str], object] = lambda under_way: None
    # Raises when another command has taken the cluster over.
    check_held: Callable[[], None] = lambda: None
    # Skips idle time; None: the run is in real time.
    skips: TimeSkipper | None = None
    # A wake guard that was installed before the run polls the mesh, as one that is the plan's fix.
    guard_installed: bool = False


class FaultsOfRun(Protocol):
    """Carries out the faults of the plan; faults.py."""

    def next_world_ns(self) -> int | None:
        """World time of the next action; None after the last."""

    def do_next(self) -> None:
        """Carry it out and record it."""


class ClusterSession:
    """World time begins when this is made: every ztunnel and gateway has started, every workload is
    ready. A ztunnel has the name of its node, a gateway that of the plan."""

    def __init__(self, setting: Setting, clocks_source: Any, recorder: Recorder) -> None:
        self.setting, self.plan = setting, setting.plan
        self.events = ReorderBuffer(recorder)
        self.ztunnels = Ztunnels(setting.kubernetes, setting.node_names)
        self._gateways = Gateways(setting.kubernetes, self.plan.gateways)
        self._certificates = SeenCertificates(self.plan.backdate_s)
        self._processes = {process.name: process for process in processes_of(self.plan)}
        self._identities = {node.name: node.identities for node in self.plan.nodes}
        pods = self._first_pods()
        already_ns = 0 if setting.skips is None else self._since_first_issue_ns(clocks_source, pods)
        self.world = WorldTime(setting.real, already_ns)
        self.clocks = NodeClocks(clocks_source, tuple(self._identities), self.world)
        self._running: dict[str, Pod] = pods
        self._shares_clocks = getattr(clocks_source, "name", "") in CLOCKS_SHARED
        self._istiod_on: str | None = None  # the Kubernetes node on which istiod was seen last

        # Nodes whose programs are stopped: nothing on them can be polled.
        self.asleep: frozenset[str] = frozenset()

        # Clocks are being moved: a jump that is measured meanwhile is not a disturbance.
        self.moving = False

        # Why a ztunnel that is found to be new was started, while a fault is under way; "": the
        # fix, or unknown.
        self.cause = ""
        self.istiod_away = False  # by a fault of the plan
        self.restarting = False  # a ztunnel, by a fault of the plan
        self.failure_seen = False  # since the logs were read last
        self.disturbed_world_ns = 0  # when clocks were moved, or a ztunnel started, last
        self.renewals = Renewals(lambda node: self.clocks.at(node, self.world.now_ns))

        # Names of processes: without a pod that runs, and with one that is ready; and gateways that
        # were not ready at a wake, with when they get requests if they are ready from now on.
        self._missing, self._ready = frozenset[str](), frozenset[str]()
        self._waking = dict[str, int]()
        self.pace = self._pace()
        self._connections = ConnectionProbe(setting.kubernetes, setting.clients)
        self._pending: list[tuple[Future[Any], Callable[[Any], None]]] = []
        self._due_ns: dict[str, int] = {}
        self._unreachable_since_ns: dict[str, int] = {}
        self._last_observed: dict[tuple[str, str], JsonObject] = {}
        self._probes = ProbeSchedule(self.plan, self._planned_clocks())

    def _pace(self) -> Pace:
        skips = self.setting.skips
        if skips is None:
            return RealTimePace(self)
        return LapsePace(
            self,
            skips,
            has_fix=self._has_guard,
            has_gateways=bool(self.plan.gateways),
        )

    @property
    def _has_guard(self) -> bool:
        """Whether something polls the mesh by its own clock. The jobs of a CronJob do not: the run
        starts them (cron_jobs.py)."""
        if self.setting.guard_installed:
            return True
        return self.plan.fix is not None and self.plan.fix.name == GUARD

    @property
    def real(self) -> HostTime:
        """See PacedSession."""
        return self.setting.real

    def _first_pods(self) -> dict[str, Pod]:
        pods = self._pods()
        missing = []
        for name, process in self._processes.items():
            if name not in pods:
                missing.append(_in_words(process))
        if missing:
            names = ", ".join(missing)
            raise SubjectFailed(f"{names}: no pod runs; see kubectl get pods --all-namespaces")
        return pods

    def _pods(self) -> dict[str, Pod]:
        """process -> its pod, of those that run. Raises Unreachable."""
        return {**self.ztunnels.pods(), **self._gateways.pods()}

    def _since_first_issue_ns(self, clocks_source: Any, pods: Mapping[str, Pod]) -> int:
        """How long ago the first certificate of the run was issued. Clocks have not been moved
        yet, so istiod's wall clock is that of every node."""
        longest_ns = 0
        for node, identities in self._identities.items():
            seen = self.ztunnels.look(node, pods[node], identities)
            wall_ns = clocks_source.read(node).wall_ns
            for held in seen.held.values():
                # Requested, and not answered yet.
                if held.not_before_wall_s is None:
                    continue
                issued_wall_s = held.not_before_wall_s + self.plan.backdate_s
                longest_ns = max(longest_ns, wall_ns - issued_wall_s * NS_PER_S)
        return longest_ns

    def _planned_clocks(self) -> dict[str | None, NodeClock]:
        """The plan's timeline, starting at the wall clock that the nodes have now."""
        starts_wall_ns = min(self.clocks.at(node, 0).wall_ns for node in self._identities)
        return clocks_of(self.plan.model_copy(update={"starts_wall_s": starts_wall_ns // NS_PER_S}))

    def run(self, faults: FaultsOfRun) -> None:
        """From run_started to run_ended. Buffered events are recorded however it ends."""
        try:
            self._begin()
            while self.world.now_ns < self.plan.duration_ns:
                self._step(faults)
            self.settle()
            self.events.add(self.world.now_ns, "run_ended", None, None, reason="duration")
        finally:
            self.events.flush()
            self._connections.close()

    def _begin(self) -> None:
        data = {"lab": "kind", "version": self.plan.version, "subject": dict(self.setting.subject)}
        self.events.add(0, "run_started", None, None, format=HISTORY_FORMAT, **data)
        for name in self._processes:
            self._record_started(name, 0, "start")
        self._on_istiod_nodes(_or_error(lambda: istiod_nodes(self.setting.kubernetes))())
        self._poll()
        self._collect(wait_s=PENDING_WITHIN_S)

    def _step(self, faults: FaultsOfRun) -> None:
        self.setting.check_held()

        # All that is due at one world time comes before connections, which see all of it: a restart
        # at a wake takes seconds here, and none in other labs.
        while self._fault_is_due(faults) and self.pace.may_go_on():
            self.settle()
            faults.do_next()

        if self.pace.may_go_on():
            self._attempt()
        self._poll()
        self._collect()
        self.events.flush_until(self.world.now_ns - HELD_BACK_NS)
        self.setting.progress(self.world.now_ns)

        # Doing one may have brought another.
        stop_ns = self.plan.duration_ns
        fault_ns = faults.next_world_ns()
        if fault_ns is not None:
            stop_ns = min(stop_ns, fault_ns)
        self.pace.let_pass(stop_ns)

    def _fault_is_due(self, faults: FaultsOfRun) -> bool:
        due_world_ns = faults.next_world_ns()
        return due_world_ns is not None and due_world_ns <= self.world.now_ns

    # What the pace calls

    def all_asleep(self) -> bool:
        """See PacedSession."""
        return self.asleep >= self._identities.keys()

    def awaited_processes(self) -> frozenset[str]:
        """See PacedSession."""
        awaited = self._missing | self._waking.keys()
        return frozenset(_in_words(self._processes[name]) for name in awaited)

    def woke(self, nodes: Collection[str]) -> None:
        """The programs of `nodes` run again. Kubelet polls gateways in real time: one that was
        stopped for a minute while the run went on is not ready, and ztunnels send it no request
        ("no healthy upstream") before kubelet has polled it once more. That takes seconds, in which
        hours could be leapt over: so it is awaited."""
        self.asleep -= set(nodes)
        self.disturbed_world_ns = self.world.now_ns
        self.poll_pods()

        gateways = [each for each in self._processes.values() if each.kind == "proxy"]
        woken = {gateway.name for gateway in gateways if gateway.node in nodes}
        not_ready = woken - self._ready
        self._waking |= dict.fromkeys(not_ready, self._routed_ns())

    def _routed_ns(self) -> int:
        """From when on, in real time, a gateway gets requests that is ready now."""
        return self.setting.real.monotonic_ns() + ROUTED_AFTER_READY_NS

    def next_attempt_world_ns(self) -> int | None:
        """See PacedSession."""
        return self._probes.next_world_ns()

    def poll_ztunnels(self) -> None:
        """See PacedSession. Logs first: a refusal precedes what it leads to."""
        self.poll_logs()
        self._poll_ztunnels()
        self._collect(wait_s=PENDING_WITHIN_S)

    def poll_pods(self) -> None:
        """See PacedSession."""
        self._start(_or_error(self._pods), self._on_pods)
        self._collect(wait_s=PENDING_WITHIN_S)

    def poll_logs(self) -> None:
        """See PacedSession."""
        for watcher in self.setting.watchers:
            if watcher.reads_logs:
                self._start_watcher(watcher)
        self._collect(wait_s=PENDING_WITHIN_S)
        self.failure_seen = False

    def finish(self) -> None:
        """See PacedSession."""
        self._collect(wait_s=PENDING_WITHIN_S)
        self.events.flush()

    def settle(self) -> None:
        """Wait for everything under way and record it: before a fault, and at the end."""
        self._poll_ztunnels()
        self._collect(wait_s=PENDING_WITHIN_S)
        self.events.flush()

    def wait_until(self, what: str, within_s: float, done: Callable[[], bool]) -> None:
        """Let time pass, polling and connecting as usual, until `done`. Raises SubjectFailed at the
        timeout. Events stay buffered meanwhile, so that what is learned at the end can still be
        put in order."""
        give_up_ns = self.setting.real.monotonic_ns() + int(within_s * NS_PER_S)
        while not done():
            self.setting.check_held()
            if self.setting.real.monotonic_ns() > give_up_ns:
                raise SubjectFailed(f"timed out after {within_s:.0f} s waiting for {what}")
            self._attempt()
            self._poll()
            self._collect()
            self.setting.real.sleep(TICK_S)

    # Work on other threads

    def _start(self, work: Callable[[], Any], finish: Callable[[Any], None]) -> None:
        self._pending.append((self.setting.executor.submit(work), finish))

    def _collect(self, wait_s: float = 0.0) -> None:
        """Process the results that are there; with `wait_s`, wait for all of them."""
        if wait_s:
            futures = [future for future, _ in self._pending]
            left = wait_for_futures(futures, wait_s).not_done
            if left:
                raise HarnessFault(
                    f"{len(left)} polls or connection attempts did not end within their "
                    f"timeout of {wait_s:.0f} s"
                )

        # What finishes one may start another.
        pending, self._pending = self._pending, []
        for future, finish in pending:
            if future.done():
                finish(future.result())
            else:
                self._pending.append((future, finish))

    def _is_due(self, name: str, every_ns: int) -> bool:
        if self.setting.real.monotonic_ns() < self._due_ns.get(name, 0):
            return False
        self._due_ns[name] = self.setting.real.monotonic_ns() + every_ns
        return True

    def _track_reachability(self, what: str, error: Unreachable | None) -> None:
        """Track since when `what` has been unreachable. Raises SubjectFailed when that lasts, and
        HarnessFault when the cause is this machine: then no request was sent, so nothing is known
        of the other end."""
        now_ns = self.setting.real.monotonic_ns()
        if error is None:
            self._unreachable_since_ns.pop(what, None)
            self._unreachable_since_ns.pop(f"{_LOCALLY} {what}", None)
            return
        local = isinstance(error, LocalFailure)
        what = f"{_LOCALLY} {what}" if local else what
        if what not in self._unreachable_since_ns:
            self.events.add(
                self.world.now_ns, "observation_failed", None, None, what=what, error=str(error)
            )
        lost_ns = now_ns - self._unreachable_since_ns.setdefault(what, now_ns)
        if lost_ns > LOST_TIMEOUT_NS:
            failed = HarnessFault if local else SubjectFailed
            raise failed(f"{what} has not been reached for {seconds(lost_ns):.0f} s: {error}")

    # Connections

    def _attempt(self) -> None:
        due_ns = self._probes.next_world_ns()
        if due_ns is None or due_ns > self.world.now_ns:
            return
        if self.restarting and self.setting.skips is not None:
            # In the plan a restart takes no time, so a connection that is due meanwhile comes
            # after it, as in other labs.
            return

        pairs = self._probes.take(self.world.now_ns)
        for route in self.setting.routes:
            # A route through a waypoint or gateway is tried with every round of probes.
            is_direct = route.via is None
            if is_direct and (route.source, route.destination) not in pairs:
                continue
            self._attempt_route(route)

    def _attempt_route(self, route: Route) -> None:
        world_ns = self.world.now_ns
        ends = {route.source, route.destination}
        asleep = sorted(
            {
                process.node
                for process in self._processes.values()
                if process.node in self.asleep and ends & {*process.identities}
            }
        )

        def finish(result: ConnectionAttempt) -> None:
            node = self.plan.node_of(route.source)
            about = {"source": route.source, "destination": route.destination}
            kind = "connection_attempted" if route.via is None else "route_attempted"
            details = {"ok": result.error is None} | ({"via": route.via} if route.via else {})
            self.failure_seen = self.failure_seen or result.error is not None
            if not result.made:
                kind, details = "connection_not_attempted", {}
            self.events.add(
                world_ns,
                kind,
                node,
                self.clocks.at(node, world_ns),
                **about,
                **details,
                error=result.error,
            )

        if asleep:
            # A sleep begins a moment late, so it may last past the planned end.
            finish(ConnectionAttempt(made=False, error=f"node {', '.join(asleep)} is asleep"))
            return
        self._start(lambda: self._connections.attempt(route), finish)

    # Polls

    def _poll(self) -> None:
        """Starts each poll that is due. They run next to one another, and their results are taken
        by `finish`."""
        if self.setting.skips is None:
            if self._is_due("ztunnels", POLL_EVERY_NS):
                self._poll_ztunnels()
        elif self._is_due("ztunnels", LAPSE_POLL_EVERY_NS):
            # With time skipped, the results are needed before the next leap.
            self.poll_ztunnels()

        if self._is_due("istiod", ISTIOD_EVERY_NS):
            poll = partial(istiod_nodes, self.setting.kubernetes)
            self._start(_or_error(poll), self._on_istiod_nodes)

        # From the beginning of a fault to its end clocks are moved on purpose.
        if not self.moving and self._is_due("clocks", CLOCKS_EVERY_NS):
            for node in self._identities.keys() - self.asleep:
                self._check_clocks(node)
        self._poll_watchers()

    def _poll_watchers(self) -> None:
        for watcher in self.setting.watchers:
            every_ns = int(watcher.every_s * NS_PER_S)
            if self._is_due(watcher.name, every_ns):
                self._start_watcher(watcher)

    def _start_watcher(self, watcher: ClusterWatcher) -> None:
        self._start(_or_error(watcher.poll), partial(self._on_observations, watcher))

    def _check_clocks(self, node: str) -> None:
        """A ztunnel that is just being restarted is skipped until the next time, within a bound."""
        what, now_ns = f"the clocks of node {node}", self.setting.real.monotonic_ns()
        try:
            self.clocks.check_undisturbed(node)
        except NoProgramToRead as error:
            if now_ns - self._unreachable_since_ns.setdefault(what, now_ns) > LOST_TIMEOUT_NS:
                raise SubjectFailed(
                    f"{what} have not been read for {seconds(LOST_TIMEOUT_NS):.0f} s: {error}"
                ) from error
        else:
            self._unreachable_since_ns.pop(what, None)

    def _poll_ztunnels(self) -> None:
        self._start(_or_error(self._pods), self._on_pods)
        for name, pod in self._running.items():
            process = self._processes[name]
            if process.node not in self.asleep:
                self._poll_process(process, pod)

    def _poll_process(self, process: MeshProcess, pod: Pod) -> None:
        def finish(seen: Seen | Unreachable) -> None:
            if self._running.get(process.name) != pod:
                return
            # One that does not answer may be terminating: then the list of pods says so.
            self._track_reachability(
                _in_words(process), seen if isinstance(seen, Unreachable) else None
            )
            if isinstance(seen, Seen):
                self._on_certificates(seen)

        self._start(_or_error(lambda: self._look_at(process, pod)), finish)

    def _look_at(self, process: MeshProcess, pod: Pod) -> Seen:
        if process.kind == "proxy":
            return self._gateways.look(process.name, pod)
        return self.ztunnels.look(process.name, pod, process.identities)

    def _on_pods(self, pods: dict[str, Pod] | Unreachable) -> None:
        if isinstance(pods, Unreachable):
            self._track_reachability("the API server", pods)
            return
        self._track_reachability("the API server", None)

        self._missing = frozenset(self._processes.keys() - pods.keys())
        ready = [name for name, pod in pods.items() if pod.ready]
        self._on_readiness(frozenset(ready))

        for name, pod in pods.items():
            if pod.process != self._running[name].process:
                self._replaced(name, pod)

    def _replaced(self, name: str, pod: Pod) -> None:
        """Record that a new process is ready, and that the old one ended before it."""
        process, world_ns = self._processes[name], self.world.now_ns
        cause = self.cause or (self.plan.fix.name if self.plan.fix else "by itself")
        old, self._running[name] = self._running[name], pod
        self.events.add(
            world_ns,
            f"{process.kind}_stopped",
            process.node,
            self.clocks.at(process.node, world_ns),
            process=old.process,
            cause=cause,
        )
        self._certificates.restarted(name, process.identities, world_ns)
        self._record_started(name, world_ns, cause)

    def _on_readiness(self, ready: frozenset[str]) -> None:
        """Which processes the API server reports as ready now."""
        self._ready = ready
        self._waking |= dict.fromkeys(self._waking.keys() - ready, self._routed_ns())
        now_ns = self.setting.real.monotonic_ns()
        self._waking = {name: at_ns for name, at_ns in self._waking.items() if at_ns > now_ns}

    def process_of(self, node: str) -> Pod:
        """The ztunnel on `node` of the plan that was seen last."""
        return self._running[node]

    def _record_started(self, name: str, world_ns: int, cause: str) -> None:
        process = self._processes[name]
        node, identities = process.node, process.identities
        clocks = self.clocks.at(node, world_ns)
        self.renewals.started(process, clocks)
        self.disturbed_world_ns = world_ns
        data = {
            "process": self._running[name].process,
            "identities": list(identities),
            "cause": cause,
        }
        self.events.add(world_ns, f"{process.kind}_started", node, clocks, **data)
        self._probes.ztunnel_started(identities, world_ns)

    def _on_certificates(self, seen: Seen) -> None:
        world_ns, node = self.world.now_ns, seen.node
        issued, states = self._certificates.changes(
            seen, world_ns, self.authority_clocks(world_ns).wall_ns
        )
        for new in issued:
            held = new.held
            assert held.serial is not None
            assert held.not_before_wall_s is not None
            assert held.not_after_wall_s is not None
            self.answered(node, new.identity, new.world_ns, "issued", vars(held))
            self._probes.certificate_issued(
                new.identity,
                held.serial,
                held.not_before_wall_s,
                held.not_after_wall_s,
                new.world_ns,
            )
        at_ns = {new.identity: new.world_ns for new in issued}
        for identity, held in states:
            when_ns = at_ns.get(identity, world_ns)
            clocks = self.clocks.at(node, when_ns)
            self.renewals.holds(identity, held, clocks)
            data = {
                "state": held.state,
                "serial": held.serial,
                "not_after_wall_s": held.not_after_wall_s,
            }
            self.events.add(when_ns, "certificate_state", node, clocks, identity=identity, **data)

    def _on_istiod_nodes(self, nodes: tuple[str, ...] | Unreachable) -> None:
        """Record where istiod runs; while it is unavailable its next node is unknown."""
        if isinstance(nodes, Unreachable) or not nodes:
            return

        # Of several istiods the one that was first seen stays, as long as it is there.
        if self._istiod_on in nodes:
            return

        self._istiod_on = nodes[0]
        data = {"kubernetes_node": self._istiod_on}
        self.events.add(self.world.now_ns, "istiod_seen", self._istiod_node, None, **data)

    @property
    def _istiod_node(self) -> str | None:
        """The node of the plan on which istiod runs."""
        for node in self._identities:
            if self.setting.node_names[node] == self._istiod_on:
                return node
        return None

    def authority_clocks(self, world_ns: int) -> ClockReading:
        """The authority's clocks: those of the node on which istiod runs now. An authority that is
        "apart", or on a node outside the plan, has unmoved clocks, unless all machines share
        theirs."""
        node = None
        if self.plan.authority_node is not None:
            node = self._istiod_node
        if node is None and self._shares_clocks:
            node = next(iter(self._identities))

        if node is None:
            return self.clocks.unmoved(world_ns)
        return self.clocks.at(node, world_ns)

    def answered(
        self, node: str, identity: str, world_ns: int, outcome: str, held: JsonObject
    ) -> None:
        """Record one request to the authority that has been answered."""
        keys = ("serial", "not_before_wall_s", "not_after_wall_s")
        data = {key: held.get(key) for key in keys} | {"identity": identity, "outcome": outcome}
        self.events.add(world_ns, "csr_answered", node, self.clocks.at(node, world_ns), **data)

    def _on_observations(
        self, watcher: ClusterWatcher, observed: list[WatcherEvent] | Unreachable
    ) -> None:
        """A watcher that fails does not end the run; its failure is recorded once."""
        if isinstance(observed, Unreachable):
            if watcher.name not in self._unreachable_since_ns:
                self._unreachable_since_ns[watcher.name] = self.setting.real.monotonic_ns()
                data = {"what": watcher.name, "error": str(observed)}
                self.events.add(self.world.now_ns, "observation_failed", None, None, **data)
            return
        self._unreachable_since_ns.pop(watcher.name, None)
        for one in observed:
            self._record_observation(one)

    def _record_observation(self, one: WatcherEvent) -> None:
        # Watchers see the same again at every poll.
        if self._last_observed.get((one.kind, one.key)) == one.data:
            return
        self._last_observed[one.kind, one.key] = one.data

        world_ns = self.world.now_ns
        if one.node is None:
            self.events.add(world_ns, one.kind, None, None, **one.data)
            return
        if one.kind == "csr_answered":
            identity = text_at(one.data, "identity")
            outcome = text_at(one.data, "outcome")
            self.answered(one.node, identity, world_ns, outcome, one.data)
            return
        clocks = self.clocks.at(one.node, world_ns)
        self.events.add(world_ns, one.kind, one.node, clocks, **one.data)


def _in_words(process: MeshProcess) -> str:
    if process.kind == "proxy":
        return f"gateway {process.name}"
    return f"ztunnel of node {process.node}"


def _or_error(work: Callable[[], Any]) -> Callable[[], Any]:
    """`work`, returning Unreachable instead of raising it."""

    def run() -> Any:
        try:
            return work()
        except Unreachable as error:
            return error

    return run
