"""A gateway or waypoint: an Envoy, and the pilot-agent that renews its certificate.

From istio security/pkg/nodeagent/cache/secretcache.go (rotateTime), pkg/queue/delay.go, the same
from 1.18 to 1.31: at each issue the agent reads its wall clock, takes half of the time until
notAfter, and waits that long on the monotonic clock. So it is late once after a sleep, and right
again from the next issue on. ztunnel stays late until it restarts; the agent does not. What counts
is how long the certificate is still valid by the agent's own wall clock, not which lifetime was
requested: where that clock is ahead of istiod's by an hour, the wait is half an hour shorter.

Envoy keeps the old secret while a renewal fails and presents it to every peer, expired or not. The
agent's stream is opened again with a backoff, of which only the bound is modelled; the spread of
one percent (1.24 and newer) is not.
"""

from __future__ import annotations

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.model.authority import Answer
from meshwake.labs.model.timing import Due
from meshwake.labs.model.ztunnel import INITIALIZING, IdentityState
from meshwake.ztunnel.renewal import agent_waits_ns

# The most that the backoff of its stream to istiod waits (see the module: only the bound is
# modelled).
RETRY_AFTER_NS = 30 * NS_PER_S


class Proxy:
    """One gateway or waypoint from its start to its end; the same promises as a Ztunnel."""

    has_free_slot = True

    def __init__(self, identity: str, lifetime_s: int, base: ClockReading) -> None:
        self.states = {identity: INITIALIZING}
        self.requested_lifetime_s, self.base = lifetime_s, base
        self._requests = False

    def is_requesting(self, identity: str) -> bool:
        """Whether a request is under way."""
        return self._requests

    def enqueue(self, identity: str, due_world_ns: int) -> None:
        """Never called: it has one certificate, and a slot for it."""

    def next_queued(self) -> str | None:
        """Nothing is queued."""
        return None

    def due_after(self, identity: str, answer: Answer, now: ClockReading) -> Due | None:
        """Takes the answer to a request; returns when it sends the next (None: never)."""
        self._requests = answer.outcome in ("hung", "slow")
        if self._requests:
            return None

        # After a failure too it keeps what it has: Envoy serves the old certificate.
        if answer.certificate is None:
            return Due(now.monotonic_ns + RETRY_AFTER_NS)
        self.states[identity] = IdentityState("Available", answer.certificate)

        # By the wall clock of now: each renewal is late by the sleep within its own wait only.
        valid_for_ns = answer.certificate.not_after_wall_s * NS_PER_S - now.wall_ns
        return Due(now.monotonic_ns + agent_waits_ns(valid_for_ns))

    def forget(self, identity: str, now: ClockReading) -> None:
        """Never called: a gateway is its own application."""
