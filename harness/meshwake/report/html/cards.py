"""The numbers on top of the page of a run: each says of what it is, so that it can be read alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshwake.checks.facts.certificates import certificates, renewals
from meshwake.checks.facts.spans import Spans
from meshwake.checks.facts.traffic import attempts, failures, outages
from meshwake.checks.format import count, lasting, moment
from meshwake.core.durations import NS_PER_S
from meshwake.core.run import Run
from meshwake.report.tracks import EXPIRED, Bar, NodeTracks

# Certificates have whole seconds only; and no check calls a renewal late before a minute.
_ROUNDING_NS = NS_PER_S
_LATE_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class Fact:
    """A number, what it is of, and whether it is bad news."""

    label: str
    value: str
    note: str = ""
    bad: bool = False


def facts_of(run: Run, nodes: tuple[NodeTracks, ...]) -> Iterator[Fact]:
    """Always the same labels, so that two runs can be compared. Raises whatever a damaged history
    makes its readers raise."""
    yield _outage(run, nodes)
    yield _first_failure(run)
    yield _connections(run)
    yield _latest_renewal(run)
    yield _expired(run, nodes)
    yield _clock_drift(nodes)


def _outage(run: Run, nodes: tuple[NodeTracks, ...]) -> Fact:
    # Two pairs that are out at the same time count once.
    out = Spans(outage.span for outage in outages(run.plan, run.history))
    label = "Outage while awake"
    if out.total_ns == 0:
        return Fact(label, "none", "connections always worked")
    return Fact(label, lasting(out.total_ns), _share(out.total_ns, nodes), bad=True)


def _share(out_ns: int, nodes: tuple[NodeTracks, ...]) -> str:
    """Of the time of the node that was awake longest: an outage of a pair counts only while both
    were."""
    longest_ns = 0
    for node in nodes:
        # A node whose clocks were never recorded has no end.
        if not node.clocks.world_ns:
            continue
        asleep_ns = Spans(node.asleep).total_ns
        longest_ns = max(longest_ns, node.clocks.world_ns[-1] - asleep_ns)
    if longest_ns == 0:
        return ""
    percent = 100 * out_ns / longest_ns
    return f"{percent:.1f} % of {lasting(longest_ns)} awake"


def _first_failure(run: Run) -> Fact:
    failing = failures(run.plan, run.history)
    if not failing:
        return Fact("First failure", "never", "no connection failed")
    return Fact(
        "First failure",
        moment(failing[0].from_world_ns),
        f"{count(len(failing), 'outage')} in all",
        bad=True,
    )


def _connections(run: Run) -> Fact:
    tried = 0
    failed = 0
    for pair in run.plan.pairs:
        events = attempts(run.history, pair)
        tried += len(events)
        failed += sum(not event.ok for event in events)
    return Fact(
        label="Connections failed",
        value=f"{failed} of {tried}",
        note="new connections that were tried",
        bad=failed > 0,
    )


def _latest_renewal(run: Run) -> Fact:
    label = "Latest renewal"
    # None: never done. That is an outage, and shown as one.
    late = [
        renewal.late_ns
        for renewal in renewals(run.plan, run.history)
        if renewal.late_ns is not None
    ]
    if not late:
        return Fact(label, "none", "no renewal fell due")

    worst_ns = max(late)
    all_of_them = count(len(late), "renewal")
    if worst_ns <= _ROUNDING_NS:
        return Fact(label, "on time", f"and so were all {all_of_them}")
    note = f"the worst of {all_of_them}, by the wall clock"
    return Fact(label, f"{lasting(worst_ns)} late", note, bad=worst_ns > _LATE_NS)


def _expired(run: Run, nodes: tuple[NodeTracks, ...]) -> Fact:
    """A certificate is counted once, however often its node slept while it was expired."""
    label = "Expired certificates served"
    number = sum(map(len, certificates(run.history).values()))
    issued = f"{count(number, 'certificate')} issued"
    bars = list(_expired_bars(nodes))
    if not bars:
        return Fact(label, "never", issued)

    served = Spans((bar.from_world_ns, bar.to_world_ns) for _, bar in bars)
    # A bar's text names its certificate, and every part of it has the same.
    expired = {(track, bar.text) for track, bar in bars}
    note = f"{len(expired)} of {issued}, while awake"
    return Fact(label, f"for {lasting(served.total_ns)}", note, bad=True)


def _expired_bars(nodes: tuple[NodeTracks, ...]) -> Iterator[tuple[str, Bar]]:
    for node in nodes:
        for track in node.tracks_of("certificate"):
            for bar in track.bars:
                if bar.state == EXPIRED:
                    yield track.label, bar


def _clock_drift(nodes: tuple[NodeTracks, ...]) -> Fact:
    # The largest in either direction: a clock that was set back is as far off.
    drift_ns = max((node.drift_end_ns for node in nodes), key=abs, default=0)
    value = "none"
    if drift_ns != 0:
        value = lasting(drift_ns)
    return Fact(
        label="Clock drift at the end",
        value=value,
        note="wall minus monotonic clock, since the start",
    )
