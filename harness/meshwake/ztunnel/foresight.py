"""When a certificate of a ztunnel will be renewed, and from when to when it will be served expired:
only arithmetic.

ztunnel means to renew at the middle of a certificate's validity, and does so later by J, by how
much wall and monotonic clock have parted since its process started (facts: istio/ztunnel
src/time.rs, src/tls/certificate.rs). A J below zero makes it early; what lies in the past is done
at once. Peers judge in whole seconds, notAfter included, so a certificate is expired from the
second after its notAfter on.

pilot-agent (gateways, waypoints, sidecars) waits once from each issue on: the same arithmetic, with
J counted from the issue instead of the start.

What is said holds while J stays as it is: foresee again after a sleep, or foresee a sleep by adding
it to J and taking the moment of waking for now. All times are of the node's own wall clock, in
nanoseconds since 1970.
"""

from __future__ import annotations

from typing import NamedTuple

NS_PER_S = 1_000_000_000


class Foresight(NamedTuple):
    """What will become of one certificate. The outage lies from the first moment at which it is
    expired (which may have passed already) to its renewal; None in both when it is renewed in time.
    """

    renews_wall_ns: int
    outage_from_wall_ns: int | None
    outage_to_wall_ns: int | None


def renewal_due_wall_ns(not_before_wall_ns: int, not_after_wall_ns: int) -> int:
    """When it should be renewed: the middle of its validity; its notAfter when the two ends are the
    wrong way round."""
    if not_after_wall_ns < not_before_wall_ns:
        return not_after_wall_ns
    return not_before_wall_ns + (not_after_wall_ns - not_before_wall_ns) // 2


def expired_from_wall_ns(not_after_wall_ns: int) -> int:
    """The first moment at which a peer refuses it."""
    return (not_after_wall_ns // NS_PER_S + 1) * NS_PER_S


def foresee(
    not_before_wall_ns: int, not_after_wall_ns: int, drift_ns: int, now_wall_ns: int
) -> Foresight:
    """What becomes of a certificate when wall and monotonic clock have parted by `drift_ns` and
    part no further."""
    due_wall_ns = renewal_due_wall_ns(not_before_wall_ns, not_after_wall_ns) + drift_ns
    renews_wall_ns = max(due_wall_ns, now_wall_ns)
    expired_wall_ns = expired_from_wall_ns(not_after_wall_ns)
    if due_wall_ns <= max(expired_wall_ns, now_wall_ns):
        return Foresight(renews_wall_ns, None, None)
    return Foresight(renews_wall_ns, expired_wall_ns, renews_wall_ns)


def renews_without_end(not_before_wall_ns: int, not_after_wall_ns: int, drift_ns: int) -> bool:
    """Whether a ztunnel with this (negative) drift asks for certificate after certificate without a
    pause: the renewal of a certificate issued at this very moment already lies in the past.
    `not_before` includes the backdating, so this is known only as finely as the issuer dates back
    (2 minutes)."""
    lifetime_ns = max(not_after_wall_ns - not_before_wall_ns, 0)
    return drift_ns <= -(lifetime_ns // 2)
