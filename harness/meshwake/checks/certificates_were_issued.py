"""Assumption: every identity got a certificate; without one, none can expire."""

from __future__ import annotations

from meshwake.checks.facts.certificates import certificates, holdings
from meshwake.checks.finding import broken, holds
from meshwake.checks.format import count
from meshwake.core.history import History
from meshwake.core.outcome import Finding
from meshwake.core.plan import Plan

NAME = "certificates_were_issued"
TITLE = "Certificates were issued"


def check(plan: Plan, history: History) -> Finding:
    """Each identity of the plan held at least one while its ztunnel ran."""
    issued = certificates(history)
    held = set(issued) | {holding.identity for holding in holdings(history)}
    identities: list[str] = []
    for node in plan.nodes:
        identities += node.identities
    without = [identity for identity in identities if identity not in held]
    if without:
        return broken(NAME, f"{', '.join(without)} never got a certificate")

    # Of all that were issued, gateways' too.
    number = sum(map(len, issued.values()))
    return holds(NAME, f"{count(number, 'certificate')} for {len(identities)} identities")
