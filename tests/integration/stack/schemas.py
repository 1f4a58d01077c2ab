"""Objects of Kubernetes' own kinds against its schemas, as the package kubernetes-validate brings
them, kept in memory: hundreds of objects are checked against every pinned version."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with kubernetes-validate, without types
import yaml
from kubernetes_validate.utils import SchemaNotFoundError, schema_contents
from meshwake.cluster.stack.pins import minor_of, read_pins
from referencing import Registry, Resource

VERSIONS: tuple[str, ...] = tuple(
    sorted(read_pins().kubernetes, key=lambda text: [int(part) for part in text.split(".")])
)


def check_known(thing: Mapping[str, Any], version: str) -> bool:
    """Whether Kubernetes `version` has this kind; raises jsonschema.ValidationError when it would
    refuse it, or drop a field of it."""
    group, _, release = str(thing["apiVersion"]).rpartition("/")
    validator = _validator(
        str(thing["kind"]).lower(), "-".join(filter(None, (group.split(".")[0], release))), version
    )
    if validator is None or (group and "." in group and not group.endswith(".k8s.io")):
        return False
    validator.validate(thing)
    return True


@cache
def _validator(kind: str, release: str, version: str) -> Any:
    folder = _folder(version)
    try:
        schema = schema_contents(f"kubernetes-json-schema/{folder}/{kind}-{release}.json", version)
    except (FileNotFoundError, SchemaNotFoundError):
        return None
    registry: Any = Resource.from_contents(schema) @ Registry()
    return jsonschema.Draft202012Validator(
        schema, registry=_definitions(folder, version) @ registry
    )


@cache
def _definitions(folder: str, version: str) -> Any:
    return Resource.from_contents(
        schema_contents(f"kubernetes-json-schema/{folder}/_definitions.json", version)
    )


def _folder(version: str) -> str:
    return f"v{minor_of(version)}.0-local-strict"


def crd_schemas(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Schema by (apiVersion, kind) of the served versions that the definitions in `folder` have."""
    return {
        (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]): version[
            "schema"
        ]["openAPIV3Schema"]
        for path in sorted(folder.glob("*.yaml"))
        for crd in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if crd and crd["kind"] == "CustomResourceDefinition"
        for version in crd["spec"]["versions"]
        if version["served"]
    }
