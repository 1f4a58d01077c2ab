"""Assumption: every identity got a certificate; a mesh without certificates has none that could expire."""

from __future__ import annotations

from harness.checks.derive import certificates, holdings
from harness.checks.finding import broken, holds
from harness.checks.words import count
from harness.history import History
from harness.plan import Plan
from harness.verdict import Finding

NAME = "certificates_were_issued"


def check(plan: Plan, history: History) -> Finding:
    """Each identity of the plan held at least one while its ztunnel ran."""
    held = set(certificates(history)) | {holding.identity for holding in holdings(history)}
    identities = [identity for node in plan.nodes for identity in node.identities]
    without = [identity for identity in identities if identity not in held]
    if without:
        return broken(NAME, f"{', '.join(without)} never got a certificate")
    issued = sum(len(kept) for kept in certificates(history).values())
    return holds(NAME, f"{count(issued, 'certificate')} for {len(identities)} identities")
