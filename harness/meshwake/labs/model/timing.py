"""When a ztunnel renews: the wait of every release, and those of three proposed patches.

    as released       the planned wall time, converted to a monotonic time with one pair of clocks
                      read when the process started
    fresh-time-base   ... with a pair read at each issue
    boottime          a wait on CLOCK_BOOTTIME, from one pair read at the start; polled every ten
                      seconds
    wall-polling      as fresh-time-base, and every ten seconds the wall clock is polled: is it
                      time, or was the clock set back behind notBefore of a certificate that was
                      valid when it was issued?

Polls are ticks of the monotonic clock, counted from the start of the process.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S

Timing = Literal["as-released", "fresh-time-base", "boottime", "wall-polling"]
POLLS_EVERY_NS = 10 * NS_PER_S


class Due(NamedTuple):
    """When a timer fires: at a monotonic time, or at the first tick (every `POLLS_EVERY_NS` from
    `ticks_monotonic_ns` on) at which one of the other clocks has
    reached its due time."""

    monotonic_ns: int
    boottime_ns: int | None = None
    wall_ns: int | None = None
    below_wall_ns: int | None = None
    ticks_monotonic_ns: int = 0

    def world_ns(self, clock: NodeClock, from_world_ns: int) -> int:
        """World time at which it fires, not before `from_world_ns`, on a node with `clock`."""
        fires_ns = clock.world_ns_at_monotonic(self.monotonic_ns, from_world_ns)
        after_ns = from_world_ns

        # The monotonic time is the latest. Before it the other clocks are looked at, but only at
        # ticks: a clock that reached its due time and was set back before the next tick is missed.
        while True:
            reached_ns = self._reached_world_ns(clock, after_ns)
            if reached_ns is None or reached_ns >= fires_ns:
                return fires_ns
            tick_ns = self._next_tick_world_ns(clock, reached_ns)
            if tick_ns >= fires_ns:
                return fires_ns
            if self._is_reached(clock.reading(tick_ns)):
                return tick_ns
            after_ns = tick_ns  # the clock was set back before the poll

    def _reached_world_ns(self, clock: NodeClock, from_world_ns: int) -> int | None:
        """The first time at which a clock other than the monotonic one reaches its due time."""
        times = []
        if self.boottime_ns is not None:
            times.append(clock.world_ns_at_boottime(self.boottime_ns, from_world_ns))
        if self.wall_ns is not None:
            times.append(clock.world_ns_at_wall(self.wall_ns, from_world_ns))
        if self.below_wall_ns is not None:
            below_ns = clock.world_ns_below_wall(self.below_wall_ns, from_world_ns)
            if below_ns is not None:
                times.append(below_ns)
        return min(times, default=None)

    def _is_reached(self, now: ClockReading) -> bool:
        if self.boottime_ns is not None and now.boottime_ns >= self.boottime_ns:
            return True
        if self.wall_ns is not None and now.wall_ns >= self.wall_ns:
            return True

        # This one waits for a wall clock that is set back.
        if self.below_wall_ns is None:
            return False
        return now.wall_ns < self.below_wall_ns

    def _next_tick_world_ns(self, clock: NodeClock, world_ns: int) -> int:
        passed_ns = clock.reading(world_ns).monotonic_ns - self.ticks_monotonic_ns
        ticks = -(-passed_ns // POLLS_EVERY_NS)  # rounded up
        tick_monotonic_ns = self.ticks_monotonic_ns + ticks * POLLS_EVERY_NS
        return clock.world_ns_at_monotonic(tick_monotonic_ns, world_ns)


def renewal_due(
    timing: Timing, refresh_wall_ns: int, begins_wall_ns: int, base: ClockReading, now: ClockReading
) -> Due:
    """When a certificate that came `now`, to a process that started at `base`, is renewed."""
    fresh_monotonic_ns = now.monotonic_ns + max(refresh_wall_ns - now.wall_ns, 0)

    # The arithmetic of istio/ztunnel#1481: wall time becomes monotonic time by the pair of clocks
    # of the start. Every sleep since then makes it late.
    if timing == "as-released":
        return Due(base.monotonic_ns + refresh_wall_ns - base.wall_ns)
    if timing == "fresh-time-base":
        return Due(fresh_monotonic_ns)

    # Also due when the clock is set back to before notBefore, unless it was so at the issue.
    if timing == "wall-polling":
        below_ns = begins_wall_ns if begins_wall_ns <= now.wall_ns else None
        return Due(fresh_monotonic_ns, None, refresh_wall_ns, below_ns, base.monotonic_ns)
    due_boottime_ns = base.boottime_ns + refresh_wall_ns - base.wall_ns
    monotonic_ns = now.monotonic_ns + max(due_boottime_ns - now.boottime_ns, 0)
    return Due(monotonic_ns, due_boottime_ns, ticks_monotonic_ns=base.monotonic_ns)
