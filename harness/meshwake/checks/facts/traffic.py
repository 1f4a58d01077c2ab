"""When a pair could not connect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshwake.checks.facts.clocks import asleep_either
from meshwake.checks.facts.once import once
from meshwake.checks.facts.spans import Span, Spans
from meshwake.core.durations import seconds
from meshwake.core.events import ConnectionAttempted
from meshwake.core.history import History
from meshwake.core.plan import Plan


@dataclass(frozen=True)
class PairFailure:
    """From the first failed attempt of a pair until its next good one, or the end (`recovered`
    False). `awake_ns`: how much of it both nodes were awake."""

    pair: tuple[str, str]
    from_world_ns: int
    to_world_ns: int
    awake_ns: int
    attempts: int
    error: str
    recovered: bool

    @property
    def span(self) -> Span:
        """From its first failed attempt to the next good one."""
        return self.from_world_ns, self.to_world_ns


@once
def _attempts(history: History) -> dict[tuple[str, str], list[ConnectionAttempted]]:
    found: dict[tuple[str, str], list[ConnectionAttempted]] = {}
    for event in history.of(ConnectionAttempted):
        found.setdefault((event.source, event.destination), []).append(event)
    return found


def attempts(history: History, pair: tuple[str, str]) -> list[ConnectionAttempted]:
    """Every attempt of `pair`, in order."""
    return _attempts(history).get(pair, [])


def failures(plan: Plan, history: History) -> tuple[PairFailure, ...]:
    """Every time a pair of the plan could not connect, sleep included, in order of beginning."""
    found: list[PairFailure] = []
    for pair in plan.pairs:
        asleep = asleep_either(plan, history, pair)
        found += _failures_of(history, pair, asleep)
    return tuple(sorted(found, key=lambda failure: (failure.from_world_ns, failure.pair)))


def _failures_of(history: History, pair: tuple[str, str], asleep: Spans) -> Iterator[PairFailure]:
    failed: list[ConnectionAttempted] = []
    # A failure lasts from the first bad attempt to the next good one, not to the last bad one:
    # until it was tried, it is not known to work.
    for event in attempts(history, pair):
        if not event.ok:
            failed.append(event)
        elif failed:  # the first good attempt after bad ones
            yield _failure(pair, failed, event.world_ns, asleep, recovered=True)
            failed = []
    if failed:
        yield _failure(pair, failed, history.end_world_ns, asleep, recovered=False)


def _failure(
    pair: tuple[str, str],
    failed: list[ConnectionAttempted],
    to_world_ns: int,
    asleep: Spans,
    recovered: bool,
) -> PairFailure:
    from_world_ns = failed[0].world_ns
    asleep_ns = asleep.overlap_ns(from_world_ns, to_world_ns)
    return PairFailure(
        pair=pair,
        from_world_ns=from_world_ns,
        to_world_ns=to_world_ns,
        awake_ns=to_world_ns - from_world_ns - asleep_ns,
        attempts=len(failed),
        error=str(failed[0].error),
        recovered=recovered,
    )


@dataclass(frozen=True)
class Outage:
    """A time during which a pair could not connect and both its nodes were awake."""

    pair: tuple[str, str]
    span: Span

    @property
    def from_world_s(self) -> float:
        """From the first failed attempt, or from the wake."""
        return seconds(self.span[0])

    @property
    def to_world_s(self) -> float:
        """Until the next good attempt, the next sleep, or the end."""
        return seconds(self.span[1])


def outages(plan: Plan, history: History) -> tuple[Outage, ...]:
    """`failures`, cut by the sleep of either node: a machine that is asleep misses no
    connection."""
    found = []
    for failure in failures(plan, history):
        asleep = asleep_either(plan, history, failure.pair)
        awake = asleep.without(failure.from_world_ns, failure.to_world_ns)
        found += [Outage(failure.pair, span) for span in awake]
    return tuple(found)
