"""Which of ztunnel's defects are known upstream, in which behaviour classes of releases.

The classes are those of clusters/versions.toml; which release is in which, and where that was read,
is in docs/behaviour-classes.md.
"""

from __future__ import annotations

from typing import NamedTuple

_EVERY_CLASS = ("A0", "A1", "B", "C", "D", "E")


class KnownIssue(NamedTuple):
    """An upstream issue, and the classes of the releases that have it."""

    issue: str
    classes: tuple[str, ...]


# Renewals come late by the clock drift: src/time.rs is the same from 1.18 to 1.31.0-rc.0, and the
# issue is open.
LATE_AFTER_SLEEP = KnownIssue("istio/ztunnel#1481", _EVERY_CLASS)
# A failed renewal drops a certificate that is still valid: fixed in 1.28.
DROPPED_WHILE_VALID = KnownIssue("istio/ztunnel#1567", ("A0", "A1", "B", "C"))
