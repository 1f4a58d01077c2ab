"""The network between guests: each has one card, whose cable (QEMU's `-netdev socket`) ends here,
in this process.

What comes in at one port goes out at all others; the guests' own bridges know what is for whom. A
cable that is not plugged in, because its machine sleeps or is paused, loses what is sent to it, as
a switch whose port is down does: a guest that kept old packets would receive what is long out of
date. Nothing leaves this process: no port is opened anywhere, no file, and when the harness dies
the cables die with it.

    cable   a stream socket, one end inherited by QEMU; a frame is four bytes of length, high byte
            first, and the frame
"""

from __future__ import annotations

import socket
from contextlib import suppress

from meshwake.core.errors import SubjectFailed

# QEMU's netdev "stream" sends each Ethernet frame with its length before it: 32 bits, in network
# byte order (net/stream.c).
_LENGTH_BYTES = 4
# QEMU's own bound for a frame (NET_BUFSIZE); what claims to be longer is not a frame.
FRAME_BYTES_MAX = 4096 + 65536
_READ_BYTES = 65536
_CABLE_BYTES = 1 << 20


class Port:
    """One end of a cable: what came in and is not a whole frame yet, what could not be sent yet."""

    def __init__(self, cable: socket.socket) -> None:
        self.cable, self.plugged = cable, True
        self.received, self.unsent = bytearray(), bytearray()

    def frames(self) -> list[bytes]:
        """The whole frames that have come in, each with its length before it. Raises SubjectFailed
        for what cannot be one."""
        found = []
        while len(self.received) >= _LENGTH_BYTES:
            length = int.from_bytes(self.received[:_LENGTH_BYTES], "big")
            if not 0 < length <= FRAME_BYTES_MAX:
                raise SubjectFailed(
                    f"a guest's network card sent a frame of {length} bytes; QEMU sends no "
                    "such frame"
                )
            if len(self.received) < _LENGTH_BYTES + length:
                break
            found.append(bytes(self.received[: _LENGTH_BYTES + length]))
            del self.received[: _LENGTH_BYTES + length]
        return found

    def send(self, data: bytes) -> None:
        """What does not fit into the cable waits for `flush`; when too much waits, the frame is
        lost, as on a wire."""
        if len(self.unsent) + len(data) <= _CABLE_BYTES:
            self.unsent += data
            self.flush()

    def flush(self) -> None:
        """Sends what waits, as far as the cable takes it."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self.unsent:
                del self.unsent[: self.cable.send(self.unsent)]


class Hub:
    """All cables. Its owner calls `carry` when something may have come in."""

    def __init__(self) -> None:
        self.ports: dict[str, Port] = {}

    def add(self, name: str) -> socket.socket:
        """A cable for the machine `name`; returns the end that QEMU is to inherit, to be closed
        here afterwards."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ports[name] = Port(ours)
        return theirs

    def plug(self, name: str, plugged: bool) -> None:
        """Whether the machine `name` can be reached. What was on its way to it or from it is lost
        when it cannot."""
        self.carry()
        if port := self.ports.get(name):
            port.plugged = plugged
            port.unsent.clear()

    def carry(self) -> bool:
        """Passes on every whole frame that has come in; returns whether anything moved."""
        moved = False
        for name, port in self.ports.items():
            port.flush()
            if not self._read(port):
                continue

            moved = True
            # Taken out all the same: what a guest sends with its cable out is lost.
            frames = port.frames()
            for frame in frames:
                if port.plugged:
                    self._pass_on(name, frame)
        return moved

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits here to be passed on."""
        return not any(port.received or port.unsent for port in self.ports.values())

    def close(self) -> None:
        """Pulls all cables."""
        for port in self.ports.values():
            port.cable.close()

    def _read(self, port: Port) -> bool:
        came = False
        with suppress(BlockingIOError, ConnectionResetError):
            while data := port.cable.recv(_READ_BYTES):
                port.received += data
                came = True
        return came

    def _pass_on(self, sender: str, frame: bytes) -> None:
        for name, port in self.ports.items():
            # A hub does not look at addresses: all but the sender get it.
            if name == sender:
                continue
            if port.plugged:
                port.send(frame)
