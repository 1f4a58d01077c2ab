"""Certificates as istiod signs them: what ztunnel gets, with the dates that the scenario's clocks
say.

istiod dates notBefore back by two minutes and notAfter is now + the requested lifetime
(istio security/pkg/pki/util/generate_cert.go; ClockSkewGracePeriod). X.509 times are whole seconds.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwake.ztunnel.spiffe import TRUST_DOMAIN, identity_of

# 1970-01-02 to 9999-12-30
_ALWAYS_WALL_S = (86_400, 253_402_128_000)


def requested_identity(csr_pem: str) -> str:
    """namespace/serviceaccount of the workload that a request is for. Raises ValueError for a bad
    request, and for a URI that is not a workload's SPIFFE identity."""
    csr = x509.load_pem_x509_csr(csr_pem.encode())
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uri = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    identity = identity_of(uri)
    if identity is None:
        raise ValueError(f"{uri!r} is not spiffe://<trust domain>/ns/<namespace>/sa/<account>")
    return identity


@dataclass(frozen=True)
class Signed:
    """A signed workload certificate: the chain for the answer (PEM, leaf first) and what checks
    need of it."""

    chain: tuple[str, str]
    not_before_wall_s: int
    not_after_wall_s: int


class CertificateAuthority:
    """A root and what it signs. The root and the authority's own certificate are valid at any time
    that a clock of a scenario may show: what istiod's own ten years do under a jump is not what is
    requested here."""

    def __init__(self, backdate_s: int) -> None:
        self.backdate_s = backdate_s
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, TRUST_DOMAIN)])

        # In the order of the bits (RFC 5280, 4.2.1.3); set are keyCertSign and cRLSign: it signs
        # certificates and is used for nothing else.
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.root = (
            self._builder(self._key.public_key(), 1, *_ALWAYS_WALL_S)
            .subject_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.root_pem = self.root.public_bytes(Encoding.PEM).decode()

    def sign(self, csr_pem: str, lifetime_s: int, now_wall_s: int, serial: int) -> Signed:
        """A certificate for the URI names of `csr_pem`, dated as istiod dates. Raises ValueError
        for a bad request."""
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        not_before_s, not_after_s = now_wall_s - self.backdate_s, now_wall_s + lifetime_s
        leaf = self._leaf(csr.public_key(), names, serial, not_before_s, not_after_s)
        return Signed(
            (leaf.public_bytes(Encoding.PEM).decode(), self.root_pem), not_before_s, not_after_s
        )

    def server_credentials(self, address: str) -> str:
        """Key and chain, PEM in one text, for the authority's own TLS at this IP address."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        leaf = self._leaf(key.public_key(), names, 2, *_ALWAYS_WALL_S)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return key_pem + leaf.public_bytes(Encoding.PEM).decode() + self.root_pem

    def _leaf(
        self,
        public_key: object,
        names: x509.SubjectAlternativeName,
        serial: int,
        not_before_wall_s: int,
        not_after_wall_s: int,
    ) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        # Both, because a ztunnel is client and server of HBONE with one certificate.
        purposes = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        )
        return (
            self._builder(public_key, serial, not_before_wall_s, not_after_wall_s)
            # The name is in the extension only (a SPIFFE identity, or an address). With an empty
            # subject it must be critical (RFC 5280, 4.1.2.6).
            .subject_name(x509.Name([]))
            .add_extension(names, critical=True)
            .add_extension(issuer, critical=False)
            .add_extension(purposes, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _builder(
        self, public_key: object, serial: int, not_before_wall_s: int, not_after_wall_s: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .public_key(public_key)  # type: ignore[arg-type]  # any key that a CSR can carry
            .serial_number(serial)
            .not_valid_before(datetime.fromtimestamp(not_before_wall_s, UTC))
            .not_valid_after(datetime.fromtimestamp(not_after_wall_s, UTC))
        )
