"""One real ztunnel: a process in the network namespace of its home, on the clocks of its node.

What it is told, and why, depends on its mode (dedicated.py, inpod.py); what is common to both
stands in `common_environment`. What it says of itself is read from its admin interface
(`/config_dump`), what it logs from its log, as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, read_inside
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.labs.backend import CertificateState
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, inside, join
from meshwake.labs.process.places import Home, Place
from meshwake.ztunnel.config_dump import ServedCertificate, parse_config_dump
from meshwake.ztunnel.environment import observed_environment
from meshwake.ztunnel.logs import connection_error
from meshwake.ztunnel.ports import ADMIN_PORT, CONFIG_DUMP_PATH, ISTIOD_PORT
from meshwake.ztunnel.spiffe import TRUST_DOMAIN, spiffe_id

ANSWER_WITHIN_S = 30.0


class Ztunnel:
    """A running ztunnel. It dies with us, whatever happens to us."""

    def __init__(
        self,
        binary: Path,
        home: Home,
        page: ClockPage,
        directory: Path,
        environment: dict[str, str],
    ) -> None:
        self.home = home
        self.log = directory / f"{home.name}.log"
        self._admin: http.client.HTTPConnection | None = None
        self._process: Launched = launch(
            [str(binary)],
            page,
            environment=environment,
            directory=directory,
            log=self.log,
            before_exec=lambda: join(home.namespace),
        )
        self.watched = WatchedProcess(self._process.pid, f"ztunnel {home.name}")

    def read_clocks(self) -> ClockReading:
        """The clocks as this ztunnel sees them, read inside it."""
        return read_inside(self._process)

    def listening(self, at: tuple[int, ...]) -> bool:
        """Whether these ports are open in its own namespace yet. Opens none."""
        ports = {f":{port:04X}" for port in at}
        with suppress(FileNotFoundError, ProcessLookupError):
            for table in ("tcp", "tcp6"):
                for line in (
                    Path(f"/proc/{self._process.pid}/net/{table}").read_text().splitlines()[1:]
                ):
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

    def validities(self) -> list[tuple[str, int, int]]:
        """Identity, and from when to when the certificate that it serves is valid, by its
        /config_dump."""
        names = {spiffe_id(identity): identity for identity in self.home.identities}
        return [
            (
                names[entry.spiffe],
                entry.not_before_wall_s * NS_PER_S,
                entry.not_after_wall_s * NS_PER_S,
            )
            for entry in self._certificates()
            if entry.spiffe in names
            and entry.not_before_wall_s is not None
            and entry.not_after_wall_s is not None
        ]

    def certificate_state(self, identity: str) -> CertificateState | None:
        """What /config_dump says now of one that it serves; None before it knows of it."""
        wanted = spiffe_id(identity)
        entry = next((entry for entry in self._certificates() if entry.spiffe == wanted), None)
        return (
            None
            if entry is None
            else CertificateState(entry.state, entry.serial, entry.not_after_wall_s)
        )

    def errors_since(self, position: int) -> list[str]:
        """The errors that its log has gained since `log_size` said `position`: those of its own
        pods' connections first, which matters where it serves both ends."""
        with self.log.open("rb") as log:
            log.seek(position)
            found = [error for line in log if (error := connection_error(line)) is not None]
        return [error for error, _ in sorted(found, key=lambda error: error[1] != "outbound")]

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

    def _certificates(self) -> tuple[ServedCertificate, ...]:
        for attempt in (1, 2):
            try:
                if self._admin is None:
                    self._admin = self._connect_admin()
                self._admin.request("GET", CONFIG_DUMP_PATH)
                return parse_config_dump(self._admin.getresponse().read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                if self._admin:
                    self._admin.close()
                self._admin = None
                self.check_alive()
                if attempt == 2:
                    raise SubjectFailed(
                        f"{self.watched.name}: /config_dump gave no answer: {error!r}"
                    ) from error
        raise AssertionError

    def _connect_admin(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", ADMIN_PORT, timeout=ANSWER_WITHIN_S)
        connection.auto_open = (
            0  # it would connect anew by itself, in our namespace and not in ztunnel's
        )
        with inside(self.home.namespace):
            connection.sock = socket.create_connection(("127.0.0.1", ADMIN_PORT), ANSWER_WITHIN_S)
        return connection


def workload(place: Place) -> dict[str, str]:
    """A workload in the words of authority/discovery.py."""
    namespace, account = place.identity.split("/")
    named = {"uid": place.uid, "name": place.name, "namespace": namespace, "account": account}
    return named | {"node": place.node, "address": place.address}


def local_xds(places: Iterable[Place], node_of: Callable[[Place], str]) -> str:
    """The workloads of the mesh, as LOCAL_XDS_PATH wants them (YAML, of which JSON is a part).
    `node_of` names the node of each as the ztunnels are told."""
    workloads = [
        {
            "uid": place.uid,
            "name": place.name,
            "namespace": place.identity.split("/")[0],
            "serviceAccount": place.identity.split("/")[1],
            "trustDomain": TRUST_DOMAIN,
            "workloadIps": [place.address],
            "protocol": "HBONE",
            "node": node_of(place),
            "network": "",
            "services": {},
        }
        for place in places
    ]
    return json.dumps({"workloads": workloads, "policies": [], "services": []})


def common_environment(node: str, root_file: Path, lifetime_s: int) -> dict[str, str]:
    """What every ztunnel is told; nothing of our own environment is."""
    return (
        observed_environment(lifetime_s)
        | {
            "NODE_NAME": node,
            "CLUSTER_ID": "Kubernetes",
            "CA_ADDRESS": f"https://{AUTHORITY_ADDRESS}:{ISTIOD_PORT}",
            "CA_ROOT_CA": str(root_file),
            "AUTH_TOKEN": "token-of-the-harness",
            "UNSTABLE_ENABLE_SOCKS5": "true",  # a way in for outbound traffic that needs no redirection rules
            "ENABLE_ORIG_SRC": "false",  # else it sends from addresses that need the routes of a node
            "IPV6_ENABLED": "false",
            "ZTUNNEL_WORKER_THREADS": "1",
            # The thread with which jemalloc (1.31 and newer) tidies up waits on the kernel's wall
            # clock, for a time that it works out from ours: where ours is behind, it spun, and a world
            # that starts in the past was never quiet.
            "MALLOC_CONF": "background_thread:false",
            "RUST_BACKTRACE": "0",
            "LOG_FORMAT": "json",
        }
    )
