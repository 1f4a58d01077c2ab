"""A node whose clocks part company: the piece of the program that the program is about.

The clocks of a node are functions of *world time*, the time of an ideal observer, and they are
piecewise linear:

                 wall            monotonic      boottime       processes
    awake        runs (at rate)  runs           runs           run
    suspend      runs            stops          runs           stop
    pause        stops           stops          stops          stop      then the wall clock is
                                                                         stepped
    step         jumps           runs           runs           run
    freeze       runs            runs           runs           stop      (docker pause, SIGSTOP: the
                                                                         trap)

A suspend and a pause therefore differ only in boottime and in how long the wall clock stays wrong;
to a timer on the monotonic clock they are the same. A freeze is neither. Prior art: TigerBeetle's
time.zig keeps a paused replica's clock ticking; trio's MockClock has one timeline, which cannot say
any of this.

Everything is integer nanoseconds. The timeline is built in order (`advance_to` never goes back),
and may be queried at any world time up to its end; the state after the last change is taken to
last for ever.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from meshwake.core.clock_reading import ClockReading
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault

_ONE = Fraction(1)


@dataclass(frozen=True)
class _Segment:
    """From `begins_world_ns` on: what each clock showed then, and how it runs until the next
    segment."""

    begins_world_ns: int
    clocks: ClockReading
    wall_rate: Fraction
    monotonic_runs: bool
    boottime_runs: bool
    processes_run: bool

    def reading(self, world_ns: int) -> ClockReading:
        passed_ns = world_ns - self.begins_world_ns
        rate = self.wall_rate
        return ClockReading(
            self.clocks.wall_ns
            + (passed_ns if rate is _ONE else passed_ns * rate.numerator // rate.denominator),
            self.clocks.monotonic_ns + passed_ns * self.monotonic_runs,
            self.clocks.boottime_ns + passed_ns * self.boottime_runs,
        )


class NodeClock:
    """The clocks of one node on a virtual timeline; `now_world_ns` is the end of what has been
    built."""

    def __init__(self, start: ClockReading) -> None:
        self._segments = [_Segment(0, start, _ONE, True, True, True)]
        self._begins_world_ns = [0]
        self.now_world_ns = 0

    @property
    def now(self) -> ClockReading:
        """The clocks at the end of the timeline built so far."""
        return self._segments[-1].reading(self.now_world_ns)

    def advance_to(self, world_ns: int) -> None:
        """World time passes up to `world_ns`. Raises ValueError when that lies in the past."""
        if world_ns < self.now_world_ns:
            raise ValueError(
                f"world time is {self.now_world_ns} ns and cannot go back to {world_ns} ns"
            )
        self.now_world_ns = world_ns

    def suspend(self, lasts_ns: int) -> None:
        """The kernel sleeps for `lasts_ns`: wall and boottime count it, monotonic does not."""
        rate = self._last.wall_rate
        self._change(wall_rate=_ONE, monotonic_runs=False, processes_run=False)
        self.advance_to(self.now_world_ns + lasts_ns)
        self._change(wall_rate=rate, monotonic_runs=True, processes_run=True)

    def pause(
        self, lasts_ns: int, corrected_after_ns: int, corrected_by_ns: int | None = None
    ) -> None:
        """The VM is paused for `lasts_ns`, then runs for `corrected_after_ns`, then its wall clock
        is corrected, or set by `corrected_by_ns`."""
        rate = self._last.wall_rate
        self._change(
            wall_rate=Fraction(0), monotonic_runs=False, boottime_runs=False, processes_run=False
        )
        self.advance_to(self.now_world_ns + lasts_ns)
        self._change(wall_rate=rate, monotonic_runs=True, boottime_runs=True, processes_run=True)
        self.advance_to(self.now_world_ns + corrected_after_ns)
        self.step(lasts_ns if corrected_by_ns is None else corrected_by_ns)

    def step(self, by_wall_ns: int) -> None:
        """The wall clock is set by `by_wall_ns`, forward or back, at this moment."""
        clocks = self.now
        self._change(clocks=clocks._replace(wall_ns=clocks.wall_ns + by_wall_ns))

    def drift(self, lasts_ns: int, rate: Fraction) -> None:
        """For `lasts_ns` the wall clock runs at `rate` seconds a second; other faults may lie
        within (see build)."""
        self.set_wall_rate(rate)
        self.advance_to(self.now_world_ns + lasts_ns)
        self.set_wall_rate(_ONE)

    def set_wall_rate(self, rate: Fraction) -> None:
        """From now on the wall clock runs at `rate`."""
        self._change(wall_rate=rate)

    def freeze(self, lasts_ns: int) -> None:
        """Processes are stopped for `lasts_ns`; every clock goes on."""
        self._change(processes_run=False)
        self.advance_to(self.now_world_ns + lasts_ns)
        self._change(processes_run=True)

    def reading(self, world_ns: int) -> ClockReading:
        """The clocks at `world_ns`; at a jump, the clocks just after it."""
        return self._segment_at(world_ns).reading(world_ns)

    def reading_before(self, world_ns: int) -> ClockReading:
        """The clocks at `world_ns`, but at a jump those just before it."""
        position = bisect_right(self._begins_world_ns, world_ns - 1) - 1
        return self._segments[max(position, 0)].reading(world_ns)

    def processes_run(self, world_ns: int) -> bool:
        """Whether a process on this node can execute at `world_ns`: not asleep, not paused, not
        frozen."""
        return self._segment_at(world_ns).processes_run

    def world_ns_when_running(self, world_ns: int) -> int:
        """The first world time not before `world_ns` at which processes run."""
        return next(
            max(world_ns, segment.begins_world_ns)
            for segment in self._segments_from(world_ns)
            if segment.processes_run
        )

    def world_ns_at_monotonic(self, due_monotonic_ns: int, from_world_ns: int) -> int:
        """When a timer armed for `due_monotonic_ns` fires: the first world time from
        `from_world_ns` on at which the monotonic clock has reached it and processes run."""
        first = self._segment_at(from_world_ns)
        if (
            first.monotonic_runs and first.processes_run
        ):  # as nearly always; called at every jump of a run
            reached_ns = first.begins_world_ns + due_monotonic_ns - first.clocks.monotonic_ns
            if reached_ns < self._ends_world_ns(first):
                return max(reached_ns, from_world_ns)
        for segment in self._segments_from(from_world_ns):
            begins_ns = max(segment.begins_world_ns, from_world_ns)
            short_ns = due_monotonic_ns - segment.reading(begins_ns).monotonic_ns
            if short_ns <= 0:
                return self.world_ns_when_running(begins_ns)
            if segment.monotonic_runs and begins_ns + short_ns < self._ends_world_ns(segment):
                return self.world_ns_when_running(begins_ns + short_ns)
        raise AssertionError("the last segment of a timeline runs")

    def world_ns_at_wall(self, due_wall_ns: int, from_world_ns: int) -> int:
        """The first world time from `from_world_ns` on at which the wall clock shows `due_wall_ns`
        or later."""
        for segment in self._segments_from(from_world_ns):
            begins_ns = max(segment.begins_world_ns, from_world_ns)
            if segment.reading(begins_ns).wall_ns >= due_wall_ns:
                return begins_ns
            if segment.wall_rate > 0:
                # Counted from the beginning of the segment, where no fraction of a nanosecond has
                # been cut off yet.
                short_ns, rate = due_wall_ns - segment.clocks.wall_ns, segment.wall_rate
                reached_ns = segment.begins_world_ns + -(
                    -short_ns * rate.denominator // rate.numerator
                )
                if reached_ns < self._ends_world_ns(segment):
                    return reached_ns
        raise AssertionError("the last segment of a timeline runs")

    def world_ns_at_boottime(self, due_boottime_ns: int, from_world_ns: int) -> int:
        """The first world time from `from_world_ns` on at which the boottime clock shows
        `due_boottime_ns` or later."""
        for segment in self._segments_from(from_world_ns):
            begins_ns = max(segment.begins_world_ns, from_world_ns)
            short_ns = due_boottime_ns - segment.reading(begins_ns).boottime_ns
            if short_ns <= 0:
                return begins_ns
            if segment.boottime_runs and begins_ns + short_ns < self._ends_world_ns(segment):
                return begins_ns + short_ns
        raise AssertionError("the last segment of a timeline runs")

    def world_ns_below_wall(self, wall_ns: int, from_world_ns: int) -> int | None:
        """The first world time from `from_world_ns` on at which the wall clock shows less than
        `wall_ns`; None: never, since nothing sets it back so far."""
        begins = (
            max(segment.begins_world_ns, from_world_ns)
            for segment in self._segments_from(from_world_ns)
        )
        return next(
            (begins_ns for begins_ns in begins if self.reading(begins_ns).wall_ns < wall_ns), None
        )

    def wall_reached_world_ns(self, wall_ns: int, from_world_ns: int) -> Iterator[int]:
        """Every world time from `from_world_ns` on at which the wall clock comes to show `wall_ns`
        or later, in order: a clock that is set back behind it reaches it once more."""
        earliest_ns: int | None = from_world_ns
        while earliest_ns is not None:
            reached_ns = self.world_ns_at_wall(wall_ns, earliest_ns)
            yield reached_ns
            earliest_ns = self.world_ns_below_wall(wall_ns, reached_ns)

    def next_change_world_ns(self, after_world_ns: int) -> int | None:
        """When after `after_world_ns` a clock next jumps, stops, runs on or changes its rate;
        None: never."""
        position = bisect_right(self._begins_world_ns, after_world_ns)
        return self._begins_world_ns[position] if position < len(self._begins_world_ns) else None

    @property
    def _last(self) -> _Segment:
        return self._segments[-1]

    def _segment_at(self, world_ns: int) -> _Segment:
        return self._segments[max(bisect_right(self._begins_world_ns, world_ns) - 1, 0)]

    def _segments_from(self, world_ns: int) -> list[_Segment]:
        return self._segments[max(bisect_right(self._begins_world_ns, world_ns) - 1, 0) :]

    def _ends_world_ns(self, segment: _Segment) -> float:
        position = bisect_right(self._begins_world_ns, segment.begins_world_ns)
        return (
            self._begins_world_ns[position]
            if position < len(self._begins_world_ns)
            else float("inf")
        )

    def _change(
        self,
        clocks: ClockReading | None = None,
        wall_rate: Fraction | None = None,
        monotonic_runs: bool | None = None,
        boottime_runs: bool | None = None,
        processes_run: bool | None = None,
    ) -> None:
        last = self._last
        changed = replace(
            last,
            begins_world_ns=self.now_world_ns,
            clocks=self.now if clocks is None else clocks,
            wall_rate=last.wall_rate if wall_rate is None else wall_rate,
            monotonic_runs=last.monotonic_runs if monotonic_runs is None else monotonic_runs,
            boottime_runs=last.boottime_runs if boottime_runs is None else boottime_runs,
            processes_run=last.processes_run if processes_run is None else processes_run,
        )
        if last.begins_world_ns == self.now_world_ns and len(self._segments) > 1:
            self._segments[-1] = changed
            return
        self._segments.append(changed)
        self._begins_world_ns.append(self.now_world_ns)


def build_clock(start: ClockReading, faults: tuple[PlannedFault, ...]) -> NodeClock:
    """The clock of a node that starts at `start` and meets `faults` (its own, in order; a drift may
    hold others)."""
    clock = NodeClock(start)
    changes: list[tuple[int, int, PlannedFault]] = []
    for fault in faults:
        # A restart is not a clock fault, and may be planned for a time within one.
        if fault.kind in CLOCK_FAULTS:
            changes.append((fault.at_world_ns, 1, fault))
        if fault.kind == "drift":
            changes.append((fault.ends_world_ns, 0, fault))
    for world_ns, begins, fault in sorted(changes, key=lambda change: change[:2]):
        clock.advance_to(world_ns)
        if fault.kind == "drift":
            clock.set_wall_rate(fault.rate if begins else _ONE)
        elif fault.kind == "suspend":
            clock.suspend(fault.lasts_ns)
        elif fault.kind == "pause":
            clock.pause(fault.lasts_ns, fault.corrected_after_ns, fault.corrected_by_ns)
        elif fault.kind == "step":
            clock.step(fault.by_wall_ns)
        elif fault.kind == "freeze":
            clock.freeze(fault.lasts_ns)
    return clock


def clocks_of(plan: Plan, monotonic_start_ns: int = 0) -> dict[str | None, NodeClock]:
    """The clock of every node of `plan`, and under None that of an authority which is on a node of
    its own and never sleeps."""
    start = ClockReading(plan.starts_wall_s * 1_000_000_000, monotonic_start_ns, monotonic_start_ns)
    own: dict[str | None, list[PlannedFault]] = {}
    for fault in plan.faults:
        own.setdefault(fault.node, []).append(fault)
    clocks: dict[str | None, NodeClock] = {
        node.name: build_clock(start, tuple(own.get(node.name, ()))) for node in plan.nodes
    }
    clocks[None] = NodeClock(start)
    return clocks


# The clocks of the nodes of a plan, by name; None: those of a machine that no fault touches.
Clocks = Mapping[str | None, NodeClock]
