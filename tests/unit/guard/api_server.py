"""As much of an API server as the guard uses: pods, evictions, Events, and a Lease with versions;
HTTP on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import running
from tests.support.kubeconfigs import write_kubeconfig


class Cluster:
    """What it holds. `refuse` answers paths with a status instead."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods = pods
        self.requests: list[tuple[str, str]] = []
        self.events: list[dict[str, Any]] = []
        self.evicted: list[str] = []
        self.leases: dict[str, dict[str, Any]] = {}
        self.refuse: dict[str, int] = {}
        self.admin: dict[
            str, list[bytes]
        ] = {}  # by pod: the messages of a forwarded port, channel and data
        self.received: list[bytes] = []  # what was sent into such ports
        self._versions = 0

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(path)
        parts = parts._replace(path=parts.path.rstrip("/"))
        self.requests.append((method, parts.path))
        for end, status in self.refuse.items():
            if parts.path.endswith(end):
                return status, {"kind": "Status", "message": "refused"}
        if parts.path.endswith("/version"):
            return 200, {"gitVersion": "v1.34.0", "major": "1", "minor": "34"}
        if "/leases" in parts.path:
            return self._answer_lease(method, parts.path.rpartition("/leases")[2].strip("/"), body)
        if parts.path.endswith("/events"):
            self.events.append(body)
            return 201, body
        if parts.path.endswith("/eviction"):
            self.evicted.append(parts.path)
            return 201, {"kind": "Status", "status": "Success"}
        return 200, {
            "items": [pod for pod in self.pods if _selected(pod, parse_qs(parts.query), parts.path)]
        }

    def _answer_lease(
        self, method: str, name: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        name = name or body["metadata"]["name"]
        lease = self.leases.get(name)
        if method == "GET":
            return (
                (404, {"kind": "Status", "message": "not found"}) if lease is None else (200, lease)
            )
        version = body["metadata"].get("resourceVersion")
        if lease is not None and version != lease["metadata"]["resourceVersion"]:
            return 409, {"kind": "Status", "message": "conflict"}
        self._versions += 1
        body["metadata"]["resourceVersion"] = str(self._versions)
        self.leases[name] = body
        return 200, body


def _selected(pod: dict[str, Any], query: dict[str, list[str]], path: str) -> bool:
    labels = pod["metadata"]["labels"]
    for selector in query.get("labelSelector", []):
        key, _, value = selector.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    node = query.get("fieldSelector", [""])[0].removeprefix("spec.nodeName=")
    inside = "/namespaces/" not in path or f"/namespaces/{pod['metadata']['namespace']}/" in path
    return inside and (not node or pod["spec"]["nodeName"] == node)


def _frame(kind: int, content: bytes) -> bytes:
    """As a server sends it: not masked."""
    length = len(content)
    size = bytes([length]) if length < 126 else bytes([126]) + struct.pack(">H", length)
    return bytes([0x80 | kind]) + size + content


def _unmasked(stream: BinaryIO) -> bytes:
    """One frame of a client, which must be masked."""
    _, second = stream.read(2)
    assert second & 0x80, "a client's frames are masked (RFC 6455, 5.1)"
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", stream.read(2))
    mask = stream.read(4)
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(stream.read(length)))


@contextmanager
def serving(cluster: Cluster, directory: Path) -> Iterator[Path]:
    """A kubeconfig that leads to `cluster`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            if (
                self.headers.get("Upgrade") == "websocket"
                and self.path.split("/")[-2] in cluster.admin
            ):
                self._forward(self.path.split("/")[-2])
                return
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            status, answer = cluster.answer(self.command, self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _forward(self, pod: str) -> None:
            """As kubelet does by way of the API server: first what port each channel is for, then
            data."""
            cluster.requests.append((self.command, self.path.split("?")[0]))
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header(
                "Sec-WebSocket-Accept",
                base64.b64encode(hashlib.sha1(key.encode()).digest()).decode(),  # noqa: S324  RFC 6455
            )
            self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"])
            self.end_headers()
            port = struct.pack("<H", int(self.path.rpartition("=")[2]))
            self.wfile.write(
                _frame(2, b"\x00" + port) + _frame(2, b"\x01" + port) + _frame(9, b"are you there")
            )
            cluster.received += [_unmasked(self.rfile), _unmasked(self.rfile)]  # type: ignore[arg-type]
            for message in cluster.admin[pod]:
                self.wfile.write(_frame(2, message))
            self.wfile.write(_frame(8, b""))
            self.close_connection = True

        do_GET = do_POST = do_PUT = _do  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """It is not read."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield write_kubeconfig(directory / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
