"""Dedicated mode: a ztunnel for each identity, in the identity's own network namespace. Light, and
enough for renewals.

It has no prefetch, so each ztunnel is knocked at once after its start, which makes it ask for its
certificate. Ways in and out are its own: SOCKS5 for what its workload sends, the HBONE port for
what comes.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from meshwake.core.plan import Plan
from meshwake.labs.process.namespaces import Network, inside
from meshwake.labs.process.places import Home, Place
from meshwake.labs.process.ztunnel import Ztunnel, common_environment, local_xds
from meshwake.ztunnel.ports import ADMIN_PORT, HBONE_PORT, SOCKS_PORT

_CONNECT_WITHIN_S = 30.0


def dedicated_environment(
    home: Home, directory: Path, root_file: Path, lifetime_s: int
) -> dict[str, str]:
    """What a ztunnel that serves one identity in its own namespace is told; its workloads stand in
    `directory`."""
    namespace, account = home.identities[0].split("/")
    return common_environment(home.name, root_file, lifetime_s) | {
        "PROXY_MODE": "dedicated",
        "PROXY_WORKLOAD_INFO": f"{namespace}/{home.name}/{account}",
        "INSTANCE_IP": home.address,
        "XDS_ADDRESS": "",  # no xDS: the workloads stand in a file
        "LOCAL_XDS_PATH": str(directory / "workloads.yaml"),
    }


class Dedicated:
    """See modes.Mode."""

    ports = (ADMIN_PORT, SOCKS_PORT, HBONE_PORT)
    redirects = False
    way_in = "socks5"

    def __init__(self, plan: Plan, network: Network, directory: Path) -> None:
        self._plan, self._network, self._directory = plan, network, directory
        self.places: dict[str, Place] = {}
        self.homes: list[Home] = []
        for node in plan.nodes:
            for identity in node.identities:
                namespace, address = network.add(identity)
                place = Place(identity, node.name, namespace, address)
                self.places[identity] = place
                self.homes.append(Home(place.name, node.name, namespace, address, (identity,)))
        text = local_xds(self.places.values(), lambda place: place.name)
        (directory / "workloads.yaml").write_text(text)

    def environment(self, home: Home, root_file: Path) -> Mapping[str, str]:
        """See modes.Mode."""
        return dedicated_environment(home, self._directory, root_file, self._plan.lifetime_s)

    def welcome(self, ztunnel: Ztunnel) -> list[socket.socket]:
        """See modes.Mode: a knock at its HBONE port. The handshake cannot succeed, since we show no
        certificate."""
        return [knock((ztunnel.home.address, HBONE_PORT), ztunnel.home.namespace)]

    def close(self) -> None:
        """See modes.Mode."""


def knock(address: tuple[str, int], namespace: int) -> socket.socket:
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
        connection = socket.create_connection(address, _CONNECT_WITHIN_S)
    connection.sendall(outgoing.read())
    connection.setblocking(False)
    return connection
