"""Has a packet moved since the last poll? One system call answers for all network namespaces.

In each namespace a packet socket receives every packet that any of its devices, loopback included,
sends or receives. Its buffer holds a few and the rest is dropped: we only ask whether there was
one. Where no packet socket may be opened (a container without CAP_NET_RAW), the counters of the
devices in /proc/net/dev are read, which costs a hundred times as much for each namespace.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress

# include/uapi/linux/if_ether.h, ETH_P_ALL: packets of every protocol; packet(7).
_ETH_P_ALL = 3
# The kernel doubles this and raises it to its least, SOCK_MIN_RCVBUF: some 2 KiB (net/core/sock.c).
_LEAST_BUFFER_BYTES = 1
# /proc/net/dev has one line of some 120 bytes for each device: room for thirty.
_DEVICES_BYTES = 4096


class PacketTap:
    """A packet socket in the namespace that the calling thread is in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_BUFFER_BYTES)

    def drain(self) -> None:
        """Throws away what it has received."""
        with suppress(BlockingIOError):
            while True:
                self.socket.recv(1)  # one packet each; what of it does not fit is dropped

    def close(self) -> None:
        """Receives no more."""
        self.socket.close()


class DeviceCounters:
    """The counters of the devices of the namespace that the calling thread is in."""

    def __init__(self) -> None:
        # thread-self: a process can have threads in several namespaces.
        self._file = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        self._last = b""

    def have_changed(self) -> bool:
        """Since the last call."""
        before, self._last = self._last, os.pread(self._file, _DEVICES_BYTES, 0)
        return before != self._last

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def observe_packets() -> PacketTap | DeviceCounters:
    """What is available in the namespace that the calling thread is in."""
    try:
        return PacketTap()
    except OSError:
        return DeviceCounters()


class PacketTraffic:
    """Whether a packet has moved in any of the namespaces added."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._taps: dict[int, PacketTap] = {}
        self._counters: list[DeviceCounters] = []

    def add(self, observer: PacketTap | DeviceCounters) -> None:
        """From now on polled too."""
        if isinstance(observer, PacketTap):
            self._taps[observer.socket.fileno()] = observer
            self._poll.register(observer.socket, select.EPOLLIN)
        else:
            self._counters.append(observer)

    def remove(self, observer: PacketTap | DeviceCounters) -> None:
        """No longer polled; it must still be open."""
        if isinstance(observer, PacketTap):
            self._poll.unregister(observer.socket)
            del self._taps[observer.socket.fileno()]
        else:
            self._counters.remove(observer)

    def moved_since_last_poll(self) -> bool:
        """What moves during this call is reported by the next one, if not by this."""
        readable = self._poll.poll(0)
        for file, _ in readable:
            self._taps[file].drain()

        # Every counter is read, also after one has changed: each must remember its last state.
        changed = [counters.have_changed() for counters in self._counters]
        return bool(readable) or any(changed)

    def close(self) -> None:
        """The observers stay open."""
        self._poll.close()
