"""Bounds that every lab keeps, so that no run goes on for ever.

A ztunnel whose clock was stepped back by more than half a certificate's life renews without a pause
(426 requests in five seconds were measured on 1.28.0, and no end). In a lab where answers take no
time, world time would never move again. So a run ends once it has seen enough to say so:
`run_ended` with reason "csr_flood".
"""

from __future__ import annotations

from collections import deque

from meshwake.core.durations import NS_PER_S

CSR_FLOOD_MAX = 200
CSR_FLOOD_WINDOW_NS = NS_PER_S


class FloodGuard:
    """Counts requests to the authority. `identities`: how many the plan has. All of them send a
    request when ztunnels start, so a large mesh may send more than `CSR_FLOOD_MAX` within the
    window before it counts as a flood. Where an answer takes time (an emulated machine), the window
    is longer."""

    def __init__(self, identities: int, window_ns: int = CSR_FLOOD_WINDOW_NS) -> None:
        self._window_ns = window_ns
        self._most = max(CSR_FLOOD_MAX, 4 * identities)
        self._worlds_ns: deque[int] = deque(maxlen=self._most + 1)

    def is_flooded_by(self, world_ns: int) -> bool:
        """Counts one request at `world_ns`; whether it is one too many within the window (a second)
        of world time."""
        # The queue has room for one more than is allowed: when it is full, its first is the oldest
        # of those that count.
        self._worlds_ns.append(world_ns)
        return len(self._worlds_ns) > self._most and self._worlds_ns[0] > world_ns - self._window_ns


class CsrFlood(Exception):  # ends a run on purpose, not an error
    """Requests come without end and without time passing."""
