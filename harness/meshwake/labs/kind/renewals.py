"""When certificates will be renewed, known from outside: what ztunnel holds, and the clocks at its
start.

Of every release: the middle of the certificate's validity, made monotonic with the one pair of
clocks that ztunnel took when it started. Where time is skipped, world time must not leap over such
a moment, and not on from it before the new certificate is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from meshwake.cluster.observe import Held
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.ztunnel.renewal import renewal_due_wall_ns


@dataclass
class _Identity:
    """On which node it lives, the clocks when its ztunnel started, and what is held for it (None:
    nothing is known)."""

    node: str
    base: ClockReading
    held: Held | None = None

    @property
    def due_monotonic_ns(self) -> int | None:
        """When its certificate will be renewed, by the clock of its node; None: it has none yet."""
        held = self.held
        if held is None or held.not_before_wall_s is None or held.not_after_wall_s is None:
            return None
        planned_ns = renewal_due_wall_ns(
            held.not_before_wall_s * NS_PER_S, held.not_after_wall_s * NS_PER_S
        )
        return self.base.monotonic_ns + planned_ns - self.base.wall_ns


class Renewals:
    """Of every identity of a run. `clocks` gives those that a node has now."""

    def __init__(self, clocks: Callable[[str], ClockReading]) -> None:
        self._clocks = clocks
        self._identities: dict[str, _Identity] = {}

    def started(self, node: str, identities: Collection[str], clocks: ClockReading) -> None:
        """A ztunnel that serves `identities` started at these clocks of its node."""
        for identity in identities:
            self._identities[identity] = _Identity(node, clocks)

    def holds(self, identity: str, held: Held) -> None:
        """What its ztunnel says of `identity`."""
        self._identities[identity].held = held

    def overdue(self, asleep: Collection[str]) -> dict[str, str]:
        """What should have come and has not, on nodes that are awake: by identity, in words that
        name this wait."""
        found = {}
        for identity, each, left_ns in self._left(asleep):
            if left_ns is None:
                found[identity] = f"a certificate of {identity} on node {each.node}"
            elif left_ns <= 0:
                assert each.held is not None
                found[identity] = (
                    f"the renewal of {identity} on node {each.node} (serial {each.held.serial})"
                )
        return found

    def next_in_ns(self, asleep: Collection[str]) -> int | None:
        """How long until the next one falls due on a node that is awake; None: none is known that
        lies ahead."""
        return min(
            (
                left_ns
                for _, _, left_ns in self._left(asleep)
                if left_ns is not None and left_ns > 0
            ),
            default=None,
        )

    def _left(self, asleep: Collection[str]) -> Iterator[tuple[str, _Identity, int | None]]:
        for identity, each in self._identities.items():
            if each.node not in asleep:
                due_ns = each.due_monotonic_ns
                yield (
                    identity,
                    each,
                    None if due_ns is None else due_ns - self._clocks(each.node).monotonic_ns,
                )
