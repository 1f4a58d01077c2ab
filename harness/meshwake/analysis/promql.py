"""Which series an expression of Prometheus asks for, and which labels it goes by.

Only as much of the language is read as that needs: names, matchers and lists of labels. Whether an
expression is valid is Prometheus' own answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?P<number>\d[\w.]*(?:(?<=[eE])[-+]\d+)?|\.\d+)"""
    r"""|(?P<name>[a-zA-Z_:][\w:]*)|(?P<sign>=~|!~|!=|==|<=|>=|.)""",
    re.DOTALL | re.VERBOSE,
)
_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset(
    {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan", "start", "end", *_LABEL_LISTS}
)
_AGGREGATES = frozenset(
    [
        *(
            "sum",
            "min",
            "max",
            "avg",
            "count",
            "stddev",
            "stdvar",
            "group",
            "topk",
            "bottomk",
            "quantile",
        ),
        *("count_values", "limitk", "limit_ratio"),
    ]
)


class Matcher(NamedTuple):
    """One condition on a label."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True)
class Selector:
    """The series that are asked for: `name` is "" where only matchers say which."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        inner = ", ".join(f'{each.label}{each.operator}"{each.value}"' for each in self.matchers)
        return f"{self.name}{{{inner}}}" if inner or not self.name else self.name


class Query(NamedTuple):
    """What an expression asks for: its selectors, and the labels by which it groups or joins."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]


class _Token(NamedTuple):
    kind: str
    text: str


def absent_in(expression: str) -> set[str]:
    """The series whose absence an expression asks for."""
    tokens = list(_tokens(expression))
    found: set[str] = set()
    for at, token in enumerate(tokens[:-1]):
        if token.text.lower() in ("absent", "absent_over_time") and tokens[at + 1].text == "(":
            depth, end = 1, at + 2
            while end < len(tokens) and depth:
                depth += {"(": 1, ")": -1}.get(tokens[end].text, 0)
                end += 1
            inner = " ".join(each.text for each in tokens[at + 2 : end])
            found |= {selector.name for selector in parse_query(inner).selectors}
    return found


def evaluated_at_each_step(expression: str) -> str:
    """An expression as a rule means it: there the start and the end of what is asked for are the
    moment of the look."""
    pieces = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(expression)]
    kept: list[str] = []
    at = 0
    while at < len(pieces):
        ahead = [text for kind, text in pieces[at : at + 12] if kind is not None][:4]
        if ahead[:1] == ["@"] and ahead[1:2] in (["start"], ["end"]) and ahead[2:] == ["(", ")"]:
            closed = next(here for here in range(at, len(pieces)) if pieces[here][1] == ")")
            at = closed + 1
            continue
        kept.append(pieces[at][1])
        at += 1
    return "".join(kept)


def parse_query(expression: str) -> Query:
    """What `expression` asks for. Never raises: what is no expression asks for whatever is read in
    it."""
    tokens = list(_tokens(expression))
    selectors: list[Selector] = []
    labels: set[str] = set()
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1].text if at + 1 < len(tokens) else ""
        if token.kind == "name" and token.text.lower() in _LABEL_LISTS:
            at, found = _label_list(tokens, at + 1)
            labels |= found
        elif token.kind == "name" and _is_series(token.text, following):
            at, matchers = _matchers(tokens, at + 1)
            selectors.append(Selector(token.text, matchers))
        elif token.text == "[":
            # A range: its second part would look like a name, [2d:5m].
            at = _behind(tokens, at, "]")
        elif token.text == "{":
            at, matchers = _matchers(tokens, at)
            selectors.append(_named(matchers))
        else:
            at += 1
    return Query(tuple(dict.fromkeys(selectors)), frozenset(labels))


def _tokens(expression: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(expression):
        if match.lastgroup is not None:
            yield _Token(match.lastgroup, match[0])


def _behind(tokens: list[_Token], at: int, closing: str) -> int:
    while at < len(tokens) and tokens[at].text != closing:
        at += 1
    return at + 1


def _is_series(name: str, following: str) -> bool:
    if name.lower() in _WORDS or following == "(":
        return False
    return not (name.lower() in _AGGREGATES and following.lower() in ("by", "without"))


def _label_list(tokens: list[_Token], at: int) -> tuple[int, set[str]]:
    """The labels in parentheses that stand there, if any, and where it goes on."""
    found: set[str] = set()
    if at >= len(tokens) or tokens[at].text != "(":
        return at, found
    at += 1
    while at < len(tokens) and tokens[at].text != ")":
        if tokens[at].kind in ("name", "text"):
            found.add(_plain(tokens[at]))
        at += 1
    return at + 1, found


def _matchers(tokens: list[_Token], at: int) -> tuple[int, tuple[Matcher, ...]]:
    """The matchers in braces that stand there, if any, and where it goes on."""
    if at >= len(tokens) or tokens[at].text != "{":
        return at, ()
    found = []
    at += 1
    while at < len(tokens) and tokens[at].text != "}":
        if (
            at + 2 < len(tokens)
            and tokens[at + 1].text in ("=", "!=", "=~", "!~")
            and tokens[at + 2].kind == "text"
        ):
            found.append(Matcher(_plain(tokens[at]), tokens[at + 1].text, _plain(tokens[at + 2])))
            at += 3
        elif tokens[at].kind == "text":
            found.append(Matcher("__name__", "=", _plain(tokens[at])))
            at += 1
        else:
            at += 1
    return at + 1, tuple(found)


def _named(matchers: tuple[Matcher, ...]) -> Selector:
    name = next(
        (each.value for each in matchers if each.label == "__name__" and each.operator == "="), ""
    )
    return Selector(name, tuple(each for each in matchers if not name or each.label != "__name__"))


def _plain(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "text" else token.text
