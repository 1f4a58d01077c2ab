"""Whose a node is, and when its owner counts as gone.

Only time counts in which the helper was awake to receive something: between two looks it adds at
most `_COUNTS_AT_MOST_S`, so a machine that slept for an hour, or a helper that was stopped, has not
been silent for an hour.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from meshwake.clocks.movers.node_helper.answers import GivenUp
from meshwake.core.errors import LabUnavailable, SubjectFailed

_COUNTS_AT_MOST_S = 1.0


@dataclass
class Lease:
    """`owner` None: the node is free. `given_up`: what was released without a request, and why,
    until the next take."""

    owner: str | None = None
    lease_s: float = 0.0
    given_up: GivenUp | None = None
    silent_s: float = 0.0
    _counted_monotonic_s: float = field(default_factory=time.monotonic)

    def begin(self, owner: str, lease_s: float) -> None:
        """The node is the owner's from now on."""
        self.owner, self.lease_s, self.given_up = owner, lease_s, None
        self.note_renewal()

    def note_renewal(self) -> None:
        """The owner has requested something just now."""
        self.silent_s = 0.0
        self._counted_monotonic_s = time.monotonic()

    def count_silence(self) -> None:
        """To be called about once a second."""
        now_monotonic_s = time.monotonic()
        self.silent_s += min(now_monotonic_s - self._counted_monotonic_s, _COUNTS_AT_MOST_S)
        self._counted_monotonic_s = now_monotonic_s

    def has_run_out(self, later_s: float) -> bool:
        """Whether the owner has been silent for longer than its lease and `later_s`."""
        return self.silent_s > self.lease_s + later_s

    def check(self, owner: Any, *, may_begin: bool) -> None:
        """Whether a request of `owner` may change this node; `may_begin`: also one that is free.
        Raises SubjectFailed for a free node, LabUnavailable for that of another owner."""
        if self.owner is not None and owner == self.owner:
            return
        if self.owner is None:
            if may_begin:
                return
            raise SubjectFailed(self._why_free())
        raise LabUnavailable(
            f"the clocks of this node are moved by {self.owner}, last renewed "
            f"{self.silent_s:.0f} s ago; wait for its "
            f"end, or end it: {self.lease_s:.0f} s later they are restored"
        )

    def _why_free(self) -> str:
        if self.given_up is None:
            return "no clocks of this node are taken; take comes first"
        return (
            f"the clocks of this node were moved by {self.given_up['owner']} and have been "
            "restored, because "
            f"{self.given_up['why']}; was it stopped, or was the API server too slow to "
            "carry a request in that time?"
        )
