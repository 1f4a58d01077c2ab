"""One machine of several: the guest's side. It does what the host (fleet_backend.py) orders,
with the process lab's own namespaces, ztunnels, authority and connections, and tells what its
authority has been asked.

    card (eth0) --- bridge mesh0 --- a namespace for each identity of this node --- its ztunnel
                       '------------ 10.77.0.1, the authority, where this machine has it

    {"order": n, "do": "connect", ...}   answered by {"answer": n, "result": ...}; node.py says what there is
    {"requests": [...]}                  told by itself
"""

from __future__ import annotations

import json
import os
import select
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from meshwake.clocks.guest.init import CHANNEL_VARIABLE, REQUEST, Channel, GuestClocks
from meshwake.core.errors import HarnessError
from meshwake.labs.machine.inside import DIRECTORY, LOG_BYTES_MAX
from meshwake.labs.process.namespaces import enter_own_world

_READ_BYTES = 4096


class Obedient(Protocol):
    """What hands belong to."""

    orders: dict[str, Callable[..., Any]]

    def files(self) -> list[int]:
        """What becomes readable when there is something to do."""

    def serve(self) -> list[dict[str, Any]]:
        """Does it; returns what the authority has been asked."""


class Hands:
    """Takes orders until it is told `leave`."""

    def __init__(self, channel: Channel, node: Obedient) -> None:
        self._channel, self._node = channel, node
        self._received = b""
        self._orders = node.orders | {
            "logs": self._logs,
            "suspend": self._nothing,
            "leave": self._nothing,
        }

    def serve(self) -> None:
        """Until told to leave."""
        while True:
            ready, _, _ = select.select([self._channel.file, *self._node.files()], [], [])
            if requests := self._node.serve():
                self._channel.tell(requests=requests)
            if self._channel.file in ready and self._obey() == "leave":
                return

    def _obey(self) -> str:
        """Does what has been ordered in whole lines; says what was last."""
        *lines, self._received = (self._received + os.read(self._channel.file, _READ_BYTES)).split(
            b"\n"
        )
        do = ""
        for line in lines:
            order = json.loads(line)
            number, do = order.pop("order"), order.pop("do")
            result = self._orders[do](**order)
            self._channel.tell(answer=number, result=result)
            if do == "suspend":
                self._channel.drain()
                GuestClocks(self._channel).suspend_when_told()
        return do

    def _nothing(self) -> None:
        """What there is to do comes after the answer."""

    def _logs(self) -> None:
        for log in sorted(DIRECTORY.glob("*.log")):
            text = log.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace")
            self._channel.tell(log=log.name, text=text)


def main() -> None:
    """Entry point; the first program of the guest starts it."""
    channel = Channel(int(os.environ[CHANNEL_VARIABLE]))
    try:
        outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        enter_own_world()
        # Only now: it brings libraries which may start threads, and a namespace is entered by a
        # process with one.
        from meshwake.labs.machine.node import Node

        DIRECTORY.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            Hands(channel, Node(json.loads(REQUEST.read_text()), outside, stack)).serve()
        channel.tell(done={})
    except HarnessError as error:
        channel.tell(failed={"exit_code": int(error.exit_code), "message": str(error)})
    except BaseException:  # noqa: BLE001  # whatever it was, the host must hear of it
        channel.tell(failed={"exit_code": 5, "message": traceback.format_exc()})


if __name__ == "__main__":
    main()
