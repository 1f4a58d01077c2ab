"""An HTTP server on loopback for the time of a test, which answers as the test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# How soon `shutdown` is noticed; the default of half a second would be paid by every test.
_POLL_S = 0.01


class Request(BaseHTTPRequestHandler):
    """One request, with `path` and `headers`. Logs nothing."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sends a whole answer; `Retry_After="0"` becomes the header Retry-After."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silent."""


@contextmanager
def serving(answer: Callable[[Request], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server while the block runs; `answer` is called for every request, whatever
    its method, in a thread of its own."""

    class Handler(Request):
        def _answer(self) -> None:
            answer(self)

        do_DELETE = do_GET = do_PATCH = do_POST = do_PUT = _answer  # noqa: N815 - the base class's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with running(server):
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    """Serves on a thread of its own while the block runs, and closes the server."""
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
