"""The event with which a runtime wakes its own threads out of epoll_wait, in our hands too.

tokio (mio) has one eventfd in each epoll, registered edge-triggered: another thread writes to it,
the one that waits returns, finds that the event carries nothing, and looks at its timers. That is
all that a kick has to do; and a write costs a microsecond, where a pair of signals costs fifty and
may stop every thread of the process on the way.

The file is duplicated out of the process by pidfd_getfd, which asks for the right to trace it.
Where there is no such event, more than one, or no such right, there is no waker, and the caller
uses signals.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from meshwake.system.libc import duplicate_file_of

_EPOLLIN, _EPOLLET = 0x1, 0x80000000
_EVENT = "anon_inode:[eventfd]"
_ONE = (1).to_bytes(8, "little")
_TARGET = re.compile(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+)", re.MULTILINE)


def find_waker(pid: int, epoll: int) -> int:
    """A file of ours that wakes whoever waits in the file `epoll` of process `pid`; -1 when there
    is none."""
    try:
        targets = _TARGET.findall(Path(f"/proc/{pid}/fdinfo/{epoll}").read_text())
        edged = [number for number, events in targets if _is_edge_triggered(int(events, 16))]
        found = [
            number for number in edged if str(Path(f"/proc/{pid}/fd/{number}").readlink()) == _EVENT
        ]
        return _duplicate(pid, int(found[0])) if len(found) == 1 else -1
    except OSError:
        return -1


def wake(waker: int) -> bool:
    """Whether whoever waits there has been woken."""
    try:
        return os.write(waker, _ONE) == len(_ONE)
    except OSError:  # nobody reads it, and it is full after 2**64 times
        return False


def _is_edge_triggered(events: int) -> bool:
    return bool(events & _EPOLLIN and events & _EPOLLET)


def _duplicate(pid: int, number: int) -> int:
    process = os.pidfd_open(pid)
    try:
        return duplicate_file_of(process, number)
    finally:
        os.close(process)
