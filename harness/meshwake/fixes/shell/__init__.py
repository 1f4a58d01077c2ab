"""What a shell script runs, found out without running it.

`parser` reads a script; `shell` follows it with given arguments and variables and lists the
commands that it comes to, each with the conditions that could not be decided. What cannot be read
is refused.
"""

from __future__ import annotations


def names(text: str) -> frozenset[str]:
    """Words, as a set."""
    return frozenset(text.split())


def program_name(path: str) -> str:
    """The name of a program, without the folder."""
    _, _, name = path.rpartition("/")
    return name
