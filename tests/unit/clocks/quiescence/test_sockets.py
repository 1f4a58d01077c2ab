"""What the kernel lists of real sockets on loopback: ends, states, and bytes that are not read."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux's")


@pytest.fixture
def here() -> Any:
    from meshwake.clocks.quiescence.sockets import SocketsOfNamespace
    from meshwake.core.errors import LabUnavailable

    sockets = SocketsOfNamespace("here")
    try:
        sockets.all()
    except LabUnavailable as error:
        sockets.close()
        pytest.skip(str(error))
    yield sockets
    sockets.close()


def port_of(end: bytes) -> int:
    return int.from_bytes(end[:2], "big")


def on_port(sockets: Any, port: int) -> dict[str, Any]:
    """The listener, the end that connected and the end that was accepted, of one port."""
    from meshwake.clocks.quiescence.sockets import LISTEN

    found = {}
    for one in sockets.all():
        source, destination = (port_of(end) for end in one.ends)
        if one.state == LISTEN and source == port:
            found["listener"] = one
        elif destination == port:
            found["client"] = one
        elif source == port:
            found["server"] = one
    return found


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_bytes_on_their_way_and_unread_are_seen(here: Any, family: str, address: str) -> None:
    """Both families are in one answer; both ends of a connection know of one another."""
    from meshwake.clocks.quiescence.sockets import unread

    try:
        listener = socket.create_server((address, 0), family=getattr(socket, family))
    except OSError as error:
        pytest.skip(f"no loopback of {family}: {error}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        port = listener.getsockname()[1]
        assert on_port(here, port)["listener"].unread == 1  # a connection to accept
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"twelve bytes")
            found = on_port(here, port)
            assert found["listener"].unread == 0
            assert found["server"].unread == 12
            assert found["client"].sent_bytes == found["server"].received_bytes == 12
            assert found["client"].connection[1:] == found["server"].connection[:0:-1]
            assert unread([found["server"]]) == {f"{found['server'].name} has 12 bytes unread"}
            assert accepted.recv(64) == b"twelve bytes"
            assert unread(on_port(here, port).values()) == set()


def test_bytes_that_have_not_arrived_are_under_way() -> None:
    """Also where one end has gone and the other does not know yet."""
    from meshwake.clocks.quiescence.sockets import TcpSocket, first_under_way

    here, there = b"\x00\x50" + bytes(16), b"\x00\x51" + bytes(16)
    sender = TcpSocket("pod", (here, there), 1, 0, 0, 10, 0, has_info=True)
    receiver = TcpSocket("pod", (there, here), 1, 0, 0, 0, 7, has_info=True)
    arrived = TcpSocket("pod", (there, here), 1, 0, 0, 0, 10, has_info=True)
    assert first_under_way([sender, receiver]) == (
        "pod: socket 80 to 81 has sent 10 bytes, of which 7 have arrived"
    )
    assert first_under_way([sender, arrived]) is None
    assert first_under_way([sender]) == (
        "pod: socket 80 to 81 does not know yet that its other end has gone"
    )


def test_loopback_of_two_namespaces_is_two_networks() -> None:
    """Any other address names the same end everywhere."""
    from meshwake.clocks.quiescence.sockets import TcpSocket

    def connection(namespace: str, address: bytes) -> tuple[str, bytes, bytes]:
        end = b"\x00\x50" + address.ljust(16, b"\x00")
        return TcpSocket(namespace, (end, end), 1, 0, 0, 0, 0, has_info=True).connection

    assert connection("a", b"\x7f\x00\x00\x01") != connection("b", b"\x7f\x00\x00\x01")
    assert connection("a", bytes(15) + b"\x01") != connection("b", bytes(15) + b"\x01")
    assert connection("a", b"\x0a\x4d\x00\x01") == connection("b", b"\x0a\x4d\x00\x01")
