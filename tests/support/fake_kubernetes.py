"""The fake behind every test that needs a cluster's API: objects that were applied are there.
Simulated clusters are made of it, each with what its tests ask besides.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from meshwake.kubernetes.api import Executed, Pod, Unreachable
from meshwake.kubernetes.labels import OUR_LABELS, is_ours
from meshwake.kubernetes.through_kr8s import pod_of

# (kind without its group, namespace, name)
Key = tuple[str, str | None, str]


class FakeConversation:
    """Each question is an exec of its own: of the line itself where a shell reads it, else with it
    as last word."""

    def __init__(
        self, cluster: FakeKubernetes, pod: Pod, container: str, command: Sequence[str]
    ) -> None:
        self._cluster, self._pod, self._container, self._command = (
            cluster,
            pod,
            container,
            list(command),
        )

    def ask(self, line: str, within_s: float) -> str:
        if self._command[0] != "sh":
            command = [*self._command[:-1], line]
            return self._cluster.execute(
                self._pod, self._container, command, within_s
            ).stdout.strip()
        ended = self._cluster.execute(self._pod, self._container, shlex.split(line), within_s)
        return " ".join(f"{ended.code} {ended.stderr} {ended.stdout}".split())

    def close(self) -> None:
        """Nothing is open."""


class FakeKubernetes:
    """An api.Kubernetes. `reach` is called before everything, with the request; it may raise."""

    objects: MutableMapping[Key, Any]

    def reach(self, what: str) -> None:
        """All is well."""

    def ready(self) -> bool:
        return True

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        self.reach(f"read {kind} {name}")
        found = self.objects.get((_plain(kind), namespace, name))
        return None if found is None else dict(found)

    def all(
        self, kind: str, namespace: str | None = None, labels: Any = None
    ) -> list[dict[str, Any]]:
        self.reach(f"list {kind}")
        return [
            dict(thing)
            for (each, at, _), thing in self.objects.items()
            if each == _plain(kind)
            and namespace in {None, at}
            and (labels or {}).items() <= (thing["metadata"].get("labels") or {}).items()
        ]

    def ours(self, kind: str, labels: Mapping[str, str]) -> list[tuple[str | None, str]]:
        self.reach(f"list {kind}")
        wanted = {**OUR_LABELS, **labels}.items()
        return [
            (namespace, name)
            for (each, namespace, name), thing in self.objects.items()
            if each == _plain(kind) and wanted <= (thing["metadata"].get("labels") or {}).items()
        ]

    def pods(self, namespace: str | None, labels: Mapping[str, str]) -> list[Pod]:
        return [pod_of(thing) for thing in self.all("Pod", namespace, labels)]

    def execute(
        self, pod: Pod, container: str, command: Sequence[str], within_s: float
    ) -> Executed:
        raise Unreachable(f"exec in {pod}: it has no programs")

    def converse(self, pod: Pod, container: str, command: Sequence[str]) -> FakeConversation:
        return FakeConversation(self, pod, container, command)

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        raise Unreachable(f"GET {pod}:{port}{path}: connection refused")

    def get_from_service(
        self, namespace: str, service: str, port: int, path: str, within_s: float
    ) -> bytes:
        raise Unreachable(f"{service} is not there")

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        self.reach("logs")
        return []

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        for thing in objects:
            self.reach(f"apply {thing['kind']}")
            assert is_ours(thing["metadata"].get("labels"))
            self.objects[
                thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]
            ] = dict(thing)

    def replace(self, thing: Mapping[str, Any]) -> bool:
        self.reach(f"replace {thing['kind']}")
        metadata = thing["metadata"]
        key = (thing["kind"], metadata.get("namespace"), metadata["name"])
        there = self.objects.get(key)
        version = None if there is None else there["metadata"].get("resourceVersion")
        if metadata.get("resourceVersion") != version:
            return False
        newer = str(int(version or 0) + 1)
        self.objects[key] = {**thing, "metadata": {**metadata, "resourceVersion": newer}}
        return True

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        raise Unreachable(f"patch {kind} {name}: nothing is patched here")

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        self.reach(f"delete {kind} {name}")
        key = (_plain(kind), namespace, name)
        found = self.objects.get(key)
        if found is None or not is_ours(found["metadata"].get("labels")):
            return False
        del self.objects[key]
        for other in [each for each in self.objects if kind == "Namespace" and each[1] == name]:
            del self.objects[other]
        return True

    def end_pod(self, pod: Pod) -> None:
        self.reach(f"end {pod}")
        self.objects.pop(("Pod", pod.namespace, pod.name), None)

    def close(self) -> None:
        """Nothing is open."""


def _plain(kind: str) -> str:
    return kind.partition(".")[0]
