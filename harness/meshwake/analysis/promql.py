"""Which series a PromQL expression selects, and which labels it groups and joins by.

Only as much of the language is parsed as that needs: names, matchers and lists of labels. Whether
an expression is valid is left to Prometheus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*"""
    r"""|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
    r"""|(?P<number>\d[\w.]*(?:(?<=[eE])[-+]\d+)?|\.\d+)"""
    r"""|(?P<name>[a-zA-Z_:][\w:]*)"""
    r"""|(?P<sign>=~|!~|!=|==|<=|>=|.)""",
    re.DOTALL | re.VERBOSE,
)
_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_ABSENT = ("absent", "absent_over_time")
_WORDS = frozenset(
    {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan", "start", "end", *_LABEL_LISTS}
)
_AGGREGATES = frozenset(
    [
        *("sum", "min", "max", "avg", "count", "stddev", "stdvar", "group"),
        *("topk", "bottomk", "quantile", "count_values", "limitk", "limit_ratio"),
    ]
)


class Matcher(NamedTuple):
    """One condition on a label."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True)
class Selector:
    """One vector selector; `name` is "" where only matchers say which series are meant."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        inner = ", ".join(f'{each.label}{each.operator}"{each.value}"' for each in self.matchers)
        return f"{self.name}{{{inner}}}" if inner or not self.name else self.name


class Query(NamedTuple):
    """The selectors of an expression, and the labels by which it groups or joins."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]


class _Token(NamedTuple):
    kind: str
    text: str


def absent_in(expression: str) -> set[str]:
    """The series whose absence an expression tests, with absent() or absent_over_time()."""
    tokens = list(_tokens(expression))
    found: set[str] = set()
    for at, token in enumerate(tokens[:-1]):
        if token.text.lower() in _ABSENT and tokens[at + 1].text == "(":
            arguments = tokens[at + 2 : _closing(tokens, at + 1)]
            inner = " ".join(each.text for each in arguments)
            found |= {selector.name for selector in parse_query(inner).selectors}
    return found


def _closing(tokens: list[_Token], opening: int) -> int:
    """The position behind the parenthesis that closes the one at `opening`; the end of the tokens
    where none does."""
    depth, at = 1, opening + 1
    while at < len(tokens) and depth:
        depth += {"(": 1, ")": -1}.get(tokens[at].text, 0)
        at += 1
    return at


def evaluated_at_each_step(expression: str) -> str:
    """An expression as a rule means it. In a range query `@ start()` and `@ end()` are the ends of
    the range; in a rule both are the moment of its evaluation, so they are left out."""
    pieces = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(expression)]
    kept: list[str] = []
    at = 0
    while at < len(pieces):
        if _is_at_modifier(pieces, at):
            closed = next(here for here in range(at, len(pieces)) if pieces[here][1] == ")")
            at = closed + 1
        else:
            kept.append(pieces[at][1])
            at += 1
    return "".join(kept)


def _is_at_modifier(pieces: list[tuple[str | None, str]], at: int) -> bool:
    """Whether `@ start()` or `@ end()` is next; white space may be before it and within."""
    ahead = [text for kind, text in pieces[at : at + 12] if kind is not None]
    return ahead[:4] in (["@", "start", "(", ")"], ["@", "end", "(", ")"])


def parse_query(expression: str) -> Query:
    """The selectors and labels of `expression`. Never raises: from what is not an expression it
    reads whatever looks like a part of one."""
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
    # A word before a parenthesis is a function; `sum by (node) (...)` has the labels between.
    if name.lower() in _WORDS or following == "(":
        return False
    return not (name.lower() in _AGGREGATES and following.lower() in ("by", "without"))


def _label_list(tokens: list[_Token], at: int) -> tuple[int, set[str]]:
    """The labels of a list in parentheses at `at`, if there is one, and the position behind it."""
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
    """The matchers in braces at `at`, if there are any, and the position behind them."""
    if at >= len(tokens) or tokens[at].text != "{":
        return at, ()
    found = []
    at += 1
    while at < len(tokens) and tokens[at].text != "}":
        if _is_matcher(tokens, at):
            found.append(Matcher(_plain(tokens[at]), tokens[at + 1].text, _plain(tokens[at + 2])))
            at += 3
        # Since Prometheus 3 the name of a series may be in the braces, in quotes: {"my.name"}.
        elif tokens[at].kind == "text":
            found.append(Matcher("__name__", "=", _plain(tokens[at])))
            at += 1
        else:
            at += 1
    return at + 1, tuple(found)


def _is_matcher(tokens: list[_Token], at: int) -> bool:
    """Whether `label="value"` begins at `at`."""
    if at + 2 >= len(tokens):
        return False
    return tokens[at + 1].text in ("=", "!=", "=~", "!~") and tokens[at + 2].kind == "text"


def _named(matchers: tuple[Matcher, ...]) -> Selector:
    """What braces without a name before them select: {__name__="up"} is `up`."""
    for each in matchers:
        if (each.label, each.operator) == ("__name__", "="):
            others = [other for other in matchers if other.label != "__name__"]
            return Selector(each.value, tuple(others))
    # {job="mesh"} selects series of any name.
    return Selector("", matchers)


def _plain(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "text" else token.text
