"""Where lab `kind` gets what it works with: a cluster, a way to speak to it, somebody who moves its
clocks, workloads.

`Environment` is the promise, so that a whole run can be tried on a simulated cluster; local_environment.py is this
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from meshwake.clocks.movers.base import Mover
from meshwake.cluster.real_time import RealTime
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import Kubernetes
from meshwake.labs.kind.session import Watcher
from meshwake.labs.kind.traffic import Client, Route


@dataclass(frozen=True)
class Place:
    """A cluster that runs. `nodes`: the Kubernetes nodes for workloads, in a fixed order; `ours`:
    made by us; `about`: what else run_started tells of it; `parts`: what is known to be in it."""

    name: str
    kubeconfig: Path
    context: str | None
    ours: bool
    nodes: tuple[str, ...]
    parts: frozenset[str] = frozenset()
    about: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class LookedAt:
    """Whom connections are made between (the plan's pairs first), and what else is looked at."""

    routes: tuple[Route, ...]
    clients: Mapping[str, Client] = field(hash=False)
    watchers: tuple[Watcher, ...] = ()


class Environment(Protocol):
    """What the lab asks for."""

    @property
    def real(self) -> RealTime:
        """Time as the harness lives through it."""

    def missing(self) -> list[str]:
        """Why no cluster can be brought up on this machine; takes seconds at most, and never
        raises."""

    def refusals(self, plan: Plan) -> list[str]:
        """What of the plan neither the stack nor the chosen mover can do."""

    def place(self, plan: Plan, tell: Callable[[str], None]) -> AbstractContextManager[Place]:
        """The cluster: one of ours, found or brought up, or one that exists. No other command of
        this machine brings it up or puts it away while the block lasts."""

    def connect(self, place: Place) -> Kubernetes:
        """A way to speak to it, to be closed by whoever asked."""

    def mover(
        self, plan: Plan, place: Place, kubernetes: Kubernetes, node_names: Mapping[str, str]
    ) -> Mover:
        """Who moves its clocks; not prepared yet."""

    def executor(self) -> Executor:
        """Where looks and attempts are done, side by side."""

    def objects(self, plan: Plan, node_names: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
        """What a run puts into the cluster. `node_names`: plan node -> Kubernetes node."""

    def awaited(self, plan: Plan) -> tuple[tuple[str, Mapping[str, str]], ...]:
        """(namespace, labels) of the pods among them that must be ready before world time begins."""

    def looked_at(
        self, plan: Plan, place: Place, kubernetes: Kubernetes, node_names: Mapping[str, str]
    ) -> LookedAt:
        """Whom, and what, a run looks at."""
