"""A program waits in epoll as a runtime of Rust does, and is woken by its own event, from outside."""

from __future__ import annotations

import os
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


def test_who_waits_is_woken_by_its_own_event() -> None:
    """An hour's wait ends at once, with that one event."""
    from meshwake.clocks.quiescence.wakers import find_waker, wake

    with waiting(EDGE) as (child, epoll):
        waker = find_waker(child.pid, epoll)
        if waker < 0:
            pytest.skip("pidfd_getfd is not allowed here")
        began_s = time.monotonic()
        assert wake(waker)
        assert child.stdout is not None and child.stdout.readline() == "1\n"
        assert time.monotonic() - began_s < 60
        os.close(waker)


@pytest.mark.parametrize("events", [(), (LEVEL,), (EDGE, EDGE)])
def test_without_one_event_that_is_known_for_certain_there_is_no_waker(
    events: tuple[str, ...],
) -> None:
    """None, another kind, more than one: signals must do."""
    from meshwake.clocks.quiescence.wakers import find_waker

    with waiting(*events) as (child, epoll):
        assert find_waker(child.pid, epoll) == -1


def test_who_has_gone_has_no_waker() -> None:
    """A process that ended, or an epoll that was closed, is no error."""
    from meshwake.clocks.quiescence.wakers import find_waker

    with waiting(EDGE) as (child, epoll):
        assert find_waker(child.pid, 999) == -1
    assert find_waker(child.pid, epoll) == -1
