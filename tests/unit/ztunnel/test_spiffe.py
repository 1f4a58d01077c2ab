"""SPIFFE identities as Istio writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.ztunnel.spiffe import identity_in, identity_of, spiffe_id


@given(st.from_regex(r"[a-z0-9-]{1,20}/[a-z0-9-]{1,20}", fullmatch=True))
def test_an_identity_survives_its_uri(identity: str) -> None:
    """namespace/serviceaccount to SPIFFE and back."""
    assert identity_of(spiffe_id(identity)) == identity
    assert identity_in(f'fetching "{spiffe_id(identity)}": failed') == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://a/ns/b/sa/c",
        "spiffe://cluster.local/ns/default",
        "spiffe://x/sa/y",
        "spiffe://x/region/y",
    ],
)
def test_other_texts_are_no_identity_of_a_workload(text: str) -> None:
    """Istio's own form, and no other."""
    assert identity_of(text) is None
    assert identity_in(f"error: {text}") is None


def test_an_identity_of_another_trust_domain() -> None:
    """The trust domain is the cluster's choice."""
    assert identity_of("spiffe://td.example/ns/a/sa/b") == "a/b"
