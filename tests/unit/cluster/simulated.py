"""A cluster without a cluster: ztunnels as the model has them, behind the same promise that kr8s
keeps.

Time is virtual and passes only during a sleep; every timer that falls due meanwhile fires at
its own moment.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from meshwake.clocks.movers.base import Meanwhile, Moment, Moved, sleep_meanwhile
from meshwake.cluster.stack.gateways import DESTINATION_HEADER, gateway_url
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.plan import Plan, PlannedGateway
from meshwake.core.planned_faults import PlannedFault
from meshwake.kubernetes.api import Executed, Pod, Unreachable
from meshwake.labs.model.authority import Answer, SignedCertificate
from meshwake.labs.model.proxy import Proxy
from meshwake.labs.model.traffic import connection_error
from meshwake.labs.model.ztunnel import BEHAVIOURS, ModelZtunnel
from meshwake.ztunnel.names import GATEWAY_LABEL
from meshwake.ztunnel.spiffe import spiffe_id

from tests.support.fake_kubernetes import FakeKubernetes

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
        return ClockReading(
            self.wall_ns + now_ns, self.monotonic_ns + now_ns, self.boottime_ns + now_ns
        )


@dataclass
class Running:
    """One ztunnel, or one gateway, on a node of the plan, and when each identity asks next, on its
    monotonic clock."""

    pod: Pod
    node: str
    ztunnel: ModelZtunnel | Proxy
    due: dict[str, int | None]

    def answered(self, identity: str, answer: Answer, now: ClockReading) -> int | None:
        """When it asks again."""
        if isinstance(self.ztunnel, ModelZtunnel):
            return self.ztunnel.answered(identity, answer, now)
        due = self.ztunnel.due_after(identity, answer, now)
        return None if due is None else due.monotonic_ns


@dataclass
class SimulatedCluster(FakeKubernetes):
    """See kubernetes.Kubernetes; `real` is its time too. Every plan node lies on a Kubernetes node
    of its own."""

    plan: Plan
    node_names: Mapping[str, str]
    clocks: dict[str, Clock] = field(default_factory=dict)
    now_ns: int = 0
    objects: dict[tuple[str, str | None, str], dict[str, Any]] = field(default_factory=dict)
    unreachable: Callable[[str], bool] = lambda what: False
    calls: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    istiods: int = 1
    signs: bool = True  # False: only what is requested at the start
    istiod_nodes: tuple[str, ...] = ()
    moves_to: tuple[str, ...] = ()  # where istiod comes back after an outage
    authority_clock: Clock | None = None
    istio: str = ""
    lifetime_s: int = 86_400
    closed: bool = False
    stopped: set[str] = field(default_factory=set)  # nodes whose programs do not run
    # Gateways that kubelet has found unready, and when it finds them ready again; ztunnels learn of
    # it a second later.
    unready_until_ns: dict[str, int] = field(default_factory=dict)
    _version: int = 0
    _signed: int = 0
    _started: int = 0
    _running: dict[str, Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shared = Clock()
        self.clocks = self.clocks or {node.name: shared for node in self.plan.nodes}
        # As chart and user left it: a run must leave it so.
        self.objects["DaemonSet", "istio-system", "ztunnel"] = {
            "kind": "DaemonSet",
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {
                "template": {
                    "metadata": {"annotations": {}},
                    "spec": {"containers": [ztunnel_container(self)]},
                }
            },
        }
        self.objects["Deployment", "istio-system", ISTIOD] = {
            "kind": "Deployment",
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {"replicas": self.istiods},
        }
        self.istiod_nodes = self.istiod_nodes or tuple(self.node_names.values())[:1]
        self.start_ztunnels()
        for gateway in self.plan.gateways:
            self.start_gateway(gateway)

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
            at - self.clocks[running.node].monotonic_ns
            for running in self._running.values()
            for at in running.due.values()
            if at is not None and running.node not in self.stopped
        ]
        return min(due, default=None)

    def _fire(self) -> None:
        for running in self._running.values():
            if running.node in self.stopped:
                continue
            for identity, due_ns in list(running.due.items()):
                if due_ns is not None and due_ns <= self.reading(running.node).monotonic_ns:
                    self._ask(running, identity)

    def _ask(self, running: Running, identity: str) -> None:
        answer = self._answer()
        if answer.certificate is None:
            failure = "certificate renewal failed (the authority does not answer)"
            spiffe = f"spiffe://cluster.local/ns/{identity.replace('/', '/sa/')}"
            self.logs.append(f"{self.now_ns} {failure} id={spiffe}")
        running.due[identity] = running.answered(identity, answer, self.reading(running.node))

    def _answer(self) -> Answer:
        if not self.istiods or (not self.signs and self._signed >= len(self._running) * 2):
            return Answer("refused")
        self._signed += 1
        now_s = self._authority_clock().at(self.now_ns).wall_ns // NS_PER_S
        return Answer(
            "issued", SignedCertificate(str(self._signed), now_s - 120, now_s + self.lifetime_s)
        )

    def _authority_clock(self) -> Clock:
        """That of the node on which istiod runs, unless it is apart."""
        names = {kubernetes: node for node, kubernetes in self.node_names.items()}
        here = self.clocks.get(names.get(self.istiod_nodes[0], ""))
        return self.authority_clock or here or next(iter(self.clocks.values()))

    def start_ztunnels(self, only: str | None = None) -> None:
        for node in self.plan.nodes:
            if only in (None, node.name):
                self._start(node.name, node.identities)
        self._fire()

    def _start(self, node: str, identities: tuple[str, ...]) -> None:
        self._started += 1
        base = self.reading(node)
        behaviour = BEHAVIOURS[self.plan.behaviour_class]
        ztunnel = ModelZtunnel(identities, behaviour, self.lifetime_s, base, Random(self._started))
        name = f"ztunnel-{self._started}"
        # Not ready before it has an answer of istiod.
        ready, labels = self.istiods > 0, {"app": "ztunnel"}
        pod = Pod(
            "istio-system", name, f"uid-{name}", self.node_names[node], ready, labels, started=True
        )
        self._running[node] = Running(
            pod, node, ztunnel, dict.fromkeys(identities, base.monotonic_ns)
        )

    def start_gateway(self, gateway: PlannedGateway) -> None:
        self._started += 1
        namespace, _, _ = gateway.identity.partition("/")
        name, base = f"{gateway.name}-istio-{self._started}", self.reading(gateway.node)
        labels, node_name = {GATEWAY_LABEL: gateway.name}, self.node_names[gateway.node]
        pod = Pod(namespace, name, f"uid-{name}", node_name, True, labels, started=True)
        proxy = Proxy(gateway.identity, gateway.lifetime_s, base)
        due: dict[str, int | None] = {gateway.identity: base.monotonic_ns}
        self._running[gateway.name] = Running(pod, gateway.node, proxy, due)
        self._fire()

    # Kubernetes

    def reach(self, what: str) -> None:
        self.calls.append(what)
        if self.unreachable(what):
            raise Unreachable(f"{what}: no answer within 15 s")

    def pods(self, namespace: str | None, labels: Mapping[str, str]) -> list[Pod]:
        self.reach(f"pods {namespace}")
        found = [
            running
            for running in self._running.values()
            if namespace in {None, running.pod.namespace}
            and labels.items() <= running.pod.labels.items()
        ]
        if found or labels == {"app": "ztunnel"} or GATEWAY_LABEL in labels:
            for running in found:
                running.pod = replace(running.pod, ready=running.pod.ready or self.istiods > 0)
            return [self._as_kubelet_polled(running) for running in found]
        assert namespace is not None
        if labels == {"app": ISTIOD}:
            node = self.istiod_nodes[0]
            return [
                Pod(namespace, f"istiod-{each}", "uid", node, ready=True)
                for each in range(self.istiods)
            ]
        return [
            Pod(
                namespace,
                f"{name}-0",
                f"uid-{name}",
                self._node_of(namespace, name),
                ready=True,
                labels=labels,
            )
            for kind, at, name in self.objects
            if kind == "Deployment" and at == namespace and labels.get("app") == name
        ]

    def _as_kubelet_polled(self, running: Running) -> Pod:
        gateway = running.pod.labels.get(GATEWAY_LABEL, "")
        is_unready = self.now_ns < self.unready_until_ns.get(gateway, 0)
        return replace(running.pod, ready=False) if is_unready else running.pod

    def _node_of(self, namespace: str, name: str) -> str:
        node = next(
            (n.name for n in self.plan.nodes if f"{namespace}/{name}" in n.identities), None
        )
        return self.node_names[node] if node else ""

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        self.reach(f"get {path}")
        if path == "/version":
            return f"{self.istio}-0123-Clean".encode()
        running = next((each for each in self._running.values() if each.pod.name == pod.name), None)
        if running is not None and path == "/certs" and isinstance(running.ztunnel, Proxy):
            return _envoy_certificates(running.ztunnel)
        if running is None or path != "/config_dump":
            raise Unreachable(f"GET {pod}:{port}{path}: connection refused")
        certificates = [_entry(*item) for item in running.ztunnel.states.items()]
        return json.dumps(
            {"certificates": certificates, "version": {"version": self.istio}}
        ).encode()

    def execute(
        self, pod: Pod, container: str, command: Sequence[str], within_s: float
    ) -> Executed:
        self.reach(f"exec {command[0]}")
        if command[0] != "curl":
            claims = (
                base64.urlsafe_b64encode(json.dumps({"exp": 1_800_003_600}).encode())
                .decode()
                .rstrip("=")
            )
            return Executed(0, f"head.{claims}.signature\n", "")
        source = f"{pod.namespace}/{pod.name.removesuffix('-0')}"
        host = command[-1].removeprefix("http://").split(":")[0].split(".")
        destination = f"{host[1]}/{host[0]}"
        for gateway in self.plan.gateways:
            if command[-1] == gateway_url(gateway):
                header = next(word for word in command if word.startswith(DESTINATION_HEADER))
                source, destination = (
                    gateway.identity,
                    header.removeprefix(f"{DESTINATION_HEADER}: "),
                )
                if self.now_ns < self.unready_until_ns.get(gateway.name, -NS_PER_S) + NS_PER_S:
                    return Executed(
                        56, "000", "curl: (56) Recv failure: Connection reset by peer\n"
                    )
        error = self._connection_error(source, destination)
        return (
            Executed(0, "200", "")
            if error is None
            else Executed(56, "000", f"curl: (56) {error}\n")
        )

    def _connection_error(self, source: str, destination: str) -> str | None:
        here, there = self._holder_of(source), self._holder_of(destination)
        return connection_error(
            here.ztunnel.states[source],
            self.reading(here.node),
            there.ztunnel.states[destination],
            self.reading(there.node),
        )

    def _holder_of(self, identity: str) -> Running:
        return next(each for each in self._running.values() if identity in each.ztunnel.states)

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        self.reach("logs")
        return self.logs

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        kind = kind.split(".", maxsplit=1)[0]
        if (kind, name) != ("DaemonSet", "ztunnel"):
            return deepcopy(super().read(kind, namespace, name))
        self.reach(f"read {kind} {name}")
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return None
        count = len(self._running)
        counts = dict.fromkeys(
            ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"), count
        )
        return {**found, "status": counts}

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        self.reach(f"patch {kind} {name}")
        key = (kind.split(".", maxsplit=1)[0], namespace, name)
        before, self.objects[key] = self.objects[key], strategic_merge(self.objects[key], patch)
        if name == ISTIOD:
            self.istiods = self.objects[key]["spec"]["replicas"]
            self.istiod_nodes = (
                self.moves_to if self.istiods and self.moves_to else self.istiod_nodes
            )
        elif before["spec"] != self.objects[key]["spec"]:
            (container,) = self.objects[key]["spec"]["template"]["spec"]["containers"]
            environment = {each["name"]: each.get("value", "") for each in container["env"]}
            self.lifetime_s = int(environment["SECRET_TTL"].rstrip("s"))
            self.start_ztunnels()

    def end_pod(self, pod: Pod) -> None:
        self.reach(f"end {pod}")
        name = next(name for name, running in self._running.items() if running.pod == pod)
        gateway = next((each for each in self.plan.gateways if each.name == name), None)
        if gateway is None:
            self.start_ztunnels(name)
        else:
            self.start_gateway(gateway)

    def close(self) -> None:
        self.closed = True


def ztunnel_container(cluster: SimulatedCluster) -> dict[str, Any]:
    environment = {"RUST_LOG": "info", "SECRET_TTL": f"{cluster.lifetime_s}s"}
    return {
        "name": "istio-proxy",
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }


def strategic_merge(into: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """As the API server merges: null removes a field, lists of named things are merged by name."""
    result = deepcopy(dict(into))
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            continue
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = strategic_merge(result.get(key, {}), value)
        elif isinstance(value, list) and value and value[0] == {"$patch": "replace"}:
            result[key] = value[1:]
        elif isinstance(value, list) and value and "name" in value[0]:
            order = [each["name"] for each in patch.get(f"$setElementOrder/{key}", ())]
            result[key] = _merge_named(result.get(key, []), value, order)
        else:
            result[key] = value
    return result


def _merge_named(
    into: list[dict[str, Any]], patch: list[dict[str, Any]], order: list[str]
) -> list[dict[str, Any]]:
    """What is patched comes last, unless an order is given; then the patch itself must be in that
    order."""
    kept = [each["name"] for each in patch if "$patch" not in each]
    if order and kept != [name for name in order if name in kept]:
        raise Unreachable(
            f"500: The order in patch list {kept} doesn't match $setElementOrder list {order}"
        )
    by_name = {each["name"]: each for each in into}
    for each in patch:
        before = by_name.pop(each["name"], {})
        if each.get("$patch") != "delete":
            by_name[each["name"]] = strategic_merge(before, each)
    return [by_name[name] for name in order] if order else list(by_name.values())


def _entry(identity: str, state: Any) -> dict[str, Any]:
    spiffe = f"spiffe://cluster.local/ns/{identity.replace('/', '/sa/')}"
    held = state.certificate
    if held is None:
        return {"identity": spiffe, "state": state.state, "certChain": []}
    times = {
        "validFrom": _text(held.not_before_wall_s),
        "expirationTime": _text(held.not_after_wall_s),
    }
    return {
        "identity": spiffe,
        "state": state.state,
        "certChain": [{"serialNumber": held.serial, **times}],
    }


def _envoy_certificates(proxy: Proxy) -> bytes:
    """As Envoy prints them; every one of its two listeners has it."""
    entries = []
    for identity, state in proxy.states.items():
        held = state.certificate
        if held is None:
            continue
        leaf = {
            "serial_number": held.serial,
            "subject_alt_names": [{"uri": spiffe_id(identity)}],
            "valid_from": _text(held.not_before_wall_s),
            "expiration_time": _text(held.not_after_wall_s),
        }
        entries += [{"cert_chain": [leaf], "ca_cert": []}] * 2
    return json.dumps({"certificates": [*entries, {"ca_cert": []}]}).encode()


def _text(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class SimulatedMover:
    """Moves the clocks of a SimulatedCluster. `shared`: all nodes have one clock, and one movement
    moves them all."""

    cluster: SimulatedCluster
    name: str = "engine"
    takes_s: float = 1.0
    released: bool = False
    released_after: int = 0  # calls to the cluster
    prepared: bool = False
    _done: Moved | None = None

    def refusals(self, plan: Plan) -> list[str]:
        return []

    def prepare(self) -> None:
        self.prepared = True

    def read(self, node: str) -> ClockReading:
        return self.cluster.reading(node)

    def release(self) -> None:
        self.released, self.released_after = True, len(self.cluster.calls)

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        assert fault.node is not None
        if (
            self.name == "engine"
            and self._done
            and self._done.fault.at_world_ns == fault.at_world_ns
        ):
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
