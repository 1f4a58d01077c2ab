"""Which series and labels a PromQL expression names. Enough for what clusters/observability/ says,
and no more: names in strings and in braces are passed by, and words of the language are known."""

from __future__ import annotations

import re

_WORDS = frozenset(
    {"by", "on", "without", "ignoring", "unless", "and", "or", "bool", "offset", "group_left"}
)
_LABELS_OF = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_MATCHERS = re.compile(r"\{([^}]*)\}")
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w)(?!\s*\()")


def series_of(expression: str) -> set[str]:
    """Every series that the expression reads."""
    bare = re.sub(r"\[[^\]]*\]", "", _MATCHERS.sub("", _LABELS_OF.sub("", expression)))
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def labels_of(expression: str) -> set[str]:
    """Every label that it chooses or groups by."""
    grouped = {
        label.strip() for inside in _LABELS_OF.findall(expression) for label in inside.split(",")
    }
    chosen = {
        matcher.group(1)
        for inside in _MATCHERS.findall(expression)
        for matcher in re.finditer(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', inside)
    }
    return (grouped | chosen) - {""}


def labels_in_text(text: str) -> set[str]:
    """Labels that a legend, or the text of an alert, fills in."""
    return set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text))
