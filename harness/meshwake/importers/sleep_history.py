"""From what journals told to what happened to the machine, in order: sleeps, pauses, times switched
off, steps.

World time begins a minute before the first that was told, and passes as it really did: where the
wall clock was off, or set, is a matter of steps.

What cannot be: a journal that tells of falling asleep and never of waking, or twice of the same.
The earlier of two is dropped and counted, unless something else tells of that sleep. Sleeps that a
journal tells twice (two messages, two files) are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    NOTICED_NS,
    ClockStep,
    JournalItem,
    PowerEvent,
    SleepKind,
    SleepSpan,
    in_order,
)
from meshwake.importers.placement import PlacedJournal

LEAD_NS = 60 * NS_PER_S
# What tells of one thing tells it within so long: a boot has several messages, an interrupted sleep
# ends near others.
_SAME_NS = 300 * NS_PER_S
# Less is no sleep: what it takes to save a VM's memory or to move it.
_SHORTEST_NS = NS_PER_S


class MachineEvent(NamedTuple):
    """One thing that happened to the machine, in world time. `off`: it was switched off; a boot of
    no length is a restart that nobody saw coming. `by_ns`: by how much the wall clock was set;
    after an `off` it may have begun off by that. `corrected`: False for a pause whose wall clock
    only a later step puts right."""

    kind: Literal["suspend", "pause", "off", "step"]
    at_world_ns: int
    lasts_ns: int = 0
    by_ns: int = 0
    corrected: bool = True


@dataclass
class SleepHistory:
    """What happened between two moments. `starts_wall_s` is the wall clock at world time 0."""

    starts_wall_s: int
    duration_ns: int
    happened: tuple[MachineEvent, ...]
    dropped: list[str] = field(default_factory=list)

    def total_ns(self, *kinds: str) -> int:
        """How long the machine was in one of `kinds`, in all."""
        return sum(each.lasts_ns for each in self.happened if each.kind in kinds)

    def count(self, *kinds: str) -> int:
        """How often."""
        return sum(each.kind in kinds for each in self.happened)

    @property
    def largest_drift_ns(self) -> int:
        """The most that wall and monotonic clock ever parted while it was not switched off: what a
        ztunnel that starts with the machine is late by at worst."""
        largest_ns = parted_ns = 0
        for each in self.happened:
            slept_ns = each.lasts_ns if each.corrected else 0
            parted_ns = 0 if each.kind == "off" else parted_ns + slept_ns + each.by_ns
            largest_ns = max(largest_ns, parted_ns, key=abs)
        return largest_ns

    @property
    def set_ahead_ns(self) -> tuple[int, ...]:
        """By how much the wall clock was ahead of where world time alone would have brought it, at
        the beginning of each that happened."""
        ahead, found = 0, []
        for each in self.happened:
            found.append(ahead)
            ahead += each.by_ns - (0 if each.corrected else each.lasts_ns)
        return tuple(found)


def sleep_history_of(journals: Sequence[PlacedJournal]) -> SleepHistory:
    """What happened, from what was told. Raises ValueError when there are no journals."""
    dropped: list[str] = []
    journals = _continued(journals)
    told = [_spans(journal, dropped) for journal in journals]
    is_host = _which_are_hosts(journals, told)
    spans, jumps = _as_guest_and_host(
        [span for its, host in zip(told, is_host, strict=True) if host for span in its],
        [span for its, host in zip(told, is_host, strict=True) if not host for span in its],
    )
    whole = _merged([*spans, *_between(journals)])
    steps = [item for journal in journals for item in journal.items if isinstance(item, ClockStep)]
    steps = _once([*jumps, *(step for step in steps if not _is_sleep(step, whole))])
    begins_ns = min(
        [*(journal.first_ns for journal in journals), *(span.from_wall_ns for span in whole)]
    )
    ends_ns = max(
        [*(journal.last_ns for journal in journals), *(span.to_wall_ns for span in whole)]
    )
    starts_ns = (begins_ns - LEAD_NS) // NS_PER_S * NS_PER_S
    ahead_ns = max((journal.ahead_ns for journal in journals), key=abs)
    happened = tuple(_placed(whole, steps, starts_ns))
    last_ns = max(
        [ends_ns - starts_ns, *(each.at_world_ns + each.lasts_ns + LEAD_NS for each in happened)]
    )
    starts_wall_s = starts_ns // NS_PER_S + round(ahead_ns / NS_PER_S)
    return SleepHistory(starts_wall_s, -(-last_ns // NS_PER_S) * NS_PER_S, happened, dropped)


def _continued(journals: Sequence[PlacedJournal]) -> list[PlacedJournal]:
    """Pieces of one log that were cut within a sleep: the wake at the beginning of one ends the
    sleep at the end of the piece before it."""
    found: list[PlacedJournal] = []
    for journal in journals:
        own = [item for item in in_order(journal.items) if isinstance(item, PowerEvent)]
        later = [
            mark
            for other in journals
            if other is not journal and other.system == journal.system and not other.measured
            for mark in [item for item in in_order(other.items) if isinstance(item, PowerEvent)][:1]
            if mark.change not in ("asleep", "off") and mark.wall_ns >= journal.last_ns
        ]
        if later and own and not journal.measured and own[-1].change in ("asleep", "off"):
            wake = min(later, key=lambda mark: mark.wall_ns)
            found.append(replace(journal, items=[*journal.items, wake]))
        else:
            found.append(journal)
    return found


# --- The sleeps of one journal --------------------------------------------------------------------


def _spans(journal: PlacedJournal, dropped: list[str]) -> list[SleepSpan]:
    """Those that it tells with both ends, and its marks paired where it does not."""
    told = in_order(journal.items)
    spans = [item for item in told if isinstance(item, SleepSpan)]
    lost: list[tuple[int, str]] = []
    paired = _paired([item for item in told if isinstance(item, PowerEvent)], lost)
    whole = [*spans, *(span for span in paired if not _overlaps(span, spans))]
    dropped += [why for at_ns, why in lost if not _told_otherwise(at_ns, whole)]
    return whole


def _paired(marks: Sequence[PowerEvent], lost: list[tuple[int, str]]) -> list[SleepSpan]:
    """Each falling asleep with its waking. Nested ones, as a hibernation within modern standby, are
    one sleep each."""
    spans: list[SleepSpan] = []
    asleep: dict[str, PowerEvent] = {}
    first_ns = marks[0].wall_ns if marks else 0
    for mark in marks:
        if mark.change in ("asleep", "off"):
            before = asleep.get(mark.family)
            if before is not None and before.code == mark.code:
                lost.append((before.wall_ns, f"{before.code} without a wake before the next"))
            if before is None or before.code == mark.code:
                asleep[mark.family] = mark
        elif asleep:
            ended = (
                [asleep.pop(mark.family)]
                if mark.family in asleep
                else [asleep.pop(name) for name in list(asleep)]
            )
            if mark.change in ("on", "restored"):
                ended += [asleep.pop(name) for name in list(asleep)]
            spans += [SleepSpan(begun.wall_ns, mark.wall_ns, _kind(begun, mark)) for begun in ended]
        elif (
            mark.change == "on"
            and mark.wall_ns > first_ns
            and not _just_started(mark.wall_ns, spans)
        ):
            spans.append(SleepSpan(mark.wall_ns, mark.wall_ns, "off"))
    lost += [
        (begun.wall_ns, f"{begun.code} at the end, without a wake") for begun in asleep.values()
    ]
    for span in spans:
        if span.kind != "off" and span.to_wall_ns - span.from_wall_ns < 0:
            lost.append((span.from_wall_ns, "a sleep that ends before it begins"))
    return [
        span
        for span in spans
        if span.kind == "off" or span.to_wall_ns - span.from_wall_ns >= _SHORTEST_NS
    ]


def _kind(begun: PowerEvent, ended: PowerEvent) -> SleepKind:
    """Switched on out of a sleep: the battery was empty, or it was off after all. Restored: it was
    not off."""
    if ended.change == "restored":
        return ended.kind
    return "off" if ended.change == "on" else begun.kind


def _just_started(at_ns: int, spans: Sequence[SleepSpan]) -> bool:
    """Whether that start is told already, by another message."""
    return bool(spans) and spans[-1].kind == "off" and at_ns - spans[-1].to_wall_ns <= _SAME_NS


def _told_otherwise(at_ns: int, spans: Sequence[SleepSpan]) -> bool:
    return any(span.from_wall_ns - _SAME_NS <= at_ns <= span.to_wall_ns for span in spans)


def _overlaps(span: SleepSpan, others: Sequence[SleepSpan]) -> bool:
    return any(
        span.from_wall_ns < other.to_wall_ns and other.from_wall_ns < span.to_wall_ns
        for other in others
    )


# --- All journals together ------------------------------------------------------------------------


def _between(journals: Sequence[PlacedJournal]) -> Iterator[SleepSpan]:
    """The boots between journals of boots that follow one another: pieces of one that were saved
    one by one."""
    measured = sorted(
        (journal for journal in journals if journal.measured), key=lambda journal: journal.first_ns
    )
    for one, two in pairwise(measured):
        if one.last_ns <= two.first_ns:
            yield SleepSpan(one.last_ns, two.first_ns, "off")


def _which_are_hosts(
    journals: Sequence[PlacedJournal], told: Sequence[Sequence[SleepSpan]]
) -> list[bool]:
    """Which journals are of hosts: those of other systems, and of several systemd journals those
    that call their sleeps so, where another one only jumped."""
    says = [
        journal.measured and any(span.kind == "suspend" for span in its)
        for journal, its in zip(journals, told, strict=True)
    ]
    jumped = any(
        journal.measured and not said for journal, said in zip(journals, says, strict=True)
    )
    return [
        not journal.measured or (said and jumped)
        for journal, said in zip(journals, says, strict=True)
    ]


def _as_guest_and_host(
    host: Sequence[SleepSpan], guest: Sequence[SleepSpan]
) -> tuple[list[SleepSpan], list[ClockStep]]:
    """The sleeps of a host, and the jumps that a guest's clocks made when its wall clock was put
    right: a jump that is as long as one sleep, or as several together, is these. Where entries of
    the guest lie between these sleeps, its wall clock stayed behind until that jump, which is a
    step then."""
    spans, steps = list(host), []
    for jump in guest:
        slept = _slept_through(jump, host) if jump.kind == "pause" else []
        if not slept:
            spans.append(jump)
        elif len(slept) == 1:
            # The guest measured it; its host knows when it began.
            spans.remove(slept[0])
            spans.append(slept[0]._replace(to_wall_ns=slept[0].from_wall_ns + _length_ns(jump)))
        elif slept[0].from_wall_ns < jump.from_wall_ns - _SAME_NS:
            spans = [span._replace(corrected=False) if span in slept else span for span in spans]
            steps.append(ClockStep(jump.to_wall_ns, sum(map(_length_ns, slept))))
    return spans, steps


def _slept_through(jump: SleepSpan, host: Sequence[SleepSpan]) -> list[SleepSpan]:
    """The last sleeps of the host until a jump of its guest that are as long together."""
    slept: list[SleepSpan] = []
    total_ns = 0
    # When in the time between two entries a guest stood, it does not know: its jump may be told too
    # early.
    before = (span for span in sorted(host, reverse=True) if span.from_wall_ns < jump.to_wall_ns)
    for span in before:
        if span.kind == "off" or total_ns > _length_ns(jump) + _SAME_NS:
            break
        slept.insert(0, span)
        total_ns += _length_ns(span)
        if abs(total_ns - _length_ns(jump)) <= min(_SAME_NS, NOTICED_NS + _length_ns(jump) // 20):
            return slept
    return []


def _length_ns(span: SleepSpan) -> int:
    return span.to_wall_ns - span.from_wall_ns


def _merged(spans: Iterable[SleepSpan]) -> list[SleepSpan]:
    """In order; those that overlap, as two journals tell of one sleep, are one. Being off outweighs
    sleep."""
    merged: list[SleepSpan] = []
    for span in sorted(spans):
        if merged and span.from_wall_ns < merged[-1].to_wall_ns:
            last = merged[-1]
            kind: SleepKind = "off" if "off" in (last.kind, span.kind) else last.kind
            ends_ns = max(last.to_wall_ns, span.to_wall_ns)
            corrected = last.corrected and span.corrected
            merged[-1] = SleepSpan(
                last.from_wall_ns, ends_ns, kind, last.by_ns or span.by_ns, corrected
            )
        elif not merged or span != merged[-1]:
            merged.append(span)
    return merged


def _is_sleep(step: ClockStep, spans: Sequence[SleepSpan]) -> bool:
    """Whether the clock of a guest was set ahead by what its host slept, as the host's journal
    tells."""
    return step.by_ns > 0 and any(
        span.kind != "off"
        and abs(_length_ns(span) - step.by_ns) <= _SAME_NS
        and abs(step.at_wall_ns - span.to_wall_ns) <= _SAME_NS
        for span in spans
    )


def _once(steps: Sequence[ClockStep]) -> list[ClockStep]:
    """Without those that another journal tells too."""
    found: list[ClockStep] = []
    for step in sorted(steps):
        same = any(
            step.at_wall_ns - other.at_wall_ns <= _SAME_NS
            and abs(step.by_ns - other.by_ns) < NOTICED_NS
            for other in found[-3:]
        )
        if not same:
            found.append(step)
    return found


def _placed(
    spans: Sequence[SleepSpan], steps: Sequence[ClockStep], starts_ns: int
) -> list[MachineEvent]:
    """In world time. No two overlap and none begins with another: the later waits a second."""
    found: list[MachineEvent] = []
    free_ns = NS_PER_S
    for item in in_order([*steps, *spans]):
        happened = _happened(item, starts_ns)
        placed = happened._replace(at_world_ns=max(happened.at_world_ns, free_ns))
        found.append(placed)
        free_ns = placed.at_world_ns + placed.lasts_ns + NS_PER_S
    return found


def _happened(item: JournalItem, starts_ns: int) -> MachineEvent:
    if isinstance(item, ClockStep):
        return MachineEvent("step", item.at_wall_ns - starts_ns, by_ns=item.by_ns)
    assert isinstance(item, SleepSpan)
    return MachineEvent(
        item.kind, item.from_wall_ns - starts_ns, _length_ns(item), item.by_ns, item.corrected
    )
