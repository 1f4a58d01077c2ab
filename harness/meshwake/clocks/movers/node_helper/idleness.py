"""Does every program of the node wait for something to happen?"""

from __future__ import annotations

import time

from meshwake.clocks.injectors.unreachable_waits import waits_in_epoll
from meshwake.clocks.movers.node_helper.processes import count_streams
from meshwake.clocks.movers.node_helper.programs import Programs
from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.clocks.quiescence.threads import WatchedProcess

# A stream that was lost is back after a second at the latest, unless its other end is unavailable.
_STREAM_BACK_WITHIN_S = 2.0


class _Streams:
    """How many connections a program keeps open, and since when there are fewer."""

    def __init__(self) -> None:
        self._expected = 0
        self._lost_since_s: float | None = None

    def is_one_lost(self, count: int) -> bool:
        """Whether one is missing that may come back; one that does not is no longer expected."""
        if count >= self._expected:
            self._expected, self._lost_since_s = count, None
            return False
        if self._lost_since_s is None:
            self._lost_since_s = time.monotonic()
        if time.monotonic() - self._lost_since_s > _STREAM_BACK_WITHIN_S:
            self._expected = count
            return False
        return True


class Idleness:
    """Polls the programs of a node."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._watched: dict[int, WatchedProcess] = {}
        self._streams: dict[int, _Streams] = {}

    def first_busy(self) -> str:
        """A program that does something, described; "" when all wait. Between two looks at the
        first of them none has run."""
        if self._programs.is_one_starting:
            return "a program that is just being started"

        self._forget_the_ended()
        for pid in self._programs.known:
            why = self._why_busy(pid)
            if why:
                return why

        # The second look: one that woke another, and then fell asleep itself, has run meanwhile.
        for pid, program in self._programs.known.items():
            if not self._watched[pid].still_asleep():
                return program.executable
        return ""

    def _forget_the_ended(self) -> None:
        for pid in self._watched.keys() - self._programs.known.keys():
            self._watched.pop(pid).close()
            self._streams.pop(pid, None)

    def _why_busy(self, pid: int) -> str:
        executable = self._programs.known[pid].executable
        watched = self._watched.get(pid)
        if watched is None:
            watched = WatchedProcess(pid, executable, waits_virtually=False)
            self._watched[pid] = watched

        rule = self._programs.rule_of(pid)
        if _works(pid, rule) or not watched.asleep(0):
            return f"{executable} ({pid})"
        if rule is not None and self._has_lost_a_stream(pid, rule):
            port = rule.streams_to_port
            return f"{executable} ({pid}), which has lost a connection to port {port}"
        return ""

    def _has_lost_a_stream(self, pid: int, rule: Rule) -> bool:
        if not rule.streams_to_port:
            return False
        streams = self._streams.setdefault(pid, _Streams())
        return streams.is_one_lost(count_streams(pid, rule.streams_to_port))


def _works(pid: int, rule: Rule | None) -> bool:
    """A program that idles in epoll, and is not there: it waits for an answer, for example."""
    if rule is None or not rule.idles_in_epoll:
        return False
    return not waits_in_epoll(pid)
