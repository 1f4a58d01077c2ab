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
from operator import attrgetter
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
        lengths_ns = [each.lasts_ns for each in self.events if each.kind in kinds]
        return sum(lengths_ns)

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

            # The farthest apart in either direction: a later step may bring the clocks together
            # again.
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

    # A sleep of the host may be a step of the guest's clock, so sleeps come first, and of the steps
    # those are left out that are a sleep.
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
        steps = [item for item in journal.items if isinstance(item, ClockStep)]
        for step in steps:
            if not _is_sleep(step, sleeps):
                yield step


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
        ends_asleep = bool(events) and events[-1].change in _FALLS_ASLEEP
        wake: PowerEvent | None = None
        if ends_asleep:
            wake = _wake_after(journal, journals)

        if wake is None:
            whole.append(journal)
            continue
        # A copy: the caller keeps its journals as they were read. The wake stays in the later
        # piece too, where it ends nothing.
        whole.append(replace(journal, items=[*journal.items, wake]))
    return whole


def _power_events(journal: PlacedJournal) -> list[PowerEvent]:
    """In order of time. A journal whose clocks are measured has none: its sleeps are jumps."""
    items = in_order(journal.items)
    return [item for item in items if isinstance(item, PowerEvent)]


def _wake_after(journal: PlacedJournal, journals: Sequence[PlacedJournal]) -> PowerEvent | None:
    """The earliest wake with which another piece of the same kind of log begins."""
    wakes: list[PowerEvent] = []
    for other in journals:
        # A log of another kind may be of another machine: of the host, or of its guest.
        if other is journal or other.system != journal.system:
            continue
        events = _power_events(other)
        if not events:
            continue

        first = events[0]
        # The pieces of one log follow one another. One that begins earlier is the piece before, or
        # the log of another machine.
        if first.wall_ns < journal.last_ns:
            continue
        # It begins with a sleep of its own: the wake before that is in neither piece.
        if first.change not in _FALLS_ASLEEP:
            wakes.append(first)

    return min(wakes, key=attrgetter("wall_ns"), default=None)


# --- The sleeps of one journal --------------------------------------------------------------------


def _spans(journal: PlacedJournal, dropped: list[str]) -> list[SleepSpan]:
    """The sleeps of one journal: those whose both ends it reports, and otherwise its events in
    pairs. Adds to `dropped` what has no partner."""
    items = in_order(journal.items)
    reported = [item for item in items if isinstance(item, SleepSpan)]

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
            return
        if self._asleep:
            self._wakes(event)
            return

        # With its very first event a log may simply begin.
        is_first = event.wall_ns <= self._begins_ns

        # A start without a shutdown before it: a crash, or a power cut.
        if event.change == "on" and not is_first:
            self._crashed(event)
        # Any other wake ends no sleep that this log reports.

    def end(self) -> None:
        """The last event was passed: drops what has no partner, and what was too short."""
        for begun in self._asleep.values():
            self._lose(begun, "at the end, without a wake")

        kept: list[_Pair] = []
        for pair in self.pairs:
            span = pair.span
            # A time switched off counts however short it was: every program was started again.
            if span.kind == "off" or span.length_ns >= _SHORTEST_NS:
                kept.append(pair)

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

        # A start ends the sleep of every family: after it nothing is asleep any more.
        was_started = event.change in ("on", "restored")
        if own is None or was_started:
            for begun in self._asleep.values():
                self._pair(begun, event)
            self._asleep.clear()

    def _crashed(self, event: PowerEvent) -> None:
        """The machine was started; when it went off is not known."""
        if self.pairs:
            last = self.pairs[-1].span
            after_ns = event.wall_ns - last.to_wall_ns
            # Another message has reported this start already: EventLog 6005 is the start that
            # Kernel-General 12 reports too.
            if last.kind == "off" and after_ns <= _SAME_NS:
                return

        # Of no length, so that it counts as a restart and adds nothing to the time switched off.
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
    # Only of these each piece begins with a boot of its own: pieces that share one were joined
    # already (`systemd.joined`).
    measured = [journal for journal in journals if journal.measured]
    measured.sort(key=attrgetter("first_ns", "last_ns"))

    for earlier, later in pairwise(measured):
        ends_ns = earlier.last_ns
        begins_ns = later.first_ns
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
    only_jumped: list[bool] = []
    for journal, spans in zip(journals, of_journals, strict=True):
        kinds = {span.kind for span in spans}
        only_jumped.append(journal.measured and "suspend" not in kinds)
    some_only_jumped = any(only_jumped)

    are_hosts: list[bool] = []
    for journal, is_guest in zip(journals, only_jumped, strict=True):
        # Where every systemd journal has such messages, nothing shows that one is of a guest.
        may_be_host = some_only_jumped or not journal.measured
        are_hosts.append(may_be_host and not is_guest)
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
        # The step sets the clock right for all of them at once, so none of them does by itself.
        for place, span in enumerate(spans):
            if span in slept:
                spans[place] = span._replace(corrected=False)
    return spans, steps


def _slept_through(jump: SleepSpan, host: Sequence[SleepSpan]) -> list[SleepSpan]:
    """The last sleeps of the host until a jump of its guest that together are as long; [] when
    there are none."""
    # A boot of the guest, or its own suspend, is not a sleep of its host.
    if jump.kind != "pause":
        return []

    slept: list[SleepSpan] = []
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
        # Two that only touch stay two: there was a wake between them.
        if not merged or span.from_wall_ns >= merged[-1].to_wall_ns:
            merged.append(span)
            continue

        merged[-1] = _joined(merged[-1], span)
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
        # The guest of a host that was off was off as well, and its own journal has a boot there.
        if span.kind == "off":
            continue

        length_differs_ns = abs(span.length_ns - step.by_ns)
        is_as_long = length_differs_ns <= _SAME_NS
        from_its_end_ns = abs(step.at_wall_ns - span.to_wall_ns)
        is_at_its_end = from_its_end_ns <= _SAME_NS
        if is_as_long and is_at_its_end:
            return True
    return False


def _once(steps: Sequence[ClockStep]) -> list[ClockStep]:
    """Without those that another journal reports too."""
    found: list[ClockStep] = []
    for step in sorted(steps):
        # In order of time, so that only the last few can be near.
        nearest = found[-3:]
        is_known = any(_is_same_step(step, other) for other in nearest)
        if not is_known:
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
    events.sort(key=attrgetter("at_world_ns"))

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
