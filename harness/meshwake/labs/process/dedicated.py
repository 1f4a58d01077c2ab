"""Dedicated mode: a ztunnel for each identity, in the identity's own network namespace. Light, and
enough for renewals.

It has no prefetch, so a throw-away TLS connection is opened to each ztunnel right after its start,
which makes it request its certificate. Its workload sends through SOCKS5; what comes for the
workload arrives at the HBONE port.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from meshwake.core.plan import Plan
from meshwake.labs.process.namespaces import Network, in_namespace
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import ZtunnelProcess, common_environment, local_xds
from meshwake.ztunnel.ports import ADMIN_PORT, HBONE_PORT, SOCKS_PORT

_CONNECT_WITHIN_S = 30.0


def dedicated_environment(
    spec: ZtunnelSpec, directory: Path, root_file: Path, lifetime_s: int
) -> dict[str, str]:
    """The environment of a ztunnel that serves one identity in its own namespace; the file of
    workloads is in `directory`."""
    namespace, account = spec.identities[0].split("/")
    return common_environment(spec.name, root_file, lifetime_s) | {
        "PROXY_MODE": "dedicated",
        "PROXY_WORKLOAD_INFO": f"{namespace}/{spec.name}/{account}",
        "INSTANCE_IP": spec.address,
        "XDS_ADDRESS": "",  # no xDS: the workloads are in a file
        "LOCAL_XDS_PATH": str(directory / "workloads.yaml"),
    }


class Dedicated:
    """See modes.Mode."""

    ports = (ADMIN_PORT, SOCKS_PORT, HBONE_PORT)
    redirects = False
    way_in = "socks5"

    def __init__(self, plan: Plan, network: Network, directory: Path) -> None:
        self._plan, self._network, self._directory = plan, network, directory
        self.workloads: dict[str, Workload] = {}
        self.specs: list[ZtunnelSpec] = []
        for node in plan.nodes:
            for identity in node.identities:
                namespace, address = network.add(identity)
                workload = Workload(identity, node.name, namespace, address)
                self.workloads[identity] = workload
                self.specs.append(
                    ZtunnelSpec(workload.name, node.name, namespace, address, (identity,))
                )
        text = local_xds(self.workloads.values(), lambda workload: workload.name)
        (directory / "workloads.yaml").write_text(text)

    def environment(self, spec: ZtunnelSpec, root_file: Path) -> Mapping[str, str]:
        """See modes.Mode."""
        return dedicated_environment(spec, self._directory, root_file, self._plan.lifetime_s)

    def prime(self, ztunnel: ZtunnelProcess) -> list[socket.socket]:
        """See modes.Mode: a handshake with its HBONE port. It cannot succeed, since we present no
        certificate."""
        return [trigger_handshake((ztunnel.spec.address, HBONE_PORT), ztunnel.spec.namespace)]

    def close(self) -> None:
        """See modes.Mode."""


def trigger_handshake(address: tuple[str, int], namespace: int) -> socket.socket:
    """Sends the first flight of a TLS handshake and does not wait for the answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with in_namespace(namespace):
        connection = socket.create_connection(address, _CONNECT_WITHIN_S)
    connection.sendall(outgoing.read())
    connection.setblocking(False)
    return connection
