"""A program that waits in epoll as a runtime of Rust does is woken from outside, by its own
event."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="eventfd and pidfd are Linux's")
EDGE, LEVEL = "select.EPOLLIN | select.EPOLLET", "select.EPOLLIN"
WAITS = """
import os, select
poller = select.epoll()
for events in [{events}]:
    poller.register(os.eventfd(0), events)
print(poller.fileno(), flush=True)
print(len(poller.poll(3600)), flush=True)
"""


@contextmanager
def waiting(*events: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program that waits for an hour in an epoll with these eventfds, and the number of that
    epoll."""
    program = WAITS.format(events=", ".join(events))
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            yield child, int(child.stdout.readline())
        finally:
            child.kill()


def test_a_waiting_thread_is_woken_by_its_own_event() -> None:
    """An hour's wait ends at once, with that one event."""
    from meshwake.clocks.quiescence.eventfd import find_waker

    with waiting(EDGE) as (child, epoll):
        waker = find_waker(child.pid, epoll)
        if waker is None:
            pytest.skip("pidfd_getfd is not allowed here")
        began_s = time.monotonic()
        assert waker.wake()
        assert child.stdout is not None and child.stdout.readline() == "1\n"
        assert time.monotonic() - began_s < 60
        waker.close()


@pytest.mark.parametrize("events", [(), (LEVEL,), (EDGE, EDGE)])
def test_without_exactly_one_wake_up_event_no_waker_is_made(
    events: tuple[str, ...],
) -> None:
    """None, another kind, more than one: signals are used."""
    from meshwake.clocks.quiescence.eventfd import find_waker

    with waiting(*events) as (child, epoll):
        assert find_waker(child.pid, epoll) is None


def test_a_process_that_has_ended_has_no_waker() -> None:
    """A process that ended, or an epoll that was closed, is not an error."""
    from meshwake.clocks.quiescence.eventfd import find_waker

    with waiting(EDGE) as (child, epoll):
        assert find_waker(child.pid, 999) is None
    assert find_waker(child.pid, epoll) is None
