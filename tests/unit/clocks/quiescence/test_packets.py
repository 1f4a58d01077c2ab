"""Whether a packet has moved is told, by packet sockets and by counters, and told once."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="packet sockets and /proc are Linux's"
)


def send_one_packet() -> None:
    """Over the loopback device of the namespace of this test."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.sendto(b"x", receiver.getsockname())
        assert receiver.recv(1) == b"x"


def watch(kind: str) -> Any:
    from meshwake.clocks.quiescence import packets

    if kind == "Counters":
        return packets.Counters()
    try:
        return packets.Tap()
    except PermissionError:
        pytest.skip("packet sockets need CAP_NET_RAW")


@pytest.mark.parametrize("kind", ["Tap", "Counters"])
def test_a_packet_is_noticed(kind: str) -> None:
    """However many came; and who is no longer watched is not heard. (Other tests use the loopback
    device too.)"""
    from meshwake.clocks.quiescence.packets import Moved

    one, moved = watch(kind), Moved()
    moved.add(one)
    moved.since_last_asked()
    for _ in range(20):
        send_one_packet()
    assert moved.since_last_asked()
    moved.remove(one)
    assert not moved.since_last_asked()
    one.close()
    moved.close()
