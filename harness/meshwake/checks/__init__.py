"""Checks: one property per file, each a pure function of plan and history, without labs and files.

Assumptions come first. Where one fails, nothing else can be judged: every other finding is UNKNOWN
and names it. A check that raises is UNKNOWN too, never a pass; and what held until a run was cut
short has not been shown to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import cast, get_args

from meshwake.checks import (
    certificates_were_issued,
    clock_fault_happened,
    traffic_was_attempted,
)
from meshwake.checks.format import moment
from meshwake.core.events import RunEnded
from meshwake.core.history import History
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan
from meshwake.core.scenario import CheckName

Check = Callable[[Plan, History], Finding]


def _named(name: str) -> ModuleType:
    """The module that is called like the check."""
    # So that a new check is one file and one name in the list of CheckName: it had to be registered
    # in three places.
    return import_module(f"{__name__}.{name}")


def _functions(modules: Iterable[ModuleType]) -> dict[str, Check]:
    return {module.NAME: cast(Check, module.check) for module in modules}


_ASSUMPTIONS = (clock_fault_happened, certificates_were_issued, traffic_was_attempted)
# The names that a scenario may expect something of are the one list of checks.
_CHECKS = tuple(_named(name) for name in get_args(CheckName))

ASSUMPTIONS: dict[str, Check] = _functions(_ASSUMPTIONS)
CHECKS: dict[str, Check] = _functions(_CHECKS)
# What each claims, in words for people who do not know the names.
TITLES: dict[str, str] = {module.NAME: module.TITLE for module in (*_ASSUMPTIONS, *_CHECKS)}


def judge(plan: Plan, history: History) -> tuple[Finding, ...]:
    """Every finding on `history`, the assumptions first. Never raises."""
    assumptions: list[Finding] = []
    for name in ASSUMPTIONS:
        finding = _find(name, plan, history, ASSUMPTIONS)
        assumptions.append(replace(finding, is_assumption=True))
    for assumption in assumptions:
        if assumption.verdict is not Verdict.HOLDS:
            # One reason is enough: the first that fails explains those after it. A fault that
            # never happened, for instance, leaves nothing to judge about certificates.
            return (*assumptions, *_nothing_can_be_judged(assumption))

    findings: list[Finding] = []
    for name in CHECKS:
        finding = _find(name, plan, history, CHECKS)
        findings.append(_as_far_as_it_ran(finding, history))
    return (*assumptions, *findings)


def _nothing_can_be_judged(failed: Finding) -> list[Finding]:
    because = f"{failed.check} is {failed.verdict}: {failed.because}"
    return [Finding(name, Verdict.UNKNOWN, because) for name in CHECKS]


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
    # Without its last event the run was killed: what comes after it is not known.
    if not ended:
        because = (
            f"the run broke off at {moment(history.end_world_ns)}; until then {finding.because}"
        )
        return replace(finding, verdict=Verdict.UNKNOWN, because=because)
    # Stopped by the harness itself (a flood of requests): it holds, up to there.
    if ended[0].reason != "duration":
        because = (
            f"{finding.because} (until the run was stopped at {moment(ended[0].world_ns)}: "
            f"{ended[0]['reason']})"
        )
        return replace(finding, because=because)
    return finding
