"""What the guard of each node reports: from its pod, and from the metrics that it exports to
Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from meshwake.core.json_types import JsonObject, object_at, objects_at, text_at
from meshwake.guard import names
from meshwake.guard.metrics import DRIFT, HELD_BACK, LAST_LOOK, RESTARTS
from meshwake.kubernetes.api import Kubernetes, Pod, Refused, Unreachable
from meshwake.kubernetes.through_kr8s import pod_of
from meshwake.ztunnel.names import ZTUNNEL_LABELS
from meshwake.ztunnel.ports import METRICS_PATH

ANSWER_WITHIN_S = 10.0
# Twenty looks of thirty seconds: as the alert GuardStuck.
STUCK_S = 600.0
# A metric's name, its labels and its value.
_Sample = tuple[str, Mapping[str, str], float]


@dataclass(frozen=True)
class ExportedMetrics:
    """What one guard exports. `last_look_wall_s` is None before its first look; `drift_s` by
    process, `restarts` by target, `held_back` by reason."""

    last_look_wall_s: float | None = None
    drift_s: Mapping[str, float] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    held_back: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeStatus:
    """The guard of one node. `image` is what runs there; `problem` is "" when it guards its
    node."""

    node: str
    pod: str
    image: str
    problem: str
    metrics: ExportedMetrics


def read_status(kubernetes: Kubernetes, wall_s: float) -> list[NodeStatus]:
    """Every node that has a guard, or a ztunnel and no guard; by name. `wall_s` is our own wall
    clock, by which a last look is too long ago."""
    guards: dict[str, JsonObject] = {}
    for pod in kubernetes.all("Pod", names.NAMESPACE, names.LABELS):
        # During a rollout a node has two: the one that goes does not count.
        if "deletionTimestamp" not in object_at(pod, "metadata"):
            guards[text_at(pod, "spec", "nodeName")] = pod
    found = [_of_guard(kubernetes, pod, wall_s) for pod in guards.values()]

    for node in _nodes_of_ztunnels(kubernetes):
        if node not in guards:
            problem = "a ztunnel runs here and no guard"
            found.append(NodeStatus(node, "", "", problem, ExportedMetrics()))
    return sorted(found, key=lambda status: status.node)


def _nodes_of_ztunnels(kubernetes: Kubernetes) -> list[str]:
    """None of them where pods may not be listed in all namespaces."""
    try:
        pods = kubernetes.pods(None, ZTUNNEL_LABELS)
    except Refused:
        return []
    return sorted({pod.node for pod in pods})


def _of_guard(kubernetes: Kubernetes, item: JsonObject, wall_s: float) -> NodeStatus:
    pod = pod_of(item)
    statuses = objects_at(item, "status", "containerStatuses")

    # No status yet in the first moments of a pod.
    status = statuses[0] if statuses else {}
    container, *_ = objects_at(item, "spec", "containers")
    image = text_at(status, "image") or text_at(container, "image")
    if not pod.ready:
        return NodeStatus(pod.node, pod.name, image, _not_ready(status), ExportedMetrics())

    metrics = ExportedMetrics()
    try:
        metrics = read_metrics(_page(kubernetes, pod))
        problem = _late(metrics, wall_s)
    except (Unreachable, Refused, ValueError) as error:
        problem = f"its metrics cannot be read: {error}"
    return NodeStatus(pod.node, pod.name, image, problem, metrics)


def _not_ready(status: JsonObject) -> str:
    # One of waiting, running, terminated; of what runs there is no reason.
    for state in object_at(status, "state").values():
        reason = text_at(state, "reason")
        if reason:
            message = text_at(state, "message")
            return f"not ready: {reason}: {message}".rstrip(": ")
    return "not ready"


def _late(metrics: ExportedMetrics, wall_s: float) -> str:
    last_wall_s = metrics.last_look_wall_s
    if last_wall_s is None:
        return "it has not looked yet"
    if wall_s - last_wall_s > STUCK_S:
        return "its last look is more than ten minutes ago"
    return ""


def look_of(kubernetes: Kubernetes, pod: Pod) -> bool:
    """Whether the guard in `pod` has looked at its node; False too when it does not answer."""
    try:
        return read_metrics(_page(kubernetes, pod)).last_look_wall_s is not None
    except (Unreachable, Refused, ValueError):
        return False


def _page(kubernetes: Kubernetes, pod: Pod) -> str:
    content = kubernetes.get(pod, names.METRICS_PORT, METRICS_PATH, ANSWER_WITHIN_S)
    return content.decode(errors="replace")


def read_metrics(page: str) -> ExportedMetrics:
    """What a guard's /metrics says. Raises ValueError for something else."""
    samples = tuple(_samples(page))
    looks = _by_label(samples, LAST_LOOK, "node")
    if not looks:
        raise ValueError(f"it has no {LAST_LOOK}")
    (last_look_wall_s,) = looks.values()
    return ExportedMetrics(
        last_look_wall_s or None,  # 0 before the first look
        _by_label(samples, DRIFT, "process"),
        _counted(_by_label(samples, RESTARTS, "target")),
        _counted(_by_label(samples, HELD_BACK, "reason")),
    )


def _by_label(samples: Iterable[_Sample], metric: str, label: str) -> dict[str, float]:
    """The values of one metric, by one of its labels."""
    by_label = {}
    for name, labels, value in samples:
        if name == metric:
            by_label[labels[label]] = value
    return by_label


def _counted(values: Mapping[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items()}


def _samples(page: str) -> Iterator[_Sample]:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            yield sample.name, sample.labels, float(sample.value)
