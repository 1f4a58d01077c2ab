"""How an authority dates and signs: a value of its own, because the authority is a process that
loads little (a plan brings pydantic with it)."""

from __future__ import annotations

from typing import NamedTuple


class AuthorityState(NamedTuple):
    """How far its wall clock is ahead of its node's; the lifetime it gives (None: the requested
    one); which of its roots it signs with."""

    ahead_wall_ns: int = 0
    lifetime_s: int | None = None
    root: int = 0
