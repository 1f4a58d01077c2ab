"""How ztunnel renews its certificates: the algorithm of each behaviour class, and nothing else.

From istio/ztunnel src/identity/manager.rs, src/time.rs and src/tls/certificate.rs, at every release
from 1.18 on:

    time base    one pair (wall, monotonic), taken when the process starts and never again
    due          notBefore + (notAfter - notBefore) / 2, a wall time, converted to a monotonic one
                 with that pair
    wait         on the monotonic clock, which does not move while the machine sleeps

So after a sleep every renewal is late by its length, until the process restarts
(istio/ztunnel#1481).
The classes differ in what happens when a renewal fails (`BEHAVIOURS`):

    class   releases             retries after                              the old certificate
    A0, A1  1.18 - 1.21          60 s                                       is dropped
    B       1.22 - 1.23          one backoff for all identities             is dropped
    C       1.24 - 1.27          a backoff for each identity                is dropped
    D, E    1.28 and newer       the same, at the latest at its expiry      is kept until it
                                                                            expires, by the time
                                                                            base

A0 requests 24 hours whatever its settings are. A dropped certificate means state Unavailable, and
no connection brings it back: only the next retry does. At most eight requests are under way, and
none has a deadline, so each that is never answered holds its slot until the process ends, and what
falls due meanwhile is queued for a slot: first requests for a first certificate, then renewals and
retries, each kind in the order in which it fell due. (An in-pod ztunnel that starts requests its
pods' certificates one after another, except for those that a connection needs. Here all are
requested at once, which is the same while answers take no time.) All but E read the authority's
root from disk once, when the process starts; E reads it again whenever it has changed (the two
seconds for which it waits to see that the file stays as it is are not modelled).

This module is decisions only; what happens when is in backend.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS, NS_PER_S
from meshwake.labs.model.authority import Answer, SignedCertificate
from meshwake.labs.model.timing import Due, Timing, renewal_due
from meshwake.ztunnel.renewal import renewal_due_wall_ns

# manager.rs: the worker has at most so many fetches under way, of all identities together (two in
# ztunnel's own tests).
REQUESTS_UNDER_WAY_MAX = 8
# A0, A1: CERT_REFRESH_FAILURE_RETRY_DELAY (manager.rs at 1.18.0 and 1.21.0).
RETRY_CONSTANT_NS = 60 * NS_PER_S
# From class B on: backoff::ExponentialBackoff (ihrwein/backoff 0.4.0) with these settings of
# manager.rs. A new one begins with a second; after a reset it begins with its initial_interval.
BACKOFF_FIRST_NS = 1 * NS_PER_S
BACKOFF_FIRST_AFTER_RESET_NS = 500 * NS_PER_MS
BACKOFF_FACTOR = 2
BACKOFF_MOST_NS = 150 * NS_PER_S
# randomization_factor: each delay is drawn from 0.8 to 1.2 of its value, so one of 150 s may take
# 180.
BACKOFF_SPREAD = 0.2
# max_elapsed_time, which manager.rs leaves at its default: counted from creation or the last reset.
# Past it next_backoff() is None, and ztunnel waits 150 s each time, without a spread. In class B,
# whose one backoff is reset by any success, that is the usual case: the last success of any
# identity lies hours back.
BACKOFF_GIVES_UP_AFTER_NS = 900 * NS_PER_S

_ERRORS = {
    "refused": "signing gRPC error (The service is currently unavailable): the authority does not "
    "answer",
    "lost": "signing gRPC error (Unknown error): the connection was closed before the answer came",
    "not_trusted": "signing gRPC error (Unknown error): client error (Connect)",
    "unauthenticated": "signing gRPC error (The request does not have valid authentication "
    "credentials): token expired",
}


class Retry(Protocol):
    """When to try again. Times are of the monotonic clock."""

    def failed(self, identity: str, now_monotonic_ns: int) -> int:
        """The delay before `identity` is tried again."""

    def succeeded(self, identity: str, now_monotonic_ns: int) -> None:
        """`identity` got its certificate."""


class ConstantRetry:
    """Class A: always the same delay."""

    def failed(self, identity: str, now_monotonic_ns: int) -> int:
        """See Retry."""
        return RETRY_CONSTANT_NS

    def succeeded(self, identity: str, now_monotonic_ns: int) -> None:
        """See Retry."""


class Backoff:
    """The crate `backoff` 0.4: doubles up to a bound, spread by chance. Gives up (None) when more
    time than `BACKOFF_GIVES_UP_AFTER_NS` has passed since it was made or reset, whatever happened
    in between."""

    def __init__(self, random: Random, now_monotonic_ns: int) -> None:
        self._random = random
        self._delay_ns, self._since_monotonic_ns = BACKOFF_FIRST_NS, now_monotonic_ns

    def reset(self, now_monotonic_ns: int) -> None:
        """Starts over, with a first delay that is not the one it was made with."""
        self._delay_ns, self._since_monotonic_ns = BACKOFF_FIRST_AFTER_RESET_NS, now_monotonic_ns

    def next_ns(self, now_monotonic_ns: int) -> int | None:
        """The next delay."""
        passed_ns = now_monotonic_ns - self._since_monotonic_ns
        if passed_ns > BACKOFF_GIVES_UP_AFTER_NS:
            return None
        spread_ns = int(self._delay_ns * BACKOFF_SPREAD)
        delay_ns = self._random.randint(self._delay_ns - spread_ns, self._delay_ns + spread_ns)
        self._delay_ns = min(self._delay_ns * BACKOFF_FACTOR, BACKOFF_MOST_NS)
        return delay_ns if passed_ns + delay_ns <= BACKOFF_GIVES_UP_AFTER_NS else None


class SharedBackoff:
    """Class B: any success resets it for all. A first failure more than 15 minutes after the last
    success of any identity, the usual case with a certificate of a day, finds it given up and waits
    the longest delay at once."""

    def __init__(self, random: Random, now_monotonic_ns: int) -> None:
        self._backoff = Backoff(random, now_monotonic_ns)

    def failed(self, identity: str, now_monotonic_ns: int) -> int:
        """See Retry."""
        return _or_most(self._backoff.next_ns(now_monotonic_ns))

    def succeeded(self, identity: str, now_monotonic_ns: int) -> None:
        """See Retry."""
        self._backoff.reset(now_monotonic_ns)


class BackoffForEach:
    """Classes C, D and E: made at the first failure of an identity, thrown away at its success."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._backoffs: dict[str, Backoff] = {}

    def failed(self, identity: str, now_monotonic_ns: int) -> int:
        """See Retry."""
        if identity not in self._backoffs:
            self._backoffs[identity] = Backoff(self._random, now_monotonic_ns)
        return _or_most(self._backoffs[identity].next_ns(now_monotonic_ns))

    def succeeded(self, identity: str, now_monotonic_ns: int) -> None:
        """See Retry."""
        self._backoffs.pop(identity, None)


def _or_most(delay_ns: int | None) -> int:
    if delay_ns is None:
        return BACKOFF_MOST_NS
    return delay_ns


@dataclass(frozen=True)
class Behaviour:
    """In what the classes differ. `requested_lifetime_s`: the lifetime it requests, None: that of
    SECRET_TTL. `reloads_root`: it trusts the authority's root of now, and not that of its own
    start."""

    retry: Callable[[Random, int], Retry]
    keeps_valid: bool = False
    requested_lifetime_s: int | None = None
    reloads_root: bool = False


BEHAVIOURS: dict[str, Behaviour] = {
    "A0": Behaviour(retry=lambda random, now_ns: ConstantRetry(), requested_lifetime_s=86_400),
    "A1": Behaviour(retry=lambda random, now_ns: ConstantRetry()),
    "B": Behaviour(retry=SharedBackoff),
    "C": Behaviour(retry=lambda random, now_ns: BackoffForEach(random)),
    "D": Behaviour(retry=lambda random, now_ns: BackoffForEach(random), keeps_valid=True),
    "E": Behaviour(
        retry=lambda random, now_ns: BackoffForEach(random), keeps_valid=True, reloads_root=True
    ),
}


@dataclass(frozen=True)
class IdentityState:
    """What the admin interface shows of one identity. One that has expired is still
    Available."""

    state: str
    certificate: SignedCertificate | None = None


INITIALIZING = IdentityState("Initializing")


class ModelZtunnel:
    """One process: the identities of one node, from its start (`base`: the clocks then) to its
    end."""

    def __init__(
        self,
        identities: tuple[str, ...],
        behaviour: Behaviour,
        lifetime_s: int,
        base: ClockReading,
        random: Random,
        timing: Timing = "as-released",
    ) -> None:
        self.states = dict.fromkeys(identities, INITIALIZING)

        # Class A0 ignores SECRET_TTL (istio/ztunnel#742).
        self.requested_lifetime_s = lifetime_s
        if behaviour.requested_lifetime_s is not None:
            self.requested_lifetime_s = behaviour.requested_lifetime_s
        self._keeps_valid, self.base, self._timing = behaviour.keeps_valid, base, timing
        self._retry = behaviour.retry(random, base.monotonic_ns)
        self._under_way: set[str] = set()
        self._queue: dict[str, tuple[bool, int]] = {}

    @property
    def has_free_slot(self) -> bool:
        """Whether one more request may be under way."""
        return len(self._under_way) < REQUESTS_UNDER_WAY_MAX

    def is_requesting(self, identity: str) -> bool:
        """Whether a request for `identity` is under way."""
        return identity in self._under_way

    def enqueue(self, identity: str, due_world_ns: int) -> None:
        """`identity` has been due since `due_world_ns`, and finds no slot."""
        self._queue[identity] = (self.states[identity] != INITIALIZING, due_world_ns)

    def next_queued(self) -> str | None:
        """The identity whose request may be sent now, taken from the queue; None: there is none."""
        if not self._queue or not self.has_free_slot:
            return None

        # First those that have no certificate at all (False sorts before True), then by due time.
        first = min(self._queue, key=self._queue.__getitem__)
        del self._queue[first]
        return first

    def answered(self, identity: str, answer: Answer, now: ClockReading) -> int | None:
        """Takes the answer to a request of `identity`; returns the monotonic time of its next one
        (None: never)."""
        due = self.due_after(identity, answer, now)
        return None if due is None else due.monotonic_ns

    def due_after(self, identity: str, answer: Answer, now: ClockReading) -> Due | None:
        """As `answered`, for a ztunnel that may be patched to look at other clocks too."""
        if answer.outcome in ("hung", "slow"):
            self._under_way.add(identity)
            return None
        self._under_way.discard(identity)
        if answer.certificate is None:
            return Due(self._failed(identity, _ERRORS[answer.outcome], now))
        self._retry.succeeded(identity, now.monotonic_ns)
        self.states[identity] = IdentityState("Available", answer.certificate)
        not_before_wall_ns = answer.certificate.not_before_wall_s * NS_PER_S
        not_after_wall_ns = answer.certificate.not_after_wall_s * NS_PER_S
        planned_wall_ns = renewal_due_wall_ns(not_before_wall_ns, not_after_wall_ns)
        return renewal_due(self._timing, planned_wall_ns, not_before_wall_ns, self.base, now)

    def forget(self, identity: str, now: ClockReading) -> None:
        """The pod of `identity` is deleted: its certificate and the record of its failures are
        dropped."""
        self._retry.succeeded(identity, now.monotonic_ns)
        self.states[identity] = INITIALIZING

    def _failed(self, identity: str, error: str, now: ClockReading) -> int:
        next_monotonic_ns = now.monotonic_ns + self._retry.failed(identity, now.monotonic_ns)
        expires_monotonic_ns = self._expires_monotonic_ns(identity, now)
        is_valid = expires_monotonic_ns is not None and now.monotonic_ns < expires_monotonic_ns
        if self._keeps_valid and is_valid:
            assert expires_monotonic_ns is not None
            # At the expiry it tries once more, and only then drops what it has.
            return min(next_monotonic_ns, expires_monotonic_ns)
        self.states[identity] = IdentityState(f"Unavailable: {error}")
        return next_monotonic_ns

    def _expires_monotonic_ns(self, identity: str, now: ClockReading) -> int | None:
        """When the certificate held expires, as ztunnel computes it: late by the clock drift of the
        process. This is the conversion of src/time.rs that everything here is about: right only
        while wall and monotonic clock have not diverged since `base`."""
        held = self.states[identity].certificate
        base = now if self._timing == "fresh-time-base" else self.base
        if held is None:
            return None
        return base.monotonic_ns + held.not_after_wall_s * NS_PER_S - base.wall_ns
