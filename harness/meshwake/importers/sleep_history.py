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

    @property
    def ends_world_ns(self) -> int:
        """When it was over."""
        return self.at_world_ns + self.lasts_ns


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
        largest_ns = 0
        parted_ns = 0
        for each in self.events:
            # A time switched off ends every ztunnel, and with it its drift.
            if each.kind == "off":
                parted_ns = 0
                continue
            # After a pause whose wall clock stays behind nothing has parted yet; the later step is
            # what parts them.
            if each.corrected:
                parted_ns += each.lasts_ns
            parted_ns += each.by_ns
            largest_ns = max(largest_ns, parted_ns, key=abs)
        return largest_ns

    @property
    def set_ahead_ns(self) -> tuple[int, ...]:
        """By how much the wall clock was ahead of world time at the beginning of each event."""
        ahead_ns = 0
        found: list[int] = []
        for each in self.events:
            found.append(ahead_ns)
            ahead_ns += each.by_ns
            # The wall clock of a guest stops in a pause, and nothing sets it right after this one.
            if not each.corrected:
                ahead_ns -= each.lasts_ns
        return tuple(found)


def sleep_history_of(journals: Sequence[PlacedJournal]) -> SleepHistory:
    """What happened, from all journals together. Raises ValueError when there are no journals."""
    dropped: list[str] = []
    journals = _continued(journals)
    spans, jumps = _guest_and_host_spans(journals, dropped)
    sleeps = _merged([*spans, *_boots_between(journals)])
    steps = _once([*jumps, *_steps_outside(sleeps, journals)])

    begins_ns, ends_ns = _extent(journals, sleeps)
    # Whole seconds, as a scenario's date is.
    starts_ns = (begins_ns - LEAD_NS) // NS_PER_S * NS_PER_S
    events = _placed(sleeps, steps, starts_ns)

    # No two events overlap, so the last one is also the last to end.
    last_ns = ends_ns - starts_ns
    if events:
        last_ns = max(last_ns, events[-1].ends_world_ns + REST_NS)
    # The wall clock may have been ahead of the calendar when the journal began.
    ahead_ns = max((journal.ahead_ns for journal in journals), key=abs)
    return SleepHistory(
        starts_wall_s=starts_ns // NS_PER_S + round(ahead_ns / NS_PER_S),
        duration_ns=-(-last_ns // NS_PER_S) * NS_PER_S,  # rounded up
        events=tuple(events),
        dropped=dropped,
    )


def _steps_outside(
    sleeps: Sequence[SleepSpan], journals: Sequence[PlacedJournal]
) -> Iterator[ClockStep]:
    """The steps that journals report, but for those that are a sleep themselves."""
    for journal in journals:
        for item in journal.items:
            if isinstance(item, ClockStep) and not _is_sleep(item, sleeps):
                yield item


def _guest_and_host_spans(
    journals: Sequence[PlacedJournal], dropped: list[str]
) -> tuple[list[SleepSpan], list[ClockStep]]:
    """The sleeps of all journals, those of a host matched with the jumps of its guest."""
    of_journals = [_spans(journal, dropped) for journal in journals]
    are_hosts = _which_are_hosts(journals, of_journals)
    host: list[SleepSpan] = []
    guest: list[SleepSpan] = []
    for spans, is_host in zip(of_journals, are_hosts, strict=True):
        if is_host:
            host.extend(spans)
        else:
            guest.extend(spans)
    return _as_guest_and_host(host, guest)


def _extent(journals: Sequence[PlacedJournal], sleeps: Sequence[SleepSpan]) -> tuple[int, int]:
    """The earliest and the latest moment that anything is known of."""
    begins_ns = min(journal.first_ns for journal in journals)
    ends_ns = max(journal.last_ns for journal in journals)
    # Power-Troubleshooter of Windows reports a sleep at its end: it began before the first entry.
    for span in sleeps:
        begins_ns = min(begins_ns, span.from_wall_ns)
        ends_ns = max(ends_ns, span.to_wall_ns)
    return begins_ns, ends_ns


def _continued(journals: Sequence[PlacedJournal]) -> list[PlacedJournal]:
    """Repairs a log that was cut within a sleep: a wake at the beginning of one piece ends the
    sleep at the end of the piece before it."""
    whole: list[PlacedJournal] = []
    for journal in journals:
        events = _power_events(journal)
        wake: PowerEvent | None = None
        if events and events[-1].change in _FALLS_ASLEEP:
            wake = _wake_after(journal, journals)
        if wake is None:
            whole.append(journal)
        else:
            whole.append(replace(journal, items=[*journal.items, wake]))
    return whole


def _power_events(journal: PlacedJournal) -> list[PowerEvent]:
    """In order of time. A journal whose clocks are measured has none: its sleeps are jumps."""
    return [item for item in in_order(journal.items) if isinstance(item, PowerEvent)]


def _wake_after(journal: PlacedJournal, journals: Sequence[PlacedJournal]) -> PowerEvent | None:
    """The earliest wake with which another piece of the same kind of log begins."""
    earliest: PowerEvent | None = None
    for other in journals:
        if other is journal or other.system != journal.system:
            continue
        events = _power_events(other)
        if not events or events[0].wall_ns < journal.last_ns:
            continue

        first = events[0]
        # It begins with a sleep of its own: the wake before that is in neither piece.
        if first.change in _FALLS_ASLEEP:
            continue
        if earliest is None or first.wall_ns < earliest.wall_ns:
            earliest = first
    return earliest


# --- The sleeps of one journal --------------------------------------------------------------------


def _spans(journal: PlacedJournal, dropped: list[str]) -> list[SleepSpan]:
    """The sleeps of one journal: those whose both ends it reports, and otherwise its events in
    pairs. Adds to `dropped` what has no partner."""
    reported = [item for item in in_order(journal.items) if isinstance(item, SleepSpan)]
    pairing = _Pairing()
    for event in _power_events(journal):
        pairing.event(event)
    pairing.end()

    spans = [*reported, *_not_reported(pairing.pairs, reported)]
    for at_ns, why in pairing.lost:
        # Something else may report the sleep of an event without a partner.
        if not _is_within_one(at_ns, spans):
            dropped.append(why)
    return spans


def _not_reported(pairs: Iterable[_Pair], reported: Sequence[SleepSpan]) -> Iterator[SleepSpan]:
    """Those of which no report has both ends, or only of a part."""
    for pair in pairs:
        if pair.holds_others:
            yield pair.span
            continue
        # Both ends of it are reported already, and more exactly.
        is_reported = any(pair.span.overlaps(other) for other in reported)
        if not is_reported:
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


class _Pairing:
    """Each falling asleep with its wake, event by event. Nested sleeps, as a hibernation within
    modern standby, are one sleep each. `lost`: when what has no partner was, and why it is
    dropped; complete after `end`."""

    def __init__(self) -> None:
        self.pairs: list[_Pair] = []
        self.lost: list[tuple[int, str]] = []
        self._asleep: dict[str, PowerEvent] = {}  # by family, since when
        self._begins_ns: int | None = None

    def event(self, event: PowerEvent) -> None:
        """The next one."""
        if self._begins_ns is None:
            self._begins_ns = event.wall_ns
        if event.change in _FALLS_ASLEEP:
            self._falls_asleep(event)
        elif self._asleep:
            self._wakes(event)
        # A start without a shutdown before it: a crash, or a power cut. With its very first event
        # a log may simply begin.
        elif event.change == "on" and event.wall_ns > self._begins_ns:
            self._crashed(event)

    def end(self) -> None:
        """The last event was passed: drops what has no partner, and what cannot have been."""
        for begun in self._asleep.values():
            self._lose(begun, "at the end, without a wake")

        kept: list[_Pair] = []
        for pair in self.pairs:
            span = pair.span
            # A time switched off counts however short it was: every program was started again.
            if span.kind == "off" or span.length_ns >= _SHORTEST_NS:
                kept.append(pair)
            elif span.length_ns < 0:
                self.lost.append((span.from_wall_ns, "a sleep that ends before it begins"))
        self.pairs = kept

    def _falls_asleep(self, event: PowerEvent) -> None:
        before = self._asleep.get(event.family)
        if before is not None:
            # Another message of the same family is about the same sleep.
            if before.code != event.code:
                return
            # The same message twice: the wake between was not logged, and the later one counts.
            self._lose(before, "without a wake before the next")
        self._asleep[event.family] = event

    def _wakes(self, event: PowerEvent) -> None:
        """Ends the sleep of the family of `event`; all of them where that has none, or the machine
        was started."""
        own = self._asleep.pop(event.family, None)
        if own is not None:
            self._pair(own, event)
        if own is None or event.change in ("on", "restored"):
            for begun in self._asleep.values():
                self._pair(begun, event)
            self._asleep.clear()

    def _crashed(self, event: PowerEvent) -> None:
        """The machine was started; when it went off is not known."""
        if self.pairs:
            last = self.pairs[-1].span
            # Another message has reported this start already: EventLog 6005 is the start that
            # Kernel-General 12 reports too.
            if last.kind == "off" and event.wall_ns - last.to_wall_ns <= _SAME_NS:
                return
        self._pair(event, event)

    def _pair(self, begun: PowerEvent, ended: PowerEvent) -> None:
        span = SleepSpan(begun.wall_ns, ended.wall_ns, _kind(begun, ended))
        self.pairs.append(_Pair(span, begun.family))

    def _lose(self, begun: PowerEvent, why: str) -> None:
        self.lost.append((begun.wall_ns, f"{begun.code} {why}"))


def _kind(begun: PowerEvent, ended: PowerEvent) -> SleepKind:
    """A machine that is switched on out of a sleep was off: its battery was empty. One that is
    restored was not off."""
    if ended.change == "restored":
        return ended.kind
    if ended.change == "on":
        return "off"
    return begun.kind


def _is_within_one(at_ns: int, spans: Sequence[SleepSpan]) -> bool:
    """Whether it was in one of `spans`, or in the minutes before it."""
    for span in spans:
        # A sleep that was interrupted has a message of its own before the one that went on.
        earliest_ns = span.from_wall_ns - _SAME_NS
        if earliest_ns <= at_ns <= span.to_wall_ns:
            return True
    return False


def _boots_between(journals: Sequence[PlacedJournal]) -> Iterator[SleepSpan]:
    """The boots between journals of boots that follow one another: pieces of one journal that were
    saved one by one."""
    reach = sorted((journal.first_ns, journal.last_ns) for journal in journals if journal.measured)
    for (_, ends_ns), (begins_ns, _) in pairwise(reach):
        # Two that ran at one time are of two machines, and show nothing of each other.
        if ends_ns <= begins_ns:
            yield SleepSpan(ends_ns, begins_ns, "off")


# --- All journals together ------------------------------------------------------------------------


def _which_are_hosts(
    journals: Sequence[PlacedJournal], of_journals: Sequence[Sequence[SleepSpan]]
) -> list[bool]:
    """Which journals are of hosts: those of other systems, and of several systemd journals those
    with messages of a suspend, where the clocks of another one only jumped."""
    # A guest writes no message of a sleep of its host.
    announced: list[bool] = []
    for spans in of_journals:
        kinds = {span.kind for span in spans}
        announced.append("suspend" in kinds)
    some_only_jumped = False
    for journal, own in zip(journals, announced, strict=True):
        if journal.measured and not own:
            some_only_jumped = True

    are_hosts: list[bool] = []
    for journal, own in zip(journals, announced, strict=True):
        if journal.measured:
            are_hosts.append(own and some_only_jumped)
        else:
            are_hosts.append(True)
    return are_hosts


def _as_guest_and_host(
    host: Sequence[SleepSpan], guest: Sequence[SleepSpan]
) -> tuple[list[SleepSpan], list[ClockStep]]:
    """Matches the sleeps of a host with the jumps of its guest's clocks. A jump that is as long as
    one sleep, or as several together, is these. Where entries of the guest lie between these
    sleeps, its wall clock stayed behind until that jump, which is a step then."""
    spans = list(host)
    steps: list[ClockStep] = []
    for jump in guest:
        slept = _slept_through(jump, host)
        if not slept:
            spans.append(jump)
            continue
        first = slept[0]
        if len(slept) == 1:
            # The guest measured how long, its host knows when it began.
            measured = first._replace(to_wall_ns=first.from_wall_ns + jump.length_ns)
            spans.remove(first)
            spans.append(measured)
            continue

        # Without entries of the guest between the first of these sleeps and its jump, the host's
        # sleeps stay as they are, and the jump is their sum.
        if first.from_wall_ns >= jump.from_wall_ns - _SAME_NS:
            continue
        slept_ns = sum(span.length_ns for span in slept)
        steps.append(ClockStep(jump.to_wall_ns, slept_ns))
        for place, span in enumerate(spans):
            if span in slept:
                spans[place] = span._replace(corrected=False)
    return spans, steps


def _slept_through(jump: SleepSpan, host: Sequence[SleepSpan]) -> list[SleepSpan]:
    """The last sleeps of the host until a jump of its guest that together are as long; [] when
    there are none."""
    slept: list[SleepSpan] = []
    # A boot of the guest, or its own suspend, is not a sleep of its host.
    if jump.kind != "pause":
        return []

    total_ns = 0
    jump_ns = jump.length_ns
    tolerance_ns = min(_SAME_NS, NOTICED_NS + jump_ns // 20)
    for span in sorted(host, reverse=True):
        # Later than the jump. Its beginning would not do: a guest does not know when between two
        # entries it was paused, so the jump may appear earlier than it was.
        if span.from_wall_ns >= jump.to_wall_ns:
            continue
        # The guest was off as well then.
        if span.kind == "off":
            break
        slept.insert(0, span)
        total_ns += span.length_ns
        if abs(total_ns - jump_ns) <= tolerance_ns:
            return slept
        # With another one before it the sum would be longer still.
        if total_ns > jump_ns + _SAME_NS:
            break
    return []


def _merged(spans: Iterable[SleepSpan]) -> list[SleepSpan]:
    """In order; those that overlap, as when two journals report one sleep, become one."""
    merged: list[SleepSpan] = []
    # A set: of two journals that report a time of no length (a restart), one counts.
    for span in sorted(set(spans)):
        if merged and span.from_wall_ns < merged[-1].to_wall_ns:
            merged[-1] = _joined(merged[-1], span)
        else:
            merged.append(span)
    return merged


def _joined(one: SleepSpan, two: SleepSpan) -> SleepSpan:
    """Two that overlap, as one."""
    kind = one.kind
    # Being off outweighs sleep: it ends every program, whatever else was reported of that time.
    if two.kind == "off":
        kind = "off"
    return SleepSpan(
        from_wall_ns=one.from_wall_ns,
        to_wall_ns=max(one.to_wall_ns, two.to_wall_ns),
        kind=kind,
        by_ns=one.by_ns or two.by_ns,
        corrected=one.corrected and two.corrected,
    )


def _is_sleep(step: ClockStep, spans: Sequence[SleepSpan]) -> bool:
    """Whether a guest's clock was set ahead by what its host slept, as the host's journal has
    it."""
    # No sleep sets a clock back.
    if step.by_ns <= 0:
        return False
    for span in spans:
        if span.kind == "off":
            continue
        is_as_long = abs(span.length_ns - step.by_ns) <= _SAME_NS
        is_at_its_end = abs(step.at_wall_ns - span.to_wall_ns) <= _SAME_NS
        if is_as_long and is_at_its_end:
            return True
    return False


def _once(steps: Sequence[ClockStep]) -> list[ClockStep]:
    """Without those that another journal reports too."""
    found: list[ClockStep] = []
    for step in sorted(steps):
        # In order of time, so that only the last few can be near.
        if not any(_is_same_step(step, other) for other in found[-3:]):
            found.append(step)
    return found


def _is_same_step(step: ClockStep, earlier: ClockStep) -> bool:
    after_ns = step.at_wall_ns - earlier.at_wall_ns
    differs_ns = abs(step.by_ns - earlier.by_ns)
    return after_ns <= _SAME_NS and differs_ns < NOTICED_NS


def _placed(
    spans: Sequence[SleepSpan], steps: Sequence[ClockStep], starts_ns: int
) -> list[MachineEvent]:
    """In world time. No two overlap and none begins with another: the later waits a second."""
    events = [_of_step(step) for step in steps]
    events += [_of_span(span) for span in spans]
    # Stable: at one time steps stay before sleeps.
    events.sort(key=lambda event: event.at_world_ns)

    found: list[MachineEvent] = []
    free_ns = NS_PER_S
    for event in events:
        at_world_ns = max(event.at_world_ns - starts_ns, free_ns)
        placed = event._replace(at_world_ns=at_world_ns)
        found.append(placed)
        free_ns = placed.ends_world_ns + NS_PER_S
    return found


def _of_step(step: ClockStep) -> MachineEvent:
    """Not yet in world time."""
    return MachineEvent("step", step.at_wall_ns, by_ns=step.by_ns)


def _of_span(span: SleepSpan) -> MachineEvent:
    """Not yet in world time."""
    return MachineEvent(
        kind=span.kind,
        at_world_ns=span.from_wall_ns,
        lasts_ns=span.length_ns,
        by_ns=span.by_ns,
        corrected=span.corrected,
    )
