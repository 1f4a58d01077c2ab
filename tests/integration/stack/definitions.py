"""Objects of kinds that Kubernetes does not know by itself, checked against the definitions their
projects publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with kubernetes-validate, without types
import pytest
from meshwake.ztunnel.binaries import cache_dir

from tests.integration.stack.schemas import crd_schemas

NotAsDefined = jsonschema.ValidationError


def definitions(project: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Schema by (apiVersion, kind), from the newest release of `project` in the cache; skips the
    test without one."""
    releases = sorted((cache_dir() / "crds" / project).glob("*/"))
    if not releases:
        pytest.skip(
            f"needs real definitions in {cache_dir() / 'crds'}/PROJECT/VERSION/ "
            "(docs/stack.md says whose)"
        )
    return crd_schemas(releases[-1])


def check_defined(
    thing: Mapping[str, Any], schemas: Mapping[tuple[str, str], Mapping[str, Any]]
) -> None:
    """Raises NotAsDefined, also for a field that the definition does not have (Kubernetes drops
    it)."""
    schema = _strict(schemas[thing["apiVersion"], thing["kind"]])
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    jsonschema.Draft202012Validator(schema).validate(dict(thing))


def _strict(schema: Any) -> Any:
    """The schema with every object closed that does not say itself that it takes unknown fields."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    open_ended = (
        schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    )
    if "properties" in schema and schema.get("type") == "object" and not open_ended:
        strict["additionalProperties"] = False
    return strict
