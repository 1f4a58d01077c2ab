"""A gateway or waypoint: an Envoy, and the pilot-agent that renews its certificate.

From istio security/pkg/nodeagent/cache/secretcache.go, pkg/queue/delay.go, the same from 1.18 to
1.31: at each issue the agent works out by the wall clock how long half of the certificate's life
still is, and waits that long on the monotonic clock. So it is late once after a sleep, and right
again from the next issue on. Where ztunnel never forgets, it has no memory. Envoy keeps the old
secret while a renewal fails and shows it to everybody, expired or not. The agent's stream is opened
anew with a backoff, of which only the bound is modelled; the spread of one percent (1.24 and newer)
is not.
"""

from __future__ import annotations

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.model.authority import Answer
from meshwake.labs.model.timing import Due
from meshwake.labs.model.ztunnel import INITIALIZING, CertificateState

TRIES_AGAIN_AFTER_NS = 30 * NS_PER_S


class Proxy:
    """One gateway or waypoint from its start to its end; the same promises as a Ztunnel."""

    may_ask = True

    def __init__(self, identity: str, lifetime_s: int, base: ClockReading) -> None:
        self.states = {identity: INITIALIZING}
        self.asks_for_s, self.base = lifetime_s, base
        self._asks = False

    def is_asking(self, identity: str) -> bool:
        """Whether a request is under way."""
        return self._asks

    def wait_in_line(self, identity: str, due_world_ns: int) -> None:
        """Never asked: it has one certificate, and a place for it."""

    def next_in_line(self) -> str | None:
        """Nobody waits."""
        return None

    def due_after(self, identity: str, answer: Answer, now: ClockReading) -> Due | None:
        """Takes the answer to a request; returns when it asks next (None: never)."""
        self._asks = answer.outcome in ("hung", "slow")
        if self._asks:
            return None
        if answer.certificate is None:
            return Due(now.monotonic_ns + TRIES_AGAIN_AFTER_NS)
        self.states[identity] = CertificateState("Available", answer.certificate)
        lives_ns = answer.certificate.not_after_wall_s * NS_PER_S - now.wall_ns
        return Due(now.monotonic_ns + max(lives_ns - self.asks_for_s * NS_PER_S // 2, 0))

    def forget(self, identity: str, now: ClockReading) -> None:
        """Never asked: a gateway is its own application."""
