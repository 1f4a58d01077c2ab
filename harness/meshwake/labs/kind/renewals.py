"""Predicts from outside when certificates will be renewed: from what a process holds, and from the
clocks of its node.

ztunnel's rule is the same in every release: the middle of the certificate's validity, converted to
the monotonic clock with the one pair of clocks that it read when it started. A gateway's pilot-agent
reads its clocks again at each issue (ztunnel/renewal.py). In time lapse world time must not leap over
such a moment, nor leave it before the new certificate is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from meshwake.cluster.observe import Held
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.backend import MeshProcess
from meshwake.ztunnel.renewal import agent_waits_ns, renewal_due_wall_ns


@dataclass
class _Identity:
    """The process of an identity, the clocks from which its renewal is counted (ztunnel: those at
    its start; a gateway: those at the issue), and the certificate that is held for it (None: not
    known yet)."""

    process: MeshProcess
    base: ClockReading
    held: Held | None = None

    @property
    def node(self) -> str:
        """On which it lives."""
        return self.process.node

    @property
    def due_monotonic_ns(self) -> int | None:
        """When its certificate will be renewed, by the monotonic clock of its node; None: it has no
        certificate yet."""
        held = self.held
        if held is None:
            return None
        if held.not_before_wall_s is None or held.not_after_wall_s is None:
            return None

        # Both count from the clocks at which they started, and see no later change of the wall clock.
        base = self.base
        not_after_ns = held.not_after_wall_s * NS_PER_S
        if self.process.kind == "proxy":
            return base.monotonic_ns + agent_waits_ns(not_after_ns - base.wall_ns)
        planned_ns = renewal_due_wall_ns(held.not_before_wall_s * NS_PER_S, not_after_ns)
        return base.monotonic_ns + planned_ns - base.wall_ns


class Renewals:
    """The renewals of all identities of a run. `clocks` returns the current clocks of a node."""

    def __init__(self, clocks: Callable[[str], ClockReading]) -> None:
        self._clocks = clocks
        self._identities: dict[str, _Identity] = {}

    def started(self, process: MeshProcess, clocks: ClockReading) -> None:
        """`process` started at these clocks of its node."""
        for identity in process.identities:
            self._identities[identity] = _Identity(process, clocks)

    def holds(self, identity: str, held: Held, clocks: ClockReading) -> None:
        """What its process shows for `identity`; `clocks` of its node when that was issued."""
        each = self._identities[identity]
        each.held = held
        if each.process.kind == "proxy":
            each.base = clocks

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
        ahead = []
        for _, _, left_ns in self._left(asleep):
            # One that is overdue is awaited elsewhere.
            if left_ns is not None and left_ns > 0:
                ahead.append(left_ns)
        return min(ahead, default=None)

    def _left(self, asleep: Collection[str]) -> Iterator[tuple[str, _Identity, int | None]]:
        for identity, each in self._identities.items():
            if each.node in asleep:
                continue
            left_ns = None
            due_ns = each.due_monotonic_ns
            if due_ns is not None:
                left_ns = due_ns - self._clocks(each.node).monotonic_ns
            yield identity, each, left_ns
