"""The hub between guests' network cards: frames go whole, to all others, and to none that is
disconnected."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.clocks.guest.hub import FRAME_BYTES_MAX, Hub, Port
from meshwake.core.errors import SubjectFailed


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


class Wired:
    """A hub with three machines, of which the test holds the other ends of the cables."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.ends = {name: self.hub.add(name) for name in ("one", "two", "three")}
        for end in self.ends.values():
            end.setblocking(False)

    def received(self, name: str) -> bytes:
        self.hub.carry()
        with suppress(BlockingIOError):
            return self.ends[name].recv(1 << 20)
        return b""

    def close(self) -> None:
        self.hub.close()
        for end in self.ends.values():
            end.close()


@pytest.fixture
def wired() -> Iterator[Wired]:
    made = Wired()
    yield made
    made.close()


def test_a_frame_goes_to_all_others(wired: Wired) -> None:
    """And not back."""
    wired.ends["one"].send(framed(b"hello"))
    assert wired.received("two") == framed(b"hello")
    assert wired.received("three") == framed(b"hello")
    assert wired.received("one") == b""


def test_half_a_frame_waits_for_its_rest(wired: Wired) -> None:
    """And the hub is not idle meanwhile."""
    wired.ends["one"].send(framed(b"hello")[:6])
    assert wired.received("two") == b""
    assert not wired.hub.is_idle
    wired.ends["one"].send(framed(b"hello")[6:])
    assert wired.received("two") == framed(b"hello")
    assert wired.hub.is_idle


def test_a_machine_that_sleeps_receives_nothing_then_or_later(wired: Wired) -> None:
    """What was sent to it is lost, and what it sent just before it went has gone out."""
    wired.ends["two"].send(framed(b"bye"))
    wired.hub.plug("two", plugged=False)
    assert wired.received("one") == framed(b"bye")
    wired.ends["one"].send(framed(b"are you there"))
    assert wired.received("three")[-len(framed(b"are you there")) :] == framed(b"are you there")
    wired.hub.plug("two", plugged=True)
    assert wired.received("two") == b""


def test_what_is_not_a_frame_is_named(wired: Wired) -> None:
    """It would be waited for for ever."""
    wired.ends["one"].send(b"\xff\xff\xff\xff")
    with pytest.raises(SubjectFailed, match="a frame of 4294967295 bytes"):
        wired.hub.carry()


@given(
    frames=st.lists(st.binary(min_size=1, max_size=200), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=8),
)
def test_frames_come_out_as_they_went_in(frames: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        port, stream = Port(ours), b"".join(map(framed, frames))
        found: list[bytes] = []
        edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        for begin, end in pairwise(edges):
            port.received += stream[begin:end]
            found += port.frames()
        assert found == [framed(frame) for frame in frames]
        assert not port.received


def test_a_frame_is_never_longer_than_qemus() -> None:
    """The bound is QEMU's own."""
    assert FRAME_BYTES_MAX == 69632
