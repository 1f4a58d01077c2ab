"""After a stop or a sleep the cluster's statuses are those of before, and are not taken for what
is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from meshwake.cluster.fresh import ContainerUptime, read_machine, stale
from meshwake.core.errors import LabUnavailable
from meshwake.kubernetes.api import Executed

from tests.support.fake_kubernetes import FakeKubernetes
from tests.unit.cluster.world import SimulatedEngine, World

NOW_S, STARTED_S = 1_800_000_000.0, 1_799_999_900.0
# As a node of kind shows it: stat of process 1, uptime of the kernel, and date +%s.
LOOK = (
    "1 (systemd (x) S) S 0 1 1 0 -1 4194560 9 9 9 9 9 9 9 9 20 0 1 0 490000 9 9\n5000.00 "
    "9000.0\n1800000000\n"
)


class Node(SimulatedEngine):
    """One whose look shows what it is given."""

    def __init__(self, look: str = LOOK) -> None:
        super().__init__(World())
        self.look = look

    def execute(self, container: str, command: Sequence[str]) -> Executed:
        return Executed(0, self.look, "")


def at(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat().replace("+00:00", "Z")


def pod(name: str, started_s: float, *, ready: bool = True, node: str = "n") -> dict[str, Any]:
    state = {"running": {"startedAt": at(started_s)}}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "labels": {"app": "x"}},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": [{"state": state}], "conditions": conditions},
    }


class Cluster(FakeKubernetes):
    """A node, its Lease, pods, and a workload that says how many are available."""

    def __init__(
        self, renewed_s: float | None, pods: Sequence[dict[str, Any]] = (), available: int = 0
    ) -> None:
        self.objects = {("Pod", "a", each["metadata"]["name"]): each for each in pods}
        if renewed_s is not None:
            lease = {"metadata": {}, "spec": {"renewTime": at(renewed_s)}}
            self.objects["Lease", "kube-node-lease", "n"] = lease
        self.objects["DaemonSet", "a", "x"] = {
            "kind": "DaemonSet",
            "metadata": {"name": "x", "namespace": "a"},
            "spec": {"selector": {"matchLabels": {"app": "x"}}},
            "status": {"numberAvailable": available},
        }


def test_the_start_of_a_machine_is_read_inside_it() -> None:
    """4900 s of 5000 s of uptime had passed when its first process started, whatever that is
    called."""
    assert read_machine(Node(), "n") == ContainerUptime(NOW_S, STARTED_S)
    for expected in ("", "OCI runtime exec failed", "1 (x) S 0\n5 5\nsoon\n"):
        with pytest.raises(LabUnavailable, match="node n: its clocks cannot be read"):
            read_machine(Node(expected), "n")


CASES: list[tuple[Cluster, list[str]]] = [
    (Cluster(NOW_S - 5, [pod("p", STARTED_S + 20)], 1), []),
    (Cluster(NOW_S - 5, [pod("p", STARTED_S - 1)], 1), []),  # walls are in whole seconds
    (Cluster(None), ["node n: kubelet has not renewed its Lease yet"]),
    (
        Cluster(STARTED_S - 3),
        ["node n: kubelet has not renewed its Lease since its machine was started"],
    ),
    (Cluster(NOW_S - 90), ["node n: kubelet renewed its Lease 90 s ago"]),
    (
        Cluster(NOW_S, [pod("p", STARTED_S - 500)], 1),
        ["Pod a/p: reported as running since before its machine was started"],
    ),
    (Cluster(NOW_S, [pod("p", STARTED_S - 500, node="another")], 1), []),
    (
        Cluster(NOW_S, [pod("p", STARTED_S + 9, ready=False)], 1),
        ["DaemonSet a/x: 1 pods are reported as available, and 0 are ready"],
    ),
]


@pytest.mark.parametrize(("cluster", "expected"), CASES)
def test_what_is_of_before_is_reported(cluster: Cluster, expected: list[str]) -> None:
    """By the Lease, by a container's start, and by workloads whose pods are not ready."""
    assert list(stale(cluster, Node(), ["n"])) == expected
