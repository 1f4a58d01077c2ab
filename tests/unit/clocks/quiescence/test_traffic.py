"""A packet that has moved is reported, by packet sockets and by counters, and reported once."""

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


def observe(kind: str) -> Any:
    from meshwake.clocks.quiescence import traffic

    if kind == "DeviceCounters":
        return traffic.DeviceCounters()
    try:
        return traffic.PacketTap()
    except PermissionError:
        pytest.skip("packet sockets need CAP_NET_RAW")


@pytest.mark.parametrize("kind", ["PacketTap", "DeviceCounters"])
def test_a_packet_is_noticed(kind: str) -> None:
    """However many came; and one that was removed is not polled. (Other tests use the loopback
    device too.)"""
    from meshwake.clocks.quiescence.traffic import PacketTraffic

    one, traffic = observe(kind), PacketTraffic()
    traffic.add(one)
    traffic.moved_since_last_poll()
    for _ in range(20):
        send_one_packet()
    assert traffic.moved_since_last_poll()
    traffic.remove(one)
    assert not traffic.moved_since_last_poll()
    one.close()
    traffic.close()
