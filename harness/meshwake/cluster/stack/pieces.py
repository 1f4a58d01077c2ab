"""The pieces that a cluster is put together from, and the label that distinguishes them from
everything else.

A `Stage` is one step of an installation: what is put in, and what must be true before the next one
may begin. Pieces are values: nothing here speaks to a cluster, so a whole installation can be
printed before a byte of it is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from meshwake.core.errors import HarnessFault
from meshwake.core.json_types import JsonObject, list_at, object_at, objects_at, text_at
from meshwake.core.resources import CLUSTERS
from meshwake.kubernetes.api import identity_of
from meshwake.kubernetes.labels import OUR_LABELS, is_ours

CILIUM_NAMESPACE = "kube-system"
METALLB_NAMESPACE = "metallb-system"
CERT_MANAGER_NAMESPACE = "cert-manager"
ACME_NAMESPACE = "meshwake-acme"
OBSERVABILITY_NAMESPACE = "meshwake-observability"
DEMO_NAMESPACE = "meshwake-demo"

_WITH_POD_TEMPLATE = ("DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet")
CONTAINER_LISTS = frozenset({"containers", "initContainers"})


@dataclass(frozen=True)
class Chart:
    """One helm release. `chart` is what helm takes: a name within `repo`, or, with `repo` None, an
    oci:// address or a path. The namespace is made if it is missing."""

    release: str
    namespace: str
    chart: str
    repo: str | None
    version: str
    values: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Objects:
    """Objects that are applied on the server's side, in this order; all carry `OUR_LABELS`."""

    name: str
    objects: tuple[dict[str, Any], ...] = field(hash=False)

    def __post_init__(self) -> None:
        for thing in self.objects:
            labels = thing["metadata"].get("labels")
            # Without it a teardown or a reset would never find the object again.
            if not is_ours(labels):
                raise HarnessFault(
                    f"{self.name}: {identity_of(thing)} lacks our label ({dict(OUR_LABELS)})"
                )


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest that its project publishes: fetched, labelled, applied."""

    name: str
    url: str


Piece = Chart | Objects | RemoteManifest


@dataclass(frozen=True)
class Stage:
    """One step: `pieces` are put in, and until they are ready the next waits; the whole within
    `within_s` seconds. `others`: what is installed by something else and must be ready as well, as
    (kind, namespace, name); name None: every one."""

    name: str
    title: str
    pieces: tuple[Piece, ...]
    within_s: int = 600  # on a machine that has to fetch every image over an ordinary line
    others: tuple[tuple[str, str | None, str | None], ...] = ()


@dataclass(frozen=True)
class Facts:
    """What is known only once the cluster's machines run. `pool`: addresses for load balancers,
    FIRST-LAST. `seed`: the cluster's own secret, from which keys are worked out; without one they
    follow from the choice and are no secret."""

    pool: str
    seed: str = ""


def labelled(thing: JsonObject, labels: Mapping[str, str] = OUR_LABELS) -> dict[str, Any]:
    """A copy of `thing` that carries `labels`, as do the pods it makes. Selectors stay as they
    are."""
    copy: dict[str, Any] = deepcopy(dict(thing))
    copy.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    if copy.get("kind") in _WITH_POD_TEMPLATE:
        copy["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    return copy


def labelled_objects(name: str, things: Iterable[JsonObject]) -> Objects:
    """`things` with `OUR_LABELS` on each."""
    objects = [labelled(thing) for thing in things]
    return Objects(name, tuple(objects))


def read_objects(*parts: str) -> list[dict[str, Any]]:
    """The objects of a YAML file below clusters/, fresh copies each time; `parts` are ("gateway",
    "gateway.yaml")."""
    path = CLUSTERS.joinpath(*parts)
    # A file that begins or ends with --- has an empty document there.
    things = [thing for thing in _documents(path) if thing is not None]
    return deepcopy(things)


def read_values(*parts: str) -> dict[str, Any]:
    """A chart's values from a YAML file below clusters/, a fresh copy each time."""
    (values,) = read_objects(*parts)
    return values


@cache
def _documents(path: Path) -> Sequence[Any]:
    return tuple(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def image_references(thing: object) -> Iterator[str]:
    """Every image of every container in `thing`, an object or a list of objects, ephemeral ones
    left out."""
    if isinstance(thing, list | tuple):
        for entry in thing:
            yield from image_references(entry)
        return

    for key, value in object_at(thing).items():
        if key in CONTAINER_LISTS:
            for container in objects_at(value):
                yield from _image_of(container)
        yield from image_references(value)


def with_containers(thing: Any, changed: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """A copy of `thing`, an object or a part of one, with each container that `image_references`
    reads replaced by what `changed` makes of it. A list of the same name that holds something else,
    as a custom resource may have one, stays as it is."""
    if isinstance(thing, list):
        return [with_containers(entry, changed) for entry in thing]
    if not isinstance(thing, Mapping):
        return thing

    copied = {}
    for key, value in thing.items():
        # What is in a container comes first: `changed` gets one that is a copy already.
        copy = with_containers(value, changed)
        if key in CONTAINER_LISTS:
            copy = _with_each_object(copy, changed)
        copied[key] = copy
    return copied


def _with_each_object(
    things: object, changed: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[object]:
    """The list `things` with its objects changed; an empty list for anything else."""
    return [changed(each) if isinstance(each, Mapping) else each for each in list_at(things)]


def _image_of(container: JsonObject) -> Iterator[str]:
    if "image" in container:
        yield text_at(container, "image")
