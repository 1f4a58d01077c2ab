"""What lab `kind` depends on: a cluster, a client of its API, a clock mover, workloads.

`Environment` is the interface, so that a whole run can be tested on a simulated cluster;
local_environment.py implements it for this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meshwake.clocks.movers.base import Mover
from meshwake.cluster.real_time import HostTime
from meshwake.core.json_types import JsonObject
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import Kubernetes
from meshwake.labs.kind.session import ClusterWatcher
from meshwake.labs.kind.traffic import Client, Route


@dataclass(frozen=True)
class RunningCluster:
    """A running cluster. `nodes`: the Kubernetes nodes for workloads, in a fixed order; `ours`:
    created by meshwake; `about`: further fields of run_started; `parts`: the parts of the stack
    that it was created with."""

    name: str
    kubeconfig: Path
    context: str | None
    ours: bool
    nodes: tuple[str, ...]
    parts: frozenset[str] = frozenset()
    about: JsonObject = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class LookedAt:
    """The routes that connections take (the plan's pairs first), and what else is observed."""

    routes: tuple[Route, ...]
    clients: Mapping[str, Client] = field(hash=False)
    watchers: tuple[ClusterWatcher, ...] = ()


class Environment(Protocol):
    """See the module."""

    @property
    def real(self) -> HostTime:
        """The harness's own time, which no fault moves."""

    def missing(self) -> list[str]:
        """Why no cluster can be created on this machine; takes seconds at most and never raises."""

    def refusals(self, plan: Plan) -> list[str]:
        """What the plan requires that the stack or the chosen mover cannot do."""

    def place(
        self, plan: Plan, report: Callable[[str], None]
    ) -> AbstractContextManager[RunningCluster]:
        """The cluster: one of ours, found or created, or an existing one. No other command on
        this machine creates or deletes it while the block lasts."""

    def connect(self, place: RunningCluster) -> Kubernetes:
        """A client of its API; the caller closes it."""

    def mover(
        self,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        node_names: Mapping[str, str],
    ) -> Mover:
        """The clock mover; `prepare` has not been called."""

    def executor(self) -> Executor:
        """The thread pool on which polls and connection attempts run."""

    def objects(self, plan: Plan, node_names: Mapping[str, str]) -> tuple[JsonObject, ...]:
        """The objects that a run applies. `node_names`: plan node -> Kubernetes node."""

    def awaited(self, plan: Plan) -> tuple[tuple[str, Mapping[str, str]], ...]:
        """(namespace, labels) of the pods among them that must be ready before world time
        begins."""

    def gateways(
        self, plan: Plan, node_names: Mapping[str, str]
    ) -> tuple[tuple[JsonObject, ...], tuple[tuple[str, Mapping[str, str]], ...]]:
        """The objects of the plan's gateways, and (namespace, labels) of their pods."""

    def looked_at(
        self,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        node_names: Mapping[str, str],
    ) -> LookedAt:
        """Routes, clients and watchers of a run."""
