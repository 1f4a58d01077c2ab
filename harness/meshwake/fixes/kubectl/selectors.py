"""Label selectors, matched against the labels that ztunnel's chart gives to its pods."""

from __future__ import annotations

import re

from meshwake.fixes.effects import LABELS, NotUnderstood
from meshwake.fixes.shell.memory import Memory, is_known

# A comma ends a term, unless it is in the parentheses of `in (a,b)`.
_BETWEEN_TERMS = re.compile(r",(?![^(]*\))")
# key, !key, key=value, key!=value, key in (a,b), key notin (a,b)
_TERM = re.compile(
    r"\s*(!?)\s*([\w./-]+)\s*(?:(==?|!=)\s*([\w.-]*)|\s(in|notin)\s*\(([^)]*)\))?\s*"
)


def selects_ztunnel(selector: str, memory: Memory) -> bool:
    """Whether a label selector matches ztunnel's pods. Raises NotUnderstood."""
    if not is_known(selector):
        raise NotUnderstood(f"the selector {memory.shown(selector)!r} is not known")

    # Terms are joined by and.
    terms = _BETWEEN_TERMS.split(selector)
    return all(map(_matches_ztunnel, terms))


def _matches_ztunnel(term: str) -> bool:
    """The same of one term, of one label."""
    match = _TERM.fullmatch(term)
    if match is None:
        raise NotUnderstood(f"the selector {term!r} is not understood")

    absent, key, operator, value, within, values = match.groups()
    if key not in LABELS:
        raise NotUnderstood(
            f"whether ztunnel has the label {key!r} is not known here; take app=ztunnel"
        )

    own = LABELS[key]

    # ztunnel has every label of the table, so `!key` never matches it.
    if absent:
        return False

    if operator:
        return (own == value) != (operator == "!=")

    if within:
        is_listed = own in map(str.strip, values.split(","))
        return is_listed != (within == "notin")

    # A key alone: the label is there, with any value.
    return True
