"""No identity asks the authority more than twenty times a minute.

A retry that backs off (1, 2, 4, 8 ... seconds) stays far below. A ztunnel whose clock was stepped
back by more than half a certificate's life asks without a pause: 426 requests in five seconds were
measured on 1.28.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import count, lasting, moment, moment_exactly
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import CsrAnswered, RunEnded
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "ca_not_flooded"
TITLE = "The CA is not flooded with requests"
# Between the two: ztunnel's backoff (labs/model/ztunnel.py) makes six or seven requests in its
# first minute, and the flood above about 5,000.
WINDOW_NS = 60 * NS_PER_S
REQUESTS_MAX = 20


@dataclass(frozen=True)
class _Flood:
    """The fullest minute of one identity."""

    identity: str
    from_world_ns: int
    requests: int

    def text(self, when: str) -> str:
        return (
            f"{self.identity} sent {count(self.requests, 'request')} within "
            f"{lasting(WINDOW_NS)} from {when} on"
        )


def check(plan: Plan, history: History) -> Finding:
    """Requests of every kind of answer count."""
    requests: dict[str, list[int]] = {}
    for event in history.of(CsrAnswered):
        requests.setdefault(event.identity, []).append(event.world_ns)
    stopped = history.of(RunEnded, reason="csr_flood")
    if not requests and not stopped:
        return unknown(NAME, "no request to the authority was recorded")
    minutes = [_fullest(identity, worlds_ns) for identity, worlds_ns in requests.items()]
    floods = [minute for minute in minutes if minute.requests > REQUESTS_MAX]
    floods.sort(key=lambda flood: (flood.from_world_ns, flood.identity))
    if floods:
        return broken(
            NAME,
            floods[0].text(moment(floods[0].from_world_ns)),
            [_place(flood) for flood in floods],
        )
    # A lab counts the requests of all identities together (labs/limits.py), so it may stop a run
    # in which none of them alone is over the limit.
    if stopped:
        ended = stopped[0].world_ns
        return broken(
            NAME,
            f"the run was stopped at {moment(ended)} because of the many requests",
            [place(ended, "stopped")],
        )
    most = max(minutes, key=lambda minute: minute.requests)
    return holds(
        NAME,
        f"no identity sent more than {count(most.requests, 'request')} within {lasting(WINDOW_NS)}",
    )


def _fullest(identity: str, worlds_ns: list[int]) -> _Flood:
    """The minute of an identity in which it sent the most requests."""
    best = _Flood(identity, worlds_ns[0], 0)
    # A window that is pushed along: `first` is the oldest request within a minute of the last.
    first = 0
    for last, world_ns in enumerate(worlds_ns):
        while world_ns - worlds_ns[first] > WINDOW_NS:
            first += 1
        requests = last - first + 1
        if requests > best.requests:
            best = _Flood(identity, worlds_ns[first], requests)
    return best


def _place(flood: _Flood) -> Evidence:
    text = flood.text(moment_exactly(flood.from_world_ns))
    return place(flood.from_world_ns, text, identity=flood.identity, requests=flood.requests)
