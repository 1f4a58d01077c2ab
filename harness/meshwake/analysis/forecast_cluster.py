"""Observes the ztunnels of a live cluster for a forecast. It only reads: pods, /config_dump through
a port forward, the wake guard's metrics where it runs, and a few files of /proc by an exec into
ztunnel's own container.

Nothing is installed and nothing privileged is needed: pods get/list, pods/portforward and pods/exec
in ztunnel's namespace. A distroless ztunnel has no shell; then, without a wake guard, the clock
drift is reported as not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from meshwake.analysis.forecast import HeldCertificate, ObservedNode
from meshwake.analysis.forecast_files import (
    Origin,
    SavedClocks,
    clocks_in,
    drift_in_metrics,
    held_in,
    node_of,
    started_in,
)
from meshwake.core.errors import LabUnavailable
from meshwake.guard import names as guard_names
from meshwake.kubernetes.api import Kubernetes, Pod, Refused, Unreachable
from meshwake.kubernetes.ztunnels import find_ztunnels
from meshwake.ztunnel.names import PROXY_CONTAINER
from meshwake.ztunnel.ports import ADMIN_PORT, CONFIG_DUMP_PATH, METRICS_PATH

_Answer = TypeVar("_Answer")
ANSWER_WITHIN_S = 10.0
# In its container ztunnel is process 1. The wall clock is read first, next to the others.
LOOK = "echo wall $(date +%s.%N); echo uptime $(cat /proc/uptime); echo stat $(cat /proc/1/stat)"


def observe_ztunnels(
    kubernetes: Kubernetes, wall_ns: int, namespace: str | None = None
) -> Iterator[ObservedNode]:
    """Every ztunnel of the cluster. `wall_ns`: our own wall clock, for a node whose clock is not
    known; `namespace`: where ztunnels are, None: wherever. Raises LabUnavailable when there is
    none, or one does not answer."""
    pods = _ask("list ztunnels", lambda: find_ztunnels(kubernetes, namespace))
    guards = _guards(kubernetes)
    for pod in pods:
        on_node = [guard for guard in guards if guard.node == pod.node]
        yield _node(kubernetes, pod, on_node, wall_ns)


def _node(kubernetes: Kubernetes, pod: Pod, guards: list[Pod], wall_ns: int) -> ObservedNode:
    dump = _ask(
        f"config_dump of {pod}",
        lambda: kubernetes.get(pod, ADMIN_PORT, CONFIG_DUMP_PATH, ANSWER_WITHIN_S),
    )
    thing = _ask(f"read {pod}", lambda: kubernetes.read("Pod", pod.namespace, pod.name))

    # Without a start the drift is unknown, unless a guard has measured it: not a reason to fail.
    try:
        started = started_in(dict(thing)) if thing is not None else None
    except (ValueError, TypeError, OverflowError):
        started = None

    # Without the clock of the node ours, which is the same but for what either is off by.
    clocks = _clocks(kubernetes, pod) or SavedClocks(wall_ns)
    measured_ns = _measured_ns(kubernetes, guards, pod)
    place = Origin(pod.node, pod.name, pod.namespace)
    return node_of(place, _held(pod, dump), clocks, started, None, measured_ns)


def _held(pod: Pod, dump: bytes) -> tuple[HeldCertificate, ...]:
    try:
        return held_in(dump.decode(errors="replace"))
    except ValueError as error:
        raise LabUnavailable(f"config_dump of {pod}: {error}") from error


def _clocks(kubernetes: Kubernetes, pod: Pod) -> SavedClocks | None:
    """None where the container has no shell."""
    try:
        result = kubernetes.execute(pod, PROXY_CONTAINER, ["sh", "-c", LOOK], ANSWER_WITHIN_S)
        if result.code != 0:
            return None
        return clocks_in(result.stdout)
    except (Unreachable, Refused, ValueError):
        return None


def _measured_ns(kubernetes: Kubernetes, guards: list[Pod], pod: Pod) -> int | None:
    """The clock drift (ns) of the ztunnel in `pod` as the first guard that knows it exports it;
    None when none does."""
    # Two while a DaemonSet is rolled out, or where a guard that only watches runs next to one that
    # acts: one of them may be starting still.
    for guard in guards:
        try:
            page = kubernetes.get(guard, guard_names.METRICS_PORT, METRICS_PATH, ANSWER_WITHIN_S)
            measured_ns = drift_in_metrics(page.decode(errors="replace"), pod.name)
        except (Unreachable, Refused, ValueError):
            # A guard is one source of several.
            continue
        if measured_ns is not None:
            return measured_ns
    return None


def _guards(kubernetes: Kubernetes) -> list[Pod]:
    """Wake guards, where there are any that we may list."""
    try:
        return kubernetes.pods(guard_names.NAMESPACE, guard_names.LABELS)
    except (Unreachable, Refused):
        return []


def _ask(what: str, call: Callable[[], _Answer]) -> _Answer:
    try:
        return call()
    except (Unreachable, Refused) as error:
        raise LabUnavailable(f"{what}: {error}; try: kubectl get pods -A -l app=ztunnel") from error
