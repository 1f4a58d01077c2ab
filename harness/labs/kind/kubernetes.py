"""What a run asks of a cluster, and nothing more: one small promise, kept by kr8s (through_kr8s.py) and, in tests, by a
simulated cluster. Every call has a bound, and says `Unreachable` when the way to the answer failed, which is no
statement about whatever was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# Everything we make carries it; only what carries it is ever deleted.
OUR_LABELS: Mapping[str, str] = {"app.kubernetes.io/managed-by": "meshwake"}


class Unreachable(Exception):
    """The API server, a kubelet or a port inside a pod gave no answer; the text says which and how."""


@dataclass(frozen=True)
class Pod:
    """A pod as the API server knows it. `node` is the Kubernetes node; `restarts` counts its first container's."""

    namespace: str
    name: str
    uid: str
    node: str
    ready: bool
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    restarts: int = 0
    address: str = ""

    @property
    def process(self) -> str:
        """Names this very process: a container started anew in the same pod has other clocks to count from."""
        return f"{self.name}/{self.restarts}" if self.restarts else self.name

    def __str__(self) -> str:
        """As kubectl takes it: istio-system/ztunnel-x7k2p."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Executed:
    """How a command inside a container ended."""

    code: int
    stdout: str
    stderr: str


class Kubernetes(Protocol):
    """One cluster. All calls may be made from several threads, and raise Unreachable."""

    def pods(self, namespace: str, labels: Mapping[str, str]) -> list[Pod]:
        """The pods with these labels that are not on their way out, in the order of their names."""

    def execute(self, pod: Pod, container: str, command: Sequence[str], within_s: float) -> Executed:
        """Runs `command` in a container and waits for its end."""

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        """GET to a port inside the pod, one that listens on its localhost only too."""

    def get_from_service(self, namespace: str, service: str, port: int, path: str, within_s: float) -> bytes:
        """GET to a Service by way of the API server."""

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        """What the container wrote in the last seconds, by its node's clock."""

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """One object, or None. `kind` may name its group: "DaemonSet.apps"."""

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Applies on the server's side, as field manager "meshwake"; all carry OUR_LABELS. Raises SubjectFailed
        when the server refuses one."""

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        """A strategic merge of `patch` into one object, ours or not; refusals as in `apply`."""

    def replace(self, thing: Mapping[str, Any]) -> bool:
        """Makes `thing`, which carries OUR_LABELS, or puts it in the place of the version that its
        metadata.resourceVersion names; False when somebody else was faster. Refusals as in `apply`."""

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        """Deletes one object if it carries OUR_LABELS; whether it did. Does not wait for its end."""

    def ours(self, kind: str, labels: Mapping[str, str]) -> list[tuple[str | None, str]]:
        """(namespace, name) of every object of this kind with OUR_LABELS and `labels`."""

    def end_pod(self, pod: Pod) -> None:
        """Deletes a pod that its controller will make anew. Only for clusters that are ours."""

    def close(self) -> None:
        """Ends connections and threads."""
