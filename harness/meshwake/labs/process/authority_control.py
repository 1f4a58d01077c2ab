"""Keeps an authority in the mode and state that a plan wants at each moment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from meshwake.authority.server import Mode
from meshwake.core.authority_state import AuthorityState
from meshwake.core.plan import Plan

# Of several faults of the service at once the first of these decides.
_MODE_BY_PRECEDENCE: tuple[Mode, ...] = ("ca_hang", "ca_outage", "token_expired", "ca_slow")


class Controllable(Protocol):
    """An authority that can be set: see authority.server.AuthorityProcess."""

    def set_mode(self, mode: Mode) -> None:
        """From now on requests are answered so."""

    def set_state(self, state: AuthorityState) -> None:
        """From now on it dates and signs so."""


class AuthorityControl:
    """Of one authority, which is "up" and in its first state when this is made. `mode` is what it
    was set to last."""

    def __init__(self, plan: Plan, authority: Controllable) -> None:
        self._plan, self._authority = plan, authority
        self._state = AuthorityState()
        self.mode: Mode = "up"

    def apply(self, world_ns: int, stopped_nodes: Collection[str]) -> None:
        """Sets what the plan wants at `world_ns`, while the programs of `stopped_nodes` do not
        run."""
        self.mode = self._planned_mode(world_ns, stopped_nodes)
        self._authority.set_mode(self.mode)
        state = self._plan.authority_at(world_ns)
        if state != self._state:
            self._state = state
            self._authority.set_state(state)

    def _planned_mode(self, world_ns: int, stopped_nodes: Collection[str]) -> Mode:
        if self._plan.authority_node in stopped_nodes:
            # Nothing there accepts a request, not even one that would never be answered. What a
            # node sees of a machine that sleeps is a timeout; here it is a refusal, at once.
            return "ca_outage"

        active = set()
        for fault in self._plan.faults_on(None):
            if fault.at_world_ns <= world_ns < fault.ends_world_ns:
                active.add(fault.kind)
        for mode in _MODE_BY_PRECEDENCE:
            if mode in active:
                return mode
        return "up"
