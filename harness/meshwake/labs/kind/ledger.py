"""Puts what is learned late into its place: a history is in order of world time, and looking takes
time.

A connection that was refused after five seconds was attempted five seconds ago; a certificate seen
now was issued at the second that stands in it. So events wait here until nothing older can come any
more, and are then told in order. Nothing is held back across a fault: before and after it
everything is told.
"""

from __future__ import annotations

import heapq
from typing import Any

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.history import Recorder

# Longer than any one look or attempt may take.
HELD_BACK_NS = 20 * NS_PER_S


class Ledger:
    """Between those who learn of events and `recorder`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: list[tuple[int, int, Event]] = []
        self._count = 0
        self._told_world_ns = 0

    def add(
        self, world_ns: int, kind: str, node: str | None, clocks: ClockReading | None, **data: Any
    ) -> None:
        """Takes an event. One older than what has been told already is told as of that moment:
        world time does not go back."""
        event = Event.of_kind(max(world_ns, self._told_world_ns), kind, node, clocks, data)
        heapq.heappush(self._waiting, (event.world_ns, self._count, event))
        self._count += 1

    def tell_until(self, world_ns: int) -> None:
        """Tells everything up to `world_ns`, in order; what has one world time in the order in
        which it came."""
        while self._waiting and self._waiting[0][0] <= world_ns:
            event = heapq.heappop(self._waiting)[2]
            self._recorder.append(event)
            self._told_world_ns = event.world_ns

    def tell_all(self) -> None:
        """Tells everything that waits."""
        if self._waiting:
            self.tell_until(max(entry[0] for entry in self._waiting))
