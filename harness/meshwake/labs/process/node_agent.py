"""The node agent's side of shared (in-pod) mode: it sends a ztunnel the network namespaces of the
pods on its node.

On a cluster this is istio-cni. ztunnel connects to a Unix socket (SOCK_SEQPACKET) and says which
protocol it speaks; it gets a message for each pod, with an open file of the pod's namespace, and
answers each message before the next is sent; then one which says that these were all. From then on
pods are added and removed one at a time. (proto/zds.proto of istio/ztunnel; docs/protocols.md.)

Sending pods takes no world time: ztunnel answers at once, and every wait here is one of real time
with a bound.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from meshwake.authority.proto.zds_pb2 import (
    AddWorkload,
    DelWorkload,
    SnapshotSent,
    WorkloadInfo,
    WorkloadRequest,
    WorkloadResponse,
    ZdsHello,
)
from meshwake.core.errors import SubjectFailed
from meshwake.labs.process.workloads import Workload

# ZdsHello.version: V1 = 1 (proto/zds.proto).
PROTOCOL_VERSION = 1
PACKET_BYTES_MAX = 1024  # ztunnel refuses longer messages
ANSWERS_WITHIN_S = 30.0


class NodeAgent:
    """The agent of one node; it listens from the beginning, so that its ztunnel need not retry."""

    def __init__(self, node: str, path: Path) -> None:
        self.node, self.path = node, path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)

        # The path of a Unix socket may have 107 bytes (sun_path has 108, with the zero at the end;
        # unix(7)), and that of a run's directory is sometimes longer. Through /proc/self/fd it is
        # always short.
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        self._listener.listen(1)
        self._ztunnel: socket.socket | None = None

    def send_pods(self, pods: Iterable[Workload]) -> None:
        """Accepts the connection of a ztunnel that has just started and sends it all pods of the
        node. Raises SubjectFailed when it does not connect or does not accept them."""
        self.disconnect()
        self._listener.settimeout(ANSWERS_WITHIN_S)
        try:
            self._ztunnel, _ = self._listener.accept()
            self._ztunnel.settimeout(ANSWERS_WITHIN_S)
            hello = ZdsHello.FromString(self._ztunnel.recv(PACKET_BYTES_MAX))
        except TimeoutError as error:
            raise SubjectFailed(
                f"the ztunnel of node {self.node} did not connect to its node agent "
                f"within {ANSWERS_WITHIN_S:.0f} s"
            ) from error
        if hello.version != PROTOCOL_VERSION:
            raise SubjectFailed(
                f"the ztunnel of node {self.node} speaks version {hello.version} of the node "
                f"agent's protocol, meshwake speaks {PROTOCOL_VERSION}"
            )
        for pod in pods:
            self.add(pod)
        self._send(WorkloadRequest(snapshot_sent=SnapshotSent()), "the end of the list of pods", [])

    def add(self, pod: Workload) -> None:
        """Sends a pod that has been added."""
        namespace, account = pod.identity.split("/")
        info = WorkloadInfo(name=pod.name, namespace=namespace, service_account=account)
        request = WorkloadRequest(add=AddWorkload(uid=pod.uid, workload_info=info))
        self._send(request, f"pod {pod.name}", [pod.namespace])

    def remove(self, pod: Workload) -> None:
        """Informs ztunnel that a pod has been removed."""
        self._send(WorkloadRequest(gone=DelWorkload(uid=pod.uid)), f"the end of pod {pod.name}", [])

    def disconnect(self) -> None:
        """Its ztunnel has ended."""
        if self._ztunnel is not None:
            self._ztunnel.close()
            self._ztunnel = None

    def close(self) -> None:
        """Stops listening."""
        self.disconnect()
        self._listener.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _send(self, request: WorkloadRequest, what: str, files: list[int]) -> None:
        assert self._ztunnel is not None
        try:
            socket.send_fds(self._ztunnel, [request.SerializeToString()], files)
            packet = self._ztunnel.recv(PACKET_BYTES_MAX)
        except OSError as error:
            raise SubjectFailed(
                f"the ztunnel of node {self.node} did not answer {what}: {error}"
            ) from error
        if not packet:
            raise SubjectFailed(
                f"the ztunnel of node {self.node} closed its node agent's connection at {what}"
            )
        refusal = WorkloadResponse.FromString(packet).ack.error
        if refusal:
            raise SubjectFailed(f"the ztunnel of node {self.node} refused {what}: {refusal}")
