"""macOS: `pmset -g log`, one line an event: local time with its offset, a domain, what happened.

    2026-11-23 22:29:58 -0700 Sleep      <tab>Entering Sleep state due to 'Clamshell Sleep':TCPKeepAlive=active ...
    2026-11-23 22:30:29 -0700 DarkWake   <tab>DarkWake from Deep Idle [CDN] : due to ...
    2026-11-24 07:40:00 -0700 Wake       <tab>DarkWake to FullWake from Deep Idle [CDNVA] : due to ...

A mesh on a Mac runs in a VM, which stands while the Mac sleeps: every sleep is a pause. In a dark wake processes run,
VMs too; a Mac with Power Nap therefore sleeps many times a night. `Start` (powerd started) is a boot. "Entering
DarkWake state" is not sleep. All other domains (Assertions, Notification ...) are other entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TextIO

from harness.durations import NS_PER_S
from harness.journals.items import Item, Mark, Tally, lines_of

SYSTEM = "macOS power log"
_TIME_ENDS = 25
_AWAKE = ("Wake", "DarkWake")


def read(stream: TextIO, tally: Tally) -> Iterator[Item]:
    """What the log tells."""
    last_line: str | None = None
    for line in lines_of(stream):
        if not (line[:4].isdigit() and line[4:5] == "-"):
            tally.other += 1  # a heading, a sum, or the rest of an entry
            continue
        last_line = line
        words = line[_TIME_ENDS:].split(None, 1)
        # The first wake of a log tells how far it reaches, as any other entry does.
        if tally.first_wall_ns is not None and (not words or words[0] not in ("Sleep", "Wake", "DarkWake", "Start")):
            tally.other += 1
            continue
        yield from _item(line, words, tally)
    if last_line is not None:
        _saw(last_line, tally)


def _item(line: str, words: list[str], tally: Tally) -> Iterator[Item]:
    wall_ns = _saw(line, tally)
    if wall_ns is None:
        tally.broken(line, "has no time such as '2026-11-23 22:29:58 -0700'")
    elif words and words[0] == "Sleep" and "Entering Sleep" in words[-1]:
        tally.used += 1
        yield Mark(wall_ns, "asleep", "pause", "Sleep")
    elif words and words[0] in _AWAKE and "Wake" in words[-1]:
        tally.used += 1
        yield Mark(wall_ns, "awake", "pause", words[0])
    elif words and words[0] == "Start":
        tally.used += 1
        yield Mark(wall_ns, "on", "off", "Start")
    else:
        tally.other += 1


def _saw(line: str, tally: Tally) -> int | None:
    try:
        wall_ns = int(datetime.strptime(line[:_TIME_ENDS], "%Y-%m-%d %H:%M:%S %z").timestamp()) * NS_PER_S
    except ValueError:
        return None
    tally.saw(wall_ns)
    return wall_ns
