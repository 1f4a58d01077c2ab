"""A program inside a container that gets a line and answers with one, again and again: an exec that
stays open.

A new exec for each question costs a tenth of a second and more (API server, kubelet, container
runtime, the start of a program); a line over an open one costs milliseconds. Frames are those of
the API server's websocket: the first byte is the channel, 0 what the program reads, 1 and 2 what it
writes, 3 how it ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from meshwake.core.json_types import MutableJsonObject
from meshwake.kubernetes.ported import Websocket

# The oldest protocol of exec that reports how a program ended, as a Status of JSON on channel 3
# (k8s.io/apimachinery pkg/util/remotecommand).
PROTOCOL = "v4.channel.k8s.io"
# The first byte of each frame.
_STDIN, _STDOUT, _STDERR, _ENDED = 0, 1, 2, 3
_REASON_AT_MOST = 300


class TalkOver(Exception):
    """The program has ended, or the connection has; the text says how."""


class Talk:
    """One such exec, served by one task of the loop (a websocket must be closed by the task that
    opened it)."""

    def __init__(self, opened: AbstractAsyncContextManager[Websocket]) -> None:
        self._questions: asyncio.Queue[tuple[str, asyncio.Future[str]]] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._serve(opened))

    async def ask(self, line: str) -> str:
        """The next line that the program writes after it has read `line`. Raises TalkOver, and what
        the websocket raises when it breaks."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await self._questions.put((line, answer))
        waited: set[asyncio.Future[Any]] = {answer, self._task}

        # Whichever comes first: an answer, or the end of the task that would have brought it.
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        await self._task  # raises what ended it
        raise TalkOver("the conversation was closed")

    async def close(self) -> None:
        """Ends it, and with it the program, which finds the end of its input."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _serve(self, opened: AbstractAsyncContextManager[Websocket]) -> None:
        async with opened as websocket:
            lines = _lines(websocket)
            while True:
                line, answer = await self._questions.get()

                await websocket.send_bytes(bytes([_STDIN]) + line.encode() + b"\n")
                line = await anext(lines)

                # A caller that gave up has cancelled it; its line is read all the same, or the next
                # question would get that answer.
                if not answer.done():
                    answer.set_result(line)


async def _lines(websocket: Websocket) -> AsyncIterator[str]:
    """Each line that the program writes. Raises TalkOver when it writes no more."""
    written, complaint = b"", b""
    while True:
        frame = await websocket.receive_bytes()
        channel, data = frame[0], frame[1:]

        if channel == _STDERR:
            # Only the end of it, in case the program dies: then it is the reason.
            complaint = (complaint + data)[-_REASON_AT_MOST:]
        elif channel == _ENDED and data:
            complained = complaint.decode(errors="replace").strip()
            raise TalkOver(f"the program has ended: {_reason(data)} {complained}")
        elif channel == _STDOUT:
            written += data

        # A frame may end within a line, or hold several.
        while b"\n" in written:
            line, _, written = written.partition(b"\n")
            yield line.decode(errors="replace")


def _reason(data: bytes) -> str:
    try:
        status: MutableJsonObject = json.loads(data)
        return str(status.get("message") or status.get("status"))
    except ValueError:
        # Not a Status: shown as it came.
        return data.decode(errors="replace")[:_REASON_AT_MOST]
