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
            # `<<` may be there several times: it merges other mappings.
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
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
            # `---` after the last document makes an empty one, which is None.
            documents = [each for each in yaml.load_all(text, _Loader) if each is not None]
        _check_size(documents)
    except yaml.YAMLError as error:
        if "{{" in text:
            raise BadInput(
                f"{where}: is a template of helm, not YAML yet; render it first: helm "
                "template CHART > FILE"
            ) from error
        raise BadInput(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
    # What PyYAML's constructors let through for tags, numbers and keys that cannot be.
    except (ValueError, OverflowError, RecursionError, TypeError, AttributeError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"{where}: is YAML that cannot be read: {why}") from error
    return documents


def _json(text: str) -> list[Any] | None:
    """One document of JSON, which may be indented with tabs, as YAML may not; None for all else.
    Raises ValueError for a key that is there twice."""
    if not text.lstrip(f"{MARK} \t\r\n").startswith(("{", "[")):
        return None
    twice: list[str] = []

    # Noted, not raised: a ValueError in here would be taken below for text that is not JSON.
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.append(next(key for key in keys if keys.count(key) > 1))
        return made

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
        value, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > DEPTH_MOST:
            raise ValueError("it is too large, or nested too deeply")
        waiting += [(each, depth + 1) for each in children_of(value)]


def children_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def read_objects(text: str, where: str) -> list[Any]:
    """All documents in `text`; a List (as `kubectl get -o yaml` prints it) as what it holds. Raises
    BadInput."""
    return [each for document in read_documents(text, where) for each in _items(document)]


def _items(document: Any) -> Iterator[Any]:
    if not _is_list(document):
        yield document
        return
    items = document["items"]
    # `items: null` is how Go writes an empty list.
    if not isinstance(items, list):
        return
    # A PodList need not repeat in each that it is a Pod; a List has objects of all kinds.
    kind = str(document["kind"]).removesuffix("List")
    common = {"apiVersion": document.get("apiVersion"), "kind": kind} if kind else {}
    for each in items:
        yield from _items({**common, **each} if isinstance(each, dict) else each)


def _is_list(document: Any) -> bool:
    if not isinstance(document, dict) or "items" not in document:
        return False
    return str(document.get("kind", "")).endswith("List")


def kinds_of(objects: list[Any]) -> str:
    """What there is, in words."""
    named = [
        str(each.get("kind", "an object without kind"))
        if isinstance(each, dict)
        else repr(each)[:60]
        for each in objects
    ]
    return ", ".join(named) or "nothing at all"
