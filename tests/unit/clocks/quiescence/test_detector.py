"""When the world is quiet, judged on sockets that a test makes up: what lies unread, and for how
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
        from meshwake.clocks.quiescence.detector import TcpSocket

        ends = (b"\x3a\x98" + bytes(16), b"\xd7\x00" + bytes(16))
        return [
            TcpSocket(
                "pod", ends, self.state, self.unread, self.unsent, 0, 0, False, self.unacknowledged
            )
        ]


class _Packets:
    """Have any moved? `moved` counts them."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets, self._known = sockets, -1

    def have_changed(self) -> bool:
        known, self._known = self._known, self._sockets.moved
        return known != self._known


def stillness(sockets: Sockets) -> Any:
    from meshwake.clocks.quiescence.detector import Stillness

    world = Stillness(lambda: False)
    world.watch_sockets("pod", sockets)  # type: ignore[arg-type]
    return world


def no_clock(watched: object) -> int:
    return 0


@pytest.fixture
def real_s(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Real time as skip.py sees it, in the test's hand."""
    from meshwake.clocks.quiescence import detector as skip

    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        skip, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda seconds: None)
    )
    return clock


def test_bytes_that_arrive_are_no_quiet_until_they_have_been_left_lying(
    real_s: SimpleNamespace,
) -> None:
    """A ztunnel that waits for its certificate reads nothing of a handshake; the world must not
    wait for that."""
    sockets = Sockets()
    world = stillness(sockets)
    assert world.is_quiet(no_clock)
    sockets.unread, sockets.moved = 517, 1
    assert not world.is_quiet(no_clock)
    real_s.now += 0.1
    assert not world.is_quiet(no_clock)
    real_s.now += 0.2
    assert world.is_quiet(no_clock)
    assert world.is_quiet(no_clock)


def test_more_bytes_are_waited_for_again(real_s: SimpleNamespace) -> None:
    sockets = Sockets()
    world = stillness(sockets)
    sockets.unread, sockets.moved = 517, 1
    assert not world.is_quiet(no_clock)
    real_s.now += 0.3
    assert world.is_quiet(no_clock)
    sockets.unread, sockets.moved = 600, 2
    assert not world.is_quiet(no_clock)


def test_bytes_that_are_read_without_a_packet_are_quiet_at_once(real_s: SimpleNamespace) -> None:
    sockets = Sockets()
    world = stillness(sockets)
    sockets.unread, sockets.moved = 517, 1
    assert not world.is_quiet(no_clock)
    sockets.unread = 0
    assert world.is_quiet(no_clock)


@pytest.mark.parametrize(
    ("state", "unread", "quiet"),
    [(CLOSE_WAIT, 1, True), (CLOSE_WAIT, 2, False), (LISTEN, 1, False)],
)
def test_the_end_of_a_stream_is_no_byte(
    state: int, unread: int, quiet: bool, real_s: SimpleNamespace
) -> None:
    sockets = Sockets(state)
    sockets.unread = unread
    assert stillness(sockets).is_quiet(no_clock) is quiet


def test_what_is_held_back_until_an_acknowledgement_is_under_way(real_s: SimpleNamespace) -> None:
    """It is written, and no packet moves (Nagle): a ping over a connection whose last words are not
    acknowledged yet. An acknowledgement is nothing to wait for, though."""
    sockets = Sockets()
    world = stillness(sockets)
    sockets.unacknowledged, sockets.moved = 1, 1
    assert world.is_quiet(no_clock)
    sockets.unsent = 17
    assert not world.is_quiet(no_clock)
    sockets.unsent, sockets.unacknowledged, sockets.moved = 0, 0, 2
    assert world.is_quiet(no_clock)
    sockets.unsent = 17  # cannot be: whoever writes then sends, and a packet moves
    assert world.is_quiet(no_clock)
