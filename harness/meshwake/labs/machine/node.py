"""One machine of several, seen from within: its card on its bridge, its ztunnels, its end of
connections, and the authority where it has it. All of it is the process lab's own; see hands.py for
who tells it what to do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from meshwake.authority.server import AuthorityProcess, Mode, State, spawn
from meshwake.clocks.guest.init import kernel_clocks
from meshwake.clocks.guest.kernel_page import NO_FILE, KernelClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import SubjectFailed
from meshwake.labs.machine.inside import DIRECTORY
from meshwake.labs.machine.telling import told_in_a_guest
from meshwake.labs.process.dedicated import Dedicated, dedicated_environment, knock
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, Network, inside, listen
from meshwake.labs.process.places import Home, Place
from meshwake.labs.process.traffic import Traffic
from meshwake.labs.process.ztunnel import Ztunnel, local_xds
from meshwake.ztunnel.ports import HBONE_PORT, ISTIOD_PORT

CARD, _BRIDGE = "eth0", "mesh0"
# What a connection may take on an emulated machine; after that it has no answer.
ANSWERED_WITHIN_S = 10.0
STARTS_WITHIN_S = 120.0
_ELSEWHERE = -1


class CardedNetwork(Network):
    """As in the process lab, with this machine's network card on the bridge, so that the other
    machines' namespaces are neighbours. `outside`: the network namespace in which the kernel has
    put the card. `first`: how many namespaces the machines before this one have, so that no address
    is given twice."""

    def __init__(self, outside: int, first: int, has_authority: bool) -> None:
        super().__init__()
        self._made = first
        if not has_authority:
            self._home.addr(
                "del", index=self._index(_BRIDGE), address=AUTHORITY_ADDRESS, prefixlen=16
            )
        self._take_card(outside)

    def _take_card(self, outside: int) -> None:
        with (
            Path("/proc/thread-self/ns/net").open("rb") as here,
            inside(outside),
            IPRoute() as there,
        ):
            cards = there.link_lookup(ifname=CARD)
            if not cards:
                raise SubjectFailed(
                    "the guest has no network card; is its module in the kernel's package?"
                )
            there.link("set", index=cards[0], net_ns_fd=here.fileno())
        self._home.link("set", index=self._index(CARD), master=self._index(_BRIDGE), state="up")


class _ServedTraffic(Traffic):
    def fileno(self) -> int:
        """What becomes readable when an echo server has something to do."""
        return int(self._selector.fileno())


class Node:
    """See hands.Obedient. `request`: the name of this `node` and its `identities` (none where it is
    there for the authority), `first` (see CardedNetwork), `authority` (what `spawn` is to know, or
    None), `ztunnel`, `lifetime_s`."""

    def __init__(self, request: dict[str, Any], outside: int, stack: ExitStack) -> None:
        self._request, self._stack = request, stack
        self._network = CardedNetwork(outside, request["first"], request["authority"] is not None)
        stack.callback(self._network.close)
        self._homes = [self._home(identity) for identity in request["identities"]]
        self._home_of = {home.identities[0]: home for home in self._homes}
        self._authority = self._start_authority() if request["authority"] else None
        self._traffic: _ServedTraffic | None = None
        self._ztunnels: dict[str, Ztunnel] = {}
        self._knocks: list[socket.socket] = []
        self._root = ""
        stack.callback(self.end)
        self.orders: dict[str, Callable[..., Any]] = {
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

    # Orders

    def introduce(self) -> dict[str, Any]:
        """Where its identities live, and the authority's root certificate where it has the
        authority."""
        root = self._authority.root_file.read_text() if self._authority else None
        return {
            "addresses": {home.identities[0]: home.address for home in self._homes},
            "root": root,
        }

    def connect(self, places: list[dict[str, str]], root: str) -> None:
        """Whom there is in the mesh, and whom to trust."""
        self._root = root
        known = [Place(one["identity"], one["node"], _ELSEWHERE, one["address"]) for one in places]
        (DIRECTORY / "workloads.yaml").write_text(local_xds(known, lambda place: place.name))
        here = {
            place.identity: Place(
                place.identity, place.node, self._home_of[place.identity].namespace, place.address
            )
            for place in known
            if place.identity in self._home_of
        }
        self._traffic = _ServedTraffic(here, redirected=False)
        self._addresses = {place.identity: place.address for place in known}
        self._stack.callback(self._traffic.close)

    def start(self) -> None:
        """Its ztunnels, each knocked at when it listens, so that it asks for its certificate."""
        for home in self._homes:
            told = dedicated_environment(
                home, DIRECTORY, Path("unused"), self._request["lifetime_s"]
            )
            told |= told_in_a_guest(self._root)
            binary = Path(self._request["ztunnel"])
            self._ztunnels[home.name] = Ztunnel(binary, home, KernelClockPage(), DIRECTORY, told)
        self._await_listening()
        self._knocks = [knock((home.address, HBONE_PORT), home.namespace) for home in self._homes]

    def end(self) -> None:
        """Its ztunnels have ended when this returns."""
        for name in list(self._ztunnels):
            self._ztunnels.pop(name).end()

    def freeze(self, frozen: bool) -> None:
        """Its ztunnels stand, or go on."""
        for ztunnel in self._ztunnels.values():
            (ztunnel.watched.stop if frozen else ztunnel.watched.resume)()

    def attempt(self, source: str, destination: str) -> str | None:
        """See Traffic.attempt; `destination` may be elsewhere."""
        assert self._traffic is not None
        give_up_s = time.monotonic() + ANSWERED_WITHIN_S
        return self._traffic.attempt_to(
            source, self._addresses[destination], lambda: time.monotonic() > give_up_s
        )

    def certificate_state(self, name: str, identity: str) -> list[Any] | None:
        """See Ztunnel.certificate_state."""
        state = self._ztunnels[name].certificate_state(identity)
        return None if state is None else [state.state, state.serial, state.not_after_wall_s]

    def set_mode(self, mode: Mode) -> None:
        """Of the authority."""
        assert self._authority is not None
        self._authority.set_mode(mode)

    def set_state(self, state: dict[str, Any]) -> None:
        """Of the authority."""
        assert self._authority is not None
        self._authority.set_state(State(**state))

    # What there is to do besides

    def files(self) -> list[int]:
        """See Obedient."""
        found = [knocking.fileno() for knocking in self._knocks]
        if self._traffic is not None:
            found.append(self._traffic.fileno())
        if self._authority is not None:
            found.append(self._authority.fileno())
        return found

    def serve(self) -> list[dict[str, Any]]:
        """See Obedient. A ztunnel's answer to a knock is of no interest; it is taken, and the
        connection closed."""
        self._knocks = [knocking for knocking in self._knocks if not _answered(knocking)]
        if self._traffic is not None:
            self._traffic.serve()
        return self._authority.requests() if self._authority is not None else []

    # Building

    def _home(self, identity: str) -> Home:
        namespace, address = self._network.add(identity)
        place = Place(identity, self._request["node"], namespace, address)
        return Home(place.name, place.node, namespace, address, (identity,))

    def _start_authority(self) -> AuthorityProcess:
        known = self._request["authority"]
        with listen(AUTHORITY_ADDRESS, ISTIOD_PORT) as listener:
            identities = tuple(known["identities"])
            authority = spawn(
                NO_FILE, listener, AUTHORITY_ADDRESS, DIRECTORY, known["backdate_s"], identities
            )
        self._stack.callback(authority.close)
        return authority

    def _await_listening(self) -> None:
        give_up_s = time.monotonic() + STARTS_WITHIN_S
        while not all(ztunnel.listening(Dedicated.ports) for ztunnel in self._ztunnels.values()):
            for ztunnel in self._ztunnels.values():
                ztunnel.check_alive()
            if time.monotonic() > give_up_s:
                raise SubjectFailed(
                    f"the ztunnels did not listen within {STARTS_WITHIN_S:.0f} s of the "
                    "guest's time"
                )
            time.sleep(0.05)


def _answered(knocking: socket.socket) -> bool:
    try:
        knocking.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        pass
    knocking.close()
    return True
