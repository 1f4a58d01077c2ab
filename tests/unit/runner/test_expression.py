"""-k of `meshwake run` and `list`: the language of pytest's -k."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from _pytest.mark.expression import Expression as PytestExpression
from hypothesis import given
from hypothesis import strategies as st
from meshwake.core.errors import BadInput
from meshwake.runner.expression import read_expression

NAMES = ("nightly_sleep", "weekly_nights", "vm/pause[model-1.30.0]", "or_not_and")
# What an expression is made of; in any order most are wrong, and both must then refuse it.
PIECES = ("and", "or", "not", "(", ")", "night", "VM", "1.30", "or_not", "zzz", "True", "-", " ")
# Neither has these in a -k: calls, texts and other operators.
WRONG_PIECES = ("=", "'", ",", "&", "\n", "*")


def selected_by_pytest(text: str) -> list[str] | None:
    """None where pytest refuses the expression. It selects all by an empty one before it reads
    it (`_pytest/mark/__init__.py: deselect_by_keyword`)."""
    if not text.lstrip():
        return list(NAMES)
    try:
        expression = PytestExpression.compile(text.lstrip())
    except SyntaxError:
        return None
    return [name for name in NAMES if expression.evaluate(Contains(name))]


@dataclass(frozen=True)
class Contains:
    """How pytest's -k compares a word with a name."""

    name: str

    def __call__(self, word: str, /, **_: object) -> bool:
        return word.lower() in self.name.lower()


def selected(text: str) -> list[str] | None:
    try:
        expression = read_expression(text, "-k")
    except BadInput:
        return None
    return [name for name in NAMES if expression.selects(name)]


@given(st.lists(st.sampled_from(PIECES + WRONG_PIECES), max_size=7).map(" ".join))
def test_pytest_reads_the_same(text: str) -> None:
    """The same names are selected, and the same expressions are refused."""
    assert selected(text) == selected_by_pytest(text)


VALID = st.recursive(
    st.sampled_from(["night", "VM", "1.30", "zzz", "or_not"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map("not {}".format),
        inner.map("({})".format),
    ),
    max_leaves=8,
)


@given(VALID)
def test_pytest_selects_the_same(text: str) -> None:
    """By expressions that are right, however they are nested."""
    assert selected(text) == selected_by_pytest(text) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "invalid value 'a b' for -k: expected 'and' or 'or' at column 3"),
        ("a and", "expected a word, 'not' or '(' at its end"),
        ("(a or b", r"expected ')' at its end"),
        ("a or )", "expected a word, 'not' or '(' at column 6"),
        ("()", "expected a word, 'not' or '(' at column 2"),
        ("a*", "expected words, 'and', 'or', 'not' and parentheses at column 2"),
        ("a(b=1)", "expected 'and' or 'or' at column 2"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    """And with what was expected there."""
    with pytest.raises(BadInput) as refused:
        read_expression(text, "-k")
    assert message in str(refused.value)
