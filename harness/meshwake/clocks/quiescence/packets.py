"""Has a packet moved? Asked many thousand times a run, and answered for all network namespaces by
one system call.

In each namespace a packet socket hears of every packet that any device of it, the loopback one too,
sends or receives. It has room for a few and throws away the rest: we only ask whether there was
one. Where no packet socket may be opened (a container without CAP_NET_RAW), the counters of the
devices in /proc/net/dev are read, which costs a hundred times as much for each namespace.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress

_ALL_PROTOCOLS = 3
_LEAST_ROOM_BYTES = 1


class Tap:
    """A packet socket in the namespace that the calling thread is in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ALL_PROTOCOLS))
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_ROOM_BYTES
        )  # the kernel makes 2 KiB of it

    def forget(self) -> None:
        """What it has heard of is known."""
        with suppress(BlockingIOError):
            while True:
                self.socket.recv(1)

    def close(self) -> None:
        """Hears no more."""
        self.socket.close()


class Counters:
    """The counters of the devices of that namespace."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        self._seen = b""

    def have_changed(self) -> bool:
        """Since this was last asked."""
        before, self._seen = self._seen, os.pread(self._file, 4096, 0)
        return before != self._seen

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._file)


def watch_packets() -> Tap | Counters:
    """What can be had in the namespace that the calling thread is in."""
    try:
        return Tap()
    except OSError:
        return Counters()


class Moved:
    """Whether a packet has moved in any of the namespaces added."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._taps: dict[int, Tap] = {}
        self._counters: list[Counters] = []

    def add(self, watch: Tap | Counters) -> None:
        """From now on asked too."""
        if isinstance(watch, Tap):
            self._taps[watch.socket.fileno()] = watch
            self._poll.register(watch.socket, select.EPOLLIN)
        else:
            self._counters.append(watch)

    def remove(self, watch: Tap | Counters) -> None:
        """No longer asked; it must still be open."""
        if isinstance(watch, Tap):
            self._poll.unregister(watch.socket)
            del self._taps[watch.socket.fileno()]
        else:
            self._counters.remove(watch)

    def since_last_asked(self) -> bool:
        """What moves after this has been called is told the next time, if not now."""
        heard = self._poll.poll(0)
        for file, _ in heard:
            self._taps[file].forget()
        changed = [counters.have_changed() for counters in self._counters]
        return bool(heard) or any(changed)

    def close(self) -> None:
        """The watches stay open."""
        self._poll.close()
