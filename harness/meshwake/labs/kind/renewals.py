"""Predicts from outside when certificates will be renewed: from what ztunnel holds, and from the
clocks at its start.

The rule is the same in every release: the middle of the certificate's validity, converted to the
monotonic clock with the one pair of clocks that ztunnel read when it started. In time lapse world
time must not leap over such a moment, nor leave it before the new certificate is there.
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
    """The node of an identity, the clocks when its ztunnel started, and the certificate that is
    held for it (None: not known yet)."""

    node: str
    base: ClockReading
    held: Held | None = None

    @property
    def due_monotonic_ns(self) -> int | None:
        """When its certificate will be renewed, by the monotonic clock of its node; None: it has no
        certificate yet."""
        held = self.held
        if held is None or held.not_before_wall_s is None or held.not_after_wall_s is None:
            return None
        planned_ns = renewal_due_wall_ns(
            held.not_before_wall_s * NS_PER_S, held.not_after_wall_s * NS_PER_S
        )
        return self.base.monotonic_ns + planned_ns - self.base.wall_ns


class Renewals:
    """The renewals of all identities of a run. `clocks` returns the current clocks of a node."""

    def __init__(self, clocks: Callable[[str], ClockReading]) -> None:
        self._clocks = clocks
        self._identities: dict[str, _Identity] = {}

    def started(self, node: str, identities: Collection[str], clocks: ClockReading) -> None:
        """A ztunnel that serves `identities` started at these clocks of its node."""
        for identity in identities:
            self._identities[identity] = _Identity(node, clocks)

    def holds(self, identity: str, held: Held) -> None:
        """What its ztunnel's /config_dump shows for `identity`."""
        self._identities[identity].held = held

    def overdue(self, asleep: Collection[str]) -> dict[str, str]:
        """Certificates that should have arrived and have not, on nodes that are awake: identity ->
        a name for this wait."""
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
        """How long until the next renewal is due on a node that is awake; None: no renewal ahead is
        known."""
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
