"""The helper's socket. One thread, and nothing in it may wait: an exec may be waiting for us."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from contextlib import suppress
from pathlib import Path
from types import FrameType

from meshwake.clocks.movers.node_helper.node import HelperNode
from meshwake.clocks.movers.node_helper.protocol import REQUEST_BYTES_MAX, answer_line
from meshwake.system.deadline import Deadline

# For a client to send its line, and to take the answer.
_REQUEST_WITHIN_S = 5.0
_STUCK_AFTER_S = 30.0
_PIECE_BYTES = 65536
_WAITING_CONNECTIONS = 8
# Only root, as which the helper runs, may connect: a client can move clocks.
_NOT_FOR_OTHERS = 0o177


class Server:
    """Serves a node at `path` until SIGTERM, which releases everything."""

    def __init__(self, path: Path, state_file: Path, node_root: Path) -> None:
        self._path = path
        self._stopping = False
        path.parent.mkdir(parents=True, exist_ok=True)
        state_file.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

        # Before the socket can be found: what a helper before us had taken must be served first.
        self._node = HelperNode(state_file, node_root, keep_alive)
        self._listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

        # What a client has sent so far, and when we stop waiting for the rest.
        self._open: dict[socket.socket, tuple[bytearray, Deadline]] = {}
        self._watched: int | None = None

    def run(self) -> None:
        """Until SIGTERM."""
        wake_reader = self._wake_on_signals()
        self._selector.register(wake_reader, selectors.EVENT_READ)
        while not self._stopping:
            self._register_watch()
            for key, _ in self._selector.select(self._node.tick_s):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == wake_reader:
                    with suppress(BlockingIOError):
                        os.read(wake_reader, 4096)
                elif isinstance(key.fileobj, socket.socket):
                    self._receive(key.fileobj)
            self._node.serve()
            self._drop_late()
        self._node.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        before = os.umask(_NOT_FOR_OTHERS)
        try:
            self._listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._listener.listen(_WAITING_CONNECTIONS)
        self._listener.setblocking(False)

    def _wake_on_signals(self) -> int:
        """A file that can be read after a signal: select does not return for one by itself
        (PEP 475)."""
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore_signal)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_at_signal)
        return wake_reader

    def _stop_at_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _register_watch(self) -> None:
        """Execs that wait wake us at once. The file of the watch changes with each take."""
        watch = self._node.watch
        file = None if watch is None else watch.file
        is_registered = file is None or file in self._selector.get_map()
        if file == self._watched and is_registered:
            return

        if self._watched is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(self._watched)
        if file is not None:
            self._selector.register(file, selectors.EVENT_READ)
        self._watched = file

    # Connections

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._open[connection] = (bytearray(), Deadline("a request", _REQUEST_WITHIN_S))
            self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        received, _ = self._open[connection]
        try:
            piece = connection.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # A client that is gone is dropped like one that has closed its end.
            piece = b""
        received += piece

        if b"\n" in received:
            self._answer(connection, bytes(received).partition(b"\n")[0])
        elif piece and len(received) <= REQUEST_BYTES_MAX:
            return  # the rest of the line is still to come
        self._drop(connection)

    def _answer(self, connection: socket.socket, line: bytes) -> None:
        answer = answer_line(line, self._node.answer)
        connection.settimeout(_REQUEST_WITHIN_S)
        with suppress(OSError):
            connection.sendall(answer)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._open[connection]
        connection.close()

    def _drop_late(self) -> None:
        # A list, as each that is dropped leaves the table.
        for connection, (_, deadline) in list(self._open.items()):
            if deadline.has_passed:
                self._drop(connection)


def _ignore_signal(number: int, frame: FrameType | None) -> None:
    """The wakeup file has been written to; that is enough."""


def keep_alive() -> None:
    """Unless this is called again in time, the kernel ends us, and with us every exec's waiting."""
    signal.setitimer(signal.ITIMER_REAL, _STUCK_AFTER_S)
