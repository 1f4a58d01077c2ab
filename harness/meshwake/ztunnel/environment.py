"""Environment variables of ztunnel that the harness sets (istio/ztunnel src/config.rs)."""

from __future__ import annotations

# The lifetime that ztunnel requests for its certificates, such as "600s"; 24 h where it is not set.
SECRET_TTL = "SECRET_TTL"  # noqa: S105  the name of a setting, no secret
DEFAULT_SECRET_TTL = "24h"  # noqa: S105  as above
MAX_STREAMS = "POOL_MAX_STREAMS_PER_CONNECTION"
# Up to 1.27 a renewal that fails is logged at this level only.
LOG_LEVEL = "info,ztunnel::identity=debug"


def observed_environment(lifetime_s: int) -> dict[str, str]:
    """What every ztunnel in a run gets, in a process of ours and in a cluster: certificates of the
    scenario's lifetime, and handshakes and renewals that can be observed."""
    return {
        SECRET_TTL: f"{lifetime_s}s",
        # With one stream a connection, a connection never enters the pool: each attempt is a new
        # handshake, which is where expiry is checked. And the thread of the pool, which wakes every
        # 10 ms for ever, is never started.
        MAX_STREAMS: "1",
        "RUST_LOG": LOG_LEVEL,
    }
