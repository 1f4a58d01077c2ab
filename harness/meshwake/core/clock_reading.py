"""One look at the three clocks of a node, and how far they have parted since an earlier look.

    wall       CLOCK_REALTIME   what certificates are judged by
    monotonic  CLOCK_MONOTONIC  what Rust's Instant, Go's timers and tokio wait on; stops during a suspend
    boottime   CLOCK_BOOTTIME   as monotonic, but counts a suspend; stops while a whole VM is paused

This module is a value: it imports nothing of the harness, and anything may import it.
"""

from __future__ import annotations

from typing import NamedTuple


class ClockReading(NamedTuple):
    """The clocks of one node at one moment, in nanoseconds: wall since 1970, the others since some
    boot."""

    wall_ns: int
    monotonic_ns: int
    boottime_ns: int

    def since(self, earlier: ClockReading) -> ClockReading:
        """How far each clock moved from `earlier` to here."""
        return ClockReading(
            self.wall_ns - earlier.wall_ns,
            self.monotonic_ns - earlier.monotonic_ns,
            self.boottime_ns - earlier.boottime_ns,
        )


def drift_ns(start: ClockReading, now: ClockReading) -> int:
    """The clock drift: by how much the wall clock ran ahead of the monotonic one since `start`.

    ztunnel takes `start` once, when its process starts; every renewal is late by the drift
    (istio/ztunnel#1481).
    """
    moved = now.since(start)
    return moved.wall_ns - moved.monotonic_ns
