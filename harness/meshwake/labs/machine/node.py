"""One machine of several, from the inside: its card on its bridge, its ztunnels, its end of
connections, and the authority where it has it. All of it is the process lab's own; guest_agent.py
receives the commands.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict

from pyroute2 import IPRoute

from meshwake.authority.server import AuthorityProcess, Mode, spawn
from meshwake.clocks.guest.init import kernel_clocks
from meshwake.clocks.guest.kernel_page import NO_FILE, KernelClockPage
from meshwake.core.authority_state import AuthorityState
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import SubjectFailed
from meshwake.core.json_types import MutableJsonObject
from meshwake.labs.machine.guest_overrides import guest_overrides
from meshwake.labs.machine.guest_runner import DIRECTORY
from meshwake.labs.process.dedicated import Dedicated, dedicated_environment, trigger_handshake
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, Network, in_namespace, listen
from meshwake.labs.process.traffic import EchoTraffic
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import ZtunnelProcess, await_listening, local_xds
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.ports import HBONE_PORT, ISTIOD_PORT

CARD, _BRIDGE = "eth0", "mesh0"
# What a connection may take on an emulated machine; after that it has no answer.
ANSWERED_WITHIN_S = 10.0
STARTS_WITHIN_S, LISTENING_POLL_S = 120.0, 0.05
_ELSEWHERE = -1


class CardedNetwork(Network):
    """As in the process lab, with this machine's network card on the bridge, so that the other
    machines' namespaces are neighbours. `outside`: the network namespace in which the kernel has
    put the card. `first`: how many namespaces the machines before this one have, so that no address
    is given twice."""

    def __init__(self, outside: int, first: int, has_authority: bool) -> None:
        super().__init__()
        self._made = first

        # The address of the authority is on another guest: with it here too, requests would not
        # leave this machine.
        if not has_authority:
            self._netlink.addr(
                "del", index=self._index(_BRIDGE), address=AUTHORITY_ADDRESS, prefixlen=16
            )
        self._take_card(outside)

    def _take_card(self, outside: int) -> None:
        with (
            Path("/proc/thread-self/ns/net").open("rb") as here,
            in_namespace(outside),
            IPRoute() as there,
        ):
            cards = there.link_lookup(ifname=CARD)
            if not cards:
                raise SubjectFailed(
                    "the guest has no network card; is its module in the kernel's package?"
                )
            there.link("set", index=cards[0], net_ns_fd=here.fileno())
        self._netlink.link("set", index=self._index(CARD), master=self._index(_BRIDGE), state="up")


class _ServedTraffic(EchoTraffic):
    def fileno(self) -> int:
        """What becomes readable when an echo server has something to do."""
        return int(self._selector.fileno())


class AuthorityRequest(TypedDict):
    """What the authority of a guest is started with (authority/server.py, `spawn`)."""

    backdate_s: int
    identities: list[str]


class NodeRequest(TypedDict):
    """What a guest is started with: the name of its `node` and the `identities` on it (none where
    it is there for the authority), `first` (see CardedNetwork), `authority` None where another
    guest has it."""

    node: str
    identities: list[str]
    first: int
    authority: AuthorityRequest | None
    ztunnel: str
    lifetime_s: int


class GuestNode:
    """See guest_agent.CommandHandler."""

    def __init__(self, request: NodeRequest, outside: int, stack: ExitStack) -> None:
        self._request, self._stack = request, stack
        self._network = CardedNetwork(outside, request["first"], request["authority"] is not None)
        stack.callback(self._network.close)
        self._specs = [self._spec(identity) for identity in request["identities"]]
        self._spec_of = {spec.identities[0]: spec for spec in self._specs}
        self._authority = self._start_authority() if request["authority"] else None
        self._traffic: _ServedTraffic | None = None
        self._ztunnels: dict[str, ZtunnelProcess] = {}
        self._handshakes: list[socket.socket] = []
        self._root = ""
        stack.callback(self.end)
        self.commands: dict[str, Callable[..., Any]] = {
            "introduce": self.introduce,
            "connect": self.connect,
            "start": self.start,
            "end": self.end,
            "freeze": self.freeze,
            "clocks": lambda: list(kernel_clocks()),
            "set_clocks": lambda clocks: KernelClockPage().set(ClockReading(*clocks)),
            "attempt": self.attempt,
            "log_size": lambda name: self._ztunnels[name].log_size(),
            "errors_since": lambda name, position: self._ztunnels[name].errors_since(position),
            "validities": lambda name: self._ztunnels[name].validities(),
            "certificate_state": self.certificate_state,
            "mode": self.set_mode,
            "state": self.set_state,
        }

    # Commands

    def introduce(self) -> MutableJsonObject:
        """The addresses of its identities, and the authority's root certificate where it has the
        authority."""
        root = self._authority.root_file.read_text() if self._authority else None
        return {
            "addresses": {spec.identities[0]: spec.address for spec in self._specs},
            "root": root,
        }

    def connect(self, workloads: list[dict[str, str]], root: str) -> None:
        """All workloads of the mesh, and the root certificate to trust."""
        self._root = root
        known = [
            Workload(one["identity"], one["node"], _ELSEWHERE, one["address"]) for one in workloads
        ]
        (DIRECTORY / "workloads.yaml").write_text(local_xds(known, lambda workload: workload.name))
        here = {
            workload.identity: Workload(
                workload.identity,
                workload.node,
                self._spec_of[workload.identity].namespace,
                workload.address,
            )
            for workload in known
            if workload.identity in self._spec_of
        }
        self._traffic = _ServedTraffic(here, redirected=False)
        self._addresses = {workload.identity: workload.address for workload in known}
        self._stack.callback(self._traffic.close)

    def start(self) -> None:
        """Starts its ztunnels. When they listen, a handshake makes each request its certificate."""
        for spec in self._specs:
            environment = dedicated_environment(
                spec, DIRECTORY, Path("unused"), self._request["lifetime_s"]
            )
            environment |= guest_overrides(self._root)
            binary = Path(self._request["ztunnel"])
            self._ztunnels[spec.name] = ZtunnelProcess(
                binary, spec, KernelClockPage(), DIRECTORY, environment
            )
        await_listening(
            list(self._ztunnels.values()), Dedicated.ports, STARTS_WITHIN_S, LISTENING_POLL_S
        )
        self._handshakes = [
            trigger_handshake((spec.address, HBONE_PORT), spec.namespace) for spec in self._specs
        ]

    def end(self) -> None:
        """Its ztunnels have ended when this returns."""
        for name in list(self._ztunnels):
            self._ztunnels.pop(name).end()

    def freeze(self, frozen: bool) -> None:
        """Stops its ztunnels, or has them go on."""
        for ztunnel in self._ztunnels.values():
            (ztunnel.watched.stop if frozen else ztunnel.watched.resume)()

    def attempt(self, source: str, destination: str) -> str | None:
        """See EchoTraffic.attempt; `destination` may be elsewhere."""
        assert self._traffic is not None
        deadline = Deadline("an answer to a connection", ANSWERED_WITHIN_S)
        return self._traffic.attempt_to(
            source, self._addresses[destination], lambda: deadline.has_passed
        )

    def certificate_state(self, name: str, identity: str) -> list[Any] | None:
        """See ZtunnelProcess.certificate_state."""
        state = self._ztunnels[name].certificate_state(identity)
        return None if state is None else [state.state, state.serial, state.not_after_wall_s]

    def set_mode(self, mode: Mode) -> None:
        """Of the authority."""
        assert self._authority is not None
        self._authority.set_mode(mode)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Of the authority."""
        assert self._authority is not None
        self._authority.set_state(AuthorityState(**state))

    # What there is to do without a command

    def files(self) -> list[int]:
        """See CommandHandler."""
        found = [handshake.fileno() for handshake in self._handshakes]
        if self._traffic is not None:
            found.append(self._traffic.fileno())
        if self._authority is not None:
            found.append(self._authority.fileno())
        return found

    def serve(self) -> list[MutableJsonObject]:
        """See CommandHandler. A ztunnel's answer to a handshake is read and discarded, and the
        connection closed."""
        # Looked at without waiting: an answer comes when its ztunnel has a certificate.
        self._handshakes = [handshake for handshake in self._handshakes if not _answered(handshake)]
        if self._traffic is not None:
            self._traffic.serve()
        if self._authority is None:
            return []
        return [dict(report) for report in self._authority.requests()]

    # Building

    def _spec(self, identity: str) -> ZtunnelSpec:
        namespace, address = self._network.add(identity)
        workload = Workload(identity, self._request["node"], namespace, address)
        return ZtunnelSpec(workload.name, workload.node, namespace, address, (identity,))

    def _start_authority(self) -> AuthorityProcess:
        settings = self._request["authority"]
        assert settings is not None
        with listen(AUTHORITY_ADDRESS, ISTIOD_PORT) as listener:
            identities = tuple(settings["identities"])
            authority = spawn(
                NO_FILE, listener, AUTHORITY_ADDRESS, DIRECTORY, settings["backdate_s"], identities
            )
        self._stack.callback(authority.close)
        return authority


def _answered(handshake: socket.socket) -> bool:
    try:
        handshake.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        pass  # reset: that is an answer too
    handshake.close()
    return True
