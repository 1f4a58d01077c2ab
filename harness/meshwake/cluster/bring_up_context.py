"""The context of bringing up one cluster: what every step works on."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from meshwake.cluster.docker import KIND_CLUSTER_LABEL, Container, Engine
from meshwake.cluster.real_time import HostTime, SystemTime
from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.pieces import Facts, Stage
from meshwake.cluster.stack.pins import Pins
from meshwake.cluster.stack.render import kind_config, stages
from meshwake.cluster.state import ClusterState
from meshwake.cluster.steps import Watch
from meshwake.cluster.tools import Tools
from meshwake.core.errors import HarnessFault, LabUnavailable
from meshwake.kubernetes.api import Kubernetes
from meshwake.kubernetes.through_kr8s import ThroughKr8s


def fetch_https(url: str, within_s: float) -> bytes:
    """The content of `url`, over https only. Raises LabUnavailable."""
    if not url.startswith("https://"):
        raise LabUnavailable(f"{url}: invalid URL: expected https")
    try:
        with urllib.request.urlopen(url, timeout=within_s) as answer:  # noqa: S310  https, see above
            return bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise LabUnavailable(
            f"{url}: could not be fetched ({error}); is there a network? or give --folder "
            "DIR with it in it"
        ) from error


# Below the cluster's state directory: one log for each program that was run.
LOGS = "logs"


@dataclass(frozen=True)
class Dependencies:
    """What bringing up depends on in addition to engine and tools; tests pass their own."""

    connect: Callable[[Path], Kubernetes] = ThroughKr8s
    real: HostTime = field(default_factory=SystemTime)
    wall_s: Callable[[], float] = time.time
    fetch: Callable[[str, float], bytes] = fetch_https
    seed: Callable[[], str] = lambda: secrets.token_hex(16)
    # What is broken once everything is up, one sentence each.
    health: Callable[[BringUpContext], list[str]] = lambda bringup: []
    # Undoes what a killed run left; returns what was undone, one sentence each.
    undo: Callable[[BringUpContext], list[str]] = lambda bringup: []


@dataclass
class BringUpContext:
    """See the module. `folder`: the archive folder of --folder, when one was named."""

    choice: Choice
    pins: Pins
    engine: Engine
    tools: Tools
    state: ClusterState
    dependencies: Dependencies
    folder: Path | None = None
    _kube: Kubernetes | None = None
    _stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.choice.name

    def kube(self) -> Kubernetes:
        """A client of the cluster's API, connected at first use."""
        # Not before: the kubeconfig is there only when kind has made the machines.
        if self._kube is None:
            self._kube = self.dependencies.connect(self.state.kubeconfig)
        return self._kube

    def forget_kube(self) -> None:
        """Close the connection: the next `kube` reads the kubeconfig again."""
        if self._kube is not None:
            self._kube.close()
            self._kube = None

    def containers(self) -> tuple[Container, ...]:
        """The containers that are the cluster's nodes."""
        return self.engine.containers({KIND_CLUSTER_LABEL: self.name})

    def stage(self, name: str) -> Stage:
        """The stage `name`, with the facts filled in."""
        # Rendered once: every step looks at its stage many times, and the facts do not change
        # once they are determined.
        if not self._stages:
            facts = read_facts(self.state)
            if facts is None:
                raise HarnessFault(f"stage {name} before step facts")
            rendered = stages(self.choice, self.pins, facts)
            self._stages = {stage.name: stage for stage in rendered}
        return self._stages[name]

    def run(self, watch: Watch, log_name: str, name: str, *arguments: str) -> None:
        """Run a program (tools.py) within the step's timeout; its output goes to the log
        `log_name`. helm is kept away from the user's repositories, plugins and credentials."""
        home = self.state.directory / "helm"
        self.tools.run(
            name,
            *arguments,
            within_s=watch.left_s,
            log=self.state.directory / LOGS / log_name,
            environment={
                f"HELM_{kind}_HOME": str(home / kind.lower())
                for kind in ("CACHE", "CONFIG", "DATA")
            },
        )


def node_names(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """The names that kind gives the containers, and Kubernetes the nodes; workers first."""
    # kind numbers the nodes of a role from the second on: worker, worker2, worker3.
    named = []
    seen: Counter[str] = Counter()
    for node in kind_config(choice, pins)["nodes"]:
        role = str(node.get("role", "control-plane"))
        seen[role] += 1
        number = "" if seen[role] == 1 else str(seen[role])
        named.append(f"{choice.name}-{role}{number}")
    return tuple(sorted(named, key=lambda name: "-control-plane" in name))


def read_facts(state: ClusterState) -> Facts | None:
    """The facts of a cluster, which are determined once; None before that."""
    path = state.directory / "facts.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Facts(**found)
    except (OSError, ValueError, TypeError):
        return None
