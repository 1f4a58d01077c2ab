"""`cluster.Api` kept by the standard library, a call at a time, each with a bound: the guard's
image has nothing else.

Every call has a connection of its own. One that was kept would be dead after each sleep of the
machine.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlencode, urlsplit

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import LabUnavailable
from meshwake.guard.cluster import ApiPod, ApiRequestFailed, ApiRequestRefused, pod_from
from meshwake.guard.names import NAME, OBJECT_LABELS

CALL_WITHIN_S = 10.0
LEASE = NAME
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CORE, _LEASES, _EVICTIONS = "api/v1", "coordination.k8s.io/v1", "policy/v1"
_LOST = (OSError, http.client.HTTPException, ValueError)
# The Lease was deleted, or another guard has written it since it was read: either way the turn went
# to another.
_CONFLICTS = (404, 409)
# Opcodes of WebSocket frames: RFC 6455, 5.2.
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True)
class ApiServer:
    """An API server, and how one speaks to it. `token` is read again for every call: kubelet renews
    it."""

    url: str
    tls: ssl.SSLContext | None
    token: Path | str | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        usual_port = 80 if self.tls is None else 443
        return host, parts.port or usual_port

    def path(self, path: str) -> str:
        """Below what the server's own address may have for a path (a proxy)."""
        return f"{urlsplit(self.url).path.rstrip('/')}/{path}"

    def headers(self) -> dict[str, str]:
        """Who we are. Raises OSError."""
        token = self.token
        if isinstance(token, Path):
            # Read each time: kubelet replaces the token of a pod before it expires.
            token = token.read_text(encoding="utf-8").strip()
        if not token:
            return {}
        return {"Authorization": f"Bearer {token}"}

    def connect(self) -> socket.socket:
        """A connection of its own. Raises OSError."""
        plain = socket.create_connection(self.address, CALL_WITHIN_S)
        if self.tls is None:
            return plain
        try:
            return self.tls.wrap_socket(plain, server_hostname=self.address[0])
        except OSError:
            plain.close()
            raise


def server_of_pod() -> ApiServer:
    """As a pod finds its own cluster. Raises KeyError, OSError."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))

    # An IPv6 address is in brackets in a URL (RFC 3986, 3.2.2).
    named = f"[{host}]" if ":" in host else host
    return ApiServer(f"https://{named}:{port}", tls, SERVICE_ACCOUNT / "token")


def server_of_kubeconfig(path: Path) -> ApiServer:
    """The server of the current context. Raises KeyError, OSError, ValueError; LabUnavailable for a
    login that only another program knows."""
    # Not in the guard's image: a pod has no kubeconfig.
    try:
        import yaml
    except ImportError as error:
        raise LabUnavailable(
            f"--kubeconfig {path}: PyYAML is not installed here; install meshwake with pip"
        ) from error

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        # Three lists of named entries: a context names a cluster and a user.
        contexts = {each["name"]: each["context"] for each in config["contexts"]}
        clusters = {each["name"]: each["cluster"] for each in config["clusters"]}
        users = {each["name"]: each.get("user") or {} for each in config.get("users") or ()}

        context = contexts[config["current-context"]]
        cluster = clusters[context["cluster"]]
        user = users.get(context.get("user"), {})
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path} is not a kubeconfig ({' '.join(str(error).split())})") from error

    if "exec" in user or "auth-provider" in user:
        raise LabUnavailable(
            f"--kubeconfig {path}: logs in with another program; give the guard a "
            "kubeconfig with the token of its own "
            "service account"
        )
    token = user.get("token") or None
    if token is None and user.get("tokenFile"):
        token = Path(user["tokenFile"])
    return ApiServer(str(cluster["server"]), _tls_of(path, cluster, user), token)


def _tls_of(
    path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]
) -> ssl.SSLContext | None:
    if not str(cluster["server"]).startswith("https:"):
        return None
    with _file(path, cluster, "certificate-authority") as authority:
        tls = ssl.create_default_context(cafile=authority)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with (
        _file(path, user, "client-certificate") as certificate,
        _file(path, user, "client-key") as key,
    ):
        if certificate is not None:
            tls.load_cert_chain(certificate, key)
    return tls


@contextmanager
def _file(kubeconfig: Path, of: Mapping[str, Any], name: str) -> Iterator[str | None]:
    """The file that an entry names or holds; a relative path is that
    from the folder of the kubeconfig."""
    # ssl takes a client's certificate from files only, so the base64 of a kubeconfig becomes one
    # for as long as it is read.
    if f"{name}-data" in of:
        with tempfile.NamedTemporaryFile(prefix="wake-guard-") as held:
            held.write(base64.b64decode(of[f"{name}-data"]))
            held.flush()
            yield held.name
    else:
        yield str(kubeconfig.parent / of[name]) if name in of else None


class ThroughHttp:
    """See cluster.Api. `namespace` is where the guards' Lease lies; `kubeconfig` None: as a pod
    finds its own cluster. `now_wall_ns` dates Events and Leases. Raises LabUnavailable without an
    answer."""

    def __init__(self, kubeconfig: Path | None, namespace: str, now_wall_ns: Any) -> None:
        self._namespace, self._now_wall_ns = namespace, now_wall_ns
        self._leases_seen: dict[int, tuple[str, int]] = {}
        try:
            self._server = (
                server_of_pod() if kubeconfig is None else server_of_kubeconfig(kubeconfig)
            )
            self._call("GET", "version", "connect")
        except (ApiRequestFailed, KeyError, *_LOST) as error:
            raise LabUnavailable(
                f"no cluster: {error!r}; give --kubeconfig PATH, or run in a pod"
            ) from error

    def _call(
        self, method: str, path: str, what: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        """The JSON that the API server answers. Raises ApiRequestFailed, ApiRequestRefused."""
        host, port = self._server.address
        # Given a socket, it does not connect by itself; TLS is in that already.
        connection = http.client.HTTPConnection(host, port, timeout=CALL_WITHIN_S)
        try:
            connection.sock = self._server.connect()
            headers = {
                **self._server.headers(),
                "Accept": "application/json",
                "Content-Type": "application/json",
            }
            content = None if body is None else json.dumps(body)
            connection.request(method, self._server.path(path), content, headers)
            answer = connection.getresponse()
            received = answer.read()
            if answer.status >= 400:
                raise ApiRequestRefused(
                    answer.status, f"{what}: {answer.status} {_message(received) or answer.reason}"
                )
            return json.loads(received)
        except _LOST as error:
            raise ApiRequestFailed(f"{what}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def pods(self, namespace: str, labels: str, node: str | None) -> Sequence[ApiPod]:
        """See cluster.Api."""
        query = {"labelSelector": labels}
        if node:
            query["fieldSelector"] = f"spec.nodeName={node}"
        where = f"{_CORE}/namespaces/{namespace}/pods?{urlencode(query)}"
        answer = self._call("GET", where, f"list pods of {namespace}")

        # One that is being deleted has been dealt with: by this guard, or by a rollout.
        items = [item for item in answer["items"] if "deletionTimestamp" not in item["metadata"]]
        pods = [pod_from(item, _wall_ns) for item in items]
        return sorted(pods, key=lambda pod: pod.full_name)

    def get_from_pod(self, pod: ApiPod, port: int, path: str) -> bytes:
        """See cluster.Api."""
        what = f"GET {pod.full_name}:{port}{path}"
        try:
            with self._server.connect() as connection, _Forwarded(connection) as forwarded:
                url = f"{_CORE}/namespaces/{pod.namespace}/pods/{pod.name}/portforward?ports={port}"
                forwarded.begin(self._server, url)
                forwarded.send(
                    f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                )
                answer = http.client.HTTPResponse(cast("socket.socket", forwarded))
                answer.begin()
                content = answer.read()
            if answer.status >= 400:
                raise ApiRequestRefused(answer.status, f"{what}: {answer.status} {answer.reason}")
            return content
        except _LOST as error:
            raise ApiRequestFailed(f"{what}: {type(error).__name__}: {error}") from error

    def evict(self, pod: ApiPod) -> None:
        """See cluster.Api."""
        metadata = {"name": pod.name, "namespace": pod.namespace}
        body = {"apiVersion": _EVICTIONS, "kind": "Eviction", "metadata": metadata}
        where = f"{_CORE}/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
        self._call("POST", where, f"evict {pod.full_name}", body)

    def post_event(self, pod: ApiPod, reason: str, message: str, warning: bool) -> None:
        """See cluster.Api."""
        now = _moment(self._now_wall_ns())
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{pod.name}.", "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message,
            "source": {"component": "meshwake-wake-guard"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._call(
            "POST", f"{_CORE}/namespaces/{pod.namespace}/events", f"event of {pod.full_name}", body
        )

    # The Leases, one for each turn. Whether one has run out is judged by our monotonic clock, from
    # when we first saw it as it is: what another node's wall clock wrote into it is of no use here.

    def take_lease(self, number: int, holder: str, holds_ns: int, now_monotonic_ns: int) -> bool:
        """See cluster.Api."""
        found = self._lease(number)
        if found is None:
            return self._write_lease("POST", number, {}, holder, holds_ns)

        # A Lease that is written again, by its holder too, has another resourceVersion: its time
        # counts from then.
        version = str(found["metadata"]["resourceVersion"])
        seen = self._leases_seen.get(number)
        if seen is None or seen[0] != version:
            seen = self._leases_seen[number] = (version, now_monotonic_ns)

        is_free_or_ours = found["spec"].get("holderIdentity") in (holder, "", None)
        unchanged_for_ns = now_monotonic_ns - seen[1]
        if not is_free_or_ours and unchanged_for_ns < holds_ns:
            return False
        return self._write_lease("PUT", number, {"resourceVersion": version}, holder, holds_ns)

    @property
    def _leases(self) -> str:
        return f"apis/{_LEASES}/namespaces/{self._namespace}/leases"

    def _lease(self, number: int) -> dict[str, Any] | None:
        try:
            return dict(self._call("GET", f"{self._leases}/{lease_name(number)}", "read the Lease"))
        except ApiRequestRefused as error:
            if error.status == 404:
                return None
            raise

    def _write_lease(
        self, method: str, number: int, metadata: dict[str, str], holder: str, holds_ns: int
    ) -> bool:
        name = lease_name(number)
        body = {
            "apiVersion": _LEASES,
            "kind": "Lease",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": dict(OBJECT_LABELS),
                **metadata,
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(holds_ns // NS_PER_S, 1),
                "renewTime": _moment(self._now_wall_ns(), micros=True),
            },
        }
        try:
            where = self._leases if method == "POST" else f"{self._leases}/{name}"
            self._call(method, where, "take the Lease", body)
        except ApiRequestRefused as error:
            if error.status in _CONFLICTS:
                return False
            raise
        return True


class _Forwarded(io.RawIOBase):
    """A port of a pod by way of the API server: a WebSocket (RFC 6455) of kubelet's channels, each
    message one byte of channel and then data; the first message of a channel is only the port's
    number, an odd channel carries errors."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._received = connection, cast("BinaryIO", connection.makefile("rb"))
        self._begun: set[int] = set()
        self._left, self._ended = b"", False

    def begin(self, server: ApiServer, path: str) -> None:
        """Asks the API server for it. Raises ApiRequestRefused, OSError."""
        headers = {
            "Host": "{}:{}".format(*server.address),
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
            **server.headers(),
        }
        lines = [
            f"GET {server.path(path)} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode())
        words = self._received.readline(65536).decode("latin-1").split(maxsplit=2)
        about = http.client.parse_headers(self._received)
        if len(words) < 2 or words[1] != "101":
            refusal = self._received.read(min(int(about.get("Content-Length") or 0), 65536))
            status = int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0
            raise ApiRequestRefused(
                status, f"port-forward: {' '.join(words[1:]).strip()} {_message(refusal)}".rstrip()
            )

    def send(self, data: bytes) -> None:
        """To the pod."""
        self._send(_BINARY, b"\x00" + data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """As an HTTPResponse wants its connection."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """See RawIOBase."""
        self._received.close()
        super().close()

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase; 0 at the end. Raises OSError with what kubelet reports as wrong."""
        while not self._left and not self._ended:
            self._take_frame()
        piece = self._left[: len(buffer)]
        self._left = self._left[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def _take_frame(self) -> None:
        """Channels' messages are small, and a message that is cut into several frames goes on in
        its own channel."""
        first, second = self._exactly(2)
        # RFC 6455, 5.2: four bits of opcode; seven of length, or 126 and 127 for one of two or
        # eight bytes that follows.
        kind, length = first & 0xF, second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._exactly(8))
        content = self._exactly(length)

        if kind == _PING:
            self._send(_PONG, content)
        elif kind == _CLOSE:
            self._ended = True
        elif kind in (_TEXT, _BINARY) and content:
            self._take_message(content[0], content[1:])

    def _take_message(self, channel: int, data: bytes) -> None:
        # The first message of each channel is the number of the port.
        if channel not in self._begun:
            self._begun.add(channel)
            return
        # Channels come in pairs: data on the even one, errors on the odd one.
        if channel % 2 and data:
            raise OSError(data.decode(errors="replace").strip())
        self._left += data

    def _exactly(self, count: int) -> bytes:
        content = self._received.read(count)
        if len(content) < count:
            raise ConnectionResetError("the connection ended in the middle of a message")
        return content

    def _send(self, kind: int, content: bytes) -> None:
        """A client's frames are masked (RFC 6455, 5.3). A mask must be hard to guess where a
        foreign script chooses what a browser sends; what is sent here is the guard's own, and
        within TLS."""
        mask = bytes(4)
        length = len(content)

        # The first bit says that the frame is masked; a request of the guard is far below 64 KiB.
        size = bytes([0x80 | length])
        if length >= 126:
            size = bytes([0x80 | 126]) + struct.pack(">H", length)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
        self._connection.sendall(bytes([0x80 | kind]) + size + mask + masked)


def lease_name(number: int) -> str:
    """The Lease of one turn. The first has the name that it had when there was one only."""
    if number == 0:
        return LEASE
    return f"{LEASE}-{number}"


def _message(content: bytes) -> str:
    """Of a Status, why the API server refused."""
    with suppress(ValueError, AttributeError):
        return str(json.loads(content).get("message") or "")
    return ""


def _wall_ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) * NS_PER_S


def _moment(wall_ns: int, *, micros: bool = False) -> str:
    moment = datetime.fromtimestamp(wall_ns // NS_PER_S, UTC)
    # A Lease has MicroTime and refuses a time without its six digits; an Event has Time.
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (".000000Z" if micros else "Z")
