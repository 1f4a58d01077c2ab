"""New connections through the mesh: into the source's ztunnel, HBONE with mTLS, an echo at the
destination.

In dedicated mode the way in is SOCKS5; where rules redirect what a workload sends (in-pod mode) the
client is an ordinary one, which connects to the destination's address and knows of no ztunnel.

Nothing here waits for real time: an attempt that has no answer when the world is quiet is waiting
for virtual time to pass, and counts as failed at the moment it was made.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from meshwake.clocks.quiescence.detector import QUIET_WITHIN_S
from meshwake.core.errors import HarnessFault
from meshwake.labs.process.namespaces import inside, listen
from meshwake.labs.process.places import Place
from meshwake.ztunnel.ports import SOCKS_PORT

ECHO_PORT = 8080
_LOOK_EVERY_S = 0.002
_PING = b"ping"
_NO_AUTHENTICATION = b"\x05\x01\x00"
_CONNECT_IPV4 = b"\x05\x01\x00\x01"
_SOCKS_ANSWER_BYTES = 2 + 10


class Echo:
    """A server in the namespace of one identity that sends back what it gets."""

    def __init__(self, place: Place, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        with inside(place.namespace):
            self._listener = listen("0.0.0.0", ECHO_PORT)
        self._listener.setblocking(False)
        self._open: set[socket.socket] = set()
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Closes the server and what is connected to it."""
        for connection in list(self._open):
            self._drop(connection)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, _: socket.socket) -> None:
        with suppress(BlockingIOError):
            connection, _peer = self._listener.accept()
            connection.setblocking(False)
            self._open.add(connection)
            self._selector.register(connection, selectors.EVENT_READ, self._answer)

    def _answer(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
            if data:
                connection.sendall(data)
                return
        except OSError:
            pass
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        self._selector.unregister(connection)
        connection.close()


class Traffic:
    """All echo servers, and attempts between them. `places` may change while it lives: see `gone`
    and `came`."""

    def __init__(self, places: dict[str, Place], redirected: bool) -> None:
        self._places, self._redirected = places, redirected
        self._selector = selectors.DefaultSelector()
        self._echoes = {identity: Echo(place, self._selector) for identity, place in places.items()}

    def gone(self, identity: str) -> None:
        """The pod of `identity` has gone, and its server with it."""
        self._echoes.pop(identity).close()

    def came(self, identity: str) -> None:
        """Another pod of `identity` has come."""
        self._echoes[identity] = Echo(self._places[identity], self._selector)

    def serve(self) -> bool:
        """Lets the echo servers do what there is to do; says whether there was anything."""
        ready = self._selector.select(0)
        for key, _ in ready:
            key.data(key.fileobj)
        return bool(ready)

    def attempt(self, source: str, destination: str, quiet: Callable[[], bool]) -> str | None:
        """One new connection from `source` to `destination`: None when the echo came back, else
        what happened. `quiet` says, when asked, whether the world has nothing left to do by itself.
        """
        return self.attempt_to(source, self._places[destination].address, quiet)

    def attempt_to(self, source: str, address: str, quiet: Callable[[], bool]) -> str | None:
        """The same to an address that need not be one of `places`: on another machine."""
        with inside(self._places[source].namespace):
            client = socket.socket()
        with client:
            return self._ask(client, address, quiet)

    def close(self) -> None:
        """Ends the servers."""
        for echo in self._echoes.values():
            echo.close()
        self._selector.close()

    def _ask(self, client: socket.socket, address: str, quiet: Callable[[], bool]) -> str | None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange = _Exchange("" if self._redirected else address)
        error = client.connect_ex(
            (address, ECHO_PORT) if self._redirected else ("127.0.0.1", SOCKS_PORT)
        )
        if error not in (0, errno.EINPROGRESS):
            return f"ztunnel does not listen ({os.strerror(error)})"
        give_up = time.monotonic() + QUIET_WITHIN_S
        while not exchange.is_over:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if exchange.unsent else 0)
            self._selector.register(client, events, exchange.go_on)
            ready = self._selector.select(_LOOK_EVERY_S)
            self._selector.unregister(client)
            for key, _ in ready:
                key.data(key.fileobj)
            if not ready and quiet():
                return "no answer"
            if time.monotonic() > give_up:
                raise HarnessFault(
                    "a connection had no answer and the world no quiet within "
                    f"{QUIET_WITHIN_S:.0f} s"
                )
        return exchange.failure


class _Exchange:
    """What a client says and hears: SOCKS5 greeting, request and ping in one go, since the order of
    the three is fixed and their lengths are known; then two answers of SOCKS5 and the echo. Without
    a `socks_address`: ping and echo."""

    def __init__(self, socks_address: str) -> None:
        self.unsent, self._expected_bytes = _PING, len(_PING)
        if socks_address:
            request = _CONNECT_IPV4 + socket.inet_aton(socks_address) + struct.pack(">H", ECHO_PORT)
            self.unsent = _NO_AUTHENTICATION + request + _PING
            self._expected_bytes += _SOCKS_ANSWER_BYTES
        self.failure: str | None = None
        self._received = b""

    @property
    def is_over(self) -> bool:
        """Whether the echo has come back, or it is known why not."""
        return self.failure is not None or len(self._received) >= self._expected_bytes

    def go_on(self, client: socket.socket) -> None:
        """Sends and receives what can be without waiting."""
        try:
            if self.unsent:
                self.unsent = self.unsent[client.send(self.unsent) :]
            data = client.recv(4096)
            if not data:
                self.failure = "closed without an answer"
            self._received += data
        except BlockingIOError:
            return
        except OSError as error:
            self.failure = f"closed without an answer ({error.strerror})"
        if self.is_over and self.failure is None and not self._received.endswith(_PING):
            self.failure = f"answered {self._received!r}"
