"""Spans of world time behave as the sets of moments that they represent."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from meshwake.checks.facts.spans import Spans

moments = st.integers(0, 40)
some_spans = st.lists(st.tuples(moments, moments))


def moments_of(spans: object) -> set[int]:
    """Every whole moment within `spans`."""
    return {moment for from_ns, to_ns in spans for moment in range(from_ns, to_ns)}  # type: ignore[attr-defined]


@given(some_spans)
def test_sorted_disjoint_and_the_same_moments(spans: list[tuple[int, int]]) -> None:
    """Whatever order and overlap they came in, what is left is in order, apart, and covers the
    same."""
    kept = list(Spans(spans))
    assert moments_of(kept) == moments_of(spans)
    assert all(from_ns < to_ns for from_ns, to_ns in kept)
    assert all(one[1] < two[0] for one, two in pairwise(kept))
    assert Spans(spans).total_ns == len(moments_of(spans))


@given(some_spans, moments, moments)
def test_overlap_and_rest_share_out_the_whole(
    spans: list[tuple[int, int]], begins: int, ends: int
) -> None:
    """What lies in the set and what lies outside it make up the whole, and nothing lies in both."""
    inside, between = moments_of(spans), set(range(begins, ends))
    assert Spans(spans).overlap_ns(begins, ends) == len(inside & between)
    assert moments_of(Spans(spans).without(begins, ends)) == between - inside


@given(some_spans, some_spans)
def test_union(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    """A union covers what either covers."""
    assert moments_of(Spans(one) | Spans(two)) == moments_of(one) | moments_of(two)
