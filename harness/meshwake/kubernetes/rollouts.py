"""Whether an object has become what its spec says, as `kubectl rollout status` and `kubectl wait`
judge it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from meshwake.core.json_types import JsonObject, int_at, object_at
from meshwake.kubernetes.api import condition, identity_of

_Thing = TypeVar("_Thing", bound=JsonObject)
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")
_CONDITIONS: Mapping[str, str] = {
    "Certificate": "Ready",
    "ClusterIssuer": "Ready",
    "CustomResourceDefinition": "Established",
    "Gateway": "Programmed",
    "Issuer": "Ready",
    "Node": "Ready",
}


def workloads(objects: Iterable[_Thing]) -> list[_Thing]:
    """Those of `objects` that run pods and stay."""
    return [thing for thing in objects if thing["kind"] in WORKLOADS]


def awaited_of(kind: str) -> str | None:
    """What is awaited of an object of this kind, in words; None: that it exists."""
    if kind in WORKLOADS:
        return "rolled out"
    return _CONDITIONS.get(kind)


def unmet(thing: JsonObject | None) -> str | None:
    """None when `thing` is what it should be, by its status; else what was seen instead."""
    if thing is None:
        return "there is none"

    kind = str(thing["kind"])
    why = None
    if kind in WORKLOADS:
        why = _not_rolled_out(thing)
    elif kind in _CONDITIONS:
        why = _not_in_condition(thing, _CONDITIONS[kind])

    # Of other kinds, such as a Service or a ConfigMap, it is enough that they exist.
    if why is None:
        return None
    return f"{identity_of(thing)}: {why}"


def _not_in_condition(thing: JsonObject, name: str) -> str | None:
    found = condition(thing, name)
    if not found:
        return f"{name} not reported yet"

    # A status may be of an earlier spec, until its controller has seen the present one. Not every
    # controller fills in observedGeneration (Node has none).
    if "observedGeneration" in found and int_at(found, "observedGeneration") < _generation(thing):
        return f"{name} was reported of an older generation"

    # "False" or "Unknown", each with the reason that its controller gives.
    if found["status"] != "True":
        return f"{name} is {found['status']}: {found.get('reason', '')} {found.get('message', '')}"
    return None


def _not_rolled_out(thing: JsonObject) -> str | None:
    # Until then the numbers of the status are those of the earlier spec.
    if int_at(thing, "status", "observedGeneration") < _generation(thing):
        return "not seen by its controller yet"

    if thing["kind"] == "DaemonSet":
        return _missing_on_nodes(thing)
    return _missing_replicas(thing)


def _missing_on_nodes(daemon_set: JsonObject) -> str | None:
    status = object_at(daemon_set, "status")
    wanted = int_at(status, "desiredNumberScheduled")
    updated, available = int_at(status, "updatedNumberScheduled"), int_at(status, "numberAvailable")

    # A pod counts that is of the present template and serves; the smaller number has both.
    have = min(updated, available)

    # 0 wanted: its controller has not counted the nodes yet.
    if 0 < wanted <= have:
        return None
    return f"{have} of {wanted} pods available"


def _missing_replicas(workload: JsonObject) -> str | None:
    """Of a Deployment or a StatefulSet."""
    status, spec = object_at(workload, "status"), object_at(workload, "spec")
    # 1 is the API server's own default; a chart may leave it out, and 0 means none on purpose.
    wanted = int_at(spec, "replicas") if "replicas" in spec else 1

    updated, available = int_at(status, "updatedReplicas"), int_at(status, "availableReplicas")
    have = min(updated, available)

    # Pods of the old template that a rolling update has not ended yet.
    leftover = int_at(status, "replicas") - wanted
    if have >= wanted and leftover <= 0:
        return None

    old_ones = f", {leftover} old ones left" if leftover > 0 else ""
    return f"{have} of {wanted} pods available{old_ones}"


def _generation(thing: JsonObject) -> int:
    """Counts the changes of a spec."""
    return int_at(thing, "metadata", "generation")
