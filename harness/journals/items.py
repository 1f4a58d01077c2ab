"""What journals yield, and the tally of what was understood of them.

Times are the wall clock of the machine that wrote the journal, in ns since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TextIO

SleepKind = Literal["suspend", "pause", "off"]
EXAMPLES_SHOWN = 3
EXAMPLE_CHARACTERS = 120
# A line without an end must not fill the memory.
LINE_CHARACTERS_MAX = 1 << 20


class Mark(NamedTuple):
    """One moment that a journal tells of. `code` is the journal's own word for it (an event's number, a message): the
    same code twice in a row means that something between the two is missing."""

    wall_ns: int
    says: Literal["asleep", "awake", "off", "on"]
    kind: SleepKind
    code: str


class Span(NamedTuple):
    """A sleep of which the journal tells both ends. It is believed rather than marks that overlap it."""

    from_wall_ns: int
    to_wall_ns: int
    kind: SleepKind


class Step(NamedTuple):
    """The wall clock was set by `by_ns`; `at_wall_ns` is what it showed just before."""

    at_wall_ns: int
    by_ns: int


Item = Mark | Span | Step


@dataclass
class Tally:
    """How much of one journal was understood. `used`: tells of sleep; `other`: well formed, about something else;
    `not_understood`: neither."""

    path: str
    system: str = ""
    used: int = 0
    other: int = 0
    not_understood: int = 0
    examples: list[str] = field(default_factory=list)
    first_wall_ns: int | None = None
    last_wall_ns: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """All entries, whatever they were."""
        return self.used + self.other + self.not_understood

    def broken(self, text: str, why: str) -> None:
        """Counts an entry that was not understood, and keeps the first few to show."""
        self.not_understood += 1
        if len(self.examples) < EXAMPLES_SHOWN:
            shown = text.strip()[:EXAMPLE_CHARACTERS]
            self.examples.append(f"entry {self.entries}: {why}: {shown!r}")

    def saw(self, wall_ns: int) -> None:
        """The journal reaches to this moment."""
        if self.first_wall_ns is None or wall_ns < self.first_wall_ns:
            self.first_wall_ns = wall_ns
        if self.last_wall_ns is None or wall_ns > self.last_wall_ns:
            self.last_wall_ns = wall_ns


def lines_of(stream: TextIO) -> Iterator[str]:
    """The lines of `stream`, in pieces where one is longer than anybody writes."""
    return iter(lambda: stream.readline(LINE_CHARACTERS_MAX), "")


def in_order(items: Iterable[Item]) -> list[Item]:
    """By time; at one time sleeps end before they begin."""
    return sorted(items, key=_order)


def _order(item: Item) -> tuple[int, int]:
    if isinstance(item, Mark):
        return item.wall_ns, 0 if item.says in ("awake", "on") else 1
    return (item.from_wall_ns, 2) if isinstance(item, Span) else (item.at_wall_ns, 2)
