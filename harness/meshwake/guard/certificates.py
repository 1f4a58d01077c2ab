"""The certificates that a process serves, by what its admin interface says: ztunnel's /config_dump,
Envoy's /certs."""

from __future__ import annotations

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessFault
from meshwake.guard.watch import CertificateValidity
from meshwake.ztunnel.config_dump import parse_config_dump
from meshwake.ztunnel.envoy_certificates import parse_envoy_certificates


def of_ztunnel(config_dump: bytes) -> tuple[CertificateValidity, ...]:
    """Every identity that has a certificate, in ztunnel's order. Raises HarnessFault when it is
    something else."""
    try:
        entries = parse_config_dump(config_dump)
    except ValueError as error:
        raise HarnessFault(f"/config_dump of ztunnel is not what was expected: {error}") from error
    found: list[CertificateValidity] = []
    for entry in entries:
        not_before_s, not_after_s = entry.not_before_wall_s, entry.not_after_wall_s
        # An identity that is still waiting for its first certificate has no dates.
        if not_before_s is not None and not_after_s is not None:
            dates = not_before_s * NS_PER_S, not_after_s * NS_PER_S
            found.append(CertificateValidity(entry.spiffe, *dates))
    return tuple(found)


def of_envoy(certs: bytes) -> tuple[CertificateValidity, ...]:
    """Every certificate of its own that an Envoy serves; of each identity once. Raises
    HarnessFault."""
    try:
        certificates = parse_envoy_certificates(certs)
    except ValueError as error:
        raise HarnessFault(f"/certs of Envoy is not what was expected: {error}") from error

    # The last one of each identity, at the place of its first one.
    by_identity = {certificate.spiffe: certificate for certificate in certificates}
    return tuple(
        CertificateValidity(
            identity,
            certificate.not_before_wall_s * NS_PER_S,
            certificate.not_after_wall_s * NS_PER_S,
        )
        for identity, certificate in by_identity.items()
        # A gateway also serves certificates for the names of hosts, which pilot-agent does not
        # renew.
        if identity.startswith("spiffe://")
    )
