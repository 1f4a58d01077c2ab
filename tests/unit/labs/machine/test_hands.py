"""A guest that takes orders: its answers, in order, and what it does after an answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from meshwake.clocks.guest.init import Channel, GuestClocks
from meshwake.labs.machine.hands import Hands


class Node:
    """It adds numbers, and its authority is asked once."""

    def __init__(self, asked: socket.socket) -> None:
        self.orders: dict[str, Callable[..., Any]] = {"add": lambda one, other: one + other}
        self.asked = asked

    def files(self) -> list[int]:
        return [self.asked.fileno()]

    def serve(self) -> list[dict[str, Any]]:
        self.asked.setblocking(False)
        try:
            return [{"identity": "default/client"}] if self.asked.recv(1) else []
        except BlockingIOError:
            return []


def conversation(*orders: dict[str, Any]) -> list[dict[str, Any]]:
    """What hands say to these orders."""
    ours, theirs = socket.socketpair()
    told, asked = socket.socketpair()
    with ours, theirs, told, asked:
        told.send(b"!")
        hands = threading.Thread(target=Hands(Channel(theirs.fileno()), Node(asked)).serve)
        hands.start()
        for number, order in enumerate([*orders, {"do": "leave"}], 1):
            ours.sendall(json.dumps({"order": number} | order).encode() + b"\n")
        hands.join(10)
        assert not hands.is_alive()
        return [json.loads(line) for line in ours.recv(1 << 16).splitlines()]


def test_orders_are_answered_with_their_number() -> None:
    """And what the authority was asked is told by itself."""
    said = conversation({"do": "add", "one": 1, "other": 2}, {"do": "add", "one": 3, "other": 4})
    assert {"requests": [{"identity": "default/client"}]} in said
    answers = [message for message in said if "answer" in message]
    assert answers == [
        {"answer": 1, "result": 3},
        {"answer": 2, "result": 7},
        {"answer": 3, "result": None},
    ]


def test_it_falls_asleep_after_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would hear the answer."""
    monkeypatch.setattr(Channel, "drain", lambda self: None)
    monkeypatch.setattr(GuestClocks, "suspend_when_told", lambda self: self._channel.tell(awake=0))
    said = [message for message in conversation({"do": "suspend"}) if "requests" not in message]
    assert said == [{"answer": 1, "result": None}, {"awake": 0}, {"answer": 2, "result": None}]
