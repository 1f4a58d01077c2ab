"""What is known while a script is followed: commands, unknowns and doubts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from meshwake.fixes.shell import program_name
from meshwake.fixes.shell.linear import Linear
from meshwake.fixes.shell.tree import NotRead

# An unknown is represented in a word by one character of the private use plane 15, so that words
# are cut, joined and compared as ever, and what comes of it still shows where it came from.
_FIRST = 0xF0000
_UNKNOWNS_MOST = 60_000
UNKNOWN = re.compile("[\U000f0000-\U000ffffd]")


class Unknown(NamedTuple):
    """What only a run of the script can compute: `text` is how it is written, `runs` the commands
    that print it, `value` what is known of it as a number."""

    text: str
    runs: tuple[Ran, ...] = ()
    value: Linear | None = None


@dataclass(frozen=True)
class Doubt:
    """A condition that cannot be decided: how it is written, the commands that decide it, and the
    words of a comparison."""

    text: str
    runs: tuple[Ran, ...] = ()
    test: tuple[str, ...] = ()
    is_true: bool = True

    def negated(self) -> Doubt:
        """The opposite."""
        return replace(self, is_true=not self.is_true)


Status = bool | Doubt


def negated(status: Status) -> Status:
    """The status of `! command`."""
    if isinstance(status, Doubt):
        return status.negated()
    return not status


def joined(operator: str, one: Status, other: Status) -> Status:
    """The status of `one && other`, or of `one || other`."""
    # What decides without the other: true for or, false for and.
    decides = operator == "||"
    if decides in (one, other):
        return decides

    # The other of the two is neutral: false for or, true for and.
    if isinstance(one, bool):
        return other
    if isinstance(other, bool):
        return one

    return Doubt(f"{one.text} {operator} {other.text}", one.runs + other.runs)


@dataclass(frozen=True)
class Ran:
    """A command that the script comes to: its words, when (`after_s` seconds slept before), and on
    which conditions. `piped` are the commands whose output it reads."""

    words: tuple[str, ...]
    conditions: tuple[Doubt, ...] = ()
    after_s: float = 0
    background: bool = False
    piped: tuple[Ran, ...] = ()

    @property
    def program(self) -> str:
        """Its name, without the folder."""
        return program_name("".join(self.words[:1]))


@dataclass
class Memory:
    """What shells that start one another share: the unknowns, the commands and the steps taken."""

    unknowns: list[Unknown] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    steps: int = 0
    # busybox (Alpine) knows most of what bash does, and bash is sh where Red Hat or SUSE made the
    # image.
    sh_is_not_dash: bool = False
    # What is mounted into the container, by its path.
    files: dict[str, File] = field(default_factory=dict)

    def char_of(self, unknown: Unknown) -> str:
        """The character that represents `unknown` in words."""
        if len(self.unknowns) >= _UNKNOWNS_MOST:
            raise NotRead("has too many unknowns")

        char = chr(_FIRST + len(self.unknowns))
        self.unknowns.append(unknown)
        return char

    def _unknown_of(self, char: str) -> Unknown:
        """The unknown that a character represents."""
        return self.unknowns[ord(char) - _FIRST]

    def unknowns_in(self, word: str) -> list[Unknown]:
        """What in `word` is unknown."""
        chars = UNKNOWN.findall(word)
        return list(map(self._unknown_of, chars))

    def linear(self, text: str) -> Linear | None:
        """A text as a number: digits, or one unknown."""
        # 18 digits are less than 2**63, from where on shells disagree.
        if re.fullmatch(r"\s*[-+]?\d{1,18}\s*", text):
            return Linear.of_int(int(text))

        char = text.strip()
        # The number 1$A is not a sum of what $A is.
        if not UNKNOWN.fullmatch(char):
            return None

        # Where nothing is known of its value, it is a name of its own in a sum.
        unknown = self._unknown_of(char)
        return unknown.value or Linear.of_name(char)

    def shown(self, words: str | Iterable[str]) -> str:
        """Words as a person writes them: unknowns by their text."""
        text = words if isinstance(words, str) else " ".join(words)
        return UNKNOWN.sub(lambda found: self._unknown_of(found[0]).text, text)


def is_known(word: str) -> bool:
    """Whether nothing in `word` is unknown."""
    return UNKNOWN.search(word) is None


class File(NamedTuple):
    """A file that a script may start: its text, and whether it may be executed."""

    text: str
    may_run: bool


class Ends(Exception):
    """The script, function or loop goes no further; `what` says which, `status` with what."""

    def __init__(self, what: str, status: Status = True, levels: int = 1) -> None:
        self.what = what
        self.status = status
        # Of loops in one another: `break 2`.
        self.levels = levels
