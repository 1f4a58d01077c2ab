"""Certificates as istiod signs them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from meshwake.authority.ca import CertificateAuthority, requested_identity
from meshwake.ztunnel.spiffe import spiffe_id

STARTS_WALL_S = 1_799_049_600
AUTHORITY = CertificateAuthority(backdate_s=120)


def request_for(identity: str) -> str:
    """A request as ztunnel makes it: P-256, an empty subject, one URI."""
    return request_for_uri(spiffe_id(identity))


def request_for_uri(uri: str) -> str:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=True)
    )
    return (
        builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def test_dates_are_istiods() -> None:
    """notBefore lies the backdate before now, notAfter the requested lifetime after it, to the
    second."""
    signed = AUTHORITY.sign(request_for("default/client"), 86_400, STARTS_WALL_S, serial=7)
    leaf = x509.load_pem_x509_certificate(signed.chain[0].encode())
    assert leaf.not_valid_before_utc == datetime.fromtimestamp(STARTS_WALL_S - 120, UTC)
    assert leaf.not_valid_after_utc == datetime.fromtimestamp(STARTS_WALL_S + 86_400, UTC)
    assert (signed.not_before_wall_s, signed.not_after_wall_s) == (
        STARTS_WALL_S - 120,
        STARTS_WALL_S + 86_400,
    )
    assert leaf.serial_number == 7


def test_a_leaf_carries_what_ztunnel_checks() -> None:
    """The URI of the request, both purposes, and a chain that ends in the root which signed it."""
    signed = AUTHORITY.sign(request_for("default/client"), 600, STARTS_WALL_S, serial=8)
    leaf, root = (x509.load_pem_x509_certificate(pem.encode()) for pem in signed.chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://cluster.local/ns/default/sa/client"
    ]
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    leaf.verify_directly_issued_by(root)
    assert root == AUTHORITY.root


def test_the_identity_of_a_request() -> None:
    """The authority knows by it who is served."""
    assert requested_identity(request_for("default/client")) == "default/client"


@pytest.mark.parametrize(
    "uri", ["", "https://a/ns/b/sa/c", "spiffe://cluster.local/ns/default", "spiffe://x/sa/y"]
)
def test_another_uri_is_refused(uri: str) -> None:
    """An id that is not a workload's SPIFFE id is a ValueError that shows it."""
    with pytest.raises(ValueError, match="is not spiffe://"):
        requested_identity(request_for_uri(uri))


def test_a_request_that_is_none_is_refused() -> None:
    """Bytes that are no CSR do not get a certificate."""
    with pytest.raises(ValueError, match="PEM|CSR|parse"):
        AUTHORITY.sign("not a request", 600, STARTS_WALL_S, serial=9)
