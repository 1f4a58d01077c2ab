"""Checks: one property per file, each a pure function of plan and history, without labs and files.

Assumptions come first. Where one fails, nothing else can be judged: every other finding is UNKNOWN
and names it. A check that raises is UNKNOWN too, never a pass; and what held until a run was cut
short has not been shown to hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

from meshwake.checks import (
    alert_before_outage,
    ca_not_flooded,
    certificates_were_issued,
    clock_fault_happened,
    no_expired_certificate_served,
    recovers_within,
    renewals_on_time,
    traffic_flows,
    traffic_was_attempted,
    valid_certificate_kept,
)
from meshwake.checks.format import moment
from meshwake.core.events import RunEnded
from meshwake.core.history import History
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan

Check = Callable[[Plan, History], Finding]


def _by_name(*modules: ModuleType) -> dict[str, Check]:
    return {module.NAME: module.check for module in modules}


ASSUMPTIONS: dict[str, Check] = _by_name(
    clock_fault_happened, certificates_were_issued, traffic_was_attempted
)
CHECKS: dict[str, Check] = _by_name(
    no_expired_certificate_served,
    renewals_on_time,
    traffic_flows,
    recovers_within,
    ca_not_flooded,
    valid_certificate_kept,
    alert_before_outage,
)


def judge(plan: Plan, history: History) -> tuple[Finding, ...]:
    """Every finding on `history`, the assumptions first. Never raises."""
    assumptions = [
        replace(_find(name, plan, history, ASSUMPTIONS), is_assumption=True) for name in ASSUMPTIONS
    ]
    failed = next(
        (finding for finding in assumptions if finding.verdict is not Verdict.HOLDS), None
    )
    if failed is not None:
        because = f"{failed.check} is {failed.verdict}: {failed.because}"
        return (*assumptions, *(Finding(name, Verdict.UNKNOWN, because) for name in CHECKS))
    return (
        *assumptions,
        *(_as_far_as_it_ran(_find(name, plan, history, CHECKS), history) for name in CHECKS),
    )


def _find(name: str, plan: Plan, history: History, checks: dict[str, Check]) -> Finding:
    try:
        return checks[name](plan, history)
    except Exception as error:  # noqa: BLE001
        # Whatever is wrong with a history or a check: what could not be judged has not passed.
        return Finding(
            name, Verdict.UNKNOWN, f"could not be judged: {type(error).__name__}: {error}"
        )


def _as_far_as_it_ran(finding: Finding, history: History) -> Finding:
    """A run that was killed can show that something broke, not that it held."""
    if finding.verdict is not Verdict.HOLDS:
        return finding
    ended = history.of(RunEnded)
    if not ended:
        because = (
            f"the run broke off at {moment(history.end_world_ns)}; until then {finding.because}"
        )
        return replace(finding, verdict=Verdict.UNKNOWN, because=because)
    if ended[0].reason != "duration":
        because = (
            f"{finding.because} (until the run was stopped at {moment(ended[0].world_ns)}: "
            f"{ended[0]['reason']})"
        )
        return replace(finding, because=because)
    return finding
