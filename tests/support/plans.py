"""Plans for tests (meshwake.testing.plans), what the model makes of them, and when."""

from __future__ import annotations

from pathlib import Path

from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.labs import Toolbox
from meshwake.labs.model.lab import LAB
from meshwake.testing.plans import CLIENT, ONE_NODE, SERVER, TWO_NODES, plan

__all__ = [
    "CLIENT",
    "NIGHTS",
    "ONE_NODE",
    "SERVER",
    "TWO_NODES",
    "failed_world_s",
    "issued_world_s",
    "plan",
    "run",
]

NIGHTS = """
[[fault]]
kind = "suspend"
at = "15h"
lasts = "8h"
every = "24h"
"""


def run(of: Plan) -> History:
    """The history of `of` on the model."""
    recorder = Recorder()
    LAB.run(of, Toolbox(ztunnel=None, work_dir=Path()), recorder)
    return recorder.history


def issued_world_s(history: History, identity: str = SERVER) -> list[float]:
    """When `identity` got a certificate."""
    return [
        event.world_ns / 1e9
        for event in history.of("csr_answered", identity=identity, outcome="issued")
    ]


def failed_world_s(history: History) -> list[float]:
    """When a connection failed."""
    return [event.world_ns / 1e9 for event in history.of("connection_attempted", ok=False)]
