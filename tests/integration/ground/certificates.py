"""The certificates and keys that a Kubernetes API server and its administrator show each other."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Longer than any test session, shorter than anything that would matter if it were lost.
_VALID = dt.timedelta(days=2)
_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Certificates:
    """Files of one API server, all PEM."""

    authority: Path
    server_certificate: Path
    server_key: Path
    admin_certificate: Path
    admin_key: Path
    account_key: Path
    account_public_key: Path


def write_certificates(directory: Path) -> Certificates:
    """Makes an authority, a server certificate for 127.0.0.1, an administrator (group
    system:masters) and the key with which tokens of service accounts are signed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("ground", None, authority_key, authority_key, None)
    server_key, admin_key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    server = _certificate("kube-apiserver", None, server_key, authority_key, authority)
    admin = _certificate("ground-admin", "system:masters", admin_key, authority_key, authority)
    account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return Certificates(
        _write(directory / "authority.pem", authority.public_bytes(serialization.Encoding.PEM)),
        _write(directory / "server.pem", server.public_bytes(serialization.Encoding.PEM)),
        _write(directory / "server.key", _private(server_key)),
        _write(directory / "admin.pem", admin.public_bytes(serialization.Encoding.PEM)),
        _write(directory / "admin.key", _private(admin_key)),
        _write(directory / "accounts.key", _private(account_key)),
        _write(
            directory / "accounts.pub",
            account_key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        ),
    )


def _write(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    name: str,
    group: str | None,
    key: ec.EllipticCurvePrivateKey,
    signer_key: ec.EllipticCurvePrivateKey,
    signer: x509.Certificate | None,
) -> x509.Certificate:
    """A certificate for `name`; self-signed, and an authority, without a signer."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    subject = x509.Name(attributes)
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(server) for server in _SERVER_NAMES]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .sign(signer_key, hashes.SHA256())
    )
