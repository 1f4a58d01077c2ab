"""ztunnel's certificates as its admin interface prints them: the one reader of /config_dump.

    1.18 to 1.21   snake_case: `ca_cert` has the leaf, `cert_chain` what signed it (src/admin.rs at 1.18.0, 1.21.0)
    since 1.22     camelCase: `certChain` begins with the leaf (src/admin.rs at 1.22.0, 1.31.0-rc.0)

`istioctl ztunnel-config certificates -o json` prints the list of certificates alone. A state is a
word, or a text or mapping that begins with the word and goes on with an error. Standard library
only: the wake guard brings this module along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meshwake.ztunnel.spiffe import identity_of

# The list whose first certificate is the leaf, since 1.22.
CERT_CHAIN = "certChain"
# The key that holds the leaf first, and how that form calls the fields of a certificate.
_FORMS = (
    (CERT_CHAIN, "serialNumber", "validFrom", "expirationTime"),
    ("ca_cert", "serial_number", "valid_from", "expiration_time"),
)


@dataclass(frozen=True)
class ServedCertificate:
    """One certificate that ztunnel manages. Without a certificate only `spiffe` and `state` are
    known; validity is in whole seconds of Unix time, both ends included."""

    spiffe: str
    state: str
    serial: str | None = None
    not_before_wall_s: int | None = None
    not_after_wall_s: int | None = None

    @property
    def identity(self) -> str:
        """namespace/serviceaccount; the SPIFFE identity itself where it is not of Istio's form."""
        return identity_of(self.spiffe) or self.spiffe


def parse_config_dump(text: bytes | str) -> tuple[ServedCertificate, ...]:
    """Every certificate of a /config_dump, or of istioctl's list, in its order.
    Raises ValueError that says what was found in the place of what."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"expected ztunnel's /config_dump, found no JSON ({error}): {_beginning(text)}"
        ) from error

    # A list is istioctl's.
    entries = document
    if isinstance(document, Mapping):
        entries = document.get("certificates", document)

    # Go writes an empty list as null.
    if entries is None:
        return ()
    if not isinstance(entries, list):
        # A malformed text, not a wrong type in our own code.
        raise ValueError(  # noqa: TRY004
            "expected 'certificates' to be a list, as in ztunnel's /config_dump: "
            f"{_beginning(text)}"
        )

    return tuple(_certificate(entry) for entry in entries)


def _beginning(text: bytes | str) -> str:
    if not text.strip():
        return "it is empty"
    return f"it begins {text[:120]!r}"


def _certificate(entry: Any) -> ServedCertificate:
    """One entry of the list. Raises ValueError for anything else."""
    spiffe = entry.get("identity") if isinstance(entry, Mapping) else None
    if not isinstance(spiffe, str):
        found = json.dumps(entry)[:120]
        raise ValueError(  # noqa: TRY004  as above
            f"expected a certificate with an 'identity', found {found}"
        )

    state = _state(entry.get("state"))
    for chain_key, *field_keys in _FORMS:
        chain = entry.get(chain_key)
        # Missing or empty: ztunnel has no certificate yet.
        if not chain:
            continue

        serial, not_before_wall_s, not_after_wall_s = _leaf(spiffe, chain, field_keys)
        return ServedCertificate(
            spiffe=spiffe,
            state=state,
            serial=serial,
            not_before_wall_s=not_before_wall_s,
            not_after_wall_s=not_after_wall_s,
        )

    # In neither form: its request is on the way, or failed, as the state says.
    return ServedCertificate(spiffe, state)


def _state(raw: Any) -> str:
    """A word, followed by an error where there is one."""
    if isinstance(raw, str) and raw:
        return raw
    if isinstance(raw, Mapping) and raw:
        word, error = next(iter(raw.items()))
        return f"{word}: {error}"

    # The form of early 2023 had none, and says nothing of the certificate's state.
    return "Unknown"


def _leaf(spiffe: str, chain: Any, keys: list[str]) -> tuple[str, int, int]:
    """Serial, beginning and end of the certificate that comes first in `chain`."""
    leaf = chain[0] if isinstance(chain, list) else None
    values: list[str] = []
    if isinstance(leaf, Mapping):
        values = [leaf[key] for key in keys if isinstance(leaf.get(key), str)]

    if len(values) < len(keys):
        found = json.dumps(leaf)[:120]
        raise ValueError(f"{spiffe}: expected a certificate with {', '.join(keys)}, found {found}")

    serial, not_before, not_after = values
    return serial, _wall_s(not_before), _wall_s(not_after)


def _wall_s(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"expected a time such as 2026-11-30T08:00:00Z, found {text[:60]!r}"
        ) from error

    # A time without one would be read in the zone of whatever machine judges the dump.
    if moment.tzinfo is None:
        raise ValueError(
            f"expected a time with its zone, such as 2026-11-30T08:00:00Z, found {text[:60]!r}"
        )
    return int(moment.timestamp())
