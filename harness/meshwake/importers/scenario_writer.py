"""Writes the sleep history of a machine as a scenario that `meshwake run` takes.

The expectations are that nothing broke. A history in which something did comes out as a surprise
(exit code 1), and its findings show what, when and for how long.

The history is moved ahead by whole weeks, so that weekdays and hours stay: labs that run real
programs need wall clocks ahead of the real one. A deadline that a program gives to the kernel as an
absolute wall time would else have passed long ago, and the program spins (seen on ztunnel
1.31.0-rc.0). A comment above each fault has what the wall clock of the machine showed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.scenario import DEFAULT_STARTS
from meshwake.core.zones import UTC_ZONE, Zone, offset_text
from meshwake.importers.sleep_history import MachineEvent, SleepHistory

WEEK_S = 604_800
HOPES = {
    "no_expired_certificate_served": "a mesh that survived this history served no expired "
    "certificate",
    "traffic_flows": "and refused no connection",
    "recovers_within": "or at least worked again five waking minutes after each wake",
}


@dataclass(frozen=True)
class ScenarioOptions:
    """What to write in addition to the history. `corrected_after_ns`: how long after a pause the
    wall clock is corrected, None for never; `every_sleep_as`: "suspend" or "pause" instead of what
    the journals say; `zone`: that of its dates, None where it is not known."""

    sources: Sequence[str]
    node: str = "laptop"
    corrected_after_ns: int | None = 0
    every_sleep_as: str | None = None
    zone: Zone | None = None


def scenario_text(history: SleepHistory, writing: ScenarioOptions) -> str:
    """The scenario, as TOML."""
    weeks = weeks_ahead(_earliest_wall_s(history))

    # Both with the offset of the day when it happened: summer time may end in the weeks between,
    # and the hours stay the same.
    began_wall_s = history.starts_wall_s
    offset_s = None if writing.zone is None else writing.zone.offset_s(began_wall_s)
    starts = _date(began_wall_s + weeks * WEEK_S, offset_s)
    sleeps, days = history.count("suspend", "pause"), history.duration_ns / (86_400 * NS_PER_S)
    times = "once" if sleeps == 1 else f"{sleeps} times"
    lines = [
        *(f"# Made by meshwake import-sleep from {_plain(source)}" for source in writing.sources),
        "# Change what you like: the lifetime of certificates, the traffic, or add a [fix] "
        "(scenarios/README.md).",
        f"title    = {_quoted(f'A machine that slept {times} in {days:.1f} days')}",
        'labs     = ["model", "process", "machine", "kind"]',
        f"duration = {_quoted(format_duration(history.duration_ns))}",
        f"starts   = {starts}  # {weeks} weeks later than it was: the same weekdays and hours",
        f"recorded_from = {_date(began_wall_s, offset_s)}  # results are shown with these dates",
        *_zone_line(writing.zone),
        "",
        "[[node]]",
        f"name       = {_quoted(writing.node)}",
        'identities = ["default/client", "default/server"]',
        "",
        "[traffic]",
        'pairs = [["default/client", "default/server"]]',
        f'every = "{"10m" if days < 400 else "1h"}"',
    ]
    for check, because in HOPES.items():
        lines += [
            "",
            "[[expect]]",
            f'check   = "{check}"',
            'verdict = "holds"',
            f"because = {_quoted(because)}",
        ]
    for each, room_ns, ahead_ns in _with_room(history):
        at_wall_s = history.starts_wall_s + (each.at_world_ns + ahead_ns) // NS_PER_S
        shown = _shown(at_wall_s, writing.zone)
        lines += ["", f"# {shown}", *_fault(each, room_ns, writing)]
    return "\n".join(lines) + "\n"


def _zone_line(zone: Zone | None) -> Iterator[str]:
    if zone is not None:
        yield f"recorded_zone = {_quoted(zone.text)}"


def _date(wall_s: int, offset_s: int | None) -> str:
    """RFC 3339, by clocks that are `offset_s` ahead of UTC; in UTC for None."""
    zone = UTC if offset_s is None else timezone(timedelta(seconds=offset_s))
    return datetime.fromtimestamp(wall_s, zone).isoformat().replace("+00:00", "Z")


def weeks_ahead(earliest_wall_s: int) -> int:
    """By how many whole weeks a history must be moved so that its wall clock never shows less than
    that of scenarios that do not say when they start."""
    short_s = int(DEFAULT_STARTS.timestamp()) - earliest_wall_s
    # Rounded up.
    return max(0, -(-short_s // WEEK_S))


def _earliest_wall_s(history: SleepHistory) -> int:
    """The least that the wall clock ever shows."""
    ahead = zip(history.events, history.set_ahead_ns, strict=True)
    after = [
        event.at_world_ns + event.lasts_ns + ahead_ns + min(event.by_ns, 0)
        for event, ahead_ns in ahead
    ]
    return history.starts_wall_s + min([0, *after]) // NS_PER_S


def _shown(wall_s: int, zone: Zone | None) -> str:
    """What the wall clock of the machine showed, for a comment."""
    if zone is None:
        return f"{UTC_ZONE.local(wall_s):%a %Y-%m-%d %H:%M:%S} UTC"
    return f"{zone.local(wall_s):%a %Y-%m-%d %H:%M:%S} {offset_text(zone.offset_s(wall_s))}"


def _with_room(history: SleepHistory) -> Iterator[tuple[MachineEvent, int | None, int]]:
    """Each with the time until the next, None after the last; and by how much the wall clock was
    set ahead before."""
    pairs = pairwise((*history.events, None))
    for (event, after), ahead_ns in zip(pairs, history.set_ahead_ns, strict=True):
        if event is not None:
            room_ns = (
                None if after is None else after.at_world_ns - event.at_world_ns - event.lasts_ns
            )
            yield event, room_ns, ahead_ns


def _fault(event: MachineEvent, room_ns: int | None, writing: ScenarioOptions) -> Iterator[str]:
    """One [[fault]]; or two: a time switched off is a sleep at whose end everything restarts; or
    three: its wall clock was off then."""
    at = f"at    = {_quoted(format_duration(event.at_world_ns))}"
    if event.kind == "step":
        yield from (
            "[[fault]]",
            'kind  = "step"',
            at,
            f"by    = {_quoted(format_duration(event.by_ns))}",
        )
        return
    if event.kind == "off":
        yield from _off(event, at)
        return
    kind = writing.every_sleep_as or event.kind
    yield from (
        "[[fault]]",
        f'kind  = "{kind}"',
        at,
        f"lasts = {_quoted(format_duration(event.lasts_ns))}",
    )
    if kind == "pause":
        after_ns = writing.corrected_after_ns if event.corrected else None
        # The correction belongs to the fault, which must end before the next one begins.
        if after_ns is not None and room_ns is not None:
            after_ns = min(after_ns, max(room_ns - 1, 0))
        yield (
            "corrected_after = "
            f"{_quoted('never' if after_ns is None else format_duration(after_ns))}"
        )


def _off(event: MachineEvent, at: str) -> Iterator[str]:
    """What is restarted in a sleep starts at its end, after the clock was set there."""
    # Before the suspend of the same time, so that the restart waits while all sleep.
    yield from ("[[fault]]  # switched on", 'kind  = "restart"', at)
    if event.lasts_ns > 0:
        lasts = f"lasts = {_quoted(format_duration(event.lasts_ns))}"
        yield from ("", "[[fault]]  # switched off", 'kind  = "suspend"', at, lasts)
    if event.by_ns:
        on = f"at    = {_quoted(format_duration(event.at_world_ns + event.lasts_ns))}"
        by = f"by    = {_quoted(format_duration(event.by_ns))}"
        yield from ("", "[[fault]]  # its wall clock began elsewhere", 'kind  = "step"', on, by)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _quoted(text: str) -> str:
    return json.dumps(_plain(text), ensure_ascii=False)
