"""No ztunnel holds a certificate past its notAfter while its node is awake: strictly, not for a
second.

Judged by the node's own wall clock, which is what its peers' clocks show too unless they were
touched. A node that wakes with an expired certificate breaks this, whatever is deployed, until it
has a new one (kinder: recovers_within).
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwake.checks.facts.certificates import Holding, holdings, life_drift_ns
from meshwake.checks.facts.clocks import timeline
from meshwake.checks.facts.spans import Span
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import count, lasting, moment, moment_exactly
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "no_expired_certificate_served"
TITLE = "No expired certificate is served"
# notAfter is a whole second of wall time (RFC 5280), so a fraction of one past it proves nothing.
TOLERATED_NS = NS_PER_S


@dataclass(frozen=True)
class _Served:
    """A certificate served while expired, in the waking hours `spans`."""

    holding: Holding
    spans: list[Span]
    drift_ns: int | None

    @property
    def from_world_ns(self) -> int:
        return self.spans[0][0]

    @property
    def awake_ns(self) -> int:
        return sum(to_ns - from_ns for from_ns, to_ns in self.spans)

    @property
    def drift_text(self) -> str:
        if self.drift_ns is None:
            return ""
        return f" (clock drift {lasting(self.drift_ns)})"


def check(plan: Plan, history: History) -> Finding:
    """Every certificate held, whether the authority recorded it or ztunnel reported it."""
    held = holdings(history)
    if not held:
        return unknown(NAME, "no ztunnel held a certificate in this history")
    served: list[_Served] = []
    for holding in held:
        one = _served(history, holding)
        if one.awake_ns >= TOLERATED_NS:
            served.append(one)
    served.sort(key=lambda one: one.from_world_ns)
    if not served:
        certificates = count(len(held), "certificate")
        return holds(
            NAME,
            f"none of {certificates} was held past its notAfter by a node that was awake",
        )

    first = served[0]
    because = (
        f"{first.holding.identity} served an expired certificate for {lasting(first.awake_ns)}, "
        f"first at {moment(first.from_world_ns)}{first.drift_text}"
    )
    if len(served) > 1:
        longest_ns = max(one.awake_ns for one in served)
        total_ns = sum(one.awake_ns for one in served)
        because += (
            f"; {len(served)} certificates in all, for up to {lasting(longest_ns)}, "
            f"{lasting(total_ns)} together"
        )
    return broken(NAME, because, [_place(one) for one in served])


def _served(history: History, holding: Holding) -> _Served:
    """When a certificate was served while expired; `spans` are empty where it never was."""
    clock = timeline(history, holding.life.node)
    expired = clock.spans_at_or_after_wall(
        holding.not_after_wall_s * NS_PER_S, holding.from_world_ns, holding.to_world_ns
    )
    spans: list[Span] = []
    for from_ns, to_ns in expired:
        # Asleep it was expired too, and served to no peer.
        spans += clock.asleep.without(from_ns, to_ns)
    drift_ns: int | None = None
    if spans:
        # At the beginning, which is what made this certificate expire; it may grow later.
        begins_ns, _ = spans[0]
        drift_ns = life_drift_ns(history, holding.life, begins_ns)
    return _Served(holding, spans, drift_ns)


def _place(served: _Served) -> Evidence:
    to_world_ns = served.spans[-1][1]
    text = (
        f"{served.holding.identity} served an expired certificate from "
        f"{moment_exactly(served.from_world_ns)} "
        f"until {moment_exactly(to_world_ns)}, {lasting(served.awake_ns)} awake{served.drift_text}"
    )
    return place(
        served.from_world_ns,
        text,
        identity=served.holding.identity,
        serial=served.holding.serial,
        from_world_s=seconds(served.from_world_ns),
        to_world_s=seconds(to_world_ns),
        expired_s=seconds(served.awake_ns),
    )
