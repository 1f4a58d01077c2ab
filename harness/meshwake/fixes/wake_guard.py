"""The wake guard in the labs: the real guard (guard/), on the clocks and the processes of a lab's
nodes.

It looks every `period` of its node's monotonic clock. A lab skips the looks at which nothing can
have changed: clocks run on as before, no trouble that is known is due, and no certificate is old
enough to make a new one. What the looks left out would have found, the next one finds: the same
restarts, at the same times (a test compares).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import yaml

from meshwake.clocks.virtual import Clocks, NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.json_types import value_at
from meshwake.core.plan import Plan
from meshwake.fixes.deploy import manifest_of
from meshwake.guard.guard import Guard
from meshwake.guard.settings import Settings, parse_settings
from meshwake.guard.watch import ObservedProcess, PlannedRestart, View, Watcher

NAME = "wake-guard"
IDLE_LONGEST_NS = 3_600 * NS_PER_S
# Of a certificate's life: far less than the half after which it may be replaced.
IDLE_SHARE = 48


def watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    """A guard for each node, as its manifest sets it. Raises BadInput."""
    settings, turns = read_settings(manifest_of(plan)), Turns()
    return [
        LabGuard(node.name, clocks[node.name], settings, turns, plan.lifetime_s)
        for node in plan.nodes
    ]


class Turns:
    """Who may restart: one node a turn at a time. In a cluster Leases, here shared by the guards of
    a run."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[str, int]] = {}

    def take(self, number: int, node: str, world_ns: int, holds_ns: int) -> bool:
        """Whether `node` has that turn from now on for `holds_ns`."""
        # A turn that was never taken has run out at -1.
        holder, until_world_ns = self._held.get(number, (node, -1))
        is_held = world_ns < until_world_ns

        # Its holder may take it again, which makes it longer.
        if is_held and node != holder:
            return False
        self._held[number] = (node, world_ns + holds_ns)
        return True


class LabGuard:
    """The guard of one node of a lab; see Watcher. `idles` False: no look is skipped."""

    def __init__(
        self,
        node: str,
        clock: NodeClock,
        settings: Settings,
        turns: Turns,
        lifetime_s: int,
        *,
        idles: bool = True,
    ) -> None:
        self._clock, self._settings, self._idles = clock, settings, idles
        share_of_life_ns = lifetime_s * NS_PER_S // IDLE_SHARE
        self._idle_ns = min(IDLE_LONGEST_NS, share_of_life_ns)

        # Guards of different turns look at different times (guard/settings.py).
        self._first_look_ns = settings.first_look_after_ns(node)
        begins_monotonic_ns = clock.reading_before(0).monotonic_ns
        self._started_monotonic_ns = begins_monotonic_ns + self._first_look_ns

        self._node = _NodeInLab(node, turns, settings.turn_of(node))
        self._guard = Guard(self._node, settings)

    def next_look_world_ns(self, after_world_ns: int) -> int | None:
        """See Watcher."""
        if after_world_ns < 0:
            return self._first_look_ns
        if self._guard.busy or not self._idles:
            return self._look_after(after_world_ns)

        until_ns = after_world_ns + self._idle_ns

        # A clock that jumps, or begins to drift.
        change_ns = self._clock.next_change_world_ns(after_world_ns)
        if change_ns is not None:
            until_ns = min(until_ns, change_ns)

        # Trouble that the guard has foreseen.
        due_wall_ns = self._guard.next_wall_ns
        if due_wall_ns is not None:
            due_ns = self._clock.world_ns_at_wall(due_wall_ns, after_world_ns)
            until_ns = min(until_ns, due_ns)

        # The last look before is kept: it makes sure that a jump is seen as one.
        last_before_ns = until_ns - 2 * self._settings.period_ns
        return self._look_after(max(last_before_ns, after_world_ns))

    def _look_after(self, world_ns: int) -> int:
        """The first time after `world_ns` at which its timer fires."""
        # A ticker of the monotonic clock: looks stay at whole periods from the start, so that
        # looks which were skipped do not move those that follow.
        period_ns = self._settings.period_ns
        passed_ns = self._clock.reading(world_ns).monotonic_ns - self._started_monotonic_ns
        periods = passed_ns // period_ns + 1
        next_monotonic_ns = self._started_monotonic_ns + periods * period_ns
        return self._clock.world_ns_at_monotonic(next_monotonic_ns, world_ns)

    def look(self, view: View) -> list[PlannedRestart]:
        """See Watcher."""
        self._node.view = view
        self._node.restarts = []
        self._guard.look()
        return self._node.restarts


class _NodeInLab:
    """See guard.GuardedNode; `view` is the world at this look, `restarts` what the guard did."""

    view: View

    def __init__(self, name: str, turns: Turns, turn: int) -> None:
        self.name, self._turns, self._turn = name, turns, turn
        self.restarts: list[PlannedRestart] = []

    def clocks(self) -> ClockReading:
        """See guard.GuardedNode."""
        return self.view.clocks(self.name)

    def seen(self) -> Sequence[ObservedProcess]:
        """See guard.GuardedNode."""
        return self.view.seen(self.name)

    def authority_answers(self) -> bool:
        """See guard.GuardedNode."""
        return self.view.authority_answers()

    def take_turn(self, holds_ns: int) -> bool:
        """See guard.GuardedNode."""
        return self._turns.take(self._turn, self.name, self.view.world_ns, holds_ns)

    def restart(self, process: ObservedProcess, why: str) -> None:
        """See guard.GuardedNode. A lab restarts all ztunnels of a node, or all its proxies."""
        what: Any = "ztunnel" if process.target == "ztunnel" else "proxies"
        restart = PlannedRestart(self.view.world_ns, self.name, NAME, what)

        # Two ztunnels of a node in one look are one restart of the node.
        if restart not in self.restarts:
            self.restarts.append(restart)

    def held_back(self, process: ObservedProcess, why: str) -> None:
        """See guard.GuardedNode: labs have no Events."""


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def read_settings(manifest: str) -> Settings:
    """The guard's settings in its DaemonSet (YAML, and other objects). Raises BadInput."""
    words: list[str] = []
    daemon_sets = 0
    try:
        for document in filter(_is_daemon_set, yaml.safe_load_all(manifest)):
            daemon_sets += 1
            pod = document["spec"]["template"]["spec"]
            for container in pod["containers"]:
                # The image's entry point is the guard; `args` are its options.
                words += map(str, container.get("args") or [])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        on_one_line = " ".join(str(error).split())
        raise BadInput(
            f"fix.manifest: holds no DaemonSet with containers: {on_one_line}"
        ) from error

    if daemon_sets != 1:
        raise BadInput(f"fix.manifest: holds {daemon_sets} DaemonSets; expected one, the guard's")
    if "--only-look" in words:
        raise BadInput(
            "fix.manifest: this guard has --only-look, so it restarts nothing; expected "
            "one without it"
        )
    return parse_settings(words)


def with_turns(manifest: str, turns: int) -> str:
    """The guard's manifest with that `--turns`; as the last of its arguments, so that it counts.
    Raises BadInput."""
    # What is not an object, such as nothing between two lines of dashes, no API server takes.
    documents = [each for each in yaml.safe_load_all(manifest) if isinstance(each, dict)]
    for document in filter(_is_daemon_set, documents):
        pod = document["spec"]["template"]["spec"]
        for container in pod["containers"]:
            arguments = container.get("args") or []
            container["args"] = [*arguments, f"--turns={turns}"]

    changed = yaml.safe_dump_all(documents)
    # For its refusals only.
    read_settings(changed)
    return changed


def _is_daemon_set(document: object) -> bool:
    return value_at(document, "kind") == "DaemonSet"
