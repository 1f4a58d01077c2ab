"""When the world is quiescent, judged on sockets that a test makes up: what is unread, and for how
long."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux's")
ESTABLISHED, LISTEN, CLOSE_WAIT = 1, 10, 8


class Sockets:
    """One namespace; `unread` of its one socket is what the test says."""

    def __init__(self, state: int = ESTABLISHED) -> None:
        self.unread, self.state, self.moved = 0, state, 0
        self.unsent, self.unacknowledged = 0, 0
        self.packets: Any = _Packets(self)

    def all(self) -> list[Any]:
        from meshwake.clocks.quiescence.sockets import TcpSocket

        ends = (b"\x3a\x98" + bytes(16), b"\xd7\x00" + bytes(16))
        return [
            TcpSocket(
                "pod", ends, self.state, self.unread, self.unsent, 0, 0, False, self.unacknowledged
            )
        ]


class _Packets:
    """Counters of devices; `moved` is what they show."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets, self._last = sockets, -1

    def have_changed(self) -> bool:
        before, self._last = self._last, self._sockets.moved
        return before != self._last


def detector_of(sockets: Sockets) -> Any:
    from meshwake.clocks.quiescence.detector import QuiescenceDetector

    world = QuiescenceDetector(lambda: False)
    world.watch_sockets("pod", sockets)  # type: ignore[arg-type]
    return world


def no_clock(watched: object) -> int:
    return 0


@pytest.fixture
def real_s(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The real time that the detector reads, set by the test."""
    from meshwake.clocks.quiescence import detector

    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        detector, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda seconds: None)
    )
    return clock


def test_unread_bytes_are_activity_until_they_have_been_left_unread(
    real_s: SimpleNamespace,
) -> None:
    """A ztunnel that waits for its certificate reads nothing of a handshake; the world must not
    wait for that."""
    sockets = Sockets()
    world = detector_of(sockets)
    assert world.is_quiescent(no_clock)
    sockets.unread, sockets.moved = 517, 1
    assert not world.is_quiescent(no_clock)
    real_s.now += 0.1
    assert not world.is_quiescent(no_clock)
    real_s.now += 0.2
    assert world.is_quiescent(no_clock)
    assert world.is_quiescent(no_clock)


def test_more_unread_bytes_are_activity_again(real_s: SimpleNamespace) -> None:
    sockets = Sockets()
    world = detector_of(sockets)
    sockets.unread, sockets.moved = 517, 1
    assert not world.is_quiescent(no_clock)
    real_s.now += 0.3
    assert world.is_quiescent(no_clock)
    sockets.unread, sockets.moved = 600, 2
    assert not world.is_quiescent(no_clock)


def test_bytes_that_are_read_without_a_packet_are_quiescent_at_once(
    real_s: SimpleNamespace,
) -> None:
    sockets = Sockets()
    world = detector_of(sockets)
    sockets.unread, sockets.moved = 517, 1
    assert not world.is_quiescent(no_clock)
    sockets.unread = 0
    assert world.is_quiescent(no_clock)


@pytest.mark.parametrize(
    ("state", "unread", "quiescent"),
    [(CLOSE_WAIT, 1, True), (CLOSE_WAIT, 2, False), (LISTEN, 1, False)],
)
def test_the_end_of_a_stream_does_not_count_as_a_byte(
    state: int, unread: int, quiescent: bool, real_s: SimpleNamespace
) -> None:
    sockets = Sockets(state)
    sockets.unread = unread
    assert detector_of(sockets).is_quiescent(no_clock) is quiescent


def test_what_is_held_back_until_an_acknowledgement_is_under_way(real_s: SimpleNamespace) -> None:
    """It is written, and no packet moves (Nagle): a ping over a connection whose last words are not
    acknowledged yet. An acknowledgement is nothing to wait for, though."""
    sockets = Sockets()
    world = detector_of(sockets)
    sockets.unacknowledged, sockets.moved = 1, 1
    assert world.is_quiescent(no_clock)
    sockets.unsent = 17
    assert not world.is_quiescent(no_clock)
    sockets.unsent, sockets.unacknowledged, sockets.moved = 0, 0, 2
    assert world.is_quiescent(no_clock)
    sockets.unsent = 17  # cannot be: a write is followed by a send, and a packet moves
    assert world.is_quiescent(no_clock)
