"""From journals to what happened to the machine, in order: sleeps, pauses, times switched off,
steps.

World time begins a minute before the first event and passes as it really did; a wall clock that was
off, or was set, is a matter of steps.

Some journals contain what cannot be: falling asleep and never waking, or the same message twice.
The earlier of two is dropped and counted, unless something else reports that sleep. A sleep that is
reported twice (by two messages, in two files) is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import (
    NOTICED_NS,
    S0_IDLE,
    ClockStep,
    JournalItem,
    PowerEvent,
    SleepKind,
    SleepSpan,
    in_order,
)
from meshwake.importers.placement import PlacedJournal

LEAD_NS = 60 * NS_PER_S
# How long the machine is awake after its last event at least, whatever the journal still has: a
# filtered journal ends with a wake. A mesh has five minutes to recover from it (RECOVERS_WITHIN_NS),
# and connections are tried every ten minutes, so after less the answer would be UNKNOWN.
REST_NS = 1800 * NS_PER_S
# Messages about one thing come within so long: a boot has several, and an interrupted sleep ends
# near others.
_SAME_NS = 300 * NS_PER_S
# Shorter ones are not sleeps: it takes this long to save a VM's memory or to move it.
_SHORTEST_NS = NS_PER_S
_FALLS_ASLEEP = ("asleep", "off")


class MachineEvent(NamedTuple):
    """One thing that happened to the machine, in world time. `off`: it was switched off; one of no
    length is a restart without a shutdown. `by_ns`: by how much the wall clock was set, or was off
    after an `off`. `corrected`: False for a pause after which the wall clock stays behind until a
    later step."""

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
    events: tuple[MachineEvent, ...]
    dropped: list[str] = field(default_factory=list)

    def total_ns(self, *kinds: str) -> int:
        """How long the machine was in one of `kinds`, in total."""
        return sum(each.lasts_ns for each in self.events if each.kind in kinds)

    def count(self, *kinds: str) -> int:
        """How often the machine was in one of `kinds`."""
        return sum(each.kind in kinds for each in self.events)

    @property
    def largest_drift_ns(self) -> int:
        """The largest clock drift while the machine was on: by how much a ztunnel that starts with
        it is late at worst."""
        largest_ns = parted_ns = 0
        for each in self.events:
            # After a pause whose wall clock stays behind nothing has parted yet; the later step is
            # what parts them. A time switched off ends every ztunnel, and with it its drift.
            slept_ns = each.lasts_ns if each.corrected else 0
            parted_ns = 0 if each.kind == "off" else parted_ns + slept_ns + each.by_ns
            largest_ns = max(largest_ns, parted_ns, key=abs)
        return largest_ns

    @property
    def set_ahead_ns(self) -> tuple[int, ...]:
        """By how much the wall clock was ahead of world time at the beginning of each event."""
        ahead, found = 0, []
        for each in self.events:
            found.append(ahead)
            ahead += each.by_ns - (0 if each.corrected else each.lasts_ns)
        return tuple(found)


def sleep_history_of(journals: Sequence[PlacedJournal]) -> SleepHistory:
    """What happened, from all journals together. Raises ValueError when there are no journals."""
    dropped: list[str] = []
    journals = _continued(journals)
    spans, jumps = _guest_and_host_spans(journals, dropped)
    sleeps = _merged([*spans, *_boots_between(journals)])
    steps = [
        item
        for journal in journals
        for item in journal.items
        if isinstance(item, ClockStep) and not _is_sleep(item, sleeps)
    ]
    begins_ns, ends_ns = _extent(journals, sleeps)
    # Whole seconds, as a scenario's date is.
    starts_ns = (begins_ns - LEAD_NS) // NS_PER_S * NS_PER_S
    events = tuple(_placed(sleeps, _once([*jumps, *steps]), starts_ns))
    last_ns = max(
        [ends_ns - starts_ns, *(each.at_world_ns + each.lasts_ns + REST_NS for each in events)]
    )
    # The wall clock may have been ahead of the calendar when the journal began.
    ahead_ns = max((journal.ahead_ns for journal in journals), key=abs)
    starts_wall_s = starts_ns // NS_PER_S + round(ahead_ns / NS_PER_S)
    return SleepHistory(starts_wall_s, -(-last_ns // NS_PER_S) * NS_PER_S, events, dropped)


def _guest_and_host_spans(
    journals: Sequence[PlacedJournal], dropped: list[str]
) -> tuple[list[SleepSpan], list[ClockStep]]:
    """The sleeps of all journals, those of a host matched with the jumps of its guest."""
    of_journals = [_spans(journal, dropped) for journal in journals]
    host: list[SleepSpan] = []
    guest: list[SleepSpan] = []
    for spans, is_host in zip(of_journals, _which_are_hosts(journals, of_journals), strict=True):
        (host if is_host else guest).extend(spans)
    return _as_guest_and_host(host, guest)


def _extent(journals: Sequence[PlacedJournal], sleeps: Sequence[SleepSpan]) -> tuple[int, int]:
    """The earliest and the latest moment that anything is known of."""
    begins = [journal.first_ns for journal in journals] + [span.from_wall_ns for span in sleeps]
    ends = [journal.last_ns for journal in journals] + [span.to_wall_ns for span in sleeps]
    return min(begins), max(ends)


def _continued(journals: Sequence[PlacedJournal]) -> list[PlacedJournal]:
    """Repairs a log that was cut within a sleep: a wake at the beginning of one piece ends the
    sleep at the end of the piece before it."""
    whole: list[PlacedJournal] = []
    for journal in journals:
        wake = _wake_after(journal, journals) if _ends_asleep(journal) else None
        if wake is None:
            whole.append(journal)
        else:
            whole.append(replace(journal, items=[*journal.items, wake]))
    return whole


def _power_events(journal: PlacedJournal) -> list[PowerEvent]:
    return [item for item in in_order(journal.items) if isinstance(item, PowerEvent)]


def _ends_asleep(journal: PlacedJournal) -> bool:
    events = [] if journal.measured else _power_events(journal)
    return bool(events) and events[-1].change in _FALLS_ASLEEP


def _wake_after(journal: PlacedJournal, journals: Sequence[PlacedJournal]) -> PowerEvent | None:
    """The earliest wake with which another piece of the same kind of log begins."""
    wakes = []
    for other in journals:
        if other is journal or other.system != journal.system:
            continue
        first = _first_power_event(other)
        if first is None or first.wall_ns < journal.last_ns:
            continue
        if first.change not in _FALLS_ASLEEP:
            wakes.append(first)
    return min(wakes, key=lambda wake: wake.wall_ns, default=None)


def _first_power_event(journal: PlacedJournal) -> PowerEvent | None:
    """None too for a journal whose clocks are measured: its messages are not needed."""
    return None if journal.measured else next(iter(_power_events(journal)), None)


# --- The sleeps of one journal --------------------------------------------------------------------


def _spans(journal: PlacedJournal, dropped: list[str]) -> list[SleepSpan]:
    """The sleeps of one journal: those whose both ends it reports, and otherwise its events in
    pairs. Adds to `dropped` what has no partner."""
    reported = [item for item in in_order(journal.items) if isinstance(item, SleepSpan)]
    lost: list[tuple[int, str]] = []
    pairs = _paired(_power_events(journal), lost)
    spans = [*reported, *_not_reported(pairs, reported)]
    dropped += [why for at_ns, why in lost if not _is_within_one(at_ns, spans)]
    return spans


def _not_reported(pairs: Iterable[_Pair], reported: Sequence[SleepSpan]) -> Iterator[SleepSpan]:
    """Those of which no report has both ends, or only of a part."""
    for pair in pairs:
        if pair.holds_others or not _overlaps(pair.span, reported):
            yield pair.span


class _Pair(NamedTuple):
    """A sleep whose two ends are events of one family."""

    span: SleepSpan
    family: str

    @property
    def holds_others(self) -> bool:
        """Whether a sleep that is reported may be a part of it."""
        # A laptop in modern standby from 21:00 hibernated at 0:00 and woke at 6:00: the
        # hibernation, of which both ends are reported, took the place of the standby, and 9 h were
        # read as 6 h.
        return self.family == S0_IDLE


def _paired(events: Sequence[PowerEvent], lost: list[tuple[int, str]]) -> list[_Pair]:
    """Each falling asleep with its wake. Nested sleeps, as a hibernation within modern standby, are
    one sleep each. Adds to `lost` when what has no partner was, and why it is dropped."""
    pairs: list[_Pair] = []
    asleep: dict[str, PowerEvent] = {}  # by family, since when
    for event in events:
        if event.change in _FALLS_ASLEEP:
            _fall_asleep(event, asleep, lost)
        elif asleep:
            pairs += [_pair(begun, event) for begun in _wake_up(event, asleep)]
        elif event.change == "on":
            _start(event, events[0], pairs)
    lost.extend(
        (begun.wall_ns, f"{begun.code} at the end, without a wake") for begun in asleep.values()
    )
    return _without_impossible(pairs, lost)


def _start(event: PowerEvent, first: PowerEvent, pairs: list[_Pair]) -> None:
    """A start without a shutdown before it: a crash, or a power cut. With the first event a log may
    begin."""
    if event.wall_ns > first.wall_ns and not _just_started(event.wall_ns, pairs):
        pairs.append(_pair(event, event))


def _pair(begun: PowerEvent, ended: PowerEvent) -> _Pair:
    return _Pair(SleepSpan(begun.wall_ns, ended.wall_ns, _kind(begun, ended)), begun.family)


def _fall_asleep(
    event: PowerEvent, asleep: dict[str, PowerEvent], lost: list[tuple[int, str]]
) -> None:
    """The same message twice means that the wake between was not logged: the later one counts.
    Another message of the same family is about the same sleep."""
    before = asleep.get(event.family)
    if before is not None and before.code != event.code:
        return
    if before is not None:
        lost.append((before.wall_ns, f"{before.code} without a wake before the next"))
    asleep[event.family] = event


def _wake_up(event: PowerEvent, asleep: dict[str, PowerEvent]) -> list[PowerEvent]:
    """Removes from `asleep` what `event` ends: the sleep of its family or, where that has none or
    the machine was started, all of them."""
    own = asleep.pop(event.family, None)
    ended = [] if own is None else [own]
    if own is None or event.change in ("on", "restored"):
        ended += asleep.values()
        asleep.clear()
    return ended


def _without_impossible(pairs: Sequence[_Pair], lost: list[tuple[int, str]]) -> list[_Pair]:
    kept = []
    for pair in pairs:
        length_ns = _length_ns(pair.span)
        if pair.span.kind == "off" or length_ns >= _SHORTEST_NS:
            kept.append(pair)
        elif length_ns < 0:
            lost.append((pair.span.from_wall_ns, "a sleep that ends before it begins"))
    return kept


def _kind(begun: PowerEvent, ended: PowerEvent) -> SleepKind:
    """A machine that is switched on out of a sleep was off: its battery was empty. One that is
    restored was not off."""
    if ended.change == "restored":
        return ended.kind
    return "off" if ended.change == "on" else begun.kind


def _just_started(at_ns: int, pairs: Sequence[_Pair]) -> bool:
    """Whether another message has reported this start already."""
    if not pairs:
        return False
    last = pairs[-1].span
    return last.kind == "off" and at_ns - last.to_wall_ns <= _SAME_NS


def _is_within_one(at_ns: int, spans: Sequence[SleepSpan]) -> bool:
    return any(span.from_wall_ns - _SAME_NS <= at_ns <= span.to_wall_ns for span in spans)


def _boots_between(journals: Sequence[PlacedJournal]) -> Iterator[SleepSpan]:
    """The boots between journals of boots that follow one another: pieces of one journal that were
    saved one by one."""
    measured = sorted(
        (journal for journal in journals if journal.measured), key=lambda journal: journal.first_ns
    )
    for one, two in pairwise(measured):
        if one.last_ns <= two.first_ns:
            yield SleepSpan(one.last_ns, two.first_ns, "off")


def _overlaps(span: SleepSpan, others: Sequence[SleepSpan]) -> bool:
    return any(
        span.from_wall_ns < other.to_wall_ns and other.from_wall_ns < span.to_wall_ns
        for other in others
    )


# --- All journals together ------------------------------------------------------------------------


def _which_are_hosts(
    journals: Sequence[PlacedJournal], of_journals: Sequence[Sequence[SleepSpan]]
) -> list[bool]:
    """Which journals are of hosts: those of other systems, and of several systemd journals those
    with messages of a suspend, where the clocks of another one only jumped."""
    announced = [_has_suspends(spans) for spans in of_journals]
    some_only_jumped = any(
        journal.measured and not own for journal, own in zip(journals, announced, strict=True)
    )
    return [
        not journal.measured or (own and some_only_jumped)
        for journal, own in zip(journals, announced, strict=True)
    ]


def _has_suspends(spans: Sequence[SleepSpan]) -> bool:
    return any(span.kind == "suspend" for span in spans)


def _as_guest_and_host(
    host: Sequence[SleepSpan], guest: Sequence[SleepSpan]
) -> tuple[list[SleepSpan], list[ClockStep]]:
    """Matches the sleeps of a host with the jumps of its guest's clocks. A jump that is as long as
    one sleep, or as several together, is these. Where entries of the guest lie between these
    sleeps, its wall clock stayed behind until that jump, which is a step then."""
    spans, steps = list(host), []
    for jump in guest:
        slept = _slept_through(jump, host) if jump.kind == "pause" else []
        if not slept:
            spans.append(jump)
        elif len(slept) == 1:
            # The guest measured how long, its host knows when it began.
            spans.remove(slept[0])
            spans.append(slept[0]._replace(to_wall_ns=slept[0].from_wall_ns + _length_ns(jump)))
        # The guest wrote entries between the first of these sleeps and its jump. Where it did not,
        # the host's sleeps stay as they are, and the jump is their sum.
        elif slept[0].from_wall_ns < jump.from_wall_ns - _SAME_NS:
            spans = [span._replace(corrected=False) if span in slept else span for span in spans]
            steps.append(ClockStep(jump.to_wall_ns, sum(map(_length_ns, slept))))
    return spans, steps


def _slept_through(jump: SleepSpan, host: Sequence[SleepSpan]) -> list[SleepSpan]:
    """The last sleeps of the host until a jump of its guest that together are as long; [] when
    there are none."""
    slept: list[SleepSpan] = []
    total_ns, jump_ns = 0, _length_ns(jump)
    # A guest does not know when between two entries it was paused, so the jump may appear earlier
    # than it was.
    before = (span for span in sorted(host, reverse=True) if span.from_wall_ns < jump.to_wall_ns)
    for span in before:
        if span.kind == "off" or total_ns > jump_ns + _SAME_NS:
            break
        slept.insert(0, span)
        total_ns += _length_ns(span)
        if abs(total_ns - jump_ns) <= min(_SAME_NS, NOTICED_NS + jump_ns // 20):
            return slept
    return []


def _length_ns(span: SleepSpan) -> int:
    return span.to_wall_ns - span.from_wall_ns


def _merged(spans: Iterable[SleepSpan]) -> list[SleepSpan]:
    """In order; those that overlap, as when two journals report one sleep, become one."""
    merged: list[SleepSpan] = []
    for span in sorted(spans):
        if merged and span.from_wall_ns < merged[-1].to_wall_ns:
            merged[-1] = _joined(merged[-1], span)
        elif not merged or span != merged[-1]:
            merged.append(span)
    return merged


def _joined(one: SleepSpan, two: SleepSpan) -> SleepSpan:
    """Two that overlap, as one. Being off outweighs sleep."""
    kind: SleepKind = "off" if "off" in (one.kind, two.kind) else one.kind
    return SleepSpan(
        one.from_wall_ns,
        max(one.to_wall_ns, two.to_wall_ns),
        kind,
        one.by_ns or two.by_ns,
        one.corrected and two.corrected,
    )


def _is_sleep(step: ClockStep, spans: Sequence[SleepSpan]) -> bool:
    """Whether a guest's clock was set ahead by what its host slept, as the host's journal has
    it."""
    return step.by_ns > 0 and any(
        span.kind != "off"
        and abs(_length_ns(span) - step.by_ns) <= _SAME_NS
        and abs(step.at_wall_ns - span.to_wall_ns) <= _SAME_NS
        for span in spans
    )


def _once(steps: Sequence[ClockStep]) -> list[ClockStep]:
    """Without those that another journal reports too."""
    found: list[ClockStep] = []
    for step in sorted(steps):
        # In order of time, so that only the last few can be near.
        if not any(_is_same_step(step, other) for other in found[-3:]):
            found.append(step)
    return found


def _is_same_step(step: ClockStep, other: ClockStep) -> bool:
    return (
        step.at_wall_ns - other.at_wall_ns <= _SAME_NS
        and abs(step.by_ns - other.by_ns) < NOTICED_NS
    )


def _placed(
    spans: Sequence[SleepSpan], steps: Sequence[ClockStep], starts_ns: int
) -> list[MachineEvent]:
    """In world time. No two overlap and none begins with another: the later waits a second."""
    found: list[MachineEvent] = []
    free_ns = NS_PER_S
    for item in in_order([*steps, *spans]):
        event = _machine_event(item, starts_ns)
        placed = event._replace(at_world_ns=max(event.at_world_ns, free_ns))
        found.append(placed)
        free_ns = placed.at_world_ns + placed.lasts_ns + NS_PER_S
    return found


def _machine_event(item: JournalItem, starts_ns: int) -> MachineEvent:
    if isinstance(item, ClockStep):
        return MachineEvent("step", item.at_wall_ns - starts_ns, by_ns=item.by_ns)
    assert isinstance(item, SleepSpan)
    return MachineEvent(
        item.kind, item.from_wall_ns - starts_ns, _length_ns(item), item.by_ns, item.corrected
    )
