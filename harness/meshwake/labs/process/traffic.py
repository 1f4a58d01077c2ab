"""New connections through the mesh: into the source's ztunnel, HBONE with mTLS, an echo at the
destination.

In dedicated mode the way in is SOCKS5; where rules redirect what a workload sends (in-pod mode) the
client is an ordinary one, which connects to the destination's address and does not know about
ztunnel.

Nothing here waits for real time: an attempt that has no answer when the world is quiet is waiting
for virtual time to pass, and counts as failed at the moment it was made.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from meshwake.clocks.quiescence.detector import QUIET_WITHIN_S
from meshwake.core.errors import HarnessFault
from meshwake.labs.process.namespaces import in_namespace, listen
from meshwake.labs.process.workloads import Workload
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.ports import SOCKS_PORT

ECHO_PORT = 8080
_POLL_EVERY_S = 0.002
_PING = b"ping"
# SOCKS5 (RFC 1928). Greeting: version 5, one method, "no authentication". Request: version 5,
# CONNECT, reserved, an IPv4 address follows (then 4 bytes of it, and 2 of the port).
_NO_AUTHENTICATION = b"\x05\x01\x00"
_CONNECT_IPV4 = b"\x05\x01\x00\x01"
# The method chosen (2 bytes), and the reply to the request with an IPv4 address (10 bytes).
_SOCKS_ANSWER_BYTES = 2 + 10


class Echo:
    """A server in the namespace of one identity that sends back what it gets."""

    def __init__(self, workload: Workload, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        with in_namespace(workload.namespace):
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
            pass  # its ztunnel reset the connection; to the server that is an end as well
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        self._selector.unregister(connection)
        connection.close()


class EchoTraffic:
    """All echo servers, and attempts between them. `workloads` may change meanwhile: see
    `pod_removed` and `pod_added`."""

    def __init__(self, workloads: dict[str, Workload], redirected: bool) -> None:
        self._workloads, self._redirected = workloads, redirected
        self._selector = selectors.DefaultSelector()
        self._echoes = {
            identity: Echo(workload, self._selector) for identity, workload in workloads.items()
        }

    def pod_removed(self, identity: str) -> None:
        """The pod of `identity` is removed, and its server with it."""
        self._echoes.pop(identity).close()

    def pod_added(self, identity: str) -> None:
        """Another pod of `identity` has been added."""
        self._echoes[identity] = Echo(self._workloads[identity], self._selector)

    def serve(self) -> bool:
        """Lets the echo servers do what there is to do; returns whether there was anything."""
        ready = self._selector.select(0)
        for key, _ in ready:
            key.data(key.fileobj)
        return bool(ready)

    def attempt(self, source: str, destination: str, quiet: Callable[[], bool]) -> str | None:
        """One new connection from `source` to `destination`: None when the echo came back, else
        what happened. `quiet()`: whether nothing is left that happens by itself.
        """
        return self.attempt_to(source, self._workloads[destination].address, quiet)

    def attempt_to(self, source: str, address: str, quiet: Callable[[], bool]) -> str | None:
        """The same to an address that need not be one of `workloads`: on another machine."""
        with in_namespace(self._workloads[source].namespace):
            client = socket.socket()
        with client:
            return self._exchange(client, address, quiet)

    def close(self) -> None:
        """Ends the servers."""
        for echo in self._echoes.values():
            echo.close()
        self._selector.close()

    def _exchange(
        self, client: socket.socket, address: str, quiet: Callable[[], bool]
    ) -> str | None:
        client.setblocking(False)

        # Nagle's algorithm would hold a small segment back until the one before it is acknowledged.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange = _Exchange("" if self._redirected else address)
        to = (address, ECHO_PORT) if self._redirected else ("127.0.0.1", SOCKS_PORT)
        error = client.connect_ex(to)
        if error not in (0, errno.EINPROGRESS):
            return f"ztunnel does not listen ({os.strerror(error)})"
        deadline = Deadline(
            "an answer to a connection, or for everything to be quiescent",
            QUIET_WITHIN_S,
            HarnessFault,
        )
        while not exchange.is_over:
            if not self._serve_with(client, exchange) and quiet():
                return "no answer"
            deadline.check()
        return exchange.failure

    def _serve_with(self, client: socket.socket, exchange: _Exchange) -> bool:
        """As `serve`, for a short while, and with a client among the servers."""
        events = selectors.EVENT_READ
        if exchange.unsent:
            events |= selectors.EVENT_WRITE
        self._selector.register(client, events, exchange.advance)
        ready = self._selector.select(_POLL_EVERY_S)
        self._selector.unregister(client)
        for key, _ in ready:
            key.data(key.fileobj)
        return bool(ready)


class _Exchange:
    """What a client sends and receives: SOCKS5 greeting, request and ping in one go, since the
    order of the three is fixed and their lengths are known; then two answers of SOCKS5 and the
    echo. Without a `socks_address`: ping and echo."""

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
        """Whether the echo has come back, or cannot any more."""
        return self.failure is not None or len(self._received) >= self._expected_bytes

    def advance(self, client: socket.socket) -> None:
        """Sends and receives what can be without waiting."""
        try:
            if self.unsent:
                sent_bytes = client.send(self.unsent)
                self.unsent = self.unsent[sent_bytes:]
            data = client.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.failure = f"closed without an answer ({error.strerror})"
            return
        self._received += data
        if not data:
            # The end of the stream.
            self.failure = "closed without an answer"
        elif self.is_over and not self._received.endswith(_PING):
            self.failure = f"answered {self._received!r}"
