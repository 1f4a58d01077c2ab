"""Forecasts the next outage of each certificate: when, for how long, and after how much more sleep.

Everything follows from one number, the clock drift: by how much wall and monotonic clock have
diverged since ztunnel started (harness/meshwake/ztunnel/foresight.py has the arithmetic). A cluster
does not show it. What a cluster shows, and what follows from that (tried on a real kernel,
tests/unit/analysis/test_forecast.py):

    measured    meshwake_guard_drift_seconds, where the wake guard runs
    journal     the node's journal: each entry has wall and monotonic time, so the drift is how much more their
                difference is now than when the container started; exact, whatever moved the clocks, where entries
                are close around that start, and else between two bounds
    elapsed     how long ztunnel has run by CLOCK_MONOTONIC (ac_etime of taskstats; needs CAP_NET_ADMIN)
    start       the container's start by the wall clock (Kubernetes) against its start in /proc/PID/stat, which counts
                BOOTTIME: shows pauses of the whole VM and steps. A suspend moves wall and boottime alike and is not
                visible; it adds at most what boottime is ahead of monotonic on this node since boot, if that was read
                too, and any amount if it was not

So the drift may be known between two bounds only; then both futures are computed, and reported
where they differ. Kubernetes has starts in whole seconds, so the drift is known to half a second.

All times are of the node's own wall clock. The limit: a forecast holds while nothing but the given
sleep moves the clocks, the authority answers, and the same ztunnel runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import ExitCode
from meshwake.ztunnel.renewal import (
    expired_from_wall_ns,
    forecast_renewal,
    renewal_due_wall_ns,
    renews_without_end,
)

DriftFrom = Literal["measured", "journal", "elapsed", "start"]
Prospect = Literal["none", "outage", "unknown"]
# Futures that differ by less are one: Kubernetes has starts in whole seconds.
ALIKE_NS = 2 * NS_PER_S


class ProcessStart(NamedTuple):
    """When a process started: between which two moments of the wall clock, and by BOOTTIME since
    boot."""

    earliest_wall_ns: int
    latest_wall_ns: int
    boottime_ns: int | None = None


@dataclass(frozen=True)
class ObservedClocks:
    """What was observed of the clocks of one ztunnel. `knows_monotonic` False: the monotonic clock
    of `now` is 0 because it was not read."""

    now: ClockReading
    knows_monotonic: bool = True
    started: ProcessStart | None = None
    measured_drift_ns: int | None = None
    # The bounds of the drift by the journal; equal where entries are close around ztunnel's start.
    apart_since_start_ns: tuple[int, int] | None = None
    elapsed_monotonic_ns: int | None = None


@dataclass(frozen=True)
class DriftRange:
    """The clock drift, between two bounds (`most_ns` None: no upper bound is known), and from what
    it is known."""

    least_ns: int
    most_ns: int | None
    known_from: DriftFrom

    @property
    def best_ns(self) -> int:
        """The number to show: the middle where the bounds are close, else the largest possible."""
        if self.most_ns is None:
            return self.least_ns
        if self.is_exact:
            return (self.least_ns + self.most_ns) // 2

        # A larger drift makes every renewal later: this is the safe side.
        return self.most_ns

    @property
    def is_exact(self) -> bool:
        """Whether the bounds are close enough to speak of one number."""
        if self.most_ns is None:
            return False
        return self.most_ns - self.least_ns <= ALIKE_NS


def drift_of(shown: ObservedClocks) -> DriftRange | None:
    """The clock drift by the best source that there is; None when there is none."""
    if shown.measured_drift_ns is not None:
        return DriftRange(shown.measured_drift_ns, shown.measured_drift_ns, "measured")
    if shown.apart_since_start_ns is not None:
        return DriftRange(*shown.apart_since_start_ns, "journal")
    if shown.started is not None:
        return _drift_since(shown, shown.started)

    # Clocks alone say how far they are apart, and not since when.
    return None


def _drift_since(shown: ObservedClocks, started: ProcessStart) -> DriftRange | None:
    # How old the process is by the wall clock, at least and at most.
    youngest_ns = shown.now.wall_ns - started.latest_wall_ns
    oldest_ns = shown.now.wall_ns - started.earliest_wall_ns

    # Its age by its own monotonic clock, where that was read in it: the difference is the drift.
    age_ns = shown.elapsed_monotonic_ns
    if age_ns is not None:
        return DriftRange(youngest_ns - age_ns, oldest_ns - age_ns, "elapsed")

    if started.boottime_ns is None:
        return None

    # By boottime a pause and a step are seen, and a suspend is not: it counts that as well.
    ran_boottime_ns = shown.now.boottime_ns - started.boottime_ns
    least_ns, most_ns = youngest_ns - ran_boottime_ns, oldest_ns - ran_boottime_ns
    if not shown.knows_monotonic:
        return DriftRange(least_ns, None, "start")

    # Slept since boot. How much of it was before ztunnel started is not known, but it is at most
    # the time from boot to start.
    slept_ns = max(shown.now.boottime_ns - shown.now.monotonic_ns, 0)
    slept_at_least_ns = max(slept_ns - started.boottime_ns, 0)
    slept_at_most_ns = min(slept_ns, ran_boottime_ns)
    return DriftRange(least_ns + slept_at_least_ns, most_ns + slept_at_most_ns, "start")


class HeldCertificate(NamedTuple):
    """What ztunnel holds for one identity; the times are None while it holds no certificate."""

    identity: str
    state: str
    not_before_wall_ns: int | None
    not_after_wall_ns: int | None


@dataclass(frozen=True)
class ObservedNode:
    """One node, as observed at one moment."""

    name: str
    process: str
    shown: ObservedClocks
    held: tuple[HeldCertificate, ...]
    namespace: str | None = None


@dataclass(frozen=True)
class IdentityForecast:
    """The forecast of one certificate. `prospect` "outage": from `outage_from` to `outage_to` new
    connections fail. `room_ns`: by how much more the clock drift may grow before each of its
    certificates expires before its renewal. `overdue_since`: when it should have been renewed and
    was not; then it is not known when it will be."""

    identity: str
    state: str
    prospect: Prospect
    not_after_wall_ns: int | None = None
    renews_wall_ns: int | None = None
    outage_from_wall_ns: int | None = None
    outage_to_wall_ns: int | None = None
    room_ns: int | None = None
    renews_without_end: bool = False
    overdue_since_wall_ns: int | None = None


@dataclass(frozen=True)
class NodeForecast:
    """The forecast of one node; without a drift there is none of its identities. `held`: how many
    certificates it holds."""

    node: str
    process: str
    now_wall_ns: int
    sleep_ns: int
    drift: DriftRange | None
    identities: tuple[IdentityForecast, ...]
    namespace: str | None = None
    held: int = 0

    @property
    def prospect(self) -> Prospect:
        """The worst of its identities; "none" where it holds nothing that could expire."""
        if self.drift is None:
            return "unknown"

        found = {each.prospect for each in self.identities}
        # One outage that is certain is worse than any number of doubts.
        if "outage" in found:
            return "outage"
        if "unknown" in found:
            return "unknown"
        return "none"

    @property
    def room_ns(self) -> int | None:
        """The least room of its identities."""
        rooms_ns = [each.room_ns for each in self.identities if each.room_ns is not None]
        return min(rooms_ns, default=None)


def forecast_node(node: ObservedNode, sleep_ns: int = 0) -> NodeForecast:
    """The forecast of every certificate of `node`, if the node falls asleep now for `sleep_ns`."""
    drift = drift_of(node.shown)
    identities: tuple[IdentityForecast, ...] = ()
    if drift is not None:
        identities = tuple(_forecast(each, drift, node.shown, sleep_ns) for each in node.held)

    return NodeForecast(
        node.name,
        node.process,
        node.shown.now.wall_ns,
        sleep_ns,
        drift,
        identities,
        node.namespace,
        held=len(node.held),
    )


def _forecast(
    held: HeldCertificate, drift: DriftRange, shown: ObservedClocks, sleep_ns: int
) -> IdentityForecast:
    now_ns = shown.now.wall_ns
    overdue = _overdue(held, drift, now_ns)
    if overdue is not None:
        return overdue

    best = _future(held, drift.best_ns, now_ns, sleep_ns)
    if drift.is_exact or best.prospect == "unknown":
        return best

    # Two futures, of the smallest drift and of the largest: what both have in common is certain.
    least = _future(held, drift.least_ns, now_ns, sleep_ns)
    if least.prospect == best.prospect == "outage":
        return best

    # Without an upper bound only what happens at least is certain.
    has_bound = drift.most_ns is not None
    if has_bound and least.prospect == best.prospect:
        return best
    return replace(best, prospect="unknown")


def _overdue(held: HeldCertificate, drift: DriftRange, now_ns: int) -> IdentityForecast | None:
    """A certificate that is still held though, for every possible drift, it should have been
    renewed: its authority does not answer, or the drift is wrong. Where it has expired, the outage
    is under way."""
    begins_ns, ends_ns = held.not_before_wall_ns, held.not_after_wall_ns
    if begins_ns is None or ends_ns is None or drift.most_ns is None:
        return None

    # By the largest drift that is possible it was due last.
    due_ns = renewal_due_wall_ns(begins_ns, ends_ns) + drift.most_ns
    if due_ns + RENEWED_WITHIN_NS >= now_ns:
        return None

    # One that is renewed again and again is always due, and not overdue.
    if renews_without_end(begins_ns, ends_ns, drift.most_ns):
        return None

    expires_ns = expired_from_wall_ns(ends_ns)
    has_expired = expires_ns <= now_ns
    return IdentityForecast(
        identity=held.identity,
        state=held.state,
        prospect="outage" if has_expired else "unknown",
        not_after_wall_ns=ends_ns,
        outage_from_wall_ns=expires_ns if has_expired else None,
        overdue_since_wall_ns=due_ns,
    )


# A renewal that is due is done within so long, unless something prevents it.
RENEWED_WITHIN_NS = 5 * 60 * NS_PER_S


def _future(held: HeldCertificate, drift_ns: int, now_ns: int, sleep_ns: int) -> IdentityForecast:
    """The future of one certificate for one drift."""
    begins_ns, ends_ns = held.not_before_wall_ns, held.not_after_wall_ns
    if begins_ns is None or ends_ns is None:
        return IdentityForecast(held.identity, held.state, "unknown")

    # A sleep from now on makes every renewal later by itself, on top of the drift that is there.
    wakes_ns, late_ns = now_ns + sleep_ns, drift_ns + sleep_ns
    seen = forecast_renewal(begins_ns, ends_ns, late_ns, wakes_ns)

    outage_from_ns = None
    # An outage that would begin asleep begins at the wake: asleep there is no connection to miss.
    if seen.outage_from_wall_ns is not None:
        outage_from_ns = max(seen.outage_from_wall_ns, wakes_ns)
    elif sleep_ns and expired_from_wall_ns(ends_ns) <= wakes_ns < seen.renews_wall_ns:
        outage_from_ns = wakes_ns

    return IdentityForecast(
        identity=held.identity,
        state=held.state,
        prospect="none" if outage_from_ns is None else "outage",
        not_after_wall_ns=ends_ns,
        renews_wall_ns=seen.renews_wall_ns,
        outage_from_wall_ns=outage_from_ns,
        outage_to_wall_ns=None if outage_from_ns is None else seen.renews_wall_ns,
        room_ns=ends_ns - renewal_due_wall_ns(begins_ns, ends_ns) - late_ns,
        renews_without_end=renews_without_end(begins_ns, ends_ns, late_ns),
    )


def exit_code_of(forecasts: Sequence[NodeForecast]) -> ExitCode:
    """0: no outage ahead; 1: one is ahead or under way; 2: not known for some node, and the others
    have none."""
    found = {each.prospect for each in forecasts}
    if "outage" in found:
        return ExitCode.SURPRISE

    # Of no node nothing is known, either.
    if "unknown" in found or not forecasts:
        return ExitCode.UNKNOWN
    return ExitCode.AS_EXPECTED
