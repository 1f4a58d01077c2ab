"""The objects of the wake guard, from the manifest that a user could apply by hand.

`clusters/fixes/wake-guard/` is a folder for kubectl, for kustomize and for helm at once; all of them
and this module read the same two files of it. tests/integration/stack/test_guard_packages.py
compares what the four of them make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from meshwake.cluster.stack.pieces import read_objects
from meshwake.guard import names
from meshwake.guard.cluster import Places

FOLDER = ("fixes", "wake-guard")
MANIFEST = (*FOLDER, "daemonset.yaml")
GATEWAY_ROLE = (*FOLDER, "gateways", "role.yaml")
ISTIOD_ROLE = f"{names.NAME}-istiod"
_ROLES = ("Role", "RoleBinding")


def guard_objects(places: Places, image: str | None = None) -> list[dict[str, Any]]:
    """All objects of a guard that looks in `places`, namespace first. `image` None: the one that
    the manifest names."""
    objects = read_objects(*MANIFEST)
    for thing in objects:
        kind = thing["kind"]
        if kind in _ROLES:
            _place(thing, places)
        elif kind == "DaemonSet":
            _set_container(thing, places, image)
    return with_gateways(objects, places.gateways, ztunnel_namespace=places.ztunnel)


def with_gateways(
    objects: Iterable[Mapping[str, Any]],
    namespaces: Iterable[str],
    ztunnel_namespace: str,
) -> list[dict[str, Any]]:
    """`objects` of a guard, and its right to look after the gateways and waypoints of `namespaces`.
    It has that right already in ztunnel's namespace."""
    # Each once, in the order in which they were given.
    more = list(dict.fromkeys(namespaces))
    if ztunnel_namespace in more:
        more.remove(ztunnel_namespace)

    result = [_looking_in(thing, more) for thing in objects]
    for namespace in more:
        result += _roles_in(namespace)
    return result


def _roles_in(namespace: str) -> list[dict[str, Any]]:
    roles = read_objects(*GATEWAY_ROLE)
    for role in roles:
        role["metadata"]["namespace"] = namespace
    return roles


def as_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """`objects` as `kubectl apply -f -` reads them."""
    return yaml.safe_dump_all(objects, sort_keys=False, width=1000)


def _place(thing: dict[str, Any], places: Places) -> None:
    """Puts a Role or its binding where it belongs; that of the Leases stays with the guard."""
    metadata = thing["metadata"]
    if metadata["namespace"] == names.NAMESPACE:
        return

    if metadata["name"] == ISTIOD_ROLE:
        metadata["namespace"] = places.istiod
    else:
        metadata["namespace"] = places.ztunnel


def _set_container(thing: dict[str, Any], places: Places, image: str | None) -> None:
    (container,) = thing["spec"]["template"]["spec"]["containers"]
    if image is not None:
        container["image"] = image
    set_to = {"--ztunnel-namespace": places.ztunnel, "--istiod-namespace": places.istiod}

    # Replaced where they are: the manifest has the defaults written out, for people who read it.
    for position, word in enumerate(container["args"]):
        option = word.partition("=")[0]
        if option in set_to:
            container["args"][position] = f"{option}={set_to[option]}"


def _looking_in(thing: Mapping[str, Any], namespaces: Iterable[str]) -> dict[str, Any]:
    """A copy of `thing`; a DaemonSet's guard looks for gateways in `namespaces` too."""
    if thing["kind"] != "DaemonSet":
        return dict(thing)
    spec = thing["spec"]
    template = spec["template"]
    (container,) = template["spec"]["containers"]
    words = [f"--gateway-namespace={namespace}" for namespace in namespaces]
    changed = {**container, "args": [*(container.get("args") or []), *words]}
    pod = {**template["spec"], "containers": [changed]}
    return {**thing, "spec": {**spec, "template": {**template, "spec": pod}}}
