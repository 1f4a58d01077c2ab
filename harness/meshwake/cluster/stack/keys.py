"""The keys of the lab's own ACME authority, worked out from a seed.

`up` may end half way and be run again, and a second `up` must not put new keys next to programs
that still use the old ones. So nothing is drawn here: the same seed gives the same keys, byte for
byte, and a cluster has one seed. The keys are as secret as the seed is; nothing of them is ever
committed.

    TSIG key        cert-manager signs its updates of the zone with it (RFC 8945, HMAC-SHA256)
    certificate     pebble shows it to cert-manager, which trusts its issuer by `caBundle`

The certificate is valid from 2000 to 2100: time jumps in this lab, and what the scenarios judge are
the certificates of the mesh and of the Gateway, not this one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_FROM = datetime(2000, 1, 1, tzinfo=UTC)
_VALID_UNTIL = datetime(2100, 1, 1, tzinfo=UTC)
# RFC 5280, 4.1.2.2: at most 20 octets, and positive.
_SERIAL_BYTES = 16


@dataclass(frozen=True)
class AcmeKeys:
    """What pebble, the name server and cert-manager share. `tsig_secret` is base64, everything else
    PEM."""

    tsig_secret: str = field(repr=False)
    authority: str
    certificate: str
    private_key: str = field(repr=False)


def acme_keys(seed: str, names: Sequence[str]) -> AcmeKeys:
    """The keys that belong to `seed`; the certificate is for `names` (host names or addresses), the
    first one its subject."""
    issuer_key, own_key = _private_key(seed, "authority"), _private_key(seed, "pebble")
    issuer_name = _name("meshwake: who vouches for pebble")
    issuer = (
        _builder(seed, "authority", issuer_name, issuer_name, issuer_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(issuer_key, algorithm=None)
    )
    own = (
        _builder(seed, "pebble", _name(names[0]), issuer_name, own_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, algorithm=None)
    )
    return AcmeKeys(
        tsig_secret=base64.b64encode(_bytes(seed, "tsig")).decode(),
        authority=issuer.public_bytes(Encoding.PEM).decode(),
        certificate=own.public_bytes(Encoding.PEM).decode(),
        private_key=own_key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode(),
    )


def _bytes(seed: str, use: str) -> bytes:
    return hmac.new(seed.encode(), f"meshwake {use}".encode(), hashlib.sha256).digest()


def _private_key(seed: str, use: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_bytes(seed, f"key of {use}"))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    seed: str, use: str, subject: x509.Name, issuer: x509.Name, key: Ed25519PrivateKey
) -> x509.CertificateBuilder:
    # Shifted by a bit: the number must be positive.
    serial = int.from_bytes(_bytes(seed, f"serial of {use}")[:_SERIAL_BYTES], "big") >> 1
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
