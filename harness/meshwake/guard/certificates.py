"""The certificates that a process serves, by what its admin interface says: ztunnel's /config_dump,
Envoy's /certs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessFault
from meshwake.guard.watch import Held
from meshwake.ztunnel.config_dump import parse_config_dump


def of_ztunnel(config_dump: bytes) -> tuple[Held, ...]:
    """Every identity that has a certificate, in ztunnel's order. Raises HarnessFault when it is
    something else."""
    try:
        entries = parse_config_dump(config_dump)
    except ValueError as error:
        raise HarnessFault(f"/config_dump of ztunnel is not what was expected: {error}") from error
    return tuple(
        Held(entry.spiffe, entry.not_before_wall_s * NS_PER_S, entry.not_after_wall_s * NS_PER_S)
        for entry in entries
        if entry.not_before_wall_s is not None and entry.not_after_wall_s is not None
    )


def of_envoy(certs: bytes) -> tuple[Held, ...]:
    """Every certificate of its own that an Envoy serves; of each identity once. Raises
    HarnessFault."""
    try:
        chains = [
            entry["cert_chain"][0]
            for entry in json.loads(certs)["certificates"]
            if entry.get("cert_chain")
        ]
        found = {_identity(chain): chain for chain in chains}
        return tuple(
            Held(identity, _wall_ns(chain["valid_from"]), _wall_ns(chain["expiration_time"]))
            for identity, chain in found.items()
            if identity.startswith("spiffe://")
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise HarnessFault(f"/certs of Envoy is not what was expected: {error!r}") from error


def _identity(chain: dict[str, Any]) -> str:
    names = [name["uri"] for name in chain.get("subject_alt_names", []) if "uri" in name]
    return str(names[0]) if names else ""


def _wall_ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) * NS_PER_S
