"""YAML as Kubernetes and Prometheus read it: several documents, lists of objects, and what a person
may have saved instead.

A date stays text, a key that is there twice is an error, and what is too deep or too large is
refused, never a crash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from meshwake.core.errors import BadInput
from meshwake.core.json_types import list_at, text_at
from meshwake.core.text_files import MARK

# Aliases of aliases: a few hundred bytes of YAML may mean billions of values ("billion laughs").
NODES_MOST = 500_000
# PyYAML calls itself at each level, and Python allows some 1,000 calls: deeper text would end in a
# RecursionError.
DEPTH_MOST = 100


class _Loader(yaml.SafeLoader):
    """Without dates and numbers of sixties, and with keys that are there once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # PyYAML keeps the last of two equal keys in silence.
        seen = set()
        for key, _ in node.value:
            # `<<` may be there several times: it merges other mappings. A key that is a mapping or
            # a list itself is refused by PyYAML.
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _without_sixties(tag: str, pattern: re.Pattern[str]) -> re.Pattern[str]:
    """1:30 is a text to every reader in Go, and ninety to YAML 1.1."""
    if tag not in (_INT, _FLOAT):
        return pattern
    return re.compile(rf"(?!.*:){pattern.pattern}", pattern.flags)


_MERGE = "tag:yaml.org,2002:merge"
_INT, _FLOAT, _TIME = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))
# A table of our own: PyYAML's belongs to the class, and whatever else reads YAML in this process
# would lose its dates too.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _without_sixties(tag, pattern)) for tag, pattern in resolvers if tag != _TIME]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_documents(text: str, where: str) -> list[Any]:
    """All documents in `text`, without empty ones. Raises BadInput that names `where`."""
    try:
        documents = _json(text)
        if documents is None:
            documents = list(yaml.load_all(text, _Loader))
        _check_size(documents)
    except yaml.YAMLError as error:
        if "{{" in text:
            raise BadInput(
                f"{where}: is a template of helm, not YAML yet; render it first: helm "
                "template CHART > FILE"
            ) from error
        # PyYAML puts the place on lines of its own.
        on_one_line = " ".join(str(error).split())
        raise BadInput(f"{where}: is not YAML: {on_one_line}") from error
    except RecursionError as error:
        raise BadInput(f"{where}: is YAML that cannot be read: it is nested too deeply") from error
    # What PyYAML's constructors let through for tags, numbers and keys that cannot be.
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        raise BadInput(f"{where}: is YAML that cannot be read: {error}") from error

    # `---` after the last document makes an empty one, which is None.
    return [document for document in documents if document is not None]


def _json(text: str) -> list[Any] | None:
    """One document of JSON, which may be indented with tabs, as YAML may not; None for all else.
    Raises ValueError for a key that is there twice."""
    begins_as_json = text.lstrip(f"{MARK} \t\r\n").startswith(("{", "["))
    if not begins_as_json:
        return None
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            # Noted, not raised: a ValueError in here would be taken below for text that is not
            # JSON.
            if key in made:
                twice.append(key)
            made[key] = value
        return made

    # What begins as JSON may still be YAML: {a: b}.
    try:
        document = json.loads(text.removeprefix(MARK), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
    if twice:
        raise ValueError(f"the key {twice[0]!r} is there twice")
    return [document]


def _check_size(documents: list[Any]) -> None:
    """Raises ValueError for what would take too long to walk through: with aliases a few lines can
    expand to millions of values."""
    left = NODES_MOST

    # Without calls of itself: the depth is what is checked here.
    waiting = [(document, 0) for document in documents]
    while waiting:
        # The last first. Level by level, one level of aliases could fill the memory before it is
        # counted.
        value, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > DEPTH_MOST:
            raise ValueError("it is too large, or nested too deeply")
        waiting += [(child, depth + 1) for child in children_of(value)]


def children_of(value: object) -> list[Any]:
    """The values of a mapping, or of a list; none of anything else."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return value
    return []


def read_objects(text: str, where: str) -> list[Any]:
    """All documents in `text`; a List (as `kubectl get -o yaml` prints it) as what it holds. Raises
    BadInput."""
    objects: list[Any] = []
    for document in read_documents(text, where):
        objects += _items(document)
    return objects


def _items(document: Any) -> Iterator[Any]:
    """What a List holds, Lists within it too; all else as it is."""
    kind = text_at(document, "kind")
    if not kind.endswith("List") or "items" not in document:
        yield document
        return

    # A PodList need not repeat in each that it is a Pod; a List has objects of all kinds.
    of_each = kind.removesuffix("List")
    common: dict[str, object] = {}
    if of_each:
        common = {"apiVersion": document.get("apiVersion"), "kind": of_each}

    # `items: null` is how Go writes an empty list, and reads as one.
    for item in list_at(document, "items"):
        if isinstance(item, dict):
            yield from _items({**common, **item})
        else:
            yield item


def kinds_of(objects: list[Any]) -> str:
    """What there is, in words."""
    named = []
    for thing in objects:
        # What is not an object, such as a line of a script, as it is.
        name = repr(thing)[:60]
        if isinstance(thing, dict):
            name = str(thing.get("kind", "an object without kind"))
        named.append(name)
    return ", ".join(named) or "nothing at all"
