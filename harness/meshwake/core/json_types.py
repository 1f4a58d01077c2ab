"""Reads JSON whose shape another program decides: objects of the Kubernetes API, answers of Docker,
configuration dumps, kubeconfigs.

Such a document is a `JsonObject`, whose values are `object`: mypy lets nothing be done with a value
before its type has been looked at. The functions below do that, along a path of keys:

    text_at(pod, "status", "phase")
    objects_at(pod, "status", "containerStatuses")

A server may leave a part out, send it as null, or (an API of another version) as another type. All
three read as empty, because Kubernetes itself does not distinguish the first two: Go's `omitempty`
leaves out what is empty. Where a part must be there, the caller says so by its own error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

# What was read and stays as it is; and what is built, part by part, to be sent.
JsonObject: TypeAlias = Mapping[str, object]
MutableJsonObject: TypeAlias = dict[str, object]


def value_at(thing: object, *path: str) -> object:
    """What is at the end of a path of keys; None where the path does not exist."""
    for key in path:
        if not isinstance(thing, Mapping):
            return None
        thing = thing.get(key)
    return thing


def object_at(thing: object, *path: str) -> JsonObject:
    """The object at the end of a path; an empty one where there is none."""
    found = value_at(thing, *path)
    if isinstance(found, Mapping):
        return found
    return {}


def list_at(thing: object, *path: str) -> list[object]:
    """The list at the end of a path; an empty one where there is none."""
    found = value_at(thing, *path)
    # Objects that are built here, rather than parsed, may have tuples.
    if isinstance(found, list | tuple):
        return list(found)
    return []


def objects_at(thing: object, *path: str) -> list[JsonObject]:
    """The objects in the list at the end of a path."""
    found = list_at(thing, *path)
    return [each for each in found if isinstance(each, Mapping)]


def text_at(thing: object, *path: str) -> str:
    """The text at the end of a path; "" where there is none."""
    found = value_at(thing, *path)
    if isinstance(found, str):
        return found
    return ""


def int_at(thing: object, *path: str) -> int:
    """The whole number at the end of a path; 0 where there is none, as Go reads a missing field."""
    found = value_at(thing, *path)
    # bool is a subclass of int in Python, and no number in JSON.
    if isinstance(found, bool) or not isinstance(found, int):
        return 0
    return found


def texts_at(thing: object, *path: str) -> dict[str, str]:
    """The texts of the object at the end of a path by their keys: labels, annotations, data."""
    found = object_at(thing, *path)
    return {key: value for key, value in found.items() if isinstance(value, str)}
