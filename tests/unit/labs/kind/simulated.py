"""A cluster without a cluster: ztunnels as the model has them, behind the same promise that kr8s keeps.

Time is virtual and passes only when somebody sleeps; every timer that falls due meanwhile fires at its own moment.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from harness.clocks.mover import Meanwhile, Moment, Moved, sleep_meanwhile
from harness.clocks.reading import ClockReading
from harness.durations import NS_PER_S
from harness.labs.kind.kubernetes import OUR_LABELS, Executed, Pod, Unreachable
from harness.labs.model.authority import Answer, Certificate
from harness.labs.model.traffic import connection_error
from harness.labs.model.ztunnel import BEHAVIOURS, Ztunnel
from harness.plan import Plan, PlannedFault

STARTS_WALL_NS = 1_800_000_123 * NS_PER_S + 456_789
BOOTED_NS = 5_000 * NS_PER_S
ISTIOD = "istiod"


class Inline(Executor):
    """Work is done where it is submitted: a run is the same every time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  as an executor does
            future.set_exception(error)
        return future


@dataclass
class Clock:
    """The clocks of one machine: as virtual time runs, and by how much each has been moved."""

    wall_ns: int = STARTS_WALL_NS
    monotonic_ns: int = BOOTED_NS
    boottime_ns: int = BOOTED_NS

    def at(self, now_ns: int) -> ClockReading:
        return ClockReading(self.wall_ns + now_ns, self.monotonic_ns + now_ns, self.boottime_ns + now_ns)


@dataclass
class Running:
    """One ztunnel process and when each identity asks next, on its monotonic clock."""

    pod: Pod
    ztunnel: Ztunnel
    due: dict[str, int | None]


@dataclass
class SimulatedCluster:
    """See kubernetes.Kubernetes; `real` is its time too. Every plan node lies on a Kubernetes node of its own."""

    plan: Plan
    node_names: Mapping[str, str]
    clocks: dict[str, Clock] = field(default_factory=dict)
    now_ns: int = 0
    objects: dict[tuple[str, str | None, str], dict[str, Any]] = field(default_factory=dict)
    unreachable: Callable[[str], bool] = lambda what: False
    calls: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    istiods: int = 1
    lifetime_s: int = 86_400
    closed: bool = False
    _signed: int = 0
    _started: int = 0
    _running: dict[str, Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shared = Clock()
        self.clocks = self.clocks or {node.name: shared for node in self.plan.nodes}
        self.objects["DaemonSet", "istio-system", "ztunnel"] = {"metadata": {"labels": {}}}
        self.start_ztunnels()

    # Time

    def monotonic_ns(self) -> int:
        return 77 * NS_PER_S + self.now_ns

    def sleep(self, lasts_s: float) -> None:
        until_ns = self.now_ns + int(lasts_s * NS_PER_S)
        while (due_ns := self._next_due_ns()) is not None and due_ns <= until_ns:
            self.now_ns = max(due_ns, self.now_ns)
            self._fire()
        self.now_ns = until_ns

    def reading(self, node: str) -> ClockReading:
        return self.clocks[node].at(self.now_ns)

    def _next_due_ns(self) -> int | None:
        due = [
            at - self.clocks[node].monotonic_ns
            for node, running in self._running.items()
            for at in running.due.values()
            if at is not None
        ]
        return min(due, default=None)

    def _fire(self) -> None:
        for node, running in self._running.items():
            for identity, due_ns in list(running.due.items()):
                if due_ns is not None and due_ns <= self.reading(node).monotonic_ns:
                    self._ask(node, running, identity)

    def _ask(self, node: str, running: Running, identity: str) -> None:
        answer = self._answer(node)
        if answer.certificate is None:
            told = "certificate renewal failed (the authority does not answer)"
            self.logs.append(f"{self.now_ns} {told} id=spiffe://cluster.local/ns/{identity.replace('/', '/sa/')}")
        running.due[identity] = running.ztunnel.answered(identity, answer, self.reading(node))

    def _answer(self, node: str) -> Answer:
        if not self.istiods:
            return Answer("refused")
        self._signed += 1
        now_s = self.reading(self.plan.authority_node or node).wall_ns // NS_PER_S
        return Answer("issued", Certificate(str(self._signed), now_s - 120, now_s + self.lifetime_s))

    def start_ztunnels(self, only: str | None = None) -> None:
        for node in self.plan.nodes:
            if only in (None, node.name):
                self._start(node.name, node.identities)
        self._fire()

    def _start(self, node: str, identities: tuple[str, ...]) -> None:
        self._started += 1
        base = self.reading(node)
        behaviour = BEHAVIOURS[self.plan.behaviour_class]
        ztunnel = Ztunnel(identities, behaviour, self.lifetime_s, base, Random(self._started))
        name = f"ztunnel-{self._started}"
        pod = Pod("istio-system", name, f"uid-{name}", self.node_names[node], ready=True, labels={"app": "ztunnel"})
        self._running[node] = Running(pod, ztunnel, dict.fromkeys(identities, base.monotonic_ns))

    # Kubernetes

    def _check(self, what: str) -> None:
        self.calls.append(what)
        if self.unreachable(what):
            raise Unreachable(f"{what}: no answer within 15 s")

    def pods(self, namespace: str, labels: Mapping[str, str]) -> list[Pod]:
        self._check(f"pods {namespace}")
        if labels == {"app": "ztunnel"}:
            return [running.pod for running in self._running.values()]
        if labels == {"app": ISTIOD}:
            return [Pod(namespace, f"istiod-{each}", "uid", "cp", ready=True) for each in range(self.istiods)]
        return [
            Pod(namespace, f"{name}-0", f"uid-{name}", self._node_of(namespace, name), ready=True, labels=labels)
            for kind, at, name in self.objects
            if kind == "Deployment" and at == namespace and labels.get("app") == name
        ]

    def _node_of(self, namespace: str, name: str) -> str:
        node = next((n.name for n in self.plan.nodes if f"{namespace}/{name}" in n.identities), None)
        return self.node_names[node] if node else ""

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        self._check(f"get {path}")
        running = next((each for each in self._running.values() if each.pod == pod), None)
        if running is None or path != "/config_dump":
            raise Unreachable(f"GET {pod}:{port}{path}: connection refused")
        return json.dumps({"certificates": [_entry(*item) for item in running.ztunnel.states.items()]}).encode()

    def get_from_service(self, namespace: str, service: str, port: int, path: str, within_s: float) -> bytes:
        raise Unreachable(f"{service} is not there")

    def execute(self, pod: Pod, container: str, command: Sequence[str], within_s: float) -> Executed:
        self._check(f"exec {command[0]}")
        if command[0] != "curl":
            claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_800_003_600}).encode()).decode().rstrip("=")
            return Executed(0, f"head.{claims}.signature\n", "")
        source = f"{pod.namespace}/{pod.name.removesuffix('-0')}"
        host = command[-1].removeprefix("http://").split(":")[0].split(".")
        error = self._connection_error(source, f"{host[1]}/{host[0]}")
        return Executed(0, "200", "") if error is None else Executed(56, "000", f"curl: (56) {error}\n")

    def _connection_error(self, source: str, destination: str) -> str | None:
        here, there = self.plan.node_of(source), self.plan.node_of(destination)
        return connection_error(
            self._running[here].ztunnel.states[source],
            self.reading(here),
            self._running[there].ztunnel.states[destination],
            self.reading(there),
        )

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        self._check("logs")
        return self.logs

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        self._check(f"read {kind} {name}")
        kind = kind.split(".", maxsplit=1)[0]
        if (kind, name) == ("DaemonSet", "ztunnel"):
            count = len(self._running)
            counts = dict.fromkeys(("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"), count)
            metadata = {"generation": 1, **self.objects[kind, namespace, name]["metadata"]}
            containers = [{"name": "istio-proxy", "env": [{"name": "SECRET_TTL", "value": f"{self.lifetime_s}s"}]}]
            spec = {"template": {"spec": {"containers": containers}}}
            return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 1, **counts}}
        if (kind, name) == ("Deployment", ISTIOD):
            return {"metadata": {}, "spec": {"replicas": self.istiods}}
        return self.objects.get((kind, namespace, name))

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        for thing in objects:
            self._check(f"apply {thing['kind']}")
            self.objects[thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]] = dict(thing)

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        self._check(f"patch {kind} {name}")
        if name == ISTIOD:
            self.istiods = patch["spec"]["replicas"]
        else:
            container = patch["spec"]["template"].get("spec", {}).get("containers", [{"env": []}])[0]
            environment = {each["name"]: each["value"] for each in container["env"]}
            self.lifetime_s = int(environment.get("SECRET_TTL", f"{self.lifetime_s}s").rstrip("s"))
            self.start_ztunnels()

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        key = (kind.split(".", maxsplit=1)[0], namespace, name)
        found = self.objects.get(key)
        if found is None or not OUR_LABELS.items() <= found["metadata"].get("labels", {}).items():
            return False
        del self.objects[key]
        for other in [each for each in self.objects if kind == "Namespace" and each[1] == name]:
            del self.objects[other]
        return True

    def ours(self, kind: str, labels: Mapping[str, str]) -> list[tuple[str | None, str]]:
        self._check(f"list {kind}")
        wanted = {**OUR_LABELS, **labels}.items()
        return [
            (namespace, name)
            for (each, namespace, name), thing in self.objects.items()
            if each == kind.split(".", maxsplit=1)[0] and wanted <= thing["metadata"].get("labels", {}).items()
        ]

    def end_pod(self, pod: Pod) -> None:
        self._check(f"end {pod}")
        node = next(node for node, running in self._running.items() if running.pod == pod)
        self.start_ztunnels(node)

    def close(self) -> None:
        self.closed = True


def _entry(identity: str, state: Any) -> dict[str, Any]:
    spiffe = f"spiffe://cluster.local/ns/{identity.replace('/', '/sa/')}"
    held = state.certificate
    if held is None:
        return {"identity": spiffe, "state": state.state, "certChain": []}
    times = {"validFrom": _text(held.not_before_wall_s), "expirationTime": _text(held.not_after_wall_s)}
    return {"identity": spiffe, "state": state.state, "certChain": [{"serialNumber": held.serial, **times}]}


def _text(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class SimulatedMover:
    """Moves the clocks of a SimulatedCluster. `shared`: all nodes have one clock, and one movement moves them all."""

    cluster: SimulatedCluster
    name: str = "engine"
    takes_s: float = 1.0
    released: bool = False
    prepared: bool = False
    _done: Moved | None = None

    def refusals(self, plan: Plan) -> list[str]:
        return []

    def prepare(self) -> None:
        self.prepared = True

    def read(self, node: str) -> ClockReading:
        return self.cluster.reading(node)

    def release(self) -> None:
        self.released = True

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        assert fault.node is not None
        if self.name == "engine" and self._done and self._done.fault.at_world_ns == fault.at_world_ns:
            return replace(self._done, fault=fault)
        before, clock, woke = self._moment(fault.node), self.cluster.clocks[fault.node], None
        self.cluster.sleep(self.takes_s)
        skipped_ns = fault.lasts_ns if fault.kind in {"suspend", "pause"} else 0
        if fault.kind == "suspend":
            clock.boottime_ns += fault.lasts_ns
        if fault.kind == "pause":
            woke = self._moment(fault.node)
            meanwhile(woke, skipped_ns, woke.real_monotonic_ns + fault.corrected_after_ns)
        wall_before_ns = self._moment(fault.node).clocks.wall_ns
        clock.wall_ns += fault.expected_drift_ns
        self._done = Moved(
            fault=fault,
            before=before,
            after=self._moment(fault.node),
            skipped_world_ns=skipped_ns,
            woke=woke,
            wall_before_ns=None if fault.kind == "suspend" else wall_before_ns,
        )
        return self._done

    def _moment(self, node: str) -> Moment:
        return Moment(self.cluster.monotonic_ns(), self.cluster.reading(node), 0)
