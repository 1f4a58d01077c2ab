"""Is everything idle, and until when? The question that skipping idle time rests on.

A ztunnel that waits twelve hours for its next renewal does nothing in between. If its clocks are
moved by twelve hours and it is made to read them, the twelve hours have passed for it. That is
exact only when nothing was under way, so time may move only when the world is *quiescent*:

    every thread of every process watched sleeps in the kernel       threads.py
    no byte is unsent in any socket, and none unread                 sockets.py, in every network
                                                                     namespace
    that its reader has not been given a moment to read
    no connection waits to be accepted, none is half open            the same
    what one end of a connection has sent, the other has received    the same: a packet on its way
                                                                     is in no socket
    no thread has run since it was first polled                      the CPU time of its process,
                                                                     read before its threads and
                                                                     again after the sockets

The last line makes one moment of many polls: threads are polled one after the other, and one may
hand its work to another that has been polled already. When none has run between the first pass and
the second, there was a moment at which all slept, and all still slept while the sockets were read.
(Three polls in a row, without that line, make a wrong answer rare, not impossible.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from meshwake.clocks.quiescence.sockets import (
    LISTEN,
    SocketsOfNamespace,
    TcpSocket,
    first_on_its_way,
    first_under_way,
    unread,
)
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.quiescence.traffic import PacketTraffic
from meshwake.core.errors import HarnessFault
from meshwake.system.deadline import Deadline

# Real time in which a busy world must become quiescent; a slow machine may need more.
QUIET_WITHIN_S = float(os.environ.get("MESHWAKE_QUIET_WITHIN_S", "60"))
# Real time after which bytes that nothing reads, while everything sleeps, count as left unread.
LEFT_UNREAD_AFTER_S = 0.25
_PAUSE_S = 0.0002
# Most activity lasts a tenth of a millisecond: so many polls come before the first pause.
_POLLS_BEFORE_A_PAUSE = 8

# The monotonic time that a process sees now.
MonotonicNow = Callable[[WatchedProcess], int]


class QuiescenceDetector:
    """Polls processes and sockets until nothing is going on. `drain` is called at every poll and
    receives what helpers have sent; it returns whether there was anything, and may raise, for
    example when requests never end."""

    def __init__(self, drain: Callable[[], bool]) -> None:
        self.processes: dict[str, WatchedProcess] = {}
        self.sockets: dict[str, SocketsOfNamespace] = {}

        # Namespace to the process that reads there, where they differ in name.
        self._reader_of: dict[str, str] = {}
        self.polls = 0
        self._polled: list[WatchedProcess] = []
        self._drain = drain

        # While no packet has moved since a poll that found the sockets empty, and all that was sent
        # acknowledged, nothing can be in them now.
        self._traffic = PacketTraffic()
        self._sockets_empty = False
        self._unread: set[str] = set()
        self._unread_since_s = 0.0  # real time
        self._left_unread: set[str] = set()

    def close(self) -> None:
        """Closes all files; no process is touched."""
        for process in self.processes.values():
            process.close()
        for sockets in self.sockets.values():
            sockets.close()
        self._traffic.close()

    # What is watched

    def watch_namespace(self, name: str, reader: str) -> None:
        """Adds the sockets of the network namespace that this thread is in; `reader` names the
        process that serves it."""
        self.forget_namespace(name)
        self.watch_sockets(name, SocketsOfNamespace(name))
        self._reader_of[name] = reader

    def watch_sockets(self, name: str, sockets: SocketsOfNamespace) -> None:
        """Adds these too; the process of that name serves them."""
        self.sockets[name] = sockets
        self._traffic.add(sockets.packets)
        self._sockets_empty = False

    def forget_namespace(self, name: str) -> None:
        """Its sockets are no longer polled."""
        if name in self.sockets:
            self._traffic.remove(self.sockets[name].packets)
            self.sockets.pop(name).close()
        self._sockets_empty = False

    # Is the world quiescent?

    def wait_until_quiescent(self, monotonic_now_ns: MonotonicNow) -> None:
        """Raises HarnessFault naming what was busy when the world does not become quiescent in
        time."""
        deadline, polls = Deadline("the world to be quiescent", QUIET_WITHIN_S), 0
        while activity := self.first_activity(monotonic_now_ns):
            polls += 1
            if polls < _POLLS_BEFORE_A_PAUSE:
                os.sched_yield()
                continue
            if deadline.has_passed:
                raise HarnessFault(
                    f"the world was not quiescent within {QUIET_WITHIN_S:.0f} s; last seen busy: "
                    f"{activity}"
                )
            deadline.sleep(_PAUSE_S)

    def is_quiescent(self, monotonic_now_ns: MonotonicNow) -> bool:
        """Whether the world is quiescent now; does not wait for it."""
        return self.first_activity(monotonic_now_ns) is None

    def first_activity(self, monotonic_now_ns: MonotonicNow) -> str | None:
        """What goes on, described; None when nothing does, all processes live, and no helper has
        anything to report."""
        self.polls += 1
        if found := self._first_busy(monotonic_now_ns):
            return found
        if found := self._first_unread():
            return found

        # A process that has ended has run until its end, so it is among those just polled.
        for process in self._polled:
            process.check_alive()
        return self._drained()

    def _drained(self) -> str | None:
        return "a helper has reported something" if self._drain() else None

    def _first_busy(self, monotonic_now_ns: MonotonicNow) -> str | None:
        """The first process that runs, or connection with bytes on their way."""
        if found := self._drained():
            return found
        running = self._not_stopped()

        # Reading the threads of a process costs most, so one that was asleep and has used no CPU
        # time since is not polled, as long as no packet has come for it.
        self._polled = [process for process in running if not process.known_asleep()]
        if found := self._first_awake(self._polled, monotonic_now_ns):
            return found
        if self._sockets_may_hold_bytes():
            found = self._first_busy_after_packets(running, monotonic_now_ns)
            if found is not None:
                return found
        return self._first_that_ran(running)

    def _not_stopped(self) -> list[WatchedProcess]:
        return [process for process in self.processes.values() if not process.stopped]

    def _sockets_may_hold_bytes(self) -> bool:
        # The counters are read in either case: they remember what they were at this poll.
        packets_moved = self._traffic.moved_since_last_poll()
        return packets_moved or not self._sockets_empty

    def _first_busy_after_packets(
        self, running: list[WatchedProcess], monotonic_now_ns: MonotonicNow
    ) -> str | None:
        """Packets may have woken a thread that has not run yet, so every process is polled; and the
        sockets, which they may have filled."""
        self._sockets_empty = False
        self._polled = running
        return self._first_awake(running, monotonic_now_ns) or self._first_busy_socket()

    def _first_awake(
        self, processes: Iterable[WatchedProcess], monotonic_now_ns: MonotonicNow
    ) -> str | None:
        for process in processes:
            if not process.asleep(monotonic_now_ns(process)):
                process.check_alive()
                return f"process {process.name} runs"
        return None

    def _first_that_ran(self, running: Iterable[WatchedProcess]) -> str | None:
        """The second pass, after the sockets: see the head of this file."""
        for process in running:
            polled = process in self._polled
            if not (process.still_asleep() if polled else process.known_asleep()):
                return f"process {process.name} has run meanwhile"
        return None

    def _first_busy_socket(self) -> str | None:
        everywhere: list[TcpSocket] = []
        found_unread: set[str] = set()
        for name, sockets in self.sockets.items():
            here = sockets.all()
            everywhere += here
            if found := first_on_its_way(here):
                return found
            # Where the reader is stopped, what is unread stays so.
            if not self._is_stopped(name):
                found_unread |= unread(here)
        if found := first_under_way(everywhere):
            return found
        self._note_unread(found_unread)

        # What is written while something is unacknowledged may be held back until it is (Nagle's
        # algorithm), and no packet announces that.
        # Found by a timeline drawn at random (seed 19): two connections to a slow authority, each
        # with a ping, were given up by ztunnel 10 s later in most runs.
        held_back = any(one.unacknowledged for one in everywhere if one.state != LISTEN)
        self._sockets_empty = not self._unread and not held_back
        return None

    def _is_stopped(self, namespace: str) -> bool:
        process = self.processes.get(self._reader_of.get(namespace, namespace))
        return process is not None and process.stopped

    def _note_unread(self, found: set[str]) -> None:
        self._left_unread &= found
        fresh = found - self._left_unread
        if fresh != self._unread:
            self._unread, self._unread_since_s = fresh, time.monotonic()

    def _first_unread(self) -> str | None:
        """Unread bytes are on their way to a program that is about to be woken, or are left there:
        a ztunnel that waits for its certificate reads nothing of a handshake. A thread that waits
        for bytes is woken in the moment in which they arrive, so what is unread a while later, and
        everything sleeps, is left unread."""
        if not self._unread:
            return None
        if time.monotonic() - self._unread_since_s < LEFT_UNREAD_AFTER_S:
            return min(self._unread)

        # The lab once waited for them for ever (seed 31 of the random timelines).
        self._left_unread |= self._unread
        self._unread = set()
        return None
