"""A cluster as a user has one: Istio in ambient mode, and guards that start, or do not, when their
DaemonSet is applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwake.core.durations import NS_PER_S
from meshwake.guard import names
from meshwake.kubernetes.api import Pod, Unreachable

from tests.support.fake_kubernetes import FakeKubernetes, Key

NOW_S = 1_800_000_000
UNMANAGED = {"app.kubernetes.io/managed-by": "Helm"}
PAGE = """\
# HELP meshwake_guard_last_look_timestamp_seconds When the guard last looked, in Unix time
# TYPE meshwake_guard_last_look_timestamp_seconds gauge
meshwake_guard_last_look_timestamp_seconds{{node="{node}"}} {looked_s}
# TYPE meshwake_guard_drift_seconds gauge
meshwake_guard_drift_seconds{{node="{node}",process="istio-system/ztunnel-x"}} 28800.4
# TYPE meshwake_guard_restarts_total counter
meshwake_guard_restarts_total{{node="{node}",target="ztunnel"}} 3
meshwake_guard_restarts_total{{node="{node}",target="proxy"}} 0
# TYPE meshwake_guard_restarts_held_back_total counter
meshwake_guard_restarts_held_back_total{{node="{node}",reason="settling"}} 2
meshwake_guard_restarts_held_back_total{{node="{node}",reason="cooldown"}} 0
"""


class Homelab(FakeKubernetes):
    """`waiting`: by node, why a guard's container does not start (reason, message); `silent`: nodes
    whose guard starts and never looks; `looked_s`: when guards looked, by their own clock."""

    def __init__(
        self,
        nodes: tuple[str, ...] = ("one", "two"),
        ztunnel_namespace: str = "istio-system",
        istiod_namespace: str = "istio-system",
        version: str = "v1.34.1+k3s1",
    ) -> None:
        self.objects: dict[Key, Any] = {}
        self.nodes = nodes
        self.waiting: dict[str, tuple[str, str]] = {}
        self.silent: set[str] = set()
        self.looked_s = NOW_S - 12
        self.now_ns = 0
        self.calls: list[str] = []
        for name in ("kube-system", "demo", "default", ztunnel_namespace, istiod_namespace):
            self.put("Namespace", None, name)
        for name in nodes:
            self.put("Node", None, name, status={"nodeInfo": {"kubeletVersion": version}})
            self.pod(ztunnel_namespace, f"ztunnel-{name}", name, {"app": "ztunnel"})
        self.pod(istiod_namespace, "istiod-1", nodes[0], {"app": "istiod"})

    # As real_time.HostTime

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, lasts_s: float) -> None:
        self.now_ns += int(lasts_s * NS_PER_S)

    # What is in it

    def put(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        labels: Mapping[str, str] | None = None,
        **about: Any,
    ) -> dict[str, Any]:
        metadata = {"name": name, "labels": dict(labels or {}), "annotations": {}}
        if namespace is not None:
            metadata["namespace"] = namespace
        thing = self.objects[kind, namespace, name] = {
            "kind": kind,
            "metadata": metadata,
            **about,
        }
        return thing

    def pod(
        self,
        namespace: str,
        name: str,
        node: str,
        labels: Mapping[str, str],
        image: str = "some/image",
        waiting: tuple[str, str] | None = None,
    ) -> None:
        state: dict[str, Any] = {"running": {}}
        if waiting is not None:
            state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
        ready = "True" if waiting is None else "False"
        thing = self.put(
            "Pod",
            namespace,
            name,
            labels,
            spec={"nodeName": node, "containers": [{"name": "guard", "image": image}]},
            status={
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "guard", "image": image, "state": state}],
            },
        )
        thing["metadata"]["uid"] = f"uid-{name}"

    def apply(self, objects: Any) -> None:
        for thing in objects:
            super().apply([thing])
            if thing["kind"] == "DaemonSet":
                self._start_guards(thing)

    def _start_guards(self, daemon_set: Mapping[str, Any]) -> None:
        template = daemon_set["spec"]["template"]
        (container,) = template["spec"]["containers"]
        for node in self.nodes:
            self.pod(
                names.NAMESPACE,
                f"wake-guard-{node}",
                node,
                template["metadata"]["labels"],
                container["image"],
                self.waiting.get(node),
            )

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        found = super().read(kind, namespace, name)
        if found is None or found["kind"] != "DaemonSet":
            return found
        well = len(self.nodes) - len(self.waiting)
        counts = {"desiredNumberScheduled": len(self.nodes), "updatedNumberScheduled": well}
        return {**found, "status": {**counts, "numberAvailable": well}}

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        if (port, path) != (15099, "/metrics") or pod.node in self.waiting:
            raise Unreachable(f"GET {pod}:{port}{path}: connection refused")
        looked_s = 0 if pod.node in self.silent else self.looked_s
        return PAGE.format(node=pod.node, looked_s=looked_s).encode()

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        gone = super().delete_ours(kind, namespace, name)
        if kind == "DaemonSet.apps" and gone:
            for node in self.nodes:
                self.objects.pop(("Pod", namespace, f"{name}-{node}"), None)
        return gone

    def reach(self, what: str) -> None:
        self.calls.append(what)

    def there(self) -> set[Key]:
        """The names of all objects."""
        return set(self.objects)
