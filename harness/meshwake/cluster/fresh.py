"""Detects stale statuses: a node that was stopped or slept wakes up with the statuses of before,
and every wait of `up` would succeed at once.

A status is fresh when its writer has written since. kubelet renews the Lease of its node every ten
seconds, and reports when each container started; so a status is stale when

    the Lease was last renewed before the node's container started, or longer ago than kubelet ever
        waits between renewals
    a container is reported as running since before the node's container started
    a workload is reported to have more pods available than kubelets report as ready

All times are compared with the clock of the node that wrote them. Nothing is concluded for a node
whose clock cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from meshwake.cluster.bring_up_context import BringUpContext, node_names
from meshwake.cluster.docker import Engine
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.core.json_types import JsonObject, int_at, object_at, text_at, texts_at
from meshwake.kubernetes.api import Kubernetes, container_starts, identity_of, is_ready
from meshwake.kubernetes.rollouts import WORKLOADS
from meshwake.system.process_stat import parse_stat

FRESH_WITHIN_S = 240
# kube-controller-manager's default node-monitor-grace-period: after it a node counts as lost.
RENEWED_WITHIN_S = 40.0
# Both wall times are in whole seconds.
_ROUNDED_S = 2.0
# USER_HZ: the unit of times in /proc/PID/stat, whatever the kernel's own HZ is.
_TICKS_PER_S = 100
# Process 1 of a node's container is its systemd, so its start is that of the machine.
_LOOK = ("sh", "-c", "cat /proc/1/stat /proc/uptime && date +%s")
_SHOWN = 5


@dataclass(frozen=True)
class ContainerUptime:
    """The container of a node: its wall clock now, and its wall clock when its first process
    started."""

    now_wall_s: float
    started_wall_s: float


def fresh_step() -> BringUpStep[BringUpContext]:
    """The step that waits until all statuses are fresh."""
    return BringUpStep(
        "statuses",
        "kubelets and controllers report the present, not the time before a restart or a sleep",
        FRESH_WITHIN_S,
        _await_fresh,
        ("look at Leases, containers and workloads on the clocks of the nodes",),
        done=lambda bringup: "all are of now" if _stale(bringup) is None else None,
    )


def _await_fresh(bringup: BringUpContext, watch: Watch) -> None:
    watch.wait_for("statuses of after the machines' start", partial(_stale, bringup))


def _stale(bringup: BringUpContext) -> str | None:
    nodes = node_names(bringup.choice, bringup.pins)
    try:
        found = list(stale(bringup.kube(), bringup.engine, nodes))
    except HarnessError as error:
        return str(error)
    if not found:
        return None

    # After a restart of the machines there is one for each pod: a few show what it is.
    shown = "; ".join(found[:_SHOWN])
    more = len(found) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def stale(kubernetes: Kubernetes, engine: Engine, nodes: Sequence[str]) -> Iterator[str]:
    """The stale statuses of the cluster, one sentence each."""
    machines = {node: read_machine(engine, node) for node in nodes}
    for node, machine in machines.items():
        why = _stale_lease(kubernetes, node, machine)
        if why is not None:
            yield f"node {node}: {why}"

    pods = kubernetes.all("Pod")
    yield from _stale_pods(pods, machines)
    yield from _stale_workloads(kubernetes, pods)


def _stale_pods(
    pods: Sequence[JsonObject], machines: Mapping[str, ContainerUptime]
) -> Iterator[str]:
    for pod in pods:
        machine = machines.get(text_at(pod, "spec", "nodeName"))
        # Not on a node yet.
        if machine is None:
            continue
        if _started_before(pod, machine):
            yield f"{identity_of(pod)}: reported as running since before its machine was started"


def _stale_workloads(kubernetes: Kubernetes, pods: Sequence[JsonObject]) -> Iterator[str]:
    ready_pods = [pod for pod in pods if is_ready(pod)]
    workloads: list[JsonObject] = []
    for kind in WORKLOADS:
        workloads += kubernetes.all(f"{kind}.apps")

    for workload in workloads:
        why = _stale_workload(workload, ready_pods)
        if why is not None:
            yield f"{identity_of(workload)}: {why}"


def _stale_workload(workload: JsonObject, ready_pods: Sequence[JsonObject]) -> str | None:
    # A DaemonSet counts in numberAvailable, Deployments and StatefulSets in availableReplicas.
    status = object_at(workload, "status")
    reported = int_at(status, "numberAvailable") or int_at(status, "availableReplicas")
    ready = _count(workload, ready_pods)

    # Fewer than are ready is not stale: the controller has not counted the newest yet.
    if reported <= ready:
        return None
    return f"{reported} pods are reported as available, and {ready} are ready"


def read_machine(engine: Engine, node: str) -> ContainerUptime:
    """Read the clocks of a node. Raises LabUnavailable."""
    ended = engine.execute(node, _LOOK)
    try:
        stat, uptime, now = ended.stdout.strip().splitlines()
        # Both count from the boot of the engine's machine, so their difference is an age.
        since_s = float(uptime.split()[0]) - parse_stat(stat).started_ticks / _TICKS_PER_S
        return ContainerUptime(float(now), float(now) - since_s)
    except (ValueError, IndexError) as error:
        raise LabUnavailable(
            f"node {node}: its clocks cannot be read (exit code {ended.code}): {ended.output[:200]}"
        ) from error


def _stale_lease(kubernetes: Kubernetes, node: str, machine: ContainerUptime) -> str | None:
    # kubelet renews it every 10 s (KEP-589); without it the node is lost to the control plane.
    lease = kubernetes.read("Lease.coordination.k8s.io", "kube-node-lease", node)
    renewed = text_at(lease, "spec", "renewTime")
    if not renewed:
        return "kubelet has not renewed its Lease yet"
    renewed_wall_s = _wall_s(renewed)
    if renewed_wall_s < machine.started_wall_s - _ROUNDED_S:
        return "kubelet has not renewed its Lease since its machine was started"
    ago_s = machine.now_wall_s - renewed_wall_s
    if ago_s > RENEWED_WITHIN_S:
        return f"kubelet renewed its Lease {ago_s:.0f} s ago"
    return None


def _started_before(pod: JsonObject, machine: ContainerUptime) -> bool:
    before_wall_s = machine.started_wall_s - _ROUNDED_S
    starts_wall_s = map(_wall_s, container_starts(pod))
    return any(started_wall_s < before_wall_s for started_wall_s in starts_wall_s)


def _count(workload: JsonObject, pods: Sequence[JsonObject]) -> int:
    """How many of `pods` belong to a workload, by namespace and labels."""
    namespace = text_at(workload, "metadata", "namespace")
    wanted = texts_at(workload, "spec", "selector", "matchLabels")
    return sum(
        text_at(pod, "metadata", "namespace") == namespace
        and wanted.items() <= texts_at(pod, "metadata", "labels").items()
        for pod in pods
    )


def _wall_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
