"""Spans of world time: when a node slept, when a pair could not talk. Always sorted, disjoint, half
open [from, to)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

Span = tuple[int, int]


class Spans:
    """A set of world times in ns. Spans that touch or overlap become one; empty ones vanish."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans = _merged(spans)
        self._froms = [span[0] for span in self._spans]
        self._tos = [span[1] for span in self._spans]
        # How long all spans before each are together, and at last how long all of them are.
        lengths_ns = (to_ns - from_ns for from_ns, to_ns in self._spans)
        self._total_before_ns = [0, *accumulate(lengths_ns)]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def __or__(self, other: Spans) -> Spans:
        return Spans([*self, *other])

    @property
    def total_ns(self) -> int:
        """How long all spans are together."""
        return self._total_before_ns[-1]

    def overlap_ns(self, from_world_ns: int, to_world_ns: int) -> int:
        """How much of [from, to) lies in the set; 0 when `to` is not after `from`."""
        if to_world_ns <= from_world_ns:
            return 0
        return self._up_to_ns(to_world_ns) - self._up_to_ns(from_world_ns)

    def without(self, from_world_ns: int, to_world_ns: int) -> list[Span]:
        """The parts of [from, to) that lie outside the set, in order."""
        parts: list[Span] = []
        begins_ns = from_world_ns
        # Only spans that reach into [from, to): a month has thousands of them.
        first = bisect_right(self._tos, from_world_ns)
        last = bisect_left(self._froms, to_world_ns)
        for from_ns, to_ns in self._spans[first:last]:
            parts.append((begins_ns, from_ns))
            begins_ns = to_ns
        parts.append((begins_ns, to_world_ns))
        # Where a span begins or ends outside, a part is empty or turned round.
        return [part for part in parts if part[0] < part[1]]

    def _up_to_ns(self, world_ns: int) -> int:
        """How much of the set lies before `world_ns`."""
        position = bisect_right(self._froms, world_ns) - 1
        if position < 0:
            return 0
        # All spans before it in full, and of it what lies before `world_ns`.
        from_ns, to_ns = self._spans[position]
        of_it_ns = min(world_ns, to_ns) - from_ns
        return self._total_before_ns[position] + of_it_ns


def _merged(spans: Iterable[Span]) -> list[Span]:
    """In order, those that touch or overlap as one, and without the empty ones."""
    merged: list[Span] = []
    for from_ns, to_ns in sorted(spans):
        if from_ns >= to_ns:
            continue
        if merged:
            last_from_ns, last_to_ns = merged[-1]
            if from_ns <= last_to_ns:
                # The one before may also be the longer one.
                merged[-1] = (last_from_ns, max(last_to_ns, to_ns))
                continue
        merged.append((from_ns, to_ns))
    return merged
