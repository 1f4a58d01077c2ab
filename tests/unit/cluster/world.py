"""An engine, its programs and a cluster's API, all in one simulated world in which a harness can be
killed, or a thing fail, before and after every single act. Time is virtual."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from meshwake.cluster.bring_up_context import Dependencies
from meshwake.cluster.docker import (
    KIND_CLUSTER_LABEL,
    KIND_NETWORK,
    KIND_ROLE_LABEL,
    Container,
    DockerNetwork,
    EngineFacts,
    Image,
)
from meshwake.cluster.images import full_reference
from meshwake.cluster.tools import Output, ToolFailed
from meshwake.core.errors import LabUnavailable
from meshwake.kubernetes.api import Executed, Unreachable
from meshwake.kubernetes.rollouts import WORKLOADS

from tests.support.fake_kubernetes import FakeKubernetes
from tests.unit.cluster.simulated import strategic_merge

MIB, GIB = 1024**2, 1024**3
FACTS = EngineFacts("29.0.1", "1.48", "A test", "x86_64", 2, "/nowhere", 8, 16 * GIB)
GATEWAY_API = b"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.gateway.networking.k8s.io}
"""


NOT_PROGRAMMED = {
    "type": "Programmed",
    "status": "False",
    "reason": "AddressNotAssigned",
    "message": "Failed to assign to any requested addresses: no instances found for hostname "
    '"gateway-istio.meshwake-demo.svc.cluster.local"',
}

_BLOB = "sha256:{:064d}"
# crictl and kubectl warn of much, and what they print is read all the same.
_WARNING = 'time="2026-11-30T20:00:00Z" level=warning msg="cgroup v1 is deprecated"\n'
_CONFIG, _LAYER = "containerd.io/gc.ref.content.config", "containerd.io/gc.ref.content.l.0"


class Killed(BaseException):
    """kill -9: nothing of the harness runs after it."""


@dataclass
class World:
    """What there is, and what shall go wrong. `at` is called with (number, name) of each act,
    before it and after."""

    facts: EngineFacts = FACTS
    registry: bool = True
    disk: int | None = 200 * GIB
    images: set[str] = field(default_factory=set)
    machines: dict[str, Container] = field(default_factory=dict)
    image_bytes: int = 100 * MIB
    in_nodes: dict[str, set[str]] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)
    answers: Callable[[bool], str] = lambda of_machine: ""
    releases: dict[str, str] = field(default_factory=dict)
    made_by_helm: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    objects: dict[tuple[str, str | None, str], Any] = field(default_factory=dict)
    ipam: tuple[Mapping[str, Any], ...] = ({"Subnet": "fc00::/64"}, {"Subnet": "172.18.0.0/16"})
    acts: list[str] = field(default_factory=list)
    before: Callable[[int, str], None] = lambda number, name: None
    after: Callable[[int, str], None] = lambda number, name: None
    unmet: set[str] = field(default_factory=set)
    # Gateways whose status istiod computed while they had no pod, and computes again when their
    # Service gets another label.
    stale_gateways: set[str] = field(default_factory=set)
    # How often cert-manager has registered an account: again when it is deleted.
    accounts: int = 1
    pods: list[Mapping[str, Any]] = field(default_factory=list)
    unhealthy: list[str] = field(default_factory=list)
    # node -> uid of each pod there -> whether ztunnel listens in it
    pods_in: dict[str, dict[str, bool]] = field(default_factory=dict)
    # node -> what it says that its cluster hands out
    pools: dict[str, str] = field(default_factory=dict)
    # and what MetalLB in it does
    metallb: dict[str, str] = field(default_factory=dict)
    booted_s: float = 900.0
    renewed_s: float | None = None
    now_s: float = 1000.0

    def looked(self, node: str, script: str) -> str:
        """What a shell on a node shows: the start of its machine, or the pods in it and whether
        a program listens."""
        if "uptime" in script:
            since_s = self.now_s - self.booted_s
            return f"1 (systemd) S{' 0' * 18} 0 0\n{since_s} 1.0\n{int(self.now_s)}\n"
        there = list(enumerate(self.pods_in.get(node, {}).items(), start=10))
        pods = [f"/proc/{at}/cgroup:pod{uid}" for at, (uid, _) in there]
        counts = [
            f"/proc/{at}/net/tcp:{int(on)}"
            for at, on in enumerate(self.pods_in.get(node, {}).values(), start=10)
        ]
        return "\n".join([*pods, "/proc/1/net/tcp:0", *counts])

    def act(self, name: str, do: Callable[[], None] = lambda: None) -> None:
        """Something that changes the world; the harness may be killed on both sides of it."""
        number = len(self.acts)
        self.acts.append(name)
        self.before(number, name)
        do()
        self.after(number, name)

    def monotonic_ns(self) -> int:
        return int(self.now_s * 1e9)

    def sleep(self, lasts_s: float) -> None:
        self.now_s += lasts_s

    def dependencies(self) -> Dependencies:
        return Dependencies(
            connect=lambda kubeconfig: SimulatedKube(self, kubeconfig),
            real=self,
            wall_s=lambda: 1_800_000_000.0,
            fetch=lambda url, within_s: GATEWAY_API,
            seed=lambda: "0" * 32,
            health=lambda bringup: list(self.unhealthy),
        )

    def state(self) -> dict[str, Any]:
        """What a person would find: the end of every way must be the same."""
        return {
            "machines": {name: machine.state for name, machine in self.machines.items()},
            "in_nodes": {name: sorted(images) for name, images in self.in_nodes.items()},
            "releases": dict(self.releases),
            "objects": sorted(self.objects, key=str),
        }


@dataclass
class SimulatedEngine:
    """An Engine."""

    world: World

    def facts(self) -> EngineFacts:
        return self.world.facts

    def containers(self, labels: Mapping[str, str | None]) -> tuple[Container, ...]:
        wanted = labels.items()
        return tuple(
            machine
            for _, machine in sorted(self.world.machines.items())
            if all(
                name in machine.labels and value in {None, machine.labels[name]}
                for name, value in wanted
            )
        )

    def network(self, name: str) -> DockerNetwork | None:
        return (
            DockerNetwork(name, self.world.ipam, ("172.18.0.2",))
            if self.world.machines and name == KIND_NETWORK
            else None
        )

    def image(self, reference: str) -> Image | None:
        """What was pulled is known by its digest, what came from an archive by its tag alone."""
        for name in (reference, reference.partition("@")[0]):
            if name in self.world.images:
                return Image(name, id_of(name), self.world.image_bytes)
        return None

    def pull(self, reference: str) -> None:
        if not self.world.registry:
            raise LabUnavailable("docker: the engine refused: no such host")
        self.world.act(f"pull {reference}", lambda: self.world.images.add(reference))

    def load_archive(self, path: Path) -> None:
        reference = path.read_text().strip().partition("@")[0]
        self.world.act(f"load {reference}", lambda: self.world.images.add(reference))

    def ask(self, image: str, command: Sequence[str], *, of_machine: bool = False) -> str:
        assert self.image(image) is not None, f"{image} is not here"
        return self.world.answers(of_machine)

    def execute(self, container: str, command: Sequence[str]) -> Executed:
        if command[0] == "sh" and "meshwake-pool" in command[-1]:
            self.world.act(
                f"publish {container}", lambda: self._publish(container, command[-1].split()[1])
            )
            return Executed(0, "", "")
        if command[0] == "sh" and "ipaddresspools" in command[-1]:
            return Executed(0, self.world.metallb.get(container, ""), _WARNING)
        if command[0] == "sh" and "--sync" not in command[-1]:
            return Executed(0, self.world.looked(container, command[-1]), "")
        if list(command) == ["ctr", "--namespace=k8s.io", "content", "ls"]:
            manifest = (
                f"{_BLOB.format(1)} 5B now {_CONFIG}={_BLOB.format(2)},{_LAYER}={_BLOB.format(3)}"
            )
            unpacked = f"{_BLOB.format(2)} 5B now containerd.io/gc.ref.snapshot.x={_BLOB.format(4)}"
            return Executed(0, f"{manifest}\n{unpacked}\n", "")
        if command[0] == "sh":
            assert f"content label {_BLOB.format(1)} {_LAYER}=" in command[-1]
            self.world.pruned.add(container)
            return Executed(0, "", "")
        assert list(command) == ["crictl", "images", "--output", "json"]
        there = sorted(self.world.in_nodes.get(container, set()))
        listed = {"images": [{"id": id_of(name), "repoTags": [name]} for name in there]}
        return Executed(0, json.dumps(listed), _WARNING)

    def read_file(self, container: str, path: str) -> str | None:
        return self.world.pools.get(container)

    def start(self, container: str) -> None:
        self.world.act(f"start {container}", lambda: self._become(container, "running"))

    def remove(self, container: str) -> None:
        self.world.act(f"remove {container}", lambda: self._remove(container))

    def free_disk_bytes(self) -> int | None:
        return self.world.disk

    def close(self) -> None:
        """Nothing is open."""

    def _publish(self, container: str, pool: str) -> None:
        self.world.pools[container] = pool

    def _become(self, name: str, state: str) -> None:
        self.world.machines[name] = replace(self.world.machines[name], state=state)

    def _remove(self, name: str) -> None:
        self.world.machines.pop(name, None)
        self.world.in_nodes.pop(name, None)
        self.world.pools.pop(name, None)
        if not self.world.machines:
            self.world.releases.clear()
            self.world.objects.clear()


def machine(
    name: str, state: str = "running", cluster: str = "", image: str = "kindest/node"
) -> Container:
    role = "control-plane" if "control-plane" in name else "worker"
    labels = {KIND_CLUSTER_LABEL: cluster, KIND_ROLE_LABEL: role} if cluster else {}
    return Container(name, name, state, image, labels)


def id_of(image: str) -> str:
    """The id of an image in this world."""
    return f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"


@dataclass
class SimulatedTools:
    """docker, kind and helm as they are used: each command does what the real one does to the
    world."""

    world: World
    absent: frozenset[str] = frozenset()
    saved: str = ""

    def run(
        self,
        name: str,
        *arguments: str,
        within_s: float,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Output:
        if name in self.absent:
            raise ToolFailed(f"{name}: No such file or directory")
        words = [word for word in arguments if not word.startswith("-")]
        return Output(getattr(self, f"_{name}")(words, arguments) or "", "")

    def _docker(self, words: list[str], arguments: Sequence[str]) -> None:
        if words[0] == "build":
            tag = arguments[arguments.index("--tag") + 1]
            base = arguments[arguments.index("--build-arg") + 1].removeprefix("BASE=")
            assert base in self.world.images, f"{base} would be pulled"
            self.world.act(f"build {tag}", partial(self.world.images.add, tag))
            return
        assert words[0] == "save"
        self.saved = words[-1]

    def _kind(self, words: list[str], arguments: Sequence[str]) -> None:
        if words[:2] == ["create", "cluster"]:
            self._create(arguments)
        elif words[:2] == ["load", "image-archive"]:
            self._load(arguments[arguments.index("--name") + 1])
        else:
            assert words[:2] == ["export", "logs"], arguments

    def _create(self, arguments: Sequence[str]) -> None:
        config = yaml.safe_load(Path(arguments[arguments.index("--config") + 1]).read_text())
        kubeconfig = Path(arguments[arguments.index("--kubeconfig") + 1])
        name, seen = config["name"], dict[str, int]()
        for node in config["nodes"]:
            role = node["role"]
            seen[role] = seen.get(role, 0) + 1
            full = f"{name}-{role}{seen[role] if seen[role] > 1 else ''}"
            image = str(node["image"])
            # kind pulls what the engine does not find by this very name.
            if image not in self.world.images and not self.world.registry:
                raise ToolFailed(f"kind create: ended with 1: failed to pull image {image!r}")
            self.world.act(f"make {full}", partial(self._make, full, name, image))
        self.world.act("write kubeconfig", lambda: _write(kubeconfig))

    def _make(self, full: str, cluster: str, image: str) -> None:
        self.world.machines[full] = machine(full, "running", cluster, image=image)
        self.world.in_nodes[full] = set()

    def _load(self, cluster: str) -> None:
        loaded = full_reference(self.saved)
        for node, images in sorted(self.world.in_nodes.items()):
            self.world.act(f"load {loaded} into {node}", partial(images.add, loaded))

    def _helm(self, words: list[str], arguments: Sequence[str]) -> str:
        release = words[1]
        if words[0] in {"rollback", "uninstall"}:
            self.world.act(f"{words[0]} {release}", lambda: self._undo(words[0], release))
            return ""
        if self.world.releases.get(release, "deployed").startswith("pending"):
            raise ToolFailed("another operation is in progress")
        new = release not in self.world.releases
        self.world.releases[release] = "pending-install" if new else "pending-upgrade"
        kind = "DaemonSet" if release == "ztunnel" else "Deployment"
        made = workload(arguments[arguments.index("--namespace") + 1], release, kind)

        def do() -> None:
            self.world.releases[release] = "deployed"
            self.world.made_by_helm[release] = [made]
            self.world.objects.setdefault(
                (kind, made["metadata"]["namespace"], release), deepcopy(made)
            )

        self.world.act(f"helm {release}", do)
        return ""

    def _undo(self, word: str, release: str) -> None:
        if word == "uninstall":
            del self.world.releases[release]
        else:
            self.world.releases[release] = "deployed"


@dataclass
class SimulatedKube(FakeKubernetes):
    """What has been applied is there; workloads are well once anything was put in, unless named in
    `unmet`."""

    world: World
    kubeconfig: Path

    @property
    def objects(self) -> dict[tuple[str, str | None, str], Any]:  # type: ignore[override]
        return self.world.objects

    def reach(self, what: str) -> None:
        if not any(each.state == "running" for each in self.world.machines.values()):
            raise Unreachable("GET /: connection refused")

    def ready(self) -> bool:
        return bool(self.world.machines)

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        found = super().read(kind, namespace, name)
        if kind.startswith("Lease"):
            renewed_s = self.world.now_s if self.world.renewed_s is None else self.world.renewed_s
            return {"spec": {"renewTime": datetime.fromtimestamp(renewed_s, UTC).isoformat()}}
        if found is None and name == "coredns":  # kind puts it in
            found = workload("kube-system", name)
        return None if found is None else self._now(found)

    def all(
        self, kind: str, namespace: str | None = None, labels: Any = None
    ) -> list[dict[str, Any]]:
        self.reach(f"list {kind}")
        if kind == "Pod":
            made = [
                ready_pod(thing)
                for (each, _, _), thing in self.objects.items()
                if each in WORKLOADS
            ]
            made += [dict(pod) for pod in self.world.pods]
            return made + [
                dict(thing) for (each, _, _), thing in self.objects.items() if each == kind
            ]
        if kind == "Node":
            return [
                _well({"kind": kind, "metadata": {"name": name}}) for name in self.world.machines
            ]
        if kind == "Secret" and (
            status := self.world.releases.get(str((labels or {}).get("name")))
        ):
            return [
                release_secret(
                    labels["name"], status, self.world.made_by_helm.get(labels["name"], ())
                )
            ]
        return [self._now(thing) for thing in super().all(kind, namespace, labels)]

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        for thing in objects:
            self.world.act(
                f"apply {thing['kind']} {thing['metadata']['name']}",
                partial(super().apply, [thing]),
            )

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        """As the server merges."""
        self.reach(f"patch {kind} {name}")
        thing = strategic_merge(self.objects[kind.partition(".")[0], namespace, name], patch)
        key = (kind.partition(".")[0], namespace, name)
        self.world.act(f"patch {kind} {name}", lambda: self.objects.update({key: thing}))
        if kind == "Service" and "labels" in patch["metadata"]:
            self.world.stale_gateways.discard(name.removesuffix("-istio"))

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        is_deleted = super().delete_ours(kind, namespace, name)
        if is_deleted and kind == "Secret":
            self.world.accounts += 1
        return is_deleted

    def _now(self, thing: dict[str, Any]) -> dict[str, Any]:
        """As it is now: well, unless it shall not be."""
        if thing["metadata"]["name"] in self.world.unmet:
            return {**thing, "metadata": {**thing["metadata"], "generation": 1}}
        if thing["kind"] == "Gateway" and thing["metadata"]["name"] in self.world.stale_gateways:
            return {**thing, "status": {"conditions": [NOT_PROGRAMMED]}}
        if thing["kind"] == "Pod":
            return thing
        now = _well(thing)
        if thing["kind"] == "ClusterIssuer":
            now["status"]["acme"] = {"lastPrivateKeyHash": f"of account {self.world.accounts}"}
        return now


def release_secret(
    name: str, status: str, objects: Iterable[Mapping[str, Any]], version: int = 1
) -> dict[str, Any]:
    """A release as helm remembers it."""
    content = {
        "info": {"status": status},
        "manifest": yaml.safe_dump_all([dict(thing) for thing in objects]),
    }
    inner = base64.b64encode(gzip.compress(json.dumps(content).encode()))
    labels = {"owner": "helm", "name": name, "version": str(version)}
    return {"metadata": {"labels": labels}, "data": {"release": base64.b64encode(inner).decode()}}


def ready_pod(thing: Mapping[str, Any]) -> dict[str, Any]:
    """One pod of a workload that is well."""
    name, labels = (
        f"{thing['metadata']['name']}-0",
        thing["spec"].get("selector", {}).get("matchLabels", {}),
    )
    metadata = {
        "name": name,
        "namespace": thing["metadata"]["namespace"],
        "uid": name,
        "labels": labels,
    }
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {},
        "status": {"phase": "Running", "conditions": conditions},
    }


def workload(namespace: str, name: str, kind: str = "Deployment") -> dict[str, Any]:
    """One that a chart makes."""
    env = [{"name": "SECRET_TTL", "value": "600s"}]
    pod = {"spec": {"containers": [{"name": "main", "image": "an/image:1", "env": env}]}}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"template": pod}}


def _write(kubeconfig: Path) -> None:
    kubeconfig.write_text("kind: Config")


def _well(thing: dict[str, Any]) -> dict[str, Any]:
    """With a status that meets every condition that any stage waits for."""
    types = ("Established", "Ready", "Available", "Programmed", "Accepted", "Complete")
    status = {
        "observedGeneration": 1,
        **dict.fromkeys(("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"), 1),
        **dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1),
        "addresses": [{"value": "172.18.255.200"}],
        "loadBalancer": {"ingress": [{"ip": "172.18.255.200"}]},
        "conditions": [{"type": each, "status": "True"} for each in types],
    }
    return {**thing, "status": status}


def steps_taken(lines: Iterable[Any]) -> list[str]:
    """Of the progress: "images: kept" and so on, without what lies between begin and end."""
    return [
        f"{line.step}: {line.state}" for line in lines if line.state in {"done", "kept", "failed"}
    ]
