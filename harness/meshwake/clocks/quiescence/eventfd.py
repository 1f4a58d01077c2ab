"""Duplicates a runtime's wake-up eventfd, so that its epoll_wait can be interrupted from outside.

tokio (mio) has one eventfd in each epoll, registered edge-triggered: another thread writes to it,
the thread that waits returns, finds that the event carries nothing, and reads its timers. That is
all that is needed to make it notice a moved clock; and a write costs a microsecond, where a pair of
signals costs fifty and may stop every thread of the process on the way.

The file is duplicated out of the process by pidfd_getfd, which needs the right to trace it. Where
there is no such event, more than one, or no such right, there is no waker, and signals are used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from meshwake.system.libc import duplicate_file_of

# include/uapi/linux/eventpoll.h: readable; and reported once per change, not as long as it lasts.
_EPOLLIN = 0x1
_EPOLLET = 0x80000000
# What /proc/PID/fd/N of an eventfd points to (fs/eventfd.c names its files so).
_EVENTFD = "anon_inode:[eventfd]"
# eventfd(2): a write adds a number of 64 bits, in the byte order of the machine, to its counter.
_ADD_ONE = (1).to_bytes(8, "little")
# A line of /proc/PID/fdinfo/EPOLL for each file registered there (fs/eventpoll.c, ep_show_fdinfo):
# "tfd:        5 events: 80000019 data: ...  pos:0 ino:... sdev:...".
_TARGET = re.compile(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+)", re.MULTILINE)


class EpollWaker:
    """A duplicate of the event by which the threads of one epoll are woken."""

    def __init__(self, file: int) -> None:
        self._file = file

    def wake(self) -> bool:
        """Makes a thread that waits in that epoll return; False when the event cannot take any
        more."""
        try:
            return os.write(self._file, _ADD_ONE) == len(_ADD_ONE)
        except OSError:
            # The process no longer reads it. The counter is full after 2**64 times.
            return False

    def close(self) -> None:
        """Closes the duplicate; the process keeps its own."""
        os.close(self._file)


def find_waker(pid: int, epoll: int) -> EpollWaker | None:
    """The waker of the epoll that is file `epoll` in process `pid`; None when it has none, several,
    or one that may not be duplicated."""
    try:
        registered = _TARGET.findall(Path(f"/proc/{pid}/fdinfo/{epoll}").read_text())
        edge_triggered = [number for number, events in registered if _is_wake_up(int(events, 16))]
        eventfds = [number for number in edge_triggered if _is_eventfd(pid, number)]
        # With two it would be unknown which of them the runtime itself uses.
        if len(eventfds) != 1:
            return None
        return EpollWaker(_duplicate(pid, int(eventfds[0])))
    except OSError:
        return None


def _is_wake_up(events: int) -> bool:
    return bool(events & _EPOLLIN and events & _EPOLLET)


def _is_eventfd(pid: int, number: str) -> bool:
    return str(Path(f"/proc/{pid}/fd/{number}").readlink()) == _EVENTFD


def _duplicate(pid: int, number: int) -> int:
    process = os.pidfd_open(pid)
    try:
        return duplicate_file_of(process, number)
    finally:
        os.close(process)
