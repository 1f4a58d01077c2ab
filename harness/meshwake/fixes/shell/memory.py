"""What is known while a script is followed: commands, unknowns and doubts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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
    return not status if isinstance(status, bool) else status.negated()


def joined(operator: str, one: Status, other: Status) -> Status:
    """The status of `one && other`, or of `one || other`."""
    # What decides without the other: true for or, false for and.
    decides = operator == "||"
    if isinstance(one, bool):
        return one if one is decides else other
    if isinstance(other, bool):
        return other if other is decides else one
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
        return self.words[0].rsplit("/", 1)[-1] if self.words else ""


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
        self.unknowns.append(unknown)
        return chr(_FIRST + len(self.unknowns) - 1)

    def unknowns_in(self, word: str) -> list[Unknown]:
        """What in `word` is unknown."""
        return [self.unknowns[ord(each) - _FIRST] for each in UNKNOWN.findall(word)]

    def linear(self, text: str) -> Linear | None:
        """A text as a number: digits, or one unknown."""
        # 18 digits are less than 2**63, from where on shells disagree.
        if re.fullmatch(r"\s*[-+]?\d{1,18}\s*", text):
            return Linear.of_int(int(text))
        unknowns = self.unknowns_in(text)
        if len(unknowns) != 1 or len(text.strip()) != 1:
            return None
        return unknowns[0].value or Linear.of_name(text.strip())

    def shown(self, words: str | Iterable[str]) -> str:
        """Words as a person writes them: unknowns by their text."""
        text = words if isinstance(words, str) else " ".join(words)
        return UNKNOWN.sub(lambda found: self.unknowns[ord(found[0]) - _FIRST].text, text)


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
        self.what, self.status, self.levels = what, status, levels
