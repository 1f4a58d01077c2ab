"""Sums of what is unknown: `$((soonest - $(date +%s)))` is one certificate's expiry less now.

A value is a sum of names with factors and a number; "now" is the time at which a script looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

NOW = "now"
_TOKEN = re.compile(r"\s*(\d{1,18}|[A-Za-z_]\w*|[-+*/%()]|[^\s])")


@dataclass(frozen=True)
class Linear:
    """`number` plus each name times its factor."""

    factors: tuple[tuple[str, Fraction], ...]
    number: Fraction

    @staticmethod
    def of_int(number: int) -> Linear:
        """A known number."""
        return Linear((), Fraction(number))

    @staticmethod
    def of_name(name: str) -> Linear:
        """Something unknown."""
        return Linear(((name, Fraction(1)),), Fraction(0))

    @staticmethod
    def of_now(offset_s: int) -> Linear:
        """The time of the look, and so many seconds later."""
        return Linear(((NOW, Fraction(1)),), Fraction(offset_s))

    def __add__(self, other: Linear) -> Linear:
        names = dict(self.factors)
        for name, factor in other.factors:
            names[name] = names.get(name, Fraction(0)) + factor
        # Without what has cancelled out, and in one order: equal sums are equal values.
        kept = tuple(sorted((name, factor) for name, factor in names.items() if factor))
        return Linear(kept, self.number + other.number)

    def __sub__(self, other: Linear) -> Linear:
        return self + other.times(Fraction(-1))

    def times(self, by: Fraction) -> Linear:
        """All of it `by` times."""
        return Linear(
            tuple((name, factor * by) for name, factor in self.factors if by), self.number * by
        )

    def as_int(self) -> int | None:
        """The number, when nothing in it is unknown."""
        return None if self.factors else int(self.number)


def evaluate(text: str, value_of: Callable[[str], Linear | None]) -> Linear | None:
    """The sum that `text` is, or None when it is none. `value_of` knows the names in it."""
    tokens = _TOKEN.findall(text)
    # More than a script has. Each parenthesis is three calls deeper, and Python allows some 1,000.
    if len(tokens) > 200 or "".join(tokens) != re.sub(r"\s", "", text):
        return None
    try:
        value, rest = _sum(tokens, value_of)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
    return value if not rest else None


def _sum(tokens: list[str], value_of: Callable[[str], Linear | None]) -> tuple[Linear, list[str]]:
    value, rest = _product(tokens, value_of)
    while rest and rest[0] in "+-":
        other, after = _product(rest[1:], value_of)
        value, rest = (value + other if rest[0] == "+" else value - other), after
    return value, rest


def _product(
    tokens: list[str], value_of: Callable[[str], Linear | None]
) -> tuple[Linear, list[str]]:
    value, rest = _factor(tokens, value_of)
    while rest and rest[0] in "*/%":
        other, after = _factor(rest[1:], value_of)
        value = _times(value, other) if rest[0] == "*" else _divided(value, rest[0], other)
        rest = after
    return value, rest


def _times(one: Linear, other: Linear) -> Linear:
    # One of the two must be a number, or the product is not a sum of names any more.
    if other.factors:
        one, other = other, one
    if other.factors:
        raise ValueError("a product of unknowns")
    return one.times(other.number)


def _divided(value: Linear, operator: str, by: Linear) -> Linear:
    if by.factors or (value.factors and operator == "%"):
        raise ValueError("divided by an unknown")
    # A shell drops the rest of a division; of a sum with an unknown it is kept, which is less than
    # one.
    if value.factors:
        return value.times(1 / by.number)
    dividend, divisor = int(value.number), int(by.number)
    return Linear.of_int(dividend // divisor if operator == "/" else dividend % divisor)


def _factor(
    tokens: list[str], value_of: Callable[[str], Linear | None]
) -> tuple[Linear, list[str]]:
    if not tokens:
        raise ValueError("an end where a number belongs")
    first, rest = tokens[0], tokens[1:]
    if first == "(":
        value, rest = _sum(rest, value_of)
        if rest[:1] != [")"]:
            raise ValueError("a parenthesis that nothing closes")
        return value, rest[1:]
    if first in "+-":
        value, rest = _factor(rest, value_of)
        return (value if first == "+" else value.times(Fraction(-1))), rest
    known = Linear.of_int(int(first)) if first.isdigit() else value_of(first)
    if known is None:
        raise ValueError(f"{first!r} is not a number")
    return known, rest
