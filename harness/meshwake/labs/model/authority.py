"""istiod, as far as certificates go: when it answers, what it signs, and by whose clock.

notBefore is the authority's wall clock less the backdate, notAfter the same clock plus the lifetime
that was requested, both cut to whole seconds (istio security/pkg/pki/util/generate_cert.go). An
answer takes no time, unless the authority is slow: then what it takes is dated, signed and answered
some time after, by its monotonic clock, whatever mode it is in by then. A request that is
accepted while the authority hangs is never answered, not even after the fault has ended: ztunnel
sets no deadline. A client that trusts only an old root aborts the handshake, and the authority
gets no request. An authority that restarts with another root loses what it had taken and not
answered.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from meshwake.clocks.virtual import NodeClock
from meshwake.core.durations import NS_PER_S
from meshwake.core.plan import Plan

Outcome = Literal["issued", "refused", "hung", "slow", "lost", "unauthenticated", "not_trusted"]

# What each fault of the service does to a request; where several are active, the first of these
# decides.
_OUTCOMES: dict[str, Outcome] = {
    "ca_hang": "hung",
    "ca_outage": "refused",
    "token_expired": "unauthenticated",
}


class SignedCertificate(NamedTuple):
    """Valid from `not_before_wall_s` to `not_after_wall_s`, both included, for peers that know
    `root`: those with a certificate signed by it."""

    serial: str
    not_before_wall_s: int
    not_after_wall_s: int
    root: int = 0


class Answer(NamedTuple):
    """What came of a request; `certificate` where the outcome is "issued", `answers_world_ns` where
    it is "slow"."""

    outcome: Outcome
    certificate: SignedCertificate | None = None
    answers_world_ns: int = 0


class ModelAuthority:
    """Signs for every identity of `plan`; `clock` is the one it lives on."""

    def __init__(self, plan: Plan, clock: NodeClock) -> None:
        self._clock, self._backdate_s, self._plan = clock, plan.backdate_s, plan
        self._faults: list[tuple[int, int, Outcome]] = []
        self._roots_since_ns: list[int] = []
        of_authority = list(plan.faults_on(None))

        # In the order of precedence: of two at the same time the first decides.
        for kind, outcome in _OUTCOMES.items():
            for fault in of_authority:
                if fault.kind == kind:
                    self._faults.append((fault.at_world_ns, fault.ends_world_ns, outcome))
        for fault in of_authority:
            if fault.kind == "ca_root_change":
                self._roots_since_ns.append(fault.at_world_ns)
        self._signed = 0

    def answer(self, lifetime_s: int, world_ns: int, root_of_world_ns: int | None = None) -> Answer:
        """The answer at `world_ns` to a request, for a certificate of this lifetime, of a
        client that trusts the root that the authority had at `root_of_world_ns` (None: has now)."""
        if root_of_world_ns is not None and self._root_changed(root_of_world_ns, world_ns):
            return Answer("not_trusted")
        outcome = self._outcome(world_ns)
        if outcome != "issued":
            return Answer(outcome)
        if after_ns := self._plan.answers_after_ns(world_ns):
            due_monotonic_ns = self._clock.reading(world_ns).monotonic_ns + after_ns
            return Answer(
                "slow",
                answers_world_ns=self._clock.world_ns_at_monotonic(due_monotonic_ns, world_ns),
            )
        return self.late_answer(lifetime_s, world_ns)

    def _root_changed(self, after_world_ns: int, until_world_ns: int) -> bool:
        return any(after_world_ns < at <= until_world_ns for at in self._roots_since_ns)

    def late_answer(self, lifetime_s: int, world_ns: int) -> Answer:
        """The answer, at `world_ns`, to a request that came when the authority was slow."""
        return Answer("issued", self._sign(lifetime_s, world_ns))

    def is_ready(self, world_ns: int) -> bool:
        """Whether it is up and reports that it is ready. One that accepts requests and never
        answers them does, and so does one that finds a token expired."""
        return self._outcome(world_ns) != "refused"

    def _outcome(self, world_ns: int) -> Outcome:
        # On a machine that sleeps there is no authority; on one of its own it never does.
        if not self._clock.processes_run(world_ns):
            return "refused"

        for begins_ns, ends_ns, outcome in self._faults:
            is_under_way = begins_ns <= world_ns < ends_ns
            if is_under_way:
                return outcome
        return "issued"

    def _sign(self, lifetime_s: int, world_ns: int) -> SignedCertificate:
        state = self._plan.authority_at(world_ns)
        # Whole seconds, cut off, as X.509 has them.
        now_wall_s = (self._clock.reading(world_ns).wall_ns + state.ahead_wall_ns) // NS_PER_S
        not_after_wall_s = now_wall_s + (state.lifetime_s or lifetime_s)
        self._signed += 1
        return SignedCertificate(
            str(self._signed), now_wall_s - self._backdate_s, not_after_wall_s, state.root
        )
