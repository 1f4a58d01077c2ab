"""Programs that run from files: their configuration as ConfigMaps, and pods that restart when it
has changed.

A program that has read its configuration does not read it again because a ConfigMap was applied. So
each pod template carries a digest of what its pods are configured with: another configuration is
another template, and the workload's own controller rolls it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from meshwake.core.errors import BadInput
from meshwake.kubernetes.rollouts import workloads

DIGEST_ANNOTATION = "meshwake.dev/configuration"


def config_map(namespace: str, name: str, content: Mapping[str, str]) -> dict[str, Any]:
    """A ConfigMap that holds `content`, file name to text."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": dict(content),
    }


def with_images(
    things: Iterable[Mapping[str, Any]], images: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Copies of `things` whose containers name a pinned image where the file names only its key in
    `images`.

    Raises BadInput when a key has no pin."""
    copies = [deepcopy(dict(thing)) for thing in things]
    for thing in workloads(copies):
        pod = thing["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            if container["image"] not in images:
                raise BadInput(
                    f"clusters/stack.toml: no [images] entry {container['image']!r}, "
                    f"which {thing['kind']} {thing['metadata']['name']} runs; found: "
                    f"{', '.join(sorted(images))}"
                )
            container["image"] = images[container["image"]]
    return copies


def with_digest(
    things: Sequence[Mapping[str, Any]], configuration: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Copies of `things` whose pod templates carry a digest of those ConfigMaps and Secrets that
    they mount."""
    copies = [deepcopy(dict(thing)) for thing in things]
    for thing in workloads(copies):
        template = thing["spec"]["template"]
        volumes = template["spec"].get("volumes", ())
        mounted = {_source_of(volume) for volume in volumes}

        # Only what it mounts: a change for one program restarts no other.
        used = []
        for part in configuration:
            source = part["kind"], part["metadata"]["name"]
            if source in mounted:
                used.append(part)
        annotations = template.setdefault("metadata", {}).setdefault("annotations", {})
        annotations[DIGEST_ANNOTATION] = _digest(used)
    return copies


def _source_of(volume: Mapping[str, Any]) -> tuple[str, str] | None:
    if "configMap" in volume:
        return "ConfigMap", volume["configMap"]["name"]
    if "secret" in volume:
        return "Secret", volume["secret"]["secretName"]
    return None


def _digest(parts: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
