"""SPIFFE identities as Istio writes them: spiffe://<trust domain>/ns/<namespace>/sa/<account>.

The harness names an identity `namespace/serviceaccount`. Standard library only: the image of the
wake guard has nothing else.
"""

from __future__ import annotations

import re

TRUST_DOMAIN = "cluster.local"
# Ends at what may follow an identity in a line of a log: white space, quotes, brackets, separators.
_SPIFFE = re.compile(r"spiffe://[^/\s\"]+/ns/([^/\s\"]+)/sa/([^/\s\",;)]+)")


def spiffe_id(identity: str) -> str:
    """namespace/serviceaccount -> the URI in the certificate."""
    namespace, account = identity.split("/")
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


def identity_of(spiffe: str) -> str | None:
    """namespace/serviceaccount of such a URI, of any trust domain; None for any other text."""
    return _short(_SPIFFE.fullmatch(spiffe))


def identity_in(text: str) -> str | None:
    """namespace/serviceaccount of the first SPIFFE identity in `text`, such as a line of a log;
    None without one."""
    return _short(_SPIFFE.search(text))


def _short(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    namespace, account = match.groups()
    return f"{namespace}/{account}"
