"""What of a cluster is no longer as `up` made it: a run that was killed, or somebody's `kubectl
edit`.

What `up` made is read where it stands: charts in helm's own record of the release, a Secret in the
cluster; objects of ours in the stage. Of each workload that is compared which decides how it runs:
images, commands, arguments and environment of its containers, the annotations of its pods, the
nodes that they may run on, and that it was not scaled to nothing. A workload that is missing
differs, too. `kubectl rollout restart` leaves an annotation of its own, which changes nothing but
pods.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from meshwake.kubernetes.api import Kubernetes, identity_of, kind_of
from meshwake.kubernetes.rollouts import workloads

_RESTARTED = "kubectl.kubernetes.io/restartedAt"
_COMPARED = ("image", "command", "args")


@dataclass(frozen=True)
class Release:
    """A release as helm remembers it: `status` in helm's word, and the objects that it made."""

    status: str
    objects: tuple[dict[str, Any], ...] = field(hash=False)


@dataclass(frozen=True)
class Drift:
    """A workload that is not as it was made: what differs, a line each, and what made it."""

    wanted: Mapping[str, Any] = field(hash=False)
    differs: tuple[str, ...]

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{identity_of(self.wanted)}: {'; '.join(self.differs)}"


def read_release(kubernetes: Kubernetes, namespace: str, name: str) -> Release | None:
    """The newest revision of a release; None when helm knows of none."""
    found = kubernetes.all("Secret", namespace, {"owner": "helm", "name": name})
    if not found:
        return None
    newest = max(found, key=lambda secret: int(secret["metadata"]["labels"]["version"]))
    # Base64 twice: once as every Secret is, and once by helm.
    content = json.loads(
        gzip.decompress(base64.b64decode(base64.b64decode(newest["data"]["release"])))
    )
    objects = (thing for thing in yaml.safe_load_all(content["manifest"]) if thing)
    return Release(
        str(content["info"]["status"]),
        tuple(
            {**thing, "metadata": {"namespace": namespace, **thing["metadata"]}}
            for thing in objects
        ),
    )


def drift(kubernetes: Kubernetes, objects: Iterable[Mapping[str, Any]]) -> list[Drift]:
    """How the workloads among `objects` differ from what is there."""
    compared = (
        (wanted, tuple(_differences(wanted, _read(kubernetes, wanted))))
        for wanted in workloads(objects)
    )
    return [Drift(wanted, differs) for wanted, differs in compared if differs]


def put_back(kubernetes: Kubernetes, one: Drift) -> None:
    """Makes a workload what it was. One that is missing is for whoever puts it in."""
    found = _read(kubernetes, one.wanted)
    if found is None:
        return
    template, now = one.wanted["spec"]["template"], found["spec"]["template"]
    annotations = _replacing(_annotations(now), _annotations(template))
    node_selector = _replacing(_node_selector(now), _node_selector(template))
    spec: dict[str, Any] = {
        "template": {
            "metadata": {"annotations": annotations},
            "spec": {
                **({"nodeSelector": node_selector} if node_selector else {}),
                # Lists are merged by name, and what somebody added would stay.
                "containers": [{"$patch": "replace"}, *template["spec"]["containers"]],
            },
        }
    }
    if _is_scaled_to_nothing(one.wanted, found):
        spec["replicas"] = one.wanted["spec"].get("replicas", 1)
    metadata = one.wanted["metadata"]
    kubernetes.patch(kind_of(one.wanted), metadata["namespace"], metadata["name"], {"spec": spec})


def _replacing(now: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    """What a merge must say so that `now` becomes `wanted`."""
    return {**dict.fromkeys(now.keys() - wanted.keys()), **wanted}


def _read(kubernetes: Kubernetes, thing: Mapping[str, Any]) -> dict[str, Any] | None:
    return kubernetes.read(
        kind_of(thing), thing["metadata"]["namespace"], thing["metadata"]["name"]
    )


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield "is missing"
        return
    if _is_scaled_to_nothing(wanted, found):
        yield f"replicas is 0, was {wanted['spec'].get('replicas', 1)}"
    template, now = wanted["spec"]["template"], found["spec"]["template"]
    yield from _of_values("annotation ", _annotations(template), _annotations(now))
    yield from _of_values("node selector ", _node_selector(template), _node_selector(now))
    there = {each["name"]: each for each in now["spec"]["containers"]}
    for container in template["spec"]["containers"]:
        if container["name"] not in there:
            yield f"container {container['name']} is missing"
            continue
        other = there[container["name"]]
        for key in _COMPARED:
            if (container.get(key) or None) != (other.get(key) or None):
                yield f"{key} is {other.get(key)!r}, was {container.get(key)!r}"
        yield from _of_values("", _environment(container), _environment(other))


def _of_values(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            here = found.get(name, "not set")
            yield f"{what}{name} is {here}, was {wanted.get(name, 'not set')}"


def _annotations(template: Mapping[str, Any]) -> dict[str, str]:
    found = (template.get("metadata") or {}).get("annotations") or {}
    return {name: str(value) for name, value in found.items() if name != _RESTARTED}


def _node_selector(template: Mapping[str, Any]) -> dict[str, str]:
    """One that no node fits is how a DaemonSet is scaled to nothing."""
    return dict(template["spec"].get("nodeSelector") or {})


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    """Where a value comes from elsewhere, from where: the server adds defaults there, and so only
    the names count."""
    return {
        each["name"]: _source(each["valueFrom"])
        if "valueFrom" in each
        else str(each.get("value", ""))
        for each in container.get("env") or ()
    }


def _source(value_from: Mapping[str, Any]) -> str:
    ((kind, place),) = value_from.items()
    keys = ("fieldPath", "resource", "name", "key")
    return f"{kind} {' '.join(str(place[key]) for key in keys if key in place)}"


def _is_scaled_to_nothing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return bool(found["spec"].get("replicas") == 0 != wanted["spec"].get("replicas", 1))
