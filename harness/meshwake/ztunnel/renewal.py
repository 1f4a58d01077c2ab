"""When a ztunnel means to renew a certificate: the same in every release, in every lab."""

from __future__ import annotations

from meshwake.core.durations import NS_PER_S


def planned_wall_ns(not_before_wall_s: int, not_after_wall_s: int) -> int:
    """The middle of its validity, or notAfter where the two ends are the wrong way round
    (istio/ztunnel src/tls/certificate.rs, at every release)."""
    begins_ns, ends_ns = not_before_wall_s * NS_PER_S, not_after_wall_s * NS_PER_S
    return begins_ns + (ends_ns - begins_ns) // 2 if ends_ns >= begins_ns else ends_ns
