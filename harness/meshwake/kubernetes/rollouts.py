"""Whether an object has become what its spec says, as `kubectl rollout status` and `kubectl wait`
judge it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meshwake.kubernetes.api import condition, identity_of

WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")
_CONDITIONS: Mapping[str, str] = {
    "Certificate": "Ready",
    "ClusterIssuer": "Ready",
    "CustomResourceDefinition": "Established",
    "Gateway": "Programmed",
    "Issuer": "Ready",
    "Node": "Ready",
}


def workloads(objects: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of `objects` that run pods and stay."""
    return [thing for thing in objects if thing["kind"] in WORKLOADS]


def awaited_of(kind: str) -> str | None:
    """What one waits for in an object of this kind, in words; None: that it is there."""
    return "rolled out" if kind in WORKLOADS else _CONDITIONS.get(kind)


def unmet(thing: Mapping[str, Any] | None) -> str | None:
    """None when `thing` is what it should be, by its status; else what was seen instead."""
    if thing is None:
        return "there is none"
    kind, status = str(thing["kind"]), thing.get("status") or {}
    if kind in WORKLOADS:
        said = _not_rolled_out(thing, status)
    else:
        said = _not_in_condition(thing, _CONDITIONS[kind]) if kind in _CONDITIONS else None
    return None if said is None else f"{identity_of(thing)}: {said}"


def _not_in_condition(thing: Mapping[str, Any], name: str) -> str | None:
    generation, said = thing["metadata"].get("generation", 0), condition(thing, name)
    if not said:
        return f"{name} not said yet"
    if said.get("observedGeneration", generation) < generation:
        return f"{name} was said of an older generation"
    if said["status"] == "True":
        return None
    return f"{name} is {said['status']}: {said.get('reason', '')} {said.get('message', '')}"


def _not_rolled_out(thing: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    if status.get("observedGeneration", 0) < thing["metadata"].get("generation", 0):
        return "not seen by its controller yet"
    if thing["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        have = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
        return None if 0 < wanted <= have else f"{have} of {wanted} pods available"
    wanted = (thing.get("spec") or {}).get("replicas", 1)
    have = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    leftover = status.get("replicas", 0) - wanted
    if have >= wanted and leftover <= 0:
        return None
    return f"{have} of {wanted} pods available" + (
        f", {leftover} old ones left" if leftover > 0 else ""
    )
