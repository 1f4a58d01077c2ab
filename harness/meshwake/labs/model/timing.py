"""When a ztunnel renews: the wait of every release, and those of three patches that people propose.

    as released       the planned wall time, made monotonic with one pair of clocks taken when the process started
    fresh-time-base   ... with a pair taken at each issue
    boottime          a wait on CLOCK_BOOTTIME, from one pair taken at the start; looked at every ten seconds
    wall-polling      as fresh-time-base, and every ten seconds a look at the wall clock: is it time, or was the clock
                      set back behind notBefore of a certificate that was valid when it came?

The looks are ticks of the monotonic clock, counted from the start of the process.
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
    `ticks_monotonic_ns` on) at which one of the other clocks says so."""

    monotonic_ns: int
    boottime_ns: int | None = None
    wall_ns: int | None = None
    below_wall_ns: int | None = None
    ticks_monotonic_ns: int = 0

    def world_ns(self, clock: NodeClock, from_world_ns: int) -> int:
        """World time at which it fires, not before `from_world_ns`, on a node with `clock`."""
        fires_ns = clock.world_ns_at_monotonic(self.monotonic_ns, from_world_ns)
        after_ns = from_world_ns
        while (says_ns := self._says_world_ns(clock, after_ns)) is not None and says_ns < fires_ns:
            tick_ns = self._tick(clock, says_ns)
            if tick_ns >= fires_ns:
                break
            if self._says(clock.reading(tick_ns)):
                return tick_ns
            after_ns = tick_ns
        return fires_ns

    def _says_world_ns(self, clock: NodeClock, from_world_ns: int) -> int | None:
        """The first time at which a clock other than the monotonic one says that it is time."""
        times = []
        if self.boottime_ns is not None:
            times.append(clock.world_ns_at_boottime(self.boottime_ns, from_world_ns))
        if self.wall_ns is not None:
            times.append(clock.world_ns_at_wall(self.wall_ns, from_world_ns))
        if self.below_wall_ns is not None:
            below_ns = clock.world_ns_below_wall(self.below_wall_ns, from_world_ns)
            times += [] if below_ns is None else [below_ns]
        return min(times, default=None)

    def _says(self, now: ClockReading) -> bool:
        return (
            (self.boottime_ns is not None and now.boottime_ns >= self.boottime_ns)
            or (self.wall_ns is not None and now.wall_ns >= self.wall_ns)
            or (self.below_wall_ns is not None and now.wall_ns < self.below_wall_ns)
        )

    def _tick(self, clock: NodeClock, world_ns: int) -> int:
        passed_ns = clock.reading(world_ns).monotonic_ns - self.ticks_monotonic_ns
        tick_monotonic_ns = (
            self.ticks_monotonic_ns - (-passed_ns // POLLS_EVERY_NS) * POLLS_EVERY_NS
        )
        return clock.world_ns_at_monotonic(tick_monotonic_ns, world_ns)


def renewal_due(
    timing: Timing, refresh_wall_ns: int, begins_wall_ns: int, base: ClockReading, now: ClockReading
) -> Due:
    """When a certificate that came `now`, to a process that started at `base`, is renewed."""
    fresh_monotonic_ns = now.monotonic_ns + max(refresh_wall_ns - now.wall_ns, 0)
    if timing == "as-released":
        return Due(base.monotonic_ns + refresh_wall_ns - base.wall_ns)
    if timing == "fresh-time-base":
        return Due(fresh_monotonic_ns)
    if timing == "wall-polling":
        below_ns = begins_wall_ns if begins_wall_ns <= now.wall_ns else None
        return Due(fresh_monotonic_ns, None, refresh_wall_ns, below_ns, base.monotonic_ns)
    due_boottime_ns = base.boottime_ns + refresh_wall_ns - base.wall_ns
    monotonic_ns = now.monotonic_ns + max(due_boottime_ns - now.boottime_ns, 0)
    return Due(monotonic_ns, due_boottime_ns, ticks_monotonic_ns=base.monotonic_ns)
