"""HTTP to a port inside a pod, spoken over the websocket of the API server's `portforward` itself.

No port of this machine is opened: a forward that listens on one that was free a moment ago meets
others who chose the same (kr8s' `portforward(local_port="auto")` looks for a free one, releases
it, and listens afterwards).

Each frame begins with its channel: 0 carries data, 1 an error; the first frame of each only names
the port.
"""

from __future__ import annotations

from typing import Any, Protocol

import h11
import httpx_ws

# Of the first port that is forwarded; a second would have channels 2 and 3.
_DATA, _ERROR = 0, 1


class PortFailed(Exception):
    """The other side refused: nothing listens there, or it did not speak HTTP."""


class ClosedUnanswered(PortFailed):
    """The forward was closed before a byte of an answer came. Some kubelets do that now and then
    when many are open at once (Kubernetes 1.34 with containerd 2.3, one of a few hundred); another
    is as good as new."""


class Websocket(Protocol):
    """What is used of httpx_ws.AsyncWebSocketSession."""

    async def send_bytes(self, data: bytes) -> None:
        """One frame."""

    async def receive_bytes(self) -> bytes:
        """The next frame. Raises httpx_ws.WebSocketDisconnect at the end."""


async def get(websocket: Websocket, path: str) -> bytes:
    """The body of the answer to GET `path`. Raises PortFailed, and what the websocket raises when
    it breaks."""
    http = h11.Connection(h11.CLIENT)
    await websocket.send_bytes(bytes([_DATA]) + _request_for(path, http))

    body, status = b"", 0
    named = set[int]()
    answered = False

    # h11 does no reading and writing of its own: it wants data, and gives events.
    while True:
        try:
            event: Any = http.next_event()
        except h11.RemoteProtocolError as error:
            if not answered:
                raise ClosedUnanswered("was closed without an answer") from error
            raise PortFailed(
                f"not HTTP that can be understood, or it ended early: {error}"
            ) from error

        if event is h11.NEED_DATA:
            data = await _next_data(websocket, named)
            answered = answered or bool(data)
            # Empty data means to h11 that the other side has closed.
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break

    if status != 200:
        shown = body[:200].decode(errors="replace")
        raise PortFailed(f"HTTP {status or 'nothing'}: {shown}")
    return body


def _request_for(path: str, http: h11.Connection) -> bytes:
    """A whole request as it is sent; `http` knows then that an answer is due."""
    request = h11.Request(
        method="GET",
        target=path,
        headers=[
            ("Host", "localhost"),
            # A forward is for one answer, and its end is the end of the body where no length is
            # given.
            ("Connection", "close"),
        ],
    )
    head = http.send(request) or b""
    end = http.send(h11.EndOfMessage()) or b""
    return head + end


async def _next_data(websocket: Websocket, named: set[int]) -> bytes:
    """What came next on the data channel; nothing at its end. `named`: the channels whose port was
    named."""
    while True:
        try:
            frame = await websocket.receive_bytes()
        except httpx_ws.WebSocketDisconnect:
            return b""

        channel = frame[0]
        # The first frame of a channel holds only the number of the port, in two bytes.
        if channel not in named:
            named.add(channel)
        elif channel == _ERROR:
            raise PortFailed(frame[1:].decode(errors="replace"))
        # A frame of the channel's number alone carries nothing, and is not the end.
        elif len(frame) > 1:
            return frame[1:]
