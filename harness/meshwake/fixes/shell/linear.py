"""Sums of what is unknown: `$((soonest - $(date +%s)))` is one certificate's expiry less now.

A value is a sum of names with factors and a number; "now" is the time at which a script looks.
"""

from __future__ import annotations

import operator
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
        factors = dict(self.factors)
        for name, factor in other.factors:
            factors[name] = factors.get(name, Fraction(0)) + factor
            # It has cancelled out: `$A - $A` is known.
            if not factors[name]:
                del factors[name]

        # In one order, so that equal sums are equal values.
        return Linear(tuple(sorted(factors.items())), self.number + other.number)

    def __sub__(self, other: Linear) -> Linear:
        return self + other.times(Fraction(-1))

    def times(self, by: Fraction) -> Linear:
        """All of it `by` times."""
        # 0 times something unknown is known.
        if not by:
            return Linear.of_int(0)

        factors = tuple((name, factor * by) for name, factor in self.factors)
        return Linear(factors, self.number * by)

    def as_int(self) -> int | None:
        """The number, when nothing in it is unknown."""
        if self.factors:
            return None
        return int(self.number)


def evaluate(text: str, value_of: Callable[[str], Linear | None]) -> Linear | None:
    """The sum that `text` is, or None when it is none. `value_of` knows the names in it."""
    tokens = _TOKEN.findall(text)
    if len(tokens) > _TOKENS_MOST:
        return None

    try:
        value, rest = _sum(tokens, value_of)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None

    # `1 2`, a parenthesis too many, or a number of 19 digits, on which shells disagree.
    if rest:
        return None
    return value


# More than a script has. Each parenthesis is three calls deeper, and Python allows some 1,000.
_TOKENS_MOST = 200


def _sum(
    tokens: list[str],
    value_of: Callable[[str], Linear | None],
) -> tuple[Linear, list[str]]:
    """Products joined by + and -, from the left; and the tokens behind them."""
    value, rest = _product(tokens, value_of)
    while rest and rest[0] in _SUMS:
        join = _SUMS[rest[0]]
        other, rest = _product(rest[1:], value_of)
        value = join(value, other)
    return value, rest


def _product(
    tokens: list[str],
    value_of: Callable[[str], Linear | None],
) -> tuple[Linear, list[str]]:
    """Factors joined by *, / and %, from the left; and the tokens behind them."""
    value, rest = _factor(tokens, value_of)
    while rest and rest[0] in _PRODUCTS:
        join = _PRODUCTS[rest[0]]
        other, rest = _factor(rest[1:], value_of)
        value = join(value, other)
    return value, rest


def _times(one: Linear, other: Linear) -> Linear:
    # One of the two must be a number, or the product is not a sum of names any more.
    if not other.factors:
        return one.times(other.number)
    if not one.factors:
        return other.times(one.number)

    raise ValueError("a product of unknowns")


def _quotient(value: Linear, by: Linear) -> Linear:
    if by.factors:
        raise ValueError("divided by an unknown")

    # A shell drops the rest of a division; of a sum with an unknown it is kept, which is less than
    # one.
    if value.factors:
        return value.times(1 / by.number)

    # As C, and not as Python: -5 / 2 is -2 (POSIX, 1.1.2.1).
    return Linear.of_int(int(value.number / by.number))


def _remainder(value: Linear, by: Linear) -> Linear:
    # The remainder of an unknown is not a sum: `$RANDOM % 60` is any number below 60.
    if value.factors or by.factors:
        raise ValueError("the remainder of an unknown")

    # Its sign is that of the dividend: -5 % 2 is -1.
    quotient = _quotient(value, by)
    return value - by.times(quotient.number)


_SUMS = {"+": operator.add, "-": operator.sub}
_PRODUCTS = {"*": _times, "/": _quotient, "%": _remainder}


def _factor(
    tokens: list[str],
    value_of: Callable[[str], Linear | None],
) -> tuple[Linear, list[str]]:
    """A number, a name, or a sum in parentheses, with its sign; and the tokens behind it."""
    if not tokens:
        raise ValueError("an end where a number belongs")
    first, rest = tokens[0], tokens[1:]

    if first == "(":
        value, rest = _sum(rest, value_of)
        if rest[:1] != [")"]:
            raise ValueError("a parenthesis that nothing closes")
        return value, rest[1:]

    # Signs of a number may be several: 3 - -2.
    if first == "+":
        return _factor(rest, value_of)
    if first == "-":
        value, rest = _factor(rest, value_of)
        return value.times(Fraction(-1)), rest

    if first.isdigit():
        return Linear.of_int(int(first)), rest

    # Any other character, an operator in the wrong place too, is a name that has no value.
    known = value_of(first)
    if known is None:
        raise ValueError(f"{first!r} is not a number")
    return known, rest
