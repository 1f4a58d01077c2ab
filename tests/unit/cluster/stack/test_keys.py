from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from meshwake.cluster.stack.keys import acme_keys

NAMES = ("pebble.example", "127.0.0.1")


def test_the_same_seed_gives_the_same_keys() -> None:
    """A second `up` puts in what the first one did, byte for byte."""
    assert acme_keys("a", NAMES) == acme_keys("a", NAMES)


def test_another_seed_gives_other_keys() -> None:
    one, other = acme_keys("a", NAMES), acme_keys("b", NAMES)
    assert one.tsig_secret != other.tsig_secret
    assert one.private_key != other.private_key
    assert one.authority != other.authority


def test_the_certificate_is_of_its_authority_its_key_and_its_names() -> None:
    keys = acme_keys("a", NAMES)
    own, authority = (
        x509.load_pem_x509_certificate(text.encode()) for text in (keys.certificate, keys.authority)
    )
    own.verify_directly_issued_by(authority)
    assert load_pem_private_key(keys.private_key.encode(), None).public_key() == own.public_key()
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["pebble.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_it_outlives_every_jump() -> None:
    """Years forwards or back are no matter for it."""
    own = x509.load_pem_x509_certificate(acme_keys("a", NAMES).certificate.encode())
    assert (own.not_valid_before_utc.year, own.not_valid_after_utc.year) == (2000, 2100)


def test_the_tsig_key_has_256_bits() -> None:
    assert len(base64.b64decode(acme_keys("a", NAMES).tsig_secret)) == 32


def test_secrets_do_not_show_in_messages() -> None:
    keys = acme_keys("a", NAMES)
    assert keys.tsig_secret not in repr(keys) and keys.private_key not in repr(keys)
