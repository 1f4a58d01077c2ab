"""A guest that carries out commands: its answers, in order, and what it does after an answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from meshwake.clocks.guest.init import Channel, GuestClocks
from meshwake.labs.machine.guest_agent import GuestAgent


class Node:
    """It adds numbers, and its authority gets one request."""

    def __init__(self, authority: socket.socket) -> None:
        self.commands: dict[str, Callable[..., Any]] = {"add": lambda one, other: one + other}
        self.authority = authority

    def files(self) -> list[int]:
        return [self.authority.fileno()]

    def serve(self) -> list[dict[str, Any]]:
        self.authority.setblocking(False)
        try:
            return [{"identity": "default/client"}] if self.authority.recv(1) else []
        except BlockingIOError:
            return []


def conversation(*commands: dict[str, Any]) -> list[dict[str, Any]]:
    """What an agent sends when it gets these commands."""
    ours, theirs = socket.socketpair()
    sender, receiver = socket.socketpair()
    with ours, theirs, sender, receiver:
        sender.send(b"!")
        agent = threading.Thread(target=GuestAgent(Channel(theirs.fileno()), Node(receiver)).serve)
        agent.start()
        for number, command in enumerate([*commands, {"do": "leave"}], 1):
            ours.sendall(json.dumps({"order": number} | command).encode() + b"\n")
        agent.join(10)
        assert not agent.is_alive()
        return [json.loads(line) for line in ours.recv(1 << 16).splitlines()]


def test_commands_are_answered_with_their_number() -> None:
    """Requests to the authority are reported without a command."""
    sent = conversation({"do": "add", "one": 1, "other": 2}, {"do": "add", "one": 3, "other": 4})
    assert {"requests": [{"identity": "default/client"}]} in sent
    answers = [message for message in sent if "answer" in message]
    assert answers == [
        {"answer": 1, "result": 3},
        {"answer": 2, "result": 7},
        {"answer": 3, "result": None},
    ]


def test_it_falls_asleep_after_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the answer would never arrive."""
    monkeypatch.setattr(Channel, "drain", lambda self: None)
    monkeypatch.setattr(GuestClocks, "suspend_on_request", lambda self: self._channel.send(awake=0))
    sent = [message for message in conversation({"do": "suspend"}) if "requests" not in message]
    assert sent == [{"answer": 1, "result": None}, {"awake": 0}, {"answer": 2, "result": None}]
