"""Which series a PromQL expression selects, and which labels it groups and joins by.

Only as much of the language is parsed as that needs: names, matchers and lists of labels. Whether
an expression is valid is left to Prometheus.
"""

from __future__ import annotations

import re
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
        if not self.matchers:
            return self.name or "{}"

        conditions = [f'{each.label}{each.operator}"{each.value}"' for each in self.matchers]
        return f"{self.name}{{{', '.join(conditions)}}}"


class Query(NamedTuple):
    """The selectors of an expression, and the labels by which it groups or joins."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]


class _Token(NamedTuple):
    kind: str
    text: str


# Behind the last token, so that looking ahead needs no look at how many there are.
_END = _Token("end", "")


def absent_in(expression: str) -> set[str]:
    """The series whose absence an expression tests, with absent() or absent_over_time()."""
    tokens = _tokens(expression)
    found: set[str] = set()
    for at, token in enumerate(tokens):
        if token.text.lower() not in _ABSENT:
            continue

        # The word without a call is the name of a series.
        opening = at + 1
        if tokens[opening].text == "(":
            arguments = tokens[opening + 1 : _closing(tokens, opening)]
            inner = " ".join(each.text for each in arguments)
            found |= {selector.name for selector in parse_query(inner).selectors}
    return found


def _closing(tokens: list[_Token], opening: int) -> int:
    """The position behind the parenthesis that closes the one at `opening`; the end of the tokens
    where none does."""
    depth = 1
    at = opening + 1
    while depth and tokens[at] != _END:
        if tokens[at].text == "(":
            depth += 1
        elif tokens[at].text == ")":
            depth -= 1
        at += 1
    return at


def evaluated_at_each_step(expression: str) -> str:
    """An expression as a rule means it. In a range query `@ start()` and `@ end()` are the ends of
    the range; in a rule both are the moment of its evaluation, so they are left out."""
    # With white space and comments: what is not left out stays as it is written.
    pieces = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(expression)]

    kept: list[str] = []
    at = 0
    while at < len(pieces):
        if not _is_at_modifier(pieces, at):
            kept.append(pieces[at][1])
            at += 1
            continue

        # On to behind its closing parenthesis.
        while pieces[at][1] != ")":
            at += 1
        at += 1
    return "".join(kept)


def _is_at_modifier(pieces: list[tuple[str | None, str]], at: int) -> bool:
    """Whether `@ start()` or `@ end()` is next; white space may be before it and within."""
    # Four tokens, and the white space and comments that may be among them.
    ahead = [text for kind, text in pieces[at : at + 12] if kind is not None]
    return ahead[:4] in (["@", "start", "(", ")"], ["@", "end", "(", ")"])


def parse_query(expression: str) -> Query:
    """The selectors and labels of `expression`. Never raises: from what is not an expression it
    reads whatever looks like a part of one."""
    tokens = _tokens(expression)
    selectors: list[Selector] = []
    labels: set[str] = set()

    at = 0
    while tokens[at] != _END:
        token, following = tokens[at], tokens[at + 1]

        if token.kind == "name" and token.text.lower() in _LABEL_LISTS:
            at, found = _label_list(tokens, at + 1)
            labels |= found
        elif token.kind == "name" and _is_series(token.text, following.text):
            at, matchers = _matchers(tokens, at + 1)
            selectors.append(Selector(token.text, matchers))
        elif token.text == "[":
            # A range: its second part would look like a name, [2d:5m].
            at = _behind(tokens, at, "]")
        elif token.text == "{":
            at, matchers = _matchers(tokens, at)
            selectors.append(_named(matchers))
        else:
            # A function, an operator, a number, or a word of the language.
            at += 1

    # Each selector once: an expression often has one on both sides of an operator.
    return Query(tuple(dict.fromkeys(selectors)), frozenset(labels))


def _tokens(expression: str) -> list[_Token]:
    """The tokens of an expression, and _END behind them. White space and comments, which are in no
    group of the pattern, are left out."""
    tokens = [
        _Token(match.lastgroup, match[0])
        for match in _TOKEN.finditer(expression)
        if match.lastgroup is not None
    ]
    return [*tokens, _END]


def _behind(tokens: list[_Token], at: int, closing: str) -> int:
    """The position behind the next `closing`; that of the end where there is none."""
    while tokens[at] != _END:
        at += 1
        if tokens[at - 1].text == closing:
            break
    return at


def _is_series(name: str, following: str) -> bool:
    # A word before a parenthesis is a function.
    word = name.lower()
    if word in _WORDS or following == "(":
        return False

    # `sum by (node) (...)` has the labels between.
    is_grouping = following.lower() in ("by", "without")
    return word not in _AGGREGATES or not is_grouping


def _label_list(tokens: list[_Token], at: int) -> tuple[int, set[str]]:
    """The labels of a list in parentheses at `at`, if there is one, and the position behind it."""
    found: set[str] = set()
    if tokens[at].text != "(":
        return at, found

    behind = _behind(tokens, at, ")")
    for token in tokens[at:behind]:
        # Between them are commas; since Prometheus 3 a label may be in quotes.
        if token.kind in ("name", "text"):
            found.add(_plain(token))
    return behind, found


def _matchers(tokens: list[_Token], at: int) -> tuple[int, tuple[Matcher, ...]]:
    """The matchers in braces at `at`, if there are any, and the position behind them."""
    if tokens[at].text != "{":
        return at, ()

    found = []
    behind = _behind(tokens, at, "}")
    at += 1
    while at < behind and tokens[at].text != "}":
        if _is_matcher(tokens, at):
            label, operator, value = tokens[at : at + 3]
            found.append(Matcher(_plain(label), operator.text, _plain(value)))
            at += 3
        # Since Prometheus 3 the name of a series may be in the braces, in quotes: {"my.name"}.
        elif tokens[at].kind == "text":
            found.append(Matcher("__name__", "=", _plain(tokens[at])))
            at += 1
        else:
            at += 1
    return behind, tuple(found)


def _is_matcher(tokens: list[_Token], at: int) -> bool:
    """Whether `label="value"` begins at `at`."""
    # An operator is never the last token: behind it there is a value, or _END.
    if tokens[at + 1].text not in ("=", "!=", "=~", "!~"):
        return False
    return tokens[at + 2].kind == "text"


def _named(matchers: tuple[Matcher, ...]) -> Selector:
    """What braces without a name before them select: {__name__="up"} is `up`."""
    for each in matchers:
        # A name by =~ may be of several series, and stays a condition.
        if (each.label, each.operator) == ("__name__", "="):
            others = [other for other in matchers if other.label != "__name__"]
            return Selector(each.value, tuple(others))

    # {job="mesh"} selects series of any name.
    return Selector("", matchers)


def _plain(token: _Token) -> str:
    """A name, or what is between quotes."""
    if token.kind == "text":
        return token.text[1:-1]
    return token.text
