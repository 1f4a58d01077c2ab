"""Every certificate is renewed at the middle of its validity, by the wall clock, give or take a
minute.

Time asleep does not count as late: what fell due in the night is due at the first moment awake.
Early counts too: after a step back by S every renewal of an unpatched ztunnel comes S too soon,
which is where a storm of requests begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwake.checks.facts.certificates import Renewal, life_drift_ns, renewals
from meshwake.checks.facts.clocks import timeline
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import count, lasting, moment, moment_exactly
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "renewals_on_time"
TITLE = "Certificates are renewed on time"
TOLERATED_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class _Wrong:
    """A renewal off its time by `off_ns`: awake time when late, wall time when early (negative).
    `drift_ns`: the clock drift of the process that was to do it."""

    renewal: Renewal
    off_ns: int
    drift_ns: int | None

    @property
    def text(self) -> str:
        who = self.renewal.identity
        drift = ""
        if self.drift_ns is not None:
            drift = f" (clock drift {lasting(self.drift_ns)})"
        if self.renewal.done_world_ns is None:
            issued = moment(self.renewal.certificate.issued_world_ns)
            return (
                f"{who} never renewed its certificate of {issued}, {lasting(self.off_ns)} "
                f"overdue{drift}"
            )
        how = "late (awake time)" if self.off_ns > 0 else "early"
        done = moment(self.renewal.done_world_ns)
        return f"{who} renewed its certificate {lasting(abs(self.off_ns))} {how}, at {done}{drift}"


def check(plan: Plan, history: History) -> Finding:
    """Unknown when no certificate of the run fell due."""
    done = renewals(plan, history)
    if not done:
        return unknown(
            NAME, f"no certificate fell due for renewal within {lasting(history.end_world_ns)}"
        )
    wrong: list[_Wrong] = []
    for renewal in done:
        off_ns = _off(history, renewal)
        if off_ns != 0:
            wrong.append(_Wrong(renewal, off_ns, _drift(history, renewal)))
    if not wrong:
        within = f"came within {lasting(TOLERATED_NS)} of awake time of its due"
        return holds(NAME, f"each of {count(len(done), 'renewal')} {within}")
    because = wrong[0].text
    if len(done) > 1:
        because += f"; {_how_many(wrong, len(done))}"
    return broken(NAME, because, [_place(one) for one in wrong])


def _how_many(wrong: list[_Wrong], of: int) -> str:
    """'3 of 12 renewals late, by up to 4 h; 1 early, by up to 5 m'. Late is awake time."""
    offs_ns = [one.off_ns for one in wrong]
    # The latest is positive, the earliest negative.
    late_by = lasting(max(offs_ns))
    early_by = lasting(-min(offs_ns))
    late = sum(off_ns > 0 for off_ns in offs_ns)
    early = len(offs_ns) - late
    if late == 0:
        return f"{early} of {of} renewals early, by up to {early_by}"
    words = f"{late} of {of} renewals late, by up to {late_by}"
    if early:
        words += f"; {early} early, by up to {early_by}"
    return words


def _off(history: History, renewal: Renewal) -> int:
    """By how much `renewal` was off its time; 0 when it was on time, or not yet a minute overdue at
    the end."""
    certificate = renewal.certificate
    if renewal.late_ns is not None and renewal.late_ns < -TOLERATED_NS:
        return renewal.late_ns
    clock = timeline(history, renewal.node)
    # When the clock of its node showed the due time; after a night that is the moment of waking.
    due_ns = clock.world_ns_at_wall(certificate.due_wall_ns, certificate.issued_world_ns)
    if due_ns is None:
        return 0
    late_ns = clock.awake_ns(due_ns, _done_or_ended_ns(renewal))
    if late_ns <= TOLERATED_NS:
        return 0
    return late_ns


def _drift(history: History, renewal: Renewal) -> int | None:
    return life_drift_ns(history, renewal.certificate.life, _done_or_ended_ns(renewal))


def _done_or_ended_ns(renewal: Renewal) -> int:
    """When it was done; the end of its process for one that never was."""
    if renewal.done_world_ns is None:
        return renewal.certificate.life.until_world_ns
    return renewal.done_world_ns


def _place(wrong: _Wrong) -> Evidence:
    renewal = wrong.renewal
    due_world_ns = renewal.certificate.due_world_ns
    due = moment_exactly(due_world_ns)
    return place(
        due_world_ns if renewal.done_world_ns is None else renewal.done_world_ns,
        f"{wrong.text}; due {due}",
        identity=renewal.identity,
        serial=renewal.certificate.serial,
        due_world_s=renewal.due_world_s,
        done_world_s=renewal.done_world_s,
        late_s=renewal.late_s,
    )
