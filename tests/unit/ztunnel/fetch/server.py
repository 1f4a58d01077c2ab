"""A registry on loopback that speaks the protocol as far as fetching needs it, and does wrong what
it is configured to."""

from __future__ import annotations

import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.ztunnel.fetch.images import INDEX, MANIFEST, Image, digest_of

ADMITTED = "abc"


class RegistryServer:
    """Holds images by tag. What it does wrong: `wants_token`, `refuses` (a status for everything),
    `busy` (how many requests get 429 first), `cuts` (how many transfers end half way), `ranges`
    (False: none), `changes` (a digest whose content is another's)."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.wants_token = False
        self.refuses = 0
        self.busy = 0
        self.cuts = 0
        self.ranges = True
        self.changes = ""
        self.requests: Counter[str] = Counter()
        self.ranges_requested: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.answer(self)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        self.requests[url.path] += 1
        if url.path == "/token":
            scope = parse_qs(url.query)["scope"][0]
            assert scope == "repository:istio/ztunnel:pull", scope
            self._send(request, 200, b'{"token": "%s"}' % ADMITTED.encode())
        elif self.refuses:
            self._send(request, self.refuses, b"no")
        elif self.busy:
            self.busy -= 1
            self._send(request, 429, b"later", {"Retry-After": "0"})
        elif self.wants_token and request.headers.get("Authorization") != f"Bearer {ADMITTED}":
            realm = (
                "Bearer "
                f'realm="{self.address}/token",service="here",scope="repository:istio/ztunnel:pull"'
            )
            self._send(request, 401, b"who?", {"WWW-Authenticate": realm})
        else:
            self._serve(request, url.path)

    def _serve(self, request: BaseHTTPRequestHandler, path: str) -> None:
        match = re.fullmatch(r"/v2/istio/ztunnel/(manifests|blobs)/(.+)", path)
        if match is None:
            self._send(request, 404, b"what?")
            return
        kind, name = match.groups()
        if kind == "manifests" and name in self.images:
            index = self.images[name].index
            self._send(
                request,
                200,
                index,
                {"Content-Type": INDEX, "Docker-Content-Digest": digest_of(index)},
            )
            return
        content = next(
            (image.blobs[name] for image in self.images.values() if name in image.blobs), None
        )
        if content is None:
            self._send(request, 404, b"none")
            return
        if self.changes == name:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if kind == "manifests":
            self._send(request, 200, content, {"Content-Type": MANIFEST})
        else:
            self._send_blob(request, content)

    def _send_blob(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted and self.ranges else 0
        if wanted:
            self.ranges_requested.append(wanted[0])
        status, rest = (206, content[begin:]) if begin else (200, content)
        if self.cuts:
            self.cuts -= 1
            self._head(request, status, len(rest), {})
            request.wfile.write(rest[: len(rest) // 2])
            request.close_connection = True
            return
        self._send(request, status, rest)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._head(request, status, len(content), headers or {})
        request.wfile.write(content)

    def _head(
        self, request: BaseHTTPRequestHandler, status: int, length: int, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(length), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
