"""Whether a new connection through the mesh works: both ends need a certificate, and each must find
the other's valid.

Expiry is checked in the handshake only, by the wall clock of the verifier, in whole seconds,
both ends of the validity included (rustls `UnixTime`, RFC 5280). An end knows the roots that came
with its own certificate, no others. ztunnel never checks its own certificate before it uses it.
Every attempt is a new connection: ztunnel's pool, which lets busy pairs talk on for days, would
hide what is measured here.
"""

from __future__ import annotations

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.model.authority import SignedCertificate
from meshwake.labs.model.ztunnel import IdentityState


def connection_error(
    client: IdentityState,
    client_clocks: ClockReading,
    server: IdentityState,
    server_clocks: ClockReading,
) -> str | None:
    """Why a connection fails, in the order in which the two ends would notice; None when it
    works."""
    if client.certificate is None:
        return f"client has no certificate: {client.state}"
    if server.certificate is None:
        return f"server has no certificate: {server.state}"

    # The client verifies the server first (TLS 1.3); the server's view comes with its answer.
    if client.certificate.root != server.certificate.root:
        return "server certificate is signed by a root that the client does not know"
    return _invalid("server", server.certificate, client_clocks) or _invalid(
        "client", client.certificate, server_clocks
    )


def _invalid(whose: str, certificate: SignedCertificate, verifier: ClockReading) -> str | None:
    # Each end goes by its own wall clock. Whole seconds, as X.509 has them; both ends of the
    # validity are included (RFC 5280, section 4.1.2.5).
    now_s = verifier.wall_ns // NS_PER_S
    if now_s > certificate.not_after_wall_s:
        return f"{whose} certificate expired {now_s - certificate.not_after_wall_s} s ago"
    if now_s < certificate.not_before_wall_s:
        return (
            f"{whose} certificate is not valid for another "
            f"{certificate.not_before_wall_s - now_s} s"
        )
    return None
