"""The token with which a proxy asks istiod for a certificate, and kubelet, which renews it.

A projected service account token of 12 hours in the charts of ztunnel, gateways and waypoints.
kubelet requests another when four fifths of its life are over, by its wall clock, which it polls
about once a minute while the machine is awake (pkg/kubelet/token/token_manager.go
`requiresRefresh`); a new pod gets a new token. istiod has the API server judge it, by that
machine's wall clock: expired and not yet valid are both refused, with a minute of grace. So a sleep
that outlasts the token leaves a minute in which requests are refused, and a clock that was set back
has them refused until it is where it was; only a new pod helps sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwake.clocks.virtual import Clocks, NodeClock
from meshwake.core.durations import NS_PER_S

# How often kubelet polls whether a token is to be renewed; see the module.
POLLS_EVERY_NS = 60 * NS_PER_S
# What the API server grants for clocks that differ: pkg/serviceaccount validates the times of a JWT
# with the default leeway of go-jose, one minute.
GRACE_NS = 60 * NS_PER_S


@dataclass
class _Token:
    node: str
    issued_world_ns: int
    issued_wall_ns: int


class Tokens:
    """The tokens of all processes. `lives_s` None: they never expire. `clocks` as from
    `clocks_of(plan)`."""

    def __init__(self, lives_s: int | None, clocks: Clocks, api_server: str | None) -> None:
        self._lives_ns = None if lives_s is None else lives_s * NS_PER_S
        self._clocks, self._api_server = clocks, clocks[api_server]
        self._tokens: dict[str, _Token] = {}

    def pod_started(self, process: str, node: str, world_ns: int) -> None:
        """A new pod, a new token."""
        self._tokens[process] = _Token(node, world_ns, self._api_server.reading(world_ns).wall_ns)

    def accepted(self, process: str, world_ns: int) -> bool:
        """Whether istiod accepts the token of `process` now."""
        if self._lives_ns is None:
            return True
        token = self._renewed(self._tokens[process], world_ns)
        age_ns = self._api_server.reading(world_ns).wall_ns - token.issued_wall_ns
        return -GRACE_NS <= age_ns <= self._lives_ns + GRACE_NS

    def _renewed(self, token: _Token, world_ns: int) -> _Token:
        """Catches up with what kubelet did until now."""
        assert self._lives_ns is not None
        clock = self._clocks[token.node]
        while (next_ns := self._renewal(clock, token)) <= world_ns:
            token.issued_world_ns = next_ns
            token.issued_wall_ns = self._api_server.reading(next_ns).wall_ns
        return token

    def _renewal(self, clock: NodeClock, token: _Token) -> int:
        assert self._lives_ns is not None

        # kubelet renews at 80 % of a token's life, by its own wall clock (token_manager.go).
        due_wall_ns = token.issued_wall_ns + self._lives_ns * 4 // 5
        due_ns = clock.world_ns_at_wall(due_wall_ns, token.issued_world_ns + 1)
        ready_ns = self._api_server.world_ns_when_running(due_ns)
        polls_since_ns = clock.reading_before(0).monotonic_ns
        passed_ns = clock.reading(ready_ns).monotonic_ns - polls_since_ns

        # At the first poll after it is due, and when the API server runs.
        poll_monotonic_ns = polls_since_ns + (passed_ns // POLLS_EVERY_NS + 1) * POLLS_EVERY_NS
        return clock.world_ns_at_monotonic(poll_monotonic_ns, ready_ns)
