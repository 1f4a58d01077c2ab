"""World time of a run in real time, and the clocks of its nodes.

world time   seconds since all ztunnels had started, by the monotonic clock of the machine that the harness is on,
             and every sleep that was injected: while a mover makes a node sleep for 17 min, world
             time jumps by 17 min at once. Where the user's own command really suspended something,
             it jumps by as much as the wall clock of the node says and our own clock does not (we
             may have slept too). Where idle time is skipped it jumps over that, and begins when the
             first certificate was issued, so that renewals come when they come in other labs. It
             never goes back.
clocks       are read inside a node now and then, and at both ends of every fault (clocks/movers/base.py `read`);
             between two looks they run as ours does. A wall clock that has moved on its own account
             since the last look, a time synchronisation that puts it back for one, ends the run:
             nothing after it is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.errors import HarnessError, SubjectFailed
from meshwake.kubernetes.api import Unreachable
from meshwake.system.deadline import Deadline

# NTP slews by half a millisecond a second; a step is more. Reading a clock inside a container takes
# this long at most.
DISTURBED_NS = 2 * NS_PER_S
LOOK_EVERY_S = 2.0


class HostTime(Protocol):
    """Time as the harness itself lives through it."""

    def monotonic_ns(self) -> int:
        """A clock that is never moved."""

    def sleep(self, lasts_s: float) -> None:
        """Lets it pass."""


class SystemTime:
    """This machine's own."""

    def monotonic_ns(self) -> int:
        """See HostTime."""
        return time.monotonic_ns()

    def sleep(self, lasts_s: float) -> None:
        """See HostTime."""
        time.sleep(lasts_s)


def wait_for(
    what: str,
    real: HostTime,
    within_s: float,
    look: Callable[[], str | None],
    *,
    failed: type[HarnessError] = SubjectFailed,
    report: Callable[[str], None] = lambda seen: None,
) -> None:
    """The one wait of this lab: looks until `look` gives None; what it gives else is what was seen,
    which is also what is raised when it cannot be reached. Past the bound `failed` is raised, with
    what was awaited and seen last."""
    deadline = Deadline(
        what,
        within_s,
        failed,
        now_s=lambda: real.monotonic_ns() / NS_PER_S,
        sleep=real.sleep,
    )
    while True:
        try:
            seen = look()
        except Unreachable as error:
            seen = str(error)
        if seen is None:
            return
        deadline.check(seen)
        report(seen)
        deadline.sleep(LOOK_EVERY_S)


class WorldTime:
    """Begins at 0 when it is made, or began `already_ns` ago; see the module."""

    def __init__(self, real: HostTime, already_ns: int = 0) -> None:
        self._real, self._began_ns = real, real.monotonic_ns()
        self._injected_ns = max(already_ns, 0)

    @property
    def now_ns(self) -> int:
        """World time."""
        return self.at(self._real.monotonic_ns())

    def at(self, real_monotonic_ns: int) -> int:
        """World time at a moment of our own monotonic clock that no jump lies behind."""
        return real_monotonic_ns - self._began_ns + self._injected_ns

    def jump(self, by_ns: int) -> None:
        """An injected sleep: world time goes on by so much at once. A negative one is none."""
        self._injected_ns += max(by_ns, 0)


class ClockSource(Protocol):
    """What of a mover is needed here."""

    def read(self, node: str) -> ClockReading:
        """The clocks of a node of the plan, measured inside."""


@dataclass(frozen=True)
class _Look:
    world_ns: int
    clocks: ClockReading

    def at(self, world_ns: int) -> ClockReading:
        passed_ns = world_ns - self.world_ns
        return ClockReading(*(each + passed_ns for each in self.clocks))


class NodeClocks:
    """The clocks of every node of a plan."""

    def __init__(self, source: ClockSource, nodes: tuple[str, ...], world: WorldTime) -> None:
        self._source, self._world = source, world
        self._looks = {node: self._read(node) for node in nodes}
        self._first = next(iter(self._looks.values()))

    def unmoved(self, world_ns: int) -> ClockReading:
        """The clocks of a machine on which no fault lies: those that all had at the beginning, run
        on."""
        return self._first.at(world_ns)

    def at(self, node: str, world_ns: int) -> ClockReading:
        """The clocks at a world time since the last fault of this node ended."""
        return self._looks[node].at(world_ns)

    def measure(self, node: str) -> tuple[int, ClockReading]:
        """Reads them inside the node: the world time of the reading, and the reading."""
        self._looks[node] = look = self._read(node)
        return look.world_ns, look.clocks

    def take(self, node: str, world_ns: int, clocks: ClockReading) -> None:
        """Another process has read them."""
        self._looks[node] = _Look(world_ns, clocks)

    def check_undisturbed(self, node: str) -> None:
        """Reads them, and raises SubjectFailed when the wall clock has moved by itself since the
        last look."""
        before, now = self._looks[node], self._read(node)
        off_ns = drift_ns(before.clocks, now.clocks)
        if abs(off_ns) > DISTURBED_NS:
            raise SubjectFailed(
                f"node {node}: the wall clock moved by {seconds(off_ns):+.1f} s that no "
                "fault of the plan requested, "
                f"within the {seconds(now.world_ns - before.world_ns):.0f} s before "
                f"{seconds(now.world_ns):.0f} s of world time; a time synchronisation may "
                "have put it back: stop it "
                "for the time of the run (docs/kind.md)"
            )
        self._looks[node] = now

    def _read(self, node: str) -> _Look:
        before_ns = self._world.now_ns
        clocks = self._source.read(node)
        # Somewhere between asking and answer: the middle is wrong by half of that at most.
        return _Look((before_ns + self._world.now_ns) // 2, clocks)
