"""Fixes that are another ztunnel: is this binary the one?

A patched binary carries the name of its patch as a text (docs/fixes.md says how it gets there), so
that no other is taken for it. Which patch a plan asks for: `patch_of`.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from meshwake.fixes.deploy import Patch

PATCH_MARK = "meshwake-patch:"


def lacks_patch(patch: Patch | None, ztunnel: Path) -> str | None:
    """Why `ztunnel` cannot serve as one with `patch`, and what to do; None when it can, or when
    none is requested."""
    if patch is None:
        return None
    mark = f"{PATCH_MARK}{patch}".encode()
    with (
        ztunnel.open("rb") as binary,
        mmap.mmap(binary.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content.find(mark) >= 0:
            return None
    return (
        f"fix {patch}: {ztunnel} is not a ztunnel with that patch (the text {mark.decode()!r} "
        "is not in it); "
        "docs/fixes.md says what to change and how to build it; --lab model needs none"
    )
