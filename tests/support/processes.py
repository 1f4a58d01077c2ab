"""Processes that tests look at."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """R, S, T ... as in proc(5), state; Z when there is no such process, also when it ends while it
    is read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
