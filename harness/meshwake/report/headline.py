"""The first line of a run: what happens to the mesh, before anything about expectations.

A reader who wants to know whether a mesh survives is not helped by "as expected", which is also
the verdict on a mesh that is known to be without mTLS for a third of the week.
"""

from __future__ import annotations

from typing import NamedTuple

from meshwake.checks.format import lasting, moment
from meshwake.core.outcome import OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.report.result import summarise

# Faults that do harm without a connection that fails.
HARMFUL = {
    "ca_not_flooded": "ztunnel asks its authority for certificates without a pause",
    "valid_certificate_kept": "ztunnel throws away a certificate that was still good",
}
CONNECTIONS = ("traffic_flows", "recovers_within")


class Headline(NamedTuple):
    """`verdict` is about the mesh, not about expectations; `text` says what happened to it."""

    verdict: Verdict
    text: str


def headline(run: Run) -> Headline:
    """What happens to the mesh in `run`."""
    failed_assumption = next(
        (
            finding
            for finding in run.findings
            if finding.is_assumption and finding.verdict is not Verdict.HOLDS
        ),
        None,
    )
    if failed_assumption is not None:
        why = failed_assumption.because
        return Headline(Verdict.UNKNOWN, f"nothing could be judged: {why}")
    verdicts = {finding.check: finding.verdict for finding in run.findings}
    # What harms most comes first: an outage, then what harms without a failed connection.
    if verdicts.get("recovers_within") is Verdict.BROKEN:
        return Headline(Verdict.BROKEN, _outage(run))
    for check, harm in HARMFUL.items():
        if verdicts.get(check) is Verdict.BROKEN:
            return Headline(Verdict.BROKEN, harm)
    for check in CONNECTIONS:
        if verdicts.get(check) is Verdict.UNKNOWN:
            return Headline(Verdict.UNKNOWN, run.finding(check).because)
    return _connections_recover(run, verdicts)


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
    summary = summarise(run)
    of = f"of {lasting(run.plan.duration_ns)} without mTLS"
    if summary.outage_ns is None or summary.first_failure_world_ns is None:
        return f"an unknown part {of}"
    day, time = moment(summary.first_failure_world_ns).rsplit(" ", 1)
    return f"{lasting(summary.outage_ns)} {of}, first on {day} at {time}"


def surprise(run: Run) -> str | None:
    """A surprise by its name: a cure, a regression, or both; None when there is none."""
    found = [row for row in run.outcome.comparisons if row.kind is OutcomeKind.SURPRISE]
    kinds = {
        Verdict.HOLDS: "a cure",
        Verdict.BROKEN: "a regression",
    }
    named = dict.fromkeys(
        kinds[row.finding.verdict] for row in found if not row.finding.is_assumption
    )
    return " and ".join(named) or None
