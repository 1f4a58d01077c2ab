"""From what journals told to what happened to the machine, in order: sleeps, pauses, times switched off, steps.

World time begins a minute before the first that happened. A wall clock that was set back made the journal's times
repeat; world time goes on.

What cannot be: a journal that tells of falling asleep and never of waking, or twice of the same. The earlier of two is
dropped and counted. Sleeps that a journal tells twice (two messages, two files) are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.durations import NS_PER_S
from harness.journals.items import Item, Mark, SleepKind, Span, Step, in_order

LEAD_NS = 60 * NS_PER_S


class Happened(NamedTuple):
    """One thing that happened to the machine, in world time. `off`: it was switched off; a boot of no length is a
    restart that nobody saw coming."""

    kind: Literal["suspend", "pause", "off", "step"]
    at_world_ns: int
    lasts_ns: int = 0
    by_ns: int = 0


@dataclass
class Month:
    """What happened between two moments. `starts_wall_s` is the wall clock at world time 0."""

    starts_wall_s: int
    duration_ns: int
    happened: tuple[Happened, ...]
    dropped: list[str] = field(default_factory=list)

    def total_ns(self, *kinds: str) -> int:
        """How long the machine was in one of `kinds`, in all."""
        return sum(each.lasts_ns for each in self.happened if each.kind in kinds)

    def count(self, *kinds: str) -> int:
        """How often."""
        return sum(each.kind in kinds for each in self.happened)

    @property
    def largest_drift_ns(self) -> int:
        """The most that wall and monotonic clock ever parted while it was not switched off: what a ztunnel that starts
        with the machine is late by at worst."""
        largest_ns = parted_ns = 0
        for each in self.happened:
            parted_ns = 0 if each.kind == "off" else parted_ns + each.lasts_ns + each.by_ns
            largest_ns = max(largest_ns, parted_ns, key=abs)
        return largest_ns


def month_of(items: Iterable[Item], first_wall_ns: int, last_wall_ns: int) -> Month:
    """What happened, from what was told; the journal reaches from `first_wall_ns` to `last_wall_ns`."""
    dropped: list[str] = []
    told = in_order(items)
    spans = [item for item in told if isinstance(item, Span)]
    paired = _paired([item for item in told if isinstance(item, Mark)], dropped)
    whole = _merged([*spans, *(span for span in paired if not _overlaps(span, spans))])
    steps = [item for item in told if isinstance(item, Step)]
    begins_ns = min([first_wall_ns, *(span.from_wall_ns for span in whole), *(step.at_wall_ns for step in steps)])
    starts_s = (begins_ns - LEAD_NS) // NS_PER_S
    happened = tuple(_placed(whole, steps, starts_s * NS_PER_S))
    ends_ns = max([last_wall_ns, *(span.to_wall_ns for span in whole)]) - sum(step.by_ns for step in steps)
    last_ns = max([ends_ns - starts_s * NS_PER_S, *(each.at_world_ns + each.lasts_ns + LEAD_NS for each in happened)])
    return Month(starts_s, -(-last_ns // NS_PER_S) * NS_PER_S, happened, dropped)


def _paired(marks: Sequence[Mark], dropped: list[str]) -> list[Span]:
    """Each falling asleep with its waking."""
    spans: list[Span] = []
    asleep: Mark | None = None
    last_ns = marks[0].wall_ns if marks else 0
    for mark in marks:
        if mark.says in ("asleep", "off"):
            if asleep is not None and asleep.code == mark.code:
                dropped.append(f"{asleep.code} without a wake before the next")
                asleep = mark
            elif asleep is None:
                asleep = mark
        elif asleep is not None:
            # Switched on out of a sleep: the battery was empty, or it was off after all.
            kind: SleepKind = "off" if mark.says == "on" else asleep.kind
            spans.append(Span(asleep.wall_ns, mark.wall_ns, kind))
            asleep = None
        elif mark.says == "on" and mark.wall_ns > last_ns:
            spans.append(Span(mark.wall_ns, mark.wall_ns, "off"))
        last_ns = mark.wall_ns
    if asleep is not None:
        dropped.append(f"{asleep.code} at the end, without a wake")
    return spans


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(span.from_wall_ns < other.to_wall_ns and other.from_wall_ns < span.to_wall_ns for other in others)


def _merged(spans: Iterable[Span]) -> list[Span]:
    """In order; those that overlap, as two journals tell of one sleep, are one. Being off outweighs sleep."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.from_wall_ns < merged[-1].to_wall_ns:
            last = merged[-1]
            kind: SleepKind = "off" if "off" in (last.kind, span.kind) else last.kind
            merged[-1] = Span(last.from_wall_ns, max(last.to_wall_ns, span.to_wall_ns), kind)
        elif not merged or span != merged[-1]:
            merged.append(span)
    return merged


def _placed(spans: Sequence[Span], steps: Sequence[Step], starts_ns: int) -> list[Happened]:
    """In world time: every step of the wall clock moves what comes after it."""
    placed: list[Happened] = []
    set_ns = 0
    for item in in_order([*spans, *steps]):
        if isinstance(item, Step):
            placed.append(Happened("step", item.at_wall_ns - set_ns - starts_ns, by_ns=item.by_ns))
            set_ns += item.by_ns
        elif isinstance(item, Span):
            at_ns = item.from_wall_ns - set_ns - starts_ns
            placed.append(Happened(item.kind, at_ns, item.to_wall_ns - item.from_wall_ns))
    return _one_after_another(placed)


def _one_after_another(placed: Sequence[Happened]) -> list[Happened]:
    """No two overlap and none begins with another: the later waits a second."""
    found: list[Happened] = []
    free_ns = 0
    for each in sorted(placed, key=lambda one: one.at_world_ns):
        moved = each._replace(at_world_ns=max(each.at_world_ns, free_ns))
        found.append(moved)
        free_ns = moved.at_world_ns + moved.lasts_ns + NS_PER_S
    return found
