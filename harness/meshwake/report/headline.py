"""The first line of a run: what happens to the mesh, before anything about expectations.

A reader who wants to know whether a mesh survives is not helped by "as expected", which is also
the verdict on a mesh that is known to be without mTLS for a third of the week.
"""

from __future__ import annotations

from typing import NamedTuple

from meshwake.checks.facts.spans import Spans
from meshwake.checks.facts.traffic import failures, outages
from meshwake.checks.format import dated, lasting, moment
from meshwake.core.outcome import OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.core.versions import find, has_row, minor_of
from meshwake.fixes import FIXES
from meshwake.ztunnel.known_issues import DROPPED_WHILE_VALID, LATE_AFTER_SLEEP, KnownIssue

DROPPED = "valid_certificate_kept"
# Faults that do harm without a connection that fails.
HARMFUL = {
    "ca_not_flooded": "ztunnel asks its authority for certificates without a pause",
    DROPPED: "ztunnel throws away a certificate that was still good",
}
GOAL_WORDS = {
    OutcomeKind.AS_EXPECTED: "reached",
    OutcomeKind.SURPRISE: "missed",
    OutcomeKind.UNKNOWN: "unknown",
}
CONNECTIONS = ("traffic_flows", "recovers_within")


class Headline(NamedTuple):
    """`verdict` is about the mesh, not about expectations; `text` says what happened to it."""

    verdict: Verdict
    text: str


def headline(run: Run) -> Headline:
    """What happens to the mesh in `run`, with dates where it has some."""
    verdict, text = _headline(run)
    return Headline(verdict, dated(text, run.plan.dates))


def _headline(run: Run) -> Headline:
    # The order is that of bad news: not judged at all, broken, not known, holds.
    for finding in run.findings:
        # A finding of the run itself, not of the mesh.
        if not finding.is_assumption:
            continue
        if finding.verdict is not Verdict.HOLDS:
            return Headline(Verdict.UNKNOWN, f"nothing could be judged: {finding.because}")

    verdicts = {finding.check: finding.verdict for finding in run.findings}
    broken = _broken(run, verdicts)
    if broken is not None:
        return Headline(Verdict.BROKEN, broken)
    for check in CONNECTIONS:
        if verdicts.get(check) is Verdict.UNKNOWN:
            return Headline(Verdict.UNKNOWN, run.finding(check).because)
    return _connections_recover(run, verdicts)


def _broken(run: Run, verdicts: dict[str, Verdict]) -> str | None:
    """What breaks the mesh beyond a short outage; None where nothing does."""
    if verdicts.get("recovers_within") is Verdict.BROKEN:
        broken = _outage(run)
        if _is_late_after_sleep(run):
            broken += _known(run, LATE_AFTER_SLEEP)
        return broken
    for check, harm in HARMFUL.items():
        if verdicts.get(check) is not Verdict.BROKEN:
            continue
        if check == DROPPED:
            return harm + _known(run, DROPPED_WHILE_VALID)
        return harm
    return None


def _connections_recover(run: Run, verdicts: dict[str, Verdict]) -> Headline:
    """Of a run in which no outage is too long."""
    if verdicts.get("traffic_flows") is Verdict.BROKEN:
        return Headline(Verdict.HOLDS, f"{_outage(run)}, and connections recover in time")
    if verdicts.get("no_expired_certificate_served") is Verdict.BROKEN:
        served = "an expired certificate was served, though no connection was tried then"
        return Headline(Verdict.BROKEN, served)
    return Headline(Verdict.HOLDS, f"no connection failed in {lasting(run.plan.duration_ns)}")


def _outage(run: Run) -> str:
    """How much of the run was without connections, and from when on."""
    lost = lost_connections(run)
    whole = lasting(run.plan.duration_ns)
    if lost.outage_ns is None or lost.first_world_ns is None:
        return f"an unknown part of {whole} without mTLS"
    # "day 0 at 00:47"; `dated` knows the form.
    day, time = moment(lost.first_world_ns).rsplit(" ", 1)
    outage = lasting(lost.outage_ns)
    return f"{outage} of {whole} without mTLS, first on {day} at {time}"


class LostConnections(NamedTuple):
    """Time awake during which any pair was out, and when that began. None where that is unknown,
    and for the beginning where no connection failed."""

    outage_ns: int | None
    first_world_ns: int | None


def lost_connections(run: Run) -> LostConnections:
    """Of the whole run."""
    try:
        failing = failures(run.plan, run.history)
        # Two pairs that are out at the same time count once.
        out = Spans(outage.span for outage in outages(run.plan, run.history))
    except Exception:  # noqa: BLE001
        # A damaged history: judge() met the same error and has named it in every finding.
        return LostConnections(None, None)
    first_world_ns: int | None = None
    if failing:
        first_world_ns = failing[0].from_world_ns
    return LostConnections(out.total_ns, first_world_ns)


def _known(run: Run, known: KnownIssue) -> str:
    """That upstream knows of it: " (known for 1.31, istio/ztunnel#1481)"; "" where the class of the
    release is not known, and for a ztunnel that a fix has patched."""
    version = run.plan.version
    if not has_row(version) or not find(version).classified:
        return ""
    if run.plan.behaviour_class not in known.classes:
        return ""
    # A patched ztunnel is not the one that the issue is about.
    fix = run.plan.fix
    if fix is not None and FIXES[fix.name].patch is not None:
        return ""
    return f" (known for {minor_of(version)}, {known.issue})"


def _is_late_after_sleep(run: Run) -> bool:
    """Whether an expired certificate was served because a clock had drifted, and not because the
    authority did not answer."""
    if run.finding("no_expired_certificate_served").verdict is not Verdict.BROKEN:
        return False
    return any(fault.expected_drift_ns > 0 for fault in run.plan.faults)


def judged(run: Run) -> str:
    """What came of a run against what was expected of it, or against its goal: `surprise (a cure:
    renewals_on_time is HOLDS, expected BROKEN)`."""
    outcome = run.outcome
    why = outcome.why
    named = surprise(run)
    if named is not None:
        why = f"{named}: {why}"

    what = outcome.kind.value
    if run.plan.goal is not None:
        what = f"goal '{run.plan.goal}' {GOAL_WORDS[outcome.kind]}"
    return f"{what} ({dated(why, run.plan.dates)})"


def surprise(run: Run) -> str | None:
    """A surprise by its name: a cure, a regression, or both; None when there is none, and for a
    recorded month and a goal, where it is only hoped that nothing breaks."""
    is_hope = run.plan.recorded or run.plan.goal is not None
    if is_hope:
        return None
    kinds = {Verdict.HOLDS: "a cure", Verdict.BROKEN: "a regression"}
    # Each once, in the order in which they are found.
    named: list[str] = []
    for row in run.outcome.comparisons:
        # An assumption that does not hold is a run that went wrong, and names nothing of the mesh.
        if row.kind is not OutcomeKind.SURPRISE or row.finding.is_assumption:
            continue
        kind = kinds[row.finding.verdict]
        if kind not in named:
            named.append(kind)
    return " and ".join(named) or None
