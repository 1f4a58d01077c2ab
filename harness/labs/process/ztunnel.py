"""One real ztunnel in dedicated mode: one identity, one network namespace, the clocks of its node.

What it is told, and why, stands in `_environment`. What it says of itself is read from its admin interface
(`/config_dump`), what it logs from its log, as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.authority.ca import TRUST_DOMAIN, spiffe_id
from harness.clocks.reading import ClockReading
from harness.clocks.skip import Watched
from harness.clocks.vdso import ClockPage, Launched, launch, read_inside
from harness.durations import NS_PER_S
from harness.errors import SubjectFailed
from harness.labs.process.namespaces import AUTHORITY_ADDRESS, inside, join

ADMIN_PORT, SOCKS_PORT, INBOUND_PORT = 15000, 15080, 15008
AUTHORITY_PORT = 15012
ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True)
class Place:
    """Where an identity lives: its node, its network namespace (an open file) and its address."""

    identity: str
    node: str
    namespace: int
    address: str

    @property
    def name(self) -> str:
        """The service account: also the name of the workload, and of the process in logs and messages."""
        return self.identity.replace("/", ".")


@dataclass(frozen=True)
class CertificateState:
    """What ztunnel says of its certificate; serial and not-after are None while it holds none."""

    state: str
    serial: str | None
    not_after_wall_s: int | None


class Ztunnel:
    """A running ztunnel. It dies with us, whatever happens to us."""

    def __init__(
        self, binary: Path, place: Place, page: ClockPage, directory: Path, environment: dict[str, str]
    ) -> None:
        self.place = place
        self.log = directory / f"{place.name}.log"
        self._admin: http.client.HTTPConnection | None = None
        self._process: Launched = launch(
            [str(binary)],
            page,
            environment=environment,
            directory=directory,
            log=self.log,
            before_exec=lambda: join(place.namespace),
        )
        self.watched = Watched(self._process.pid, f"ztunnel {place.name}")

    def read_clocks(self) -> ClockReading:
        """The clocks as this ztunnel sees them, read inside it."""
        return read_inside(self._process)

    def listening(self) -> bool:
        """Whether the ports that we use are open yet. Opens none."""
        ports = {f":{port:04X}" for port in (ADMIN_PORT, SOCKS_PORT, INBOUND_PORT)}
        with suppress(FileNotFoundError, ProcessLookupError):
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{self._process.pid}/net/{table}").read_text().splitlines()[1:]:
                    words = line.split()
                    if words[3] == "0A":
                        ports.discard(words[1][-5:])
        return not ports

    def check_alive(self) -> None:
        """Raises SubjectFailed with its last words when it has ended by itself."""
        try:
            self.watched.check_alive()
        except SubjectFailed as error:
            words = self.log.read_text(errors="replace").strip().splitlines()[-4:]
            raise SubjectFailed(f"{error}: " + " | ".join(words)) from error

    def fetch_certificate(self) -> socket.socket:
        """Knocks at its HBONE port, which makes it ask for its certificate as a prefetch would: dedicated mode has none
        of its own. Returns at once, with the connection, to be read and closed by the caller; the handshake cannot
        succeed, since we show no certificate."""
        return _knock((self.place.address, INBOUND_PORT), self.place.namespace)

    def validities(self) -> list[tuple[int, int]]:
        """From when to when the certificate that it serves is valid, by its /config_dump; [] while it holds none."""
        wanted = spiffe_id(self.place.identity)
        entries = (entry for entry in self._config_dump().get("certificates", []) if entry["identity"] == wanted)
        chains = (entry.get("certChain") or [] for entry in entries)
        return [(_wall_ns(chain[0]["validFrom"]), _wall_ns(chain[0]["expirationTime"])) for chain in chains if chain]

    def certificate_state(self) -> CertificateState | None:
        """What /config_dump says now; None before it knows its identity."""
        entries = self._config_dump().get("certificates", [])
        wanted = spiffe_id(self.place.identity)
        entry = next((entry for entry in entries if entry["identity"] == wanted), None)
        if entry is None:
            return None
        chain = entry.get("certChain") or []
        if not chain:
            return CertificateState(_state(entry), None, None)
        not_after = datetime.fromisoformat(chain[0]["expirationTime"])
        return CertificateState(_state(entry), chain[0]["serialNumber"], int(not_after.timestamp()))

    def errors_since(self, position: int) -> list[str]:
        """The errors that its log has gained since `log_size` said `position`."""
        with self.log.open("rb") as log:
            log.seek(position)
            return [error for line in log for error in _error_in(line)]

    def log_size(self) -> int:
        """How long its log is now, in bytes."""
        return self.log.stat().st_size

    def end(self) -> None:
        """Ends it; it gets no chance to say anything."""
        if self._admin:
            self._admin.close()
        self.watched.close()
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._process.pid, 0)

    def _config_dump(self) -> dict[str, Any]:
        for attempt in (1, 2):
            try:
                if self._admin is None:
                    self._admin = self._connect_admin()
                self._admin.request("GET", "/config_dump")
                return dict(json.loads(self._admin.getresponse().read()))
            except (OSError, http.client.HTTPException, ValueError) as error:
                if self._admin:
                    self._admin.close()
                self._admin = None
                self.check_alive()
                if attempt == 2:
                    raise SubjectFailed(f"{self.watched.name}: /config_dump gave no answer: {error!r}") from error
        raise AssertionError

    def _connect_admin(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", ADMIN_PORT, timeout=ANSWER_WITHIN_S)
        connection.auto_open = 0  # it would connect anew by itself, in our namespace and not in ztunnel's
        with inside(self.place.namespace):
            connection.sock = socket.create_connection(("127.0.0.1", ADMIN_PORT), ANSWER_WITHIN_S)
        return connection


def _wall_ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) * NS_PER_S


def _state(entry: dict[str, Any]) -> str:
    state = entry["state"]
    return state if isinstance(state, str) else f"Unavailable: {next(iter(state.values()))}"


def _error_in(line: bytes) -> Iterator[str]:
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict) and entry.get("error"):
            yield str(entry["error"])


def _knock(address: tuple[str, int], namespace: int) -> socket.socket:
    """Sends the first flight of a TLS handshake and does not wait for the answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with inside(namespace):
        connection = socket.create_connection(address, ANSWER_WITHIN_S)
    connection.sendall(outgoing.read())
    connection.setblocking(False)
    return connection


def local_xds(places: list[Place]) -> str:
    """The workloads of the mesh, as LOCAL_XDS_PATH wants them (YAML, of which JSON is a part)."""
    workloads = [
        {
            "uid": f"uid/{place.name}",
            "name": place.name,
            "namespace": place.identity.split("/")[0],
            "serviceAccount": place.identity.split("/")[1],
            "trustDomain": TRUST_DOMAIN,
            "workloadIps": [place.address],
            "protocol": "HBONE",
            "node": place.name,
            "network": "",
            "services": {},
        }
        for place in places
    ]
    return json.dumps({"workloads": workloads, "policies": [], "services": []})


def environment(place: Place, directory: Path, root_file: Path, lifetime_s: int) -> dict[str, str]:
    """What this ztunnel is told; only this, nothing of our own environment."""
    namespace, account = place.identity.split("/")
    return {
        "PROXY_MODE": "dedicated",
        "PROXY_WORKLOAD_INFO": f"{namespace}/{place.name}/{account}",
        "NODE_NAME": place.name,
        "INSTANCE_IP": place.address,
        "CLUSTER_ID": "Kubernetes",
        "CA_ADDRESS": f"https://{AUTHORITY_ADDRESS}:{AUTHORITY_PORT}",
        "CA_ROOT_CA": str(root_file),
        "AUTH_TOKEN": "token-of-the-harness",
        "SECRET_TTL": f"{lifetime_s}s",
        "XDS_ADDRESS": "",  # no xDS: the workloads stand in a file
        "LOCAL_XDS_PATH": str(directory / "workloads.yaml"),
        "UNSTABLE_ENABLE_SOCKS5": "true",  # our way in for outbound traffic, without redirection rules
        "ENABLE_ORIG_SRC": "false",  # else it sends from addresses that need the routes of a node
        "IPV6_ENABLED": "false",
        "ZTUNNEL_WORKER_THREADS": "1",
        # At one stream a connection, a connection never enters the pool: each attempt is a new handshake, and the
        # pool's thread, which wakes every 10 ms for ever, is never started.
        "POOL_MAX_STREAMS_PER_CONNECTION": "1",
        "RUST_LOG": "info,ztunnel::identity=debug",
        "RUST_BACKTRACE": "0",
        "LOG_FORMAT": "json",
    }
