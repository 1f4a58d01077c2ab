"""When a ztunnel renews a certificate, and from when to when it serves that certificate expired.

Pure arithmetic, the same at every release and in every lab. ztunnel plans each renewal for the
middle of the certificate's validity (istio/ztunnel src/tls/certificate.rs) and turns that wall time
into a monotonic deadline, with the one pair of clocks that it read when its process started
(src/time.rs). So a renewal is late by the clock drift of the process: by how much the wall and the
monotonic clock have parted since. With a negative drift it is early; a renewal that lies in the
past happens at once. Peers compare whole seconds and accept notAfter itself, so a certificate is
expired from the second after its notAfter on.

pilot-agent (gateways, waypoints, sidecars) waits once from each issue on. The same arithmetic holds
for it, with the drift counted from the issue instead of from the start of the process.

A prediction holds while the drift stays what it is. After a sleep, predict again; to predict a
sleep, add it to the drift and take the moment of waking for `now_wall_ns`.

All times are of the node's own wall clock, in nanoseconds since 1970. Standard library only: the
image of the wake guard has nothing else. The checks (checks/facts/certificates.py) work the middle
of a validity out on their own, on purpose: a check that shared this code with the model could not
find a mistake in it.
"""

from __future__ import annotations

from typing import NamedTuple

from meshwake.core.durations import NS_PER_S


class RenewalForecast(NamedTuple):
    """What becomes of one certificate.

    The outage lasts from the first moment at which the certificate is expired, which may have
    passed already, to its renewal. Both ends are None when it is renewed in time.
    """

    renews_wall_ns: int
    outage_from_wall_ns: int | None
    outage_to_wall_ns: int | None


def renewal_due_wall_ns(not_before_wall_ns: int, not_after_wall_ns: int) -> int:
    """When a certificate should be renewed: in the middle of its validity.

    notAfter where the two ends are the wrong way round, as ztunnel does at every release.
    """
    if not_after_wall_ns < not_before_wall_ns:
        return not_after_wall_ns
    validity_ns = not_after_wall_ns - not_before_wall_ns
    return not_before_wall_ns + validity_ns // 2


def agent_waits_ns(valid_for_ns: int) -> int:
    """How long pilot-agent waits on its monotonic clock before it renews a certificate that was
    just issued, and that is valid for `valid_for_ns` by the agent's own wall clock.

    Half of it: SECRET_GRACE_PERIOD_RATIO, 0.5 unless set. Since 1.24 the wait is spread by one
    percent of the validity in both directions (SECRET_GRACE_PERIOD_RATIO_JITTER), which is not in
    this number. Source: rotateTime in istio security/pkg/nodeagent/cache/secretcache.go, the same
    rule from 1.18.0 to 1.31.0-rc.0.
    """
    return max(valid_for_ns // 2, 0)


def expired_from_wall_ns(not_after_wall_ns: int) -> int:
    """The first moment at which a peer refuses the certificate."""
    not_after_wall_s = not_after_wall_ns // NS_PER_S
    return (not_after_wall_s + 1) * NS_PER_S


def forecast_renewal(
    not_before_wall_ns: int, not_after_wall_ns: int, drift_ns: int, now_wall_ns: int
) -> RenewalForecast:
    """What becomes of a certificate, if the clock drift of its process stays `drift_ns`."""
    due_wall_ns = renewal_due_wall_ns(not_before_wall_ns, not_after_wall_ns) + drift_ns
    renews_wall_ns = max(due_wall_ns, now_wall_ns)
    expired_wall_ns = expired_from_wall_ns(not_after_wall_ns)

    # A renewal that is due already happens before a peer can refuse anything.
    in_time = due_wall_ns <= max(expired_wall_ns, now_wall_ns)
    if in_time:
        return RenewalForecast(renews_wall_ns, None, None)
    return RenewalForecast(renews_wall_ns, expired_wall_ns, renews_wall_ns)


def renews_without_end(not_before_wall_ns: int, not_after_wall_ns: int, drift_ns: int) -> bool:
    """Whether a ztunnel with this (negative) drift requests certificates without a pause.

    It does when the renewal of a certificate that is issued right now already lies in the past.
    notBefore includes the backdating, so the answer is only as fine as the issuer backdates
    (2 minutes).
    """
    lifetime_ns = max(not_after_wall_ns - not_before_wall_ns, 0)
    return drift_ns <= -(lifetime_ns // 2)
