"""What of a cluster is no longer as `up` made it: a run that was killed, or a `kubectl
edit`.

What `up` made is read where it is recorded: charts in helm's own record of the release, a Secret in the
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

import yaml

from meshwake.core.json_types import (
    JsonObject,
    MutableJsonObject,
    int_at,
    object_at,
    objects_at,
    text_at,
    texts_at,
    value_at,
)
from meshwake.kubernetes.api import Kubernetes, identity_of, kind_of
from meshwake.kubernetes.rollouts import workloads

_RESTARTED = "kubectl.kubernetes.io/restartedAt"
_COMPARED = ("image", "command", "args")


@dataclass(frozen=True)
class HelmRelease:
    """A release as helm records it: `status` in helm's word, and the objects that it made."""

    status: str
    objects: tuple[JsonObject, ...] = field(hash=False)


@dataclass(frozen=True)
class WorkloadDrift:
    """A workload that is not as it was made: what differs, a line each, and what made it."""

    wanted: JsonObject = field(hash=False)
    differs: tuple[str, ...]

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{identity_of(self.wanted)}: {'; '.join(self.differs)}"


def read_release(kubernetes: Kubernetes, namespace: str, name: str) -> HelmRelease | None:
    """The newest revision of a release; None when helm has no record of one."""
    found = kubernetes.all("Secret", namespace, {"owner": "helm", "name": name})
    if not found:
        return None

    # helm keeps a Secret for each of the last ten revisions; as text "10" would sort before "9".
    newest = max(found, key=lambda secret: int(text_at(secret, "metadata", "labels", "version")))

    # Base64 twice: once as every Secret is, and once by helm.
    zipped = base64.b64decode(base64.b64decode(text_at(newest, "data", "release")))
    content = json.loads(gzip.decompress(zipped))
    things = [thing for thing in yaml.safe_load_all(content["manifest"]) if thing]
    for thing in things:
        # A chart may leave the namespace to helm; what it wrote counts before helm's.
        thing["metadata"] = {"namespace": namespace, **thing["metadata"]}
    return HelmRelease(str(content["info"]["status"]), tuple(things))


def drift(kubernetes: Kubernetes, objects: Iterable[JsonObject]) -> list[WorkloadDrift]:
    """How the workloads among `objects` differ from what is there."""
    found = []
    for wanted in workloads(objects):
        differs = tuple(_differences(wanted, _read(kubernetes, wanted)))
        if differs:
            found.append(WorkloadDrift(wanted, differs))
    return found


def restore_workload(kubernetes: Kubernetes, one: WorkloadDrift) -> None:
    """Makes a workload what it was. One that is missing is left to the stage that puts it in."""
    found = _read(kubernetes, one.wanted)
    if found is None:
        return
    template, now = _template(one.wanted), _template(found)
    pod_spec: MutableJsonObject = {
        # Lists are merged by name: without $patch a container that was added would stay.
        "containers": [{"$patch": "replace"}, *objects_at(template, "spec", "containers")]
    }
    node_selector = _replacing(_node_selector(now), _node_selector(template))
    if node_selector:
        pod_spec["nodeSelector"] = node_selector
    annotations = _replacing(_annotations(now), _annotations(template))
    spec: MutableJsonObject = {
        "template": {"metadata": {"annotations": annotations}, "spec": pod_spec}
    }
    if _is_scaled_to_nothing(one.wanted, found):
        spec["replicas"] = _replicas(one.wanted)
    kubernetes.patch(kind_of(one.wanted), *_place(one.wanted), {"spec": spec})


def _replacing(now: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    """What a merge must contain so that `now` becomes `wanted`: null deletes a key."""
    return {**dict.fromkeys(now.keys() - wanted.keys()), **wanted}


def _read(kubernetes: Kubernetes, thing: JsonObject) -> JsonObject | None:
    return kubernetes.read(kind_of(thing), *_place(thing))


def _place(thing: JsonObject) -> tuple[str, str]:
    return text_at(thing, "metadata", "namespace"), text_at(thing, "metadata", "name")


def _template(workload: JsonObject) -> JsonObject:
    """What its pods are made of."""
    return object_at(workload, "spec", "template")


def _replicas(workload: JsonObject) -> int:
    """1 where the workload does not set it, as the API server fills it in."""
    spec = object_at(workload, "spec")
    if "replicas" not in spec:
        return 1
    return int_at(spec, "replicas")


def _differences(wanted: JsonObject, found: JsonObject | None) -> Iterator[str]:
    if found is None:
        yield "is missing"
        return
    if _is_scaled_to_nothing(wanted, found):
        yield f"replicas is 0, was {_replicas(wanted)}"

    template, now = _template(wanted), _template(found)
    yield from _of_values("annotation ", _annotations(template), _annotations(now))
    yield from _of_values("node selector ", _node_selector(template), _node_selector(now))

    # Containers that others have added, such as a sidecar, are left alone.
    there = {each["name"]: each for each in objects_at(now, "spec", "containers")}
    for container in objects_at(template, "spec", "containers"):
        name = container["name"]
        if name in there:
            yield from _of_container(container, there[name])
        else:
            yield f"container {name} is missing"


def _of_container(wanted: JsonObject, found: JsonObject) -> Iterator[str]:
    for key in _COMPARED:
        was = wanted.get(key)
        now = found.get(key)
        # An empty list and none at all are the same to the kubelet.
        if not was and not now:
            continue
        if now != was:
            yield f"{key} is {now!r}, was {was!r}"
    yield from _of_values("", _environment(wanted), _environment(found))


def _of_values(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(wanted.keys() | found.keys()):
        was = wanted.get(name, "not set")
        now = found.get(name, "not set")
        if now != was:
            yield f"{what}{name} is {now}, was {was}"


def _annotations(template: JsonObject) -> dict[str, str]:
    found = {
        name: str(value) for name, value in object_at(template, "metadata", "annotations").items()
    }
    # A restart with kubectl changes nothing of what the pods are made of.
    found.pop(_RESTARTED, None)
    return found


def _node_selector(template: JsonObject) -> dict[str, str]:
    """One that no node fits is how a DaemonSet is scaled to nothing."""
    return texts_at(template, "spec", "nodeSelector")


def _environment(container: JsonObject) -> dict[str, str]:
    """Where a value comes from elsewhere, from where: the server adds defaults there, and so only
    the names count."""
    found = {}
    for variable in objects_at(container, "env"):
        source = object_at(variable, "valueFrom")
        value = _source(source) if source else str(variable.get("value", ""))
        found[text_at(variable, "name")] = value
    return found


def _source(value_from: JsonObject) -> str:
    (kind,) = value_from  # fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef: exactly one
    place = object_at(value_from, kind)

    # Each kind has one or two of these.
    keys = [key for key in ("fieldPath", "resource", "name", "key") if key in place]
    words = [str(place[key]) for key in keys]
    return f"{kind} {' '.join(words)}"


def _is_scaled_to_nothing(wanted: JsonObject, found: JsonObject) -> bool:
    # Any other number is an autoscaler's, and fine.
    if value_at(found, "spec", "replicas") != 0:
        return False
    return _replicas(wanted) != 0
