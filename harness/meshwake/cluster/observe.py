"""What every ztunnel reports of itself: its process, its certificates and their states
(/config_dump on its localhost).

A request to the authority is not reported anywhere. One that was answered shows as a new serial
number, and the second in which it was answered is in the certificate: notBefore + the backdate, by
the authority's wall clock. So `csr_answered` is derived, to the second, and never placed before the
last look that still showed the old certificate. A request that was refused leaves a line in
ztunnel's log (ztunnel/logs.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshwake.core import versions
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject, MutableJsonObject, objects_at, text_at
from meshwake.core.plan import Plan, PlannedGateway
from meshwake.kubernetes.api import Kubernetes, Pod, Unreachable
from meshwake.ztunnel.config_dump import parse_config_dump
from meshwake.ztunnel.envoy_certificates import parse_envoy_certificates
from meshwake.ztunnel.names import GATEWAY_LABEL, ISTIO_NAMESPACE, ISTIOD_LABELS, ZTUNNEL_LABELS
from meshwake.ztunnel.ports import (
    ADMIN_PORT,
    CONFIG_DUMP_PATH,
    ENVOY_CERTIFICATES_PATH,
    ISTIOD_MONITORING_PORT,
)
from meshwake.ztunnel.spiffe import identity_of

ANSWER_WITHIN_S = 8.0

_RELEASE = re.compile(r"\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?(?![\d.])")
# Whose images are named in a history: component -> (namespace, labels of its pods).
_COMPONENTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "ztunnel": (ISTIO_NAMESPACE, ZTUNNEL_LABELS),
    "istiod": (ISTIO_NAMESPACE, ISTIOD_LABELS),
    "istio-cni": (ISTIO_NAMESPACE, {"k8s-app": "istio-cni-node"}),
    "cilium": ("kube-system", {"k8s-app": "cilium"}),
}


@dataclass(frozen=True)
class Held:
    """What ztunnel reports of one identity. Without a certificate it reports only `state`."""

    state: str
    serial: str | None = None
    not_before_wall_s: int | None = None
    not_after_wall_s: int | None = None


def read_config_dump(text: bytes) -> dict[str, Held]:
    """identity (namespace/serviceaccount) -> what is held for it. Raises SubjectFailed for anything
    but a config_dump."""
    try:
        entries = parse_config_dump(text)
    except ValueError as error:
        raise SubjectFailed(f"ztunnel's /config_dump is not understood: {error}") from error

    held: dict[str, Held] = {}
    for entry in entries:
        held[entry.identity] = Held(
            entry.state, entry.serial, entry.not_before_wall_s, entry.not_after_wall_s
        )
    return held


def read_envoy_certificates(text: bytes, identity: str) -> dict[str, Held]:
    """As `read_config_dump`, for the one identity of a gateway; empty while Envoy has no certificate
    for it. Raises SubjectFailed when the text is not that of /certs."""
    try:
        certificates = parse_envoy_certificates(text)
    except ValueError as error:
        raise SubjectFailed(f"a gateway's /certs is not understood: {error}") from error

    own = [each for each in certificates if identity_of(each.spiffe) == identity]
    if not own:
        return {}

    # Every listener lists the certificate that it serves; while a new one is handed out, some of
    # them still have the one before it.
    newest = max(own, key=lambda each: each.not_before_wall_s)
    held = Held("Available", newest.serial, newest.not_before_wall_s, newest.not_after_wall_s)
    return {identity: held}


@dataclass(frozen=True)
class Seen:
    """One look at a process that holds certificates: the ztunnel of a node of the plan, which has
    the name of that node, or a gateway. `held` has the plan's identities of that process only."""

    process: str
    node: str
    pod: Pod
    held: Mapping[str, Held]


@dataclass(frozen=True)
class Issued:
    """A certificate seen for the first time; `world_ns` is when it was issued."""

    world_ns: int
    identity: str
    held: Held


class SeenCertificates:
    """What processes held when they were last looked at, and what of it is new."""

    def __init__(self, backdate_s: int) -> None:
        self._backdate_s = backdate_s
        self._held: dict[str, Held] = {}
        self._looked_world_ns: dict[str, int] = {}

    def restarted(self, process: str, identities: Iterable[str], world_ns: int) -> None:
        """A process ended, and with it what it held; its successor was first seen at `world_ns`.
        None of its certificates is dated before that: it was issued some seconds earlier, but an
        event of a process must not precede its start."""
        self._looked_world_ns[process] = world_ns
        for identity in identities:
            self._held.pop(identity, None)

    def changes(
        self, seen: Seen, looked_world_ns: int, authority_wall_ns: int
    ) -> tuple[list[Issued], list[tuple[str, Held]]]:
        """What of `seen` is new since the last look: certificates issued, and states.
        `authority_wall_ns`: its wall clock at `looked_world_ns`."""
        earliest_ns = self._looked_world_ns.get(seen.process, 0)
        self._looked_world_ns[seen.process] = looked_world_ns

        issued: list[Issued] = []
        states: list[tuple[str, Held]] = []
        for identity, held in seen.held.items():
            before = self._held.get(identity)
            if held == before:
                continue
            self._held[identity] = held
            states.append((identity, held))

            serial_before = None if before is None else before.serial
            # A certificate that ztunnel no longer has, or has had before, was not issued now.
            if held.serial is None or held.serial == serial_before:
                continue
            ago_ns = self._issued_ago_ns(held, authority_wall_ns)
            # Not before the last look, at which it was not there, and not in the future, where
            # whole seconds of notBefore could put it.
            world_ns = min(max(looked_world_ns - ago_ns, earliest_ns), looked_world_ns)
            issued.append(Issued(world_ns, identity, held))
        return issued, states

    def _issued_ago_ns(self, held: Held, authority_wall_ns: int) -> int:
        """How long ago it was issued, by the authority's clock, which wrote its notBefore."""
        assert held.not_before_wall_s is not None
        issued_wall_s = held.not_before_wall_s + self._backdate_s
        return authority_wall_ns - issued_wall_s * NS_PER_S


class Ztunnels:
    """Where each plan node's ztunnel runs, and what it holds."""

    def __init__(self, kubernetes: Kubernetes, node_names: Mapping[str, str]) -> None:
        self._kubernetes = kubernetes
        self._nodes = {name: node for node, name in node_names.items()}

    def pods(self) -> dict[str, Pod]:
        """plan node -> its ztunnel's pod: the ready one, else one that runs. While istiod is down a
        new ztunnel is not ready, and runs and can be queried all the same. Raises Unreachable."""
        found: dict[str, Pod] = {}
        for pod in _ready_last(self._kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS)):
            # The cluster may have more nodes than the plan.
            if pod.node in self._nodes:
                found[self._nodes[pod.node]] = pod
        return found

    def look(self, node: str, pod: Pod, identities: Sequence[str]) -> Seen:
        """Asks one ztunnel. Raises Unreachable."""
        answer = self._kubernetes.get(pod, ADMIN_PORT, CONFIG_DUMP_PATH, ANSWER_WITHIN_S)
        held = read_config_dump(answer)

        # Other workloads of the node are not part of the plan, and not of its history.
        of_plan = {identity: held[identity] for identity in identities if identity in held}
        return Seen(node, node, pod, of_plan)


class Gateways:
    """Where each of the plan's gateways runs, and what it holds."""

    def __init__(self, kubernetes: Kubernetes, gateways: Sequence[PlannedGateway]) -> None:
        self._kubernetes = kubernetes
        self._gateways = {gateway.name: gateway for gateway in gateways}

    def pods(self) -> dict[str, Pod]:
        """gateway -> its pod: the ready one, else one that runs. Raises Unreachable."""
        found = {}
        for name, gateway in self._gateways.items():
            namespace = gateway.identity.partition("/")[0]
            pods = self._kubernetes.pods(namespace, {GATEWAY_LABEL: name})
            running = _ready_last(pods)
            if running:
                found[name] = running[-1]
        return found

    def look(self, name: str, pod: Pod) -> Seen:
        """Reads the certificates of one gateway. Raises Unreachable."""
        gateway = self._gateways[name]
        answer = self._kubernetes.get(pod, ADMIN_PORT, ENVOY_CERTIFICATES_PATH, ANSWER_WITHIN_S)
        return Seen(name, gateway.node, pod, read_envoy_certificates(answer, gateway.identity))


def _ready_last(pods: Iterable[Pod]) -> list[Pod]:
    """Those that run, the ready ones last, so that they win where the last one counts."""
    ready = []
    others = []
    for pod in pods:
        if pod.ready:
            ready.append(pod)
        elif pod.started:
            others.append(pod)
    return [*others, *ready]


# What runs


@dataclass(frozen=True)
class Running:
    """What a cluster itself reports that it is made of, whatever was chosen. `ztunnels`: the
    releases that each ztunnel may be, by what it reports of itself (none: it does not know).
    `unknown`: what could not be queried, and why."""

    kubelets: Mapping[str, str]
    images: Mapping[str, tuple[str, ...]]
    ztunnels: Mapping[str, tuple[str, ...]]
    istiod: str | None
    istiod_nodes: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def to_json(self) -> MutableJsonObject:
        """For run_started."""
        found: MutableJsonObject = {
            "kubernetes": dict(self.kubelets),
            "image_ids": {name: list(ids) for name, ids in self.images.items()},
            "ztunnel": {pod: list(releases) for pod, releases in self.ztunnels.items()},
            "istiod": self.istiod,
            "istiod_nodes": list(self.istiod_nodes),
        }

        # Left out where there is nothing, as in histories from before it was recorded.
        if self.unknown:
            found["unknown"] = list(self.unknown)
        return found


def running_versions(kubernetes: Kubernetes, nodes: Sequence[str]) -> Running:
    """Queries kubelets, pods, ztunnels and istiod. Raises Unreachable only when the API server does
    not answer."""
    pods = {name: kubernetes.pods(*where) for name, where in _COMPONENTS.items()}
    unknown: list[str] = []
    ztunnels = {str(pod): _ztunnel_releases(kubernetes, pod, unknown) for pod in pods["ztunnel"]}
    kubelets = {node: _kubelet_version(kubernetes, node) for node in nodes}

    images: dict[str, tuple[str, ...]] = {}
    for name, found in pods.items():
        # A component without pods is not part of this cluster.
        if found:
            images[name] = _image_ids(kubernetes, found)

    return Running(
        kubelets=kubelets,
        images=images,
        ztunnels=ztunnels,
        istiod=_istiod_version(kubernetes, pods["istiod"], unknown),
        istiod_nodes=_nodes_of(pods["istiod"]),
        unknown=tuple(unknown),
    )


def check_versions(plan: Plan, cluster: str, running: Running) -> None:
    """Raises LabUnavailable when a ztunnel is a known release, and another than the one that would
    be judged."""
    for pod, releases in running.ztunnels.items():
        # A build of one's own has no row, and is judged as the release that was named.
        known = [release for release in releases if versions.has_row(release)]
        if not known:
            continue

        # A build may be several releases, such as one and its candidate: one that fits is enough.
        if plan.version not in known:
            raise LabUnavailable(
                f"cluster {cluster} runs ztunnel {known[0]} ({pod}), and the run would be "
                f"judged as {plan.version}; "
                f"say --istio {known[0]}, or use a cluster of {plan.version}"
            )


def node_names(plan: Plan, nodes: Sequence[str], istiod_nodes: Sequence[str]) -> dict[str, str]:
    """Which Kubernetes node each node of the plan is: istiod's own is the one on which the plan
    lets the authority live; where the plan has it apart, istiod's is taken last."""
    # With several istiods the first that is on a node of the cluster.
    homes = [node for node in istiod_nodes if node in nodes]
    home = homes[0] if homes else None
    free = [node for node in nodes if node != home]
    if home is not None and plan.authority_node is None:
        # The plan has an authority that never sleeps: istiod's node is used only when no other is
        # left.
        free.append(home)

    names: dict[str, str] = {}
    for node in plan.nodes:
        if home is not None and node.name == plan.authority_node:
            names[node.name] = home
        else:
            names[node.name] = free.pop(0)
    return names


def istiod_nodes(kubernetes: Kubernetes) -> tuple[str, ...]:
    """The Kubernetes nodes on which an istiod is ready. Raises Unreachable."""
    pods = kubernetes.pods(ISTIO_NAMESPACE, ISTIOD_LABELS)
    ready = [pod for pod in pods if pod.ready]
    return _nodes_of(ready)


def _nodes_of(pods: Iterable[Pod]) -> tuple[str, ...]:
    """The nodes of `pods`, in their order, each once."""
    return tuple(dict.fromkeys(pod.node for pod in pods))


def _kubelet_version(kubernetes: Kubernetes, node: str) -> str:
    found = kubernetes.read("Node", None, node)
    return text_at(found, "status", "nodeInfo", "kubeletVersion") or "unknown"


def _image_ids(kubernetes: Kubernetes, pods: Iterable[Pod]) -> tuple[str, ...]:
    ids = []
    for pod in pods:
        found = kubernetes.read("Pod", pod.namespace, pod.name)
        containers = objects_at(found, "status", "containerStatuses")
        ids += [str(container.get("imageID")) for container in containers]
    # The pods of a DaemonSet have the same ones.
    return tuple(dict.fromkeys(ids))


def _ztunnel_releases(kubernetes: Kubernetes, pod: Pod, unknown: list[str]) -> tuple[str, ...]:
    try:
        answer = kubernetes.get(pod, ADMIN_PORT, CONFIG_DUMP_PATH, ANSWER_WITHIN_S)
        build = json.loads(answer).get("version") or {}
        return releases_of(build)
    except (Unreachable, ValueError, AttributeError) as error:
        unknown.append(f"version of {pod}: {error}")
        return ()


def releases_of(build: JsonObject) -> tuple[str, ...]:
    """The releases that a ztunnel's BuildInfo names: by the commit that it was built from, else by
    the tag of its build. `istioVersion` is taken from an environment variable that the chart sets,
    and is not evidence of the binary."""
    revision = str(build.get("gitRevision", ""))
    status = str(build.get("buildStatus", ""))
    by_commit = versions.built_from(revision, status)
    if by_commit:
        return by_commit

    tag = _RELEASE.match(str(build.get("version", "")))
    if tag is None:
        return ()
    return (tag[0],)


def _istiod_version(kubernetes: Kubernetes, pods: Sequence[Pod], unknown: list[str]) -> str | None:
    ready = [pod for pod in pods if pod.ready]
    if not ready:
        unknown.append("version of istiod: none is ready")
        return None

    first = ready[0]
    try:
        version = kubernetes.get(first, ISTIOD_MONITORING_PORT, "/version", ANSWER_WITHIN_S)
    except Unreachable as error:
        unknown.append(f"version of {first}: {error}")
        return None
    return version.decode(errors="replace").strip()
