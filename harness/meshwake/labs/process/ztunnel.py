"""One real ztunnel: a process in a network namespace of its own, on the clocks of its node.

Its settings, and why, depend on its mode (dedicated.py, inpod.py); those common to both are in
`common_environment`. What it reports of itself is read from its admin interface
(`/config_dump`), what it logs from its log, as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, read_inside
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.labs.backend import ReportedCertificate
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, in_namespace, join
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.config_dump import ServedCertificate, parse_config_dump
from meshwake.ztunnel.environment import observed_environment
from meshwake.ztunnel.logs import connection_error
from meshwake.ztunnel.ports import ADMIN_PORT, CONFIG_DUMP_PATH, ISTIOD_PORT
from meshwake.ztunnel.spiffe import TRUST_DOMAIN, spiffe_id

ANSWER_WITHIN_S = 30.0


class ZtunnelProcess:
    """A running ztunnel. It dies with us, whatever happens to us."""

    def __init__(
        self,
        binary: Path,
        spec: ZtunnelSpec,
        page: ClockPage,
        directory: Path,
        environment: dict[str, str],
    ) -> None:
        self.spec = spec
        self.log = directory / f"{spec.name}.log"
        self._admin: http.client.HTTPConnection | None = None
        self._process: Launched = launch(
            [str(binary)],
            page,
            environment=environment,
            directory=directory,
            log=self.log,
            before_exec=lambda: join(spec.namespace),
        )
        self.watched = WatchedProcess(self._process.pid, f"ztunnel {spec.name}")

    def read_clocks(self) -> ClockReading:
        """The clocks as this ztunnel sees them, read inside it."""
        return read_inside(self._process)

    def listening(self, at: tuple[int, ...]) -> bool:
        """Whether these ports are open in its own namespace yet. Opens none."""
        return set(at) <= self._listening_ports()

    def _listening_ports(self) -> set[int]:
        ports: set[int] = set()
        with suppress(FileNotFoundError, ProcessLookupError):
            for table in ("tcp", "tcp6"):
                text = Path(f"/proc/{self._process.pid}/net/{table}").read_text()
                ports.update(_listening_in(text))
        return ports

    def check_alive(self) -> None:
        """Raises SubjectFailed with the end of its log when it has ended by itself."""
        try:
            self.watched.check_alive()
        except SubjectFailed as error:
            lines = self.log.read_text(errors="replace").strip().splitlines()[-4:]
            raise SubjectFailed(f"{error}: " + " | ".join(lines)) from error

    def validities(self) -> list[tuple[str, int, int]]:
        """Identity, and from when to when the certificate that it serves is valid, by its
        /config_dump."""
        names = {spiffe_id(identity): identity for identity in self.spec.identities}
        found = []
        for entry in self._certificates():
            if entry.spiffe not in names:
                continue
            # Requested, and not answered yet.
            begins_s, ends_s = entry.not_before_wall_s, entry.not_after_wall_s
            if begins_s is None or ends_s is None:
                continue
            found.append((names[entry.spiffe], begins_s * NS_PER_S, ends_s * NS_PER_S))
        return found

    def certificate_state(self, identity: str) -> ReportedCertificate | None:
        """What /config_dump says now of one that it serves; None before it knows of it."""
        wanted = spiffe_id(identity)
        for entry in self._certificates():
            if entry.spiffe == wanted:
                return ReportedCertificate(entry.state, entry.serial, entry.not_after_wall_s)
        return None

    def errors_since(self, position: int) -> list[str]:
        """The errors that its log has gained since `log_size` returned `position`: those of its own
        pods' connections first, which matters where it serves both ends."""
        outbound = []
        others = []
        with self.log.open("rb") as log:
            log.seek(position)
            for line in log:
                found = connection_error(line)
                if found is None:
                    continue
                error, direction = found
                if direction == "outbound":
                    outbound.append(error)
                else:
                    others.append(error)
        return [*outbound, *others]

    def log_size(self) -> int:
        """How long its log is now, in bytes."""
        return self.log.stat().st_size

    def end(self) -> None:
        """Kills it."""
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
                        f"{self.watched.name}: /config_dump did not answer: {error!r}"
                    ) from error
        raise AssertionError

    def _connect_admin(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", ADMIN_PORT, timeout=ANSWER_WITHIN_S)
        # It would connect again by itself, in our namespace and not in ztunnel's.
        connection.auto_open = 0
        with in_namespace(self.spec.namespace):
            connection.sock = socket.create_connection(("127.0.0.1", ADMIN_PORT), ANSWER_WITHIN_S)
        return connection


def await_listening(
    ztunnels: Collection[ZtunnelProcess], ports: tuple[int, ...], within_s: float, every_s: float
) -> None:
    """Returns when all of them listen at `ports`. Raises SubjectFailed when one has ended, or does
    not listen within the bound."""
    names = ", ".join(ztunnel.spec.name for ztunnel in ztunnels)
    deadline = Deadline(f"ztunnel {names} to listen", within_s, SubjectFailed)
    while not all(ztunnel.listening(ports) for ztunnel in ztunnels):
        for ztunnel in ztunnels:
            ztunnel.check_alive()
        deadline.pause(every_s)


def _listening_in(table: str) -> Iterator[int]:
    """The ports that listen, in a table of /proc/net/tcp (proc_pid_net(5)): after a heading, one
    socket a line."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        local_address, state = columns[1], columns[3]
        if state == "0A":  # TCP_LISTEN (net/tcp_states.h)
            yield int(local_address.rpartition(":")[2], 16)


def discovery_entry(workload: Workload) -> dict[str, str]:
    """A workload as authority/discovery.py takes it."""
    namespace, account = workload.identity.split("/")
    named = {"uid": workload.uid, "name": workload.name, "namespace": namespace, "account": account}
    return named | {"node": workload.node, "address": workload.address}


def local_xds(workloads: Iterable[Workload], node_of: Callable[[Workload], str]) -> str:
    """The workloads of the mesh, as LOCAL_XDS_PATH wants them (YAML, of which JSON is a part).
    `node_of` names the node of each as the ztunnels know it."""
    entries = [
        {
            "uid": workload.uid,
            "name": workload.name,
            "namespace": workload.identity.split("/")[0],
            "serviceAccount": workload.identity.split("/")[1],
            "trustDomain": TRUST_DOMAIN,
            "workloadIps": [workload.address],
            "protocol": "HBONE",
            "node": node_of(workload),
            "network": "",
            "services": {},
        }
        for workload in workloads
    ]
    return json.dumps({"workloads": entries, "policies": [], "services": []})


def common_environment(node: str, root_file: Path, lifetime_s: int) -> dict[str, str]:
    """The settings of every ztunnel; nothing of our own environment is passed on."""
    return observed_environment(lifetime_s) | {
        "NODE_NAME": node,
        "CLUSTER_ID": "Kubernetes",
        "CA_ADDRESS": f"https://{AUTHORITY_ADDRESS}:{ISTIOD_PORT}",
        "CA_ROOT_CA": str(root_file),
        "AUTH_TOKEN": "token-of-the-harness",
        # A way in for outbound traffic that needs no redirection rules.
        "UNSTABLE_ENABLE_SOCKS5": "true",
        # Else it sends from addresses that need the routes of a node.
        "ENABLE_ORIG_SRC": "false",
        "IPV6_ENABLED": "false",
        "ZTUNNEL_WORKER_THREADS": "1",
        # The thread with which jemalloc (1.31 and newer) returns memory waits on the kernel's
        # wall clock, for a time that it computes from ours: where ours is behind it spun, and a
        # run that starts in the past never became quiescent.
        "MALLOC_CONF": "background_thread:false",
        "RUST_BACKTRACE": "0",
        "LOG_FORMAT": "json",
    }
