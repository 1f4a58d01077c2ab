"""Expressions of `-k`, in the language of pytest's option of that name.

    sleep and not (vm or gateway)

A word is true for a name that contains it, in upper or lower case. `or`, `and` and `not` mean what
they mean in Python. The grammar is that of `_pytest/mark/expression.py` (pytest 8 and 9) without
calls, which `-k` refuses there as well; a test compares both on drawn expressions. It is written
again because pytest is an extra, which `meshwake run` does not need.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from meshwake.core.errors import BadInput
from meshwake.core.refusal import invalid

# A parenthesis, or a word of the characters that pytest allows in one.
_TOKEN = re.compile(r"[()]|[\w:+\-.\[\]\\/]+")
_OPERATORS = ("and", "or", "not")
_END = ""

# Whether a name, in lower case, is selected.
Predicate = Callable[[str], bool]


@dataclass(frozen=True)
class Expression:
    """What was typed, read: the words that it looks for, and the predicate."""

    text: str
    words: tuple[str, ...]
    predicate: Predicate

    def selects(self, name: str) -> bool:
        """Whether the expression is true for `name`."""
        return self.predicate(name.lower())


def read_expression(text: str, option: str) -> Expression:
    """`text`, which was given with `option`, read; without a word it selects everything, as with
    pytest. Raises BadInput with the column of the first mistake."""
    if not text.strip():
        return Expression(text, (), lambda name: True)
    return _Reader(text, option).read()


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: str, option: str) -> None:
        self._text, self._option = text, option
        self._words: list[str] = []
        self._position = len(text) - len(text.lstrip())
        self._token = _END
        self._advance()

    def read(self) -> Expression:
        predicate = self._alternatives()
        if self._token != _END:
            raise self._refusal("'and' or 'or'")
        return Expression(self._text, tuple(self._words), predicate)

    def _alternatives(self) -> Predicate:
        parts = [self._conjunction()]
        while self._accept("or"):
            parts.append(self._conjunction())
        return lambda name: any(part(name) for part in parts)

    def _conjunction(self) -> Predicate:
        parts = [self._term()]
        while self._accept("and"):
            parts.append(self._term())
        return lambda name: all(part(name) for part in parts)

    def _term(self) -> Predicate:
        if self._accept("not"):
            negated = self._term()
            return lambda name: not negated(name)
        if self._accept("("):
            inner = self._alternatives()
            if not self._accept(")"):
                raise self._refusal("')'")
            return inner
        return self._word()

    def _word(self) -> Predicate:
        word = self._token.lower()
        if self._token in (_END, "(", ")", *_OPERATORS):
            raise self._refusal("a word, 'not' or '('")
        self._words.append(word)
        self._advance()
        return lambda name: word in name

    def _accept(self, token: str) -> bool:
        """Whether `token` is the next, which is then read."""
        if self._token != token:
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        start = self._position + len(self._token)
        # Only these two separate words, as with pytest: a line break is a mistake of quoting.
        while self._text[start : start + 1] in (" ", "\t"):
            start += 1
        self._position = start
        found = _TOKEN.match(self._text, start)
        if found is None and start < len(self._text):
            raise self._refusal("words, 'and', 'or', 'not' and parentheses")
        self._token = _END if found is None else found.group()

    def _refusal(self, expected: str) -> BadInput:
        at_end = self._position >= len(self._text)
        where = "at its end" if at_end else f"at column {self._position + 1}"
        return invalid(self._option, self._text, f"{expected} {where}")
