"""Reorders events that are learned late: a history is in order of world time, and polling takes
time.

A connection that was refused after five seconds was attempted five seconds ago; a certificate that
is seen now was issued at the second that it says itself. So events are buffered until no older one
can arrive, and are then recorded in order. Nothing is buffered across a fault: the buffer is
flushed before and after it.
"""

from __future__ import annotations

import heapq
from typing import Any

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.history import Recorder

# Longer than any single poll or connection attempt may take.
HELD_BACK_NS = 20 * NS_PER_S


class ReorderBuffer:
    """In front of `recorder`, which accepts events in order only."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: list[tuple[int, int, Event]] = []
        self._count = 0
        self._recorded_world_ns = 0

    def add(
        self, world_ns: int, kind: str, node: str | None, clocks: ClockReading | None, **data: Any
    ) -> None:
        """Buffer an event. One that is older than what has been recorded already gets the time of
        the latest recorded one: world time does not go back."""
        event = Event.of_kind(max(world_ns, self._recorded_world_ns), kind, node, clocks, data)
        heapq.heappush(self._waiting, (event.world_ns, self._count, event))
        self._count += 1

    def flush_until(self, world_ns: int) -> None:
        """Record everything up to `world_ns`, in order; events of the same world time in the order
        in which they were added."""
        while self._waiting:
            first_world_ns, *_ = self._waiting[0]
            if first_world_ns > world_ns:
                return
            _, _, event = heapq.heappop(self._waiting)
            self._recorder.append(event)
            self._recorded_world_ns = event.world_ns

    def flush(self) -> None:
        """Record everything that is buffered."""
        if not self._waiting:
            return
        last_world_ns = max(world_ns for world_ns, *_ in self._waiting)
        self.flush_until(last_world_ns)
