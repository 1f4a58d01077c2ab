"""The requests to a cluster, of its bring-up and of a run alike: one small interface, implemented
by kr8s (through_kr8s.py) and, in tests, by simulated clusters.

Every call has a bound, and may be made from several threads. It raises `Unreachable` when the way
to the answer failed, which says nothing of the object of the request, and `Refused` when the
API server answered with an error.

A kind is named with its group, as kubectl takes it: "Pod", "DaemonSet.apps",
"Gateway.gateway.networking.k8s.io".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject, objects_at, text_at


class Unreachable(LabUnavailable):
    """The API server, a kubelet or a port inside a pod gave no answer; the text says which and
    how."""


class LocalFailure(Unreachable):
    """No request was sent, for a reason on this machine: no more files, ports or memory. Says
    nothing of the cluster."""


class LoginFailed(Unreachable):
    """No request was sent: what a kubeconfig wants for its login is missing here, failed, or handed
    out nothing."""


class Refused(LabUnavailable):
    """The API server answered with an error of the caller's side; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Pod:
    """A pod as the API server knows it. `node` is the Kubernetes node; `restarts` counts its first
    container's, which runs if `started`, whether or not it is ready."""

    namespace: str
    name: str
    uid: str
    node: str
    ready: bool
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    restarts: int = 0
    address: str = ""
    started: bool = False

    @property
    def process(self) -> str:
        """Names this very process: a container restarted in the same pod has other clocks to
        count from."""
        # The first process of a pod is what most messages are about; it needs no number.
        if not self.restarts:
            return self.name
        return f"{self.name}/{self.restarts}"

    def __str__(self) -> str:
        """As kubectl takes it: istio-system/ztunnel-x7k2p."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Executed:
    """How a command inside a container ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, stdout first: for messages, not to be parsed."""
        return self.stdout + self.stderr


class Conversation(Protocol):
    """A program in a container that answers each line with one."""

    def ask(self, line: str, within_s: float) -> str:
        """Its answer. Raises Unreachable when none comes; then the conversation is over."""

    def close(self) -> None:
        """Ends it, and the program finds the end of its input."""


class Kubernetes(Protocol):
    """One cluster. Everything may raise Unreachable and Refused."""

    def ready(self) -> bool:
        """Whether the API server says that it is ready; False too when it cannot be reached."""

    def read(self, kind: str, namespace: str | None, name: str) -> JsonObject | None:
        """One object, or None when there is none, or no such kind (yet)."""

    def all(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[JsonObject]:
        """All objects of `kind` with these labels, in one namespace or in all."""

    def ours(self, kind: str, labels: Mapping[str, str]) -> list[tuple[str | None, str]]:
        """(namespace, name) of every object of this kind with OUR_LABELS and `labels`."""

    def pods(self, namespace: str | None, labels: Mapping[str, str]) -> list[Pod]:
        """The pods with these labels, in one namespace or in all, that are not on their way out, in
        the order of their names."""

    def execute(
        self, pod: Pod, container: str, command: Sequence[str], within_s: float
    ) -> Executed:
        """Runs `command` in a container and waits for its end."""

    def converse(self, pod: Pod, container: str, command: Sequence[str]) -> Conversation:
        """Runs `command` in a container until `close`; it answers each line of its
        input with one."""

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        """GET to a port inside the pod, one that listens on its localhost only too."""

    def get_from_service(
        self, namespace: str, service: str, port: int, path: str, within_s: float
    ) -> bytes:
        """GET to a Service by way of the API server."""

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        """What the container wrote in the last seconds, by its node's clock."""

    def apply(self, objects: Iterable[JsonObject]) -> None:
        """Applies on the server's side, as FIELD_MANAGER; all carry OUR_LABELS. What others set
        stays."""

    def replace(self, thing: JsonObject) -> bool:
        """Makes `thing`, which carries OUR_LABELS, or puts it in the place of the version that its
        metadata.resourceVersion names; False when another process was faster."""

    def patch(self, kind: str, namespace: str, name: str, patch: JsonObject) -> None:
        """A strategic merge of `patch` into one object, ours or not."""

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        """Deletes one object if it carries OUR_LABELS; whether it did. Does not wait for its
        end."""

    def end_pod(self, pod: Pod) -> None:
        """Deletes a pod that its controller will replace. Only for clusters that are ours."""

    def close(self) -> None:
        """Ends connections and threads."""


def object_name(kind: str, namespace: str | None, name: str) -> str:
    """An object's name for messages: Deployment istio-system/istiod. `kind` may be named with its
    group, which is left out; `namespace` None or "": the object is in none."""
    place = f"{namespace}/{name}" if namespace else name
    without_group = kind.partition(".")[0]
    return f"{without_group} {place}"


def namespace_and_name(thing: JsonObject) -> tuple[str, str]:
    """By which an object is found among those of its kind; no namespace is ""."""
    return text_at(thing, "metadata", "namespace"), text_at(thing, "metadata", "name")


def identity_of(thing: JsonObject) -> str:
    """As `object_name`, of an object."""
    namespace, name = namespace_and_name(thing)
    return object_name(str(thing.get("kind")), namespace, name)


def condition(thing: JsonObject, name: str) -> JsonObject:
    """One condition of an object's status; {} where it is not reported yet."""
    for found in objects_at(thing, "status", "conditions"):
        if found.get("type") == name:
            return found
    return {}


def container_starts(pod: JsonObject) -> list[str]:
    """When each container of a pod that runs was started, as the API has it."""
    # Empty until the kubelet has reported; a container that waits or has ended has no "running".
    containers = objects_at(pod, "status", "containerStatuses")
    starts = [text_at(container, "state", "running", "startedAt") for container in containers]
    return [start for start in starts if start]


def is_ready(thing: JsonObject) -> bool:
    """Whether a pod or a node reports itself as ready."""
    return condition(thing, "Ready").get("status") == "True"


def kind_of(thing: JsonObject) -> str:
    """Its kind as `Kubernetes` takes it: DaemonSet.apps."""
    kind, version = str(thing["kind"]), str(thing["apiVersion"])
    # "apps/v1" has a group; "v1", of Pods and Nodes, has none.
    group = version.rpartition("/")[0]
    return f"{kind}.{group}" if group else kind
