"""A shell script as a tree of commands and words; parser.py makes it, shell.py follows it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple


class NotRead(Exception):
    """The script cannot be read; the text says what was found and in which line."""


class Literal(NamedTuple):
    """Literal characters."""

    text: str
    quoted: bool


class Variable(NamedTuple):
    """`$name` or `${name...}`; `operator` is "" or what follows the name, such as ":-", and `word`
    its argument."""

    name: str
    operator: str
    word: Word | None
    quoted: bool


class Substitution(NamedTuple):
    """`$(...)` or backquotes; `text` is what is between."""

    body: Sequence
    text: str
    quoted: bool


class Arithmetic(NamedTuple):
    """`$((...))`."""

    text: str
    quoted: bool


Segment = Literal | Variable | Substitution | Arithmetic


class Word(NamedTuple):
    """One word, not expanded yet; `text` is how it was written."""

    segments: tuple[Segment, ...]
    text: str

    @property
    def plain(self) -> str | None:
        """The word where nothing in it is quoted or expanded, or None."""
        text = ""
        for segment in self.segments:
            if not isinstance(segment, Literal) or segment.quoted:
                return None
            text += segment.text
        return text


@dataclass(frozen=True)
class Redirect:
    """`operator` with its target; `lines` are those of a here-document, as they were written."""

    operator: str
    target: Word
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Simple:
    """A simple command."""

    assignments: tuple[tuple[str, bool, Word], ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]
    text: str


@dataclass(frozen=True)
class Pipeline:
    """Commands joined by pipes; `negated` by a leading `!`."""

    parts: tuple[Node, ...]
    negated: bool
    text: str


@dataclass(frozen=True)
class AndOr:
    """Pipelines joined by `&&` and `||`: the operator is before each, "" before the first."""

    parts: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Sequence:
    """Commands one after another; the flag says that one was put into the background."""

    items: tuple[tuple[Node, bool], ...] = ()


@dataclass(frozen=True)
class If:
    """Conditions with their bodies; `otherwise` is None without an else."""

    branches: tuple[tuple[Sequence, Sequence], ...]
    otherwise: Sequence | None


@dataclass(frozen=True)
class While:
    """`until` when `wanted` is False."""

    condition: Sequence
    body: Sequence
    wanted: bool


@dataclass(frozen=True)
class For:
    """`words` is None for the arguments of the script."""

    name: str
    words: tuple[Word, ...] | None
    body: Sequence


@dataclass(frozen=True)
class CaseCommand:
    """The patterns of each item with its body."""

    subject: Word
    items: tuple[tuple[tuple[Word, ...], Sequence], ...]


@dataclass(frozen=True)
class Function:
    """A function, by its name; `by_keyword`: written as `function NAME`."""

    name: str
    body: Node
    by_keyword: bool = False


@dataclass(frozen=True)
class Group:
    """`{ ... }`, or `( ... )` when `subshell`."""

    body: Sequence
    subshell: bool


@dataclass(frozen=True)
class DoubleBracket:
    """`[[ ... ]]`; operators are words of one plain literal."""

    words: tuple[Word, ...]
    text: str


@dataclass(frozen=True)
class DoubleParenthesis:
    """`(( ... ))`."""

    text: str


@dataclass(frozen=True)
class Redirected:
    """A compound command with redirects."""

    body: Node
    redirects: tuple[Redirect, ...]


Node = (
    Simple
    | Pipeline
    | AndOr
    | Sequence
    | If
    | While
    | For
    | CaseCommand
    | Function
    | Group
    | DoubleBracket
    | DoubleParenthesis
    | Redirected
)


# Words beyond which a script is refused: braces in braces multiply.
_WORDS_MOST = 1_000
_BRACES = re.compile(r"\{([^{}\s,]*(?:,[^{}\s,]*)+)\}")


def without_braces(word: Word) -> list[Word]:
    """`a{b,c}d` as `abd` and `acd`. Only where nothing in the braces is quoted or a variable.
    Raises NotRead."""
    found: list[Word] = []
    waiting = [word]
    while waiting:
        first = waiting.pop()
        alternatives = _first_braces(first)
        if alternatives:
            # What waits is a stack, so the first alternative goes on it last.
            waiting += reversed(alternatives)
        else:
            found.append(first)

        # {a,b}{a,b}... doubles with each pair.
        if len(found) + len(waiting) > _WORDS_MOST:
            raise NotRead(f"{word.text[:40]!r} is more than {_WORDS_MOST} words")
    return found


def _first_braces(word: Word) -> list[Word]:
    """`word` once for each alternative of its first braces; nothing without braces."""
    for position, segment in enumerate(word.segments):
        # bash(1), brace expansion: braces in quotes mean themselves.
        if not isinstance(segment, Literal) or segment.quoted:
            continue

        match = _BRACES.search(segment.text)
        if match is None:
            continue

        before = segment.text[: match.start()]
        after = segment.text[match.end() :]
        return [
            _with_literal(word, position, before + alternative + after)
            for alternative in match[1].split(",")
        ]

    return []


def _with_literal(word: Word, position: int, text: str) -> Word:
    """`word` with another text in one of its segments."""
    before = word.segments[:position]
    after = word.segments[position + 1 :]
    literal = Literal(text, quoted=False)
    return Word((*before, literal, *after), word.text)
