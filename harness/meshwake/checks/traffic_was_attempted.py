"""Assumption: every pair tried to connect; without attempts no outage can show."""

from __future__ import annotations

from meshwake.checks.facts.traffic import attempts
from meshwake.checks.finding import broken, holds
from meshwake.checks.format import count
from meshwake.core.history import History
from meshwake.core.outcome import Finding
from meshwake.core.plan import Plan

NAME = "traffic_was_attempted"
TITLE = "Connections were attempted"


def check(plan: Plan, history: History) -> Finding:
    """Each pair of the plan made at least one attempt."""
    silent = [pair for pair in plan.pairs if not attempts(history, pair)]
    if silent:
        source, destination = silent[0]
        return broken(
            NAME,
            f"{source} never tried to reach {destination} ({len(silent)} of "
            f"{len(plan.pairs)} pairs)",
        )
    tried = sum(len(attempts(history, pair)) for pair in plan.pairs)
    return holds(
        NAME, f"{count(tried, 'connection')} attempted by {count(len(plan.pairs), 'pair')}"
    )
