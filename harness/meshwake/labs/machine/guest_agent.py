"""One machine of several: the guest's side. It carries out commands of the host (fleet_backend.py)
with the process lab's own namespaces, ztunnels, authority and connections, and reports requests to
its authority.

    card (eth0) --- bridge mesh0 --- a namespace for each identity of this node --- its ztunnel
                       '------------ 10.77.0.1, the authority, where this machine has it

    {"order": n, "do": "connect", ...}   a command, by its name; node.py says which there are
    {"answer": n, "result": ...}         answers it
    {"requests": [...]}                  sent without a command
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from meshwake.clocks.guest.init import CHANNEL_VARIABLE, REQUEST, Channel, GuestClocks
from meshwake.core.json_types import MutableJsonObject
from meshwake.labs.machine.guest_runner import DIRECTORY, send_logs
from meshwake.labs.messages import RunSender
from meshwake.labs.process.namespaces import enter_own_namespaces

_READ_BYTES = 4096


class CommandHandler(Protocol):
    """What a guest agent acts on: see node.GuestNode."""

    commands: dict[str, Callable[..., Any]]

    def files(self) -> list[int]:
        """What becomes readable when there is something to do."""

    def serve(self) -> list[MutableJsonObject]:
        """Does it; returns requests to the authority, as AuthorityProcess.requests."""


class GuestAgent:
    """Carries out commands until the command `leave`."""

    def __init__(self, channel: Channel, handler: CommandHandler) -> None:
        self._channel, self._handler = channel, handler
        self._received = b""
        self._commands = handler.commands | {
            "logs": lambda: send_logs(channel),
            # These two do something after they have been answered.
            "suspend": lambda: None,
            "leave": lambda: None,
        }

    def serve(self) -> None:
        """Until `leave`."""
        while True:
            ready, _, _ = select.select([self._channel.file, *self._handler.files()], [], [])
            if requests := self._handler.serve():
                self._channel.send(requests=requests)
            if self._channel.file in ready and self._execute_received() == "leave":
                return

    def _execute_received(self) -> str:
        """Carries out the commands that have arrived as whole lines; returns the last one's
        name."""
        self._received += os.read(self._channel.file, _READ_BYTES)
        *lines, self._received = self._received.split(b"\n")
        name = ""
        for line in lines:
            command = json.loads(line)
            number, name = command.pop("order"), command.pop("do")
            result = self._commands[name](**command)
            self._channel.send(answer=number, result=result)
            if name == "suspend":
                self._channel.drain()
                GuestClocks(self._channel).suspend_on_request()
        return name


def main() -> None:
    """Entry point; the first program of the guest starts it."""
    channel = Channel(int(os.environ[CHANNEL_VARIABLE]))
    sender = RunSender(lambda message: channel.send(**message))
    with sender.reporting_failure():
        outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        enter_own_namespaces()
        # Only now: it brings libraries which may start threads, and a namespace is entered by a
        # process with one.
        from meshwake.labs.machine.node import GuestNode

        DIRECTORY.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            GuestAgent(channel, GuestNode(json.loads(REQUEST.read_text()), outside, stack)).serve()
        sender.done({})


if __name__ == "__main__":
    main()
