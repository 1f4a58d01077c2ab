"""The wall clock of a node as a function of world time, from the readings that a history holds; and
when it slept.

A lab records the node's clocks with every event, and what moves a clock is an event. Between two
readings the wall clock is therefore a straight line; where it was stepped, `fault_ended` also says
what it showed just before:

    wall
      |                  . '        step: two readings at one world time
      |               .'
      |        ____ |               pause: the wall clock stops (two readings alike) ...
      |    .'       |.'             ... runs on behind, and is stepped when it is corrected
      |.'
      +---------------------- world

After the last reading it runs as the world does, unless the history ended in a pause (it is
stopped) or in a drift (it goes on at that rate). The limit: a node whose clock was moved
without a fault event (NTP on a real machine) is known only as finely as its events lie.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction

from meshwake.checks.facts.spans import Span, Spans
from meshwake.core.clock_reading import ClockReading

_AS_THE_WORLD = Fraction(1)


class NodeTimeline:
    """The wall clock of one node and its sleep. `points` are (world, wall) in ns, in order; two at
    one world time are a step. `rate_after` is how the wall clock runs after the last point."""

    def __init__(
        self,
        points: Sequence[tuple[int, int]],
        asleep: Spans,
        rate_after: Fraction = _AS_THE_WORLD,
        readings: Sequence[tuple[int, ClockReading]] = (),
    ) -> None:
        if not points:
            raise ValueError("a timeline needs at least one reading of the clocks")
        self._worlds = [world_ns for world_ns, _ in points]
        self._walls = [wall_ns for _, wall_ns in points]
        self._rate_after = rate_after
        # Within a run the wall clock never goes back, so that each can be searched by halves.
        falls = [at for at in range(1, len(points)) if self._walls[at] < self._walls[at - 1]]
        self._runs = list(zip([0, *falls], [*falls, len(points)], strict=True))
        self._readings = readings
        self._reading_worlds = [world_ns for world_ns, _ in readings]
        self.asleep = asleep

    def wall_ns(self, world_ns: int) -> int:
        """The wall clock at `world_ns`; at a step, what it shows just after."""
        return self._between(bisect_right(self._worlds, world_ns), world_ns)

    def wall_before_ns(self, world_ns: int) -> int:
        """The wall clock at `world_ns`, but at a step what it showed just before."""
        return self._between(bisect_left(self._worlds, world_ns), world_ns)

    def world_ns_at_wall(self, wall_ns: int, from_world_ns: int = 0) -> int | None:
        """The first world time from `from_world_ns` on when the wall clock shows `wall_ns` or
        later; None: never."""
        if self.wall_ns(from_world_ns) >= wall_ns:
            return from_world_ns
        position = bisect_right(self._worlds, from_world_ns)
        # Runs that lie before `from` have nothing left to search: both ends are at `position`.
        for begins, ends in self._runs:
            reached = bisect_left(self._walls, wall_ns, max(begins, position), max(ends, position))
            if reached < max(ends, position):
                return max(self._reached(reached, wall_ns), from_world_ns)
        return self._reached_after(wall_ns, from_world_ns)

    def spans_at_or_after_wall(
        self, wall_ns: int, from_world_ns: int, to_world_ns: int
    ) -> list[Span]:
        """When within [from, to) the wall clock shows `wall_ns` or later; a step back can end it
        and it can return."""
        spans: list[Span] = []
        # Alternately: up to the moment of showing it, then down by the next step below it.
        begins_ns = self.world_ns_at_wall(wall_ns, from_world_ns)
        while begins_ns is not None and begins_ns < to_world_ns:
            ends_ns = self._falls_below(wall_ns, begins_ns, to_world_ns)
            spans.append((begins_ns, ends_ns))
            begins_ns = self.world_ns_at_wall(wall_ns, ends_ns)
        return spans

    def awake_ns(self, from_world_ns: int, to_world_ns: int) -> int:
        """How much of [from, to) processes on the node could run."""
        asleep_ns = self.asleep.overlap_ns(from_world_ns, to_world_ns)
        return max(to_world_ns - from_world_ns, 0) - asleep_ns

    def reading(self, world_ns: int) -> ClockReading | None:
        """The last recorded reading not after `world_ns`."""
        position = bisect_right(self._reading_worlds, world_ns) - 1
        if position < 0:
            return None
        _, clocks = self._readings[position]
        return clocks

    @property
    def last_reading(self) -> tuple[int, ClockReading] | None:
        """The last recorded reading and its world time."""
        return self._readings[-1] if self._readings else None

    def _between(self, position: int, world_ns: int) -> int:
        """The wall clock at `world_ns`, which lies just before the point at `position`."""
        if position == 0:
            # Before its first reading a clock ran as the world does.
            return self._walls[0] - (self._worlds[0] - world_ns)
        begins_ns, wall_ns = self._worlds[position - 1], self._walls[position - 1]
        passed_ns = world_ns - begins_ns
        if position == len(self._worlds):
            # Whole numbers: a float of ns since 1970 is exact only to 256 ns.
            return wall_ns + passed_ns * self._rate_after.numerator // self._rate_after.denominator
        rise_ns = self._walls[position] - wall_ns
        run_ns = self._worlds[position] - begins_ns
        if run_ns == 0:
            return wall_ns  # a step: two points at one world time
        return wall_ns + passed_ns * rise_ns // run_ns

    def _reached(self, position: int, wall_ns: int) -> int:
        """When the line that ends in the point at `position` first shows `wall_ns`."""
        ends_ns = self._worlds[position]
        above_ns = self._walls[position] - wall_ns
        if position == 0:
            return ends_ns - above_ns
        run_ns = ends_ns - self._worlds[position - 1]
        rise_ns = self._walls[position] - self._walls[position - 1]
        if rise_ns <= 0:
            return ends_ns  # the clock was stopped or stepped back: only its end shows as much
        return ends_ns - above_ns * run_ns // rise_ns

    def _reached_after(self, wall_ns: int, from_world_ns: int) -> int | None:
        """The same behind the last reading; None where the clock never gets there."""
        rate = self._rate_after
        if rate <= 0:
            return None  # paused until the end: it never shows a later time
        short_ns = wall_ns - self._walls[-1]
        # Twice negated, so that `//` rounds up: at the whole ns before, it does not show it yet.
        run_ns = -(-short_ns * rate.denominator // rate.numerator)
        reached_ns = self._worlds[-1] + run_ns
        return max(reached_ns, from_world_ns)

    def _falls_below(self, wall_ns: int, from_world_ns: int, to_world_ns: int) -> int:
        """The first world time within (from, to] at which the wall clock steps back below
        `wall_ns`, or `to`."""
        # Every run but the first begins with a step back.
        for begins, _ in self._runs[1:]:
            is_within = from_world_ns < self._worlds[begins] < to_world_ns
            if is_within and self._walls[begins] < wall_ns:
                return self._worlds[begins]
        return to_world_ns
