"""An API server on loopback, as far as a test needs one: answers to GET, and pods whose ports can
be reached by `portforward` as a kubelet does it (the protocol of k8s.io/kubelet's portforward over
websockets).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request

from tests.support.http_server import running
from tests.support.kubeconfigs import write_kubeconfig

VERSION: dict[str, tuple[int, dict[str, Any]]] = {
    "/version": (200, {"major": "1", "minor": "34", "gitVersion": "v1.34.4"})
}
Answers = Mapping[str, tuple[int, dict[str, Any]]]
# (name of the pod, port) and what was sent to it -> the bytes that come back, or a text for the
# error channel.
Inside = Callable[[str, int, bytes], bytes | str]
# (name of the pod, words of the command, a line of its input) -> what it writes then; None: it
# ends.
Program = Callable[[str, list[str], str], str | None]


class _SilentServer(ThreadingHTTPServer):
    """Its own trouble with a client that hung up is not what the program says: it was taken for
    that."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent."""


@contextmanager
def api(
    answers: Answers, folder: Path, inside: Inside | None = None, program: Program | None = None
) -> Iterator[Path]:
    """A kubeconfig that leads to a server with these answers; every other path is forbidden."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            if inside is not None and path.endswith("/portforward"):
                _forward(self, inside)
                return
            if program is not None and path.endswith("/exec"):
                _execute(self, program)
                return
            refusal = {
                "kind": "Status",
                "status": "Failure",
                "message": f"may not GET {path}",
                "code": 403,
            }
            status, thing = answers.get(path, (403, refusal))
            body = json.dumps(thing).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            """Silent."""

    with running(_SilentServer(("127.0.0.1", 0), Handler)) as server:
        yield write_kubeconfig(folder / "config", f"http://127.0.0.1:{server.server_port}")


def _forward(handler: BaseHTTPRequestHandler, inside: Inside) -> None:
    url = urlsplit(handler.path)
    name, port = url.path.split("/")[-2], int(parse_qs(url.query)["ports"][0])
    connection, sent = handler.connection, bytearray()

    def accept(peer: wsproto.WSConnection, request: Request) -> None:
        connection.sendall(peer.send(AcceptConnection()))
        for channel in (b"\0", b"\1"):
            connection.sendall(peer.send(BytesMessage(channel + struct.pack("<H", port))))

    def receive(peer: wsproto.WSConnection, data: bytes) -> bool:
        sent.extend(data)
        is_whole = sent.endswith(b"\r\n\r\n")
        if is_whole:
            _answer(connection, peer, inside(name, port, bytes(sent)))
        return is_whole

    _converse(handler, accept, receive)


def _execute(handler: BaseHTTPRequestHandler, program: Program) -> None:
    """As a kubelet copies what a program reads and writes, in small frames; what it complains of
    comes first."""
    url = urlsplit(handler.path)
    name, command = url.path.split("/")[-2], parse_qs(url.query)["command"]
    connection = handler.connection

    def accept(peer: wsproto.WSConnection, request: Request) -> None:
        connection.sendall(peer.send(AcceptConnection(subprotocol=request.subprotocols[0])))

    def receive(peer: wsproto.WSConnection, data: bytes) -> bool:
        connection.sendall(peer.send(BytesMessage(b"\2a word on stderr\n")))
        written = program(name, command, data.decode().strip())
        if written is None:
            status = {"status": "Failure", "message": "command terminated with exit code 3"}
            connection.sendall(peer.send(BytesMessage(b"\3" + json.dumps(status).encode())))
            return True
        for at in range(0, len(written), 10):
            connection.sendall(peer.send(BytesMessage(b"\1" + written[at : at + 10].encode())))
        return False

    _converse(handler, accept, receive)


def _converse(
    handler: BaseHTTPRequestHandler,
    accept: Callable[[wsproto.WSConnection, Request], None],
    receive: Callable[[wsproto.WSConnection, bytes], bool],
) -> None:
    """Over a websocket. `receive` takes what comes without the number of its channel, and returns
    True for the end of the conversation."""
    peer = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    head = "".join(f"{key}: {value}\r\n" for key, value in handler.headers.items())
    peer.receive_data(f"GET {handler.path} HTTP/1.1\r\n{head}\r\n".encode())
    connection, done = handler.connection, False
    while not done:
        for event in peer.events():
            if isinstance(event, Request):
                accept(peer, event)
            elif isinstance(event, BytesMessage):
                done = receive(peer, bytes(event.data)[1:]) or done
            elif isinstance(event, Ping):
                connection.sendall(peer.send(event.response()))
            elif isinstance(event, CloseConnection):
                done = True
        if not done:
            peer.receive_data(connection.recv(65536) or None)
    handler.close_connection = True


def _answer(connection: socket.socket, peer: wsproto.WSConnection, answer: bytes | str) -> None:
    """In small frames, as a kubelet copies them; then the end."""
    if isinstance(answer, str):
        connection.sendall(peer.send(BytesMessage(b"\1" + answer.encode())))
    else:
        for at in range(0, len(answer), 1000):
            connection.sendall(peer.send(BytesMessage(b"\0" + answer[at : at + 1000])))
    connection.sendall(peer.send(CloseConnection(code=1000)))
