"""The certificates of a gateway or waypoint as its Envoy prints them: the one reader of /certs.

Each entry has the chain that Envoy serves (`cert_chain`, leaf first) and what it trusts
(`ca_cert`); one without a chain is a root alone (envoy/admin/v3/certs.proto). Standard library only:
the image of the wake guard has nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class EnvoyCertificate:
    """One leaf. `names` are its subject alternative names, `spiffe` the first of them that is a
    URI ("" without one); validity is in whole seconds of Unix time."""

    names: tuple[str, ...]
    spiffe: str
    serial: str
    not_before_wall_s: int
    not_after_wall_s: int


def parse_envoy_certificates(text: bytes | str) -> tuple[EnvoyCertificate, ...]:
    """Every leaf that an Envoy serves, in its order; one that two listeners share, twice. Raises
    ValueError when the text is something else."""
    found: list[EnvoyCertificate] = []
    try:
        for entry in json.loads(text)["certificates"]:
            chain = entry.get("cert_chain")
            # Without one it is a root that Envoy trusts.
            if chain:
                found.append(_certificate(chain[0]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"expected Envoy's /certs: {error!r}: it begins {text[:200]!r}") from error
    return tuple(found)


def _certificate(leaf: Mapping[str, Any]) -> EnvoyCertificate:
    names: list[str] = []
    spiffe = ""

    # Each is a mapping of one key, the kind of name: {"uri": "spiffe://..."} or {"dns": "..."}.
    for alternative_name in leaf.get("subject_alt_names", []):
        names.append(str(next(iter(alternative_name.values()))))
        spiffe = spiffe or str(alternative_name.get("uri", ""))
    return EnvoyCertificate(
        names=tuple(names),
        spiffe=spiffe,
        serial=str(leaf.get("serial_number", "")),
        not_before_wall_s=_wall_s(leaf["valid_from"]),
        not_after_wall_s=_wall_s(leaf["expiration_time"]),
    )


def _wall_s(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())
