"""The only thing that the fixes modelled so far do: end a ztunnel and start it anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.clocks.virtual import NodeClock

Clocks = Mapping[str | None, NodeClock]


@dataclass(frozen=True, order=True)
class PlannedRestart:
    """A deployed fix ends and starts the ztunnel of `node` at `world_ns`, when that node runs."""

    world_ns: int
    node: str
    cause: str
