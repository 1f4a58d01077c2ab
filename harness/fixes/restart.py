"""What a fix can do to the world: end something and start it anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.clocks.virtual import NodeClock

Clocks = Mapping[str | None, NodeClock]
Target = Literal["ztunnel", "applications", "proxies"]


@dataclass(frozen=True, order=True)
class PlannedRestart:
    """A deployed fix ends and starts the `what` of `node` at `world_ns`, when that node runs: its ztunnel; the pods of
    its applications, whose certificates its ztunnel then forgets and fetches anew; or its gateways and waypoints."""

    world_ns: int
    node: str
    cause: str
    what: Target = "ztunnel"
