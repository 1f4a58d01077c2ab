"""Virtual machines under libvirt and QEMU, as their host saw them. Four kinds of lines are understood, also mixed:

    virsh event --all --loop --timestamp  2026-11-24 21:03:12.345+0000: event 'lifecycle' for domain 'k3s': Suspended
    ... virsh qemu-monitor-event --loop       event STOP at 1795640592.123456 for domain 'k3s': <null>
    QMP, as a monitor prints it           {"timestamp": {"seconds": 1795640592, "microseconds": 5}, "event": "STOP"}
    /var/log/libvirt/qemu/NAME.log        2026-11-24 08:00:01.234+0000: starting up libvirt version: 9.0.0, ...

Suspended/STOP to Resumed/RESUME is a pause: all clocks of the guest stand. PMSuspended/SUSPEND to WAKEUP (after which
libvirt says Started Wakeup) is a suspend: the guest's own. Saved, Stopped, SHUTDOWN and "shutting down" switch it off;
restored from a file it goes on where it stood, which is a pause again. The host's own sleep is not in these logs:
import the host's journal for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, TextIO

from harness.durations import NS_PER_S
from harness.journals.items import Item, Mark, SleepKind, Tally, lines_of

SYSTEM = "libvirt, QEMU"
_TIME = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+[+-]\d{4}): "
_VIRSH = re.compile(_TIME + r"event '(?P<event>[\w-]+)' for domain '?(?P<domain>[^':]+)'?(?:: (?P<detail>.*))?")
_MONITOR = re.compile(r"event (?P<event>\w+) at (?P<s>\d+)\.(?P<us>\d{1,6}) for domain '?(?P<domain>[^':]+)'?:")
_DOMAIN_LOG = re.compile(_TIME + r"(?P<what>starting up|shutting down)")
_NS_PER_US = 1_000

_Says = Literal["asleep", "awake", "off", "on"]
_LIFECYCLE: dict[str, tuple[_Says, SleepKind]] = {
    "Suspended": ("asleep", "pause"),
    "Resumed": ("awake", "pause"),
    "PMSuspended": ("asleep", "suspend"),
    "Stopped": ("off", "off"),
    "Crashed": ("off", "off"),
    "Started": ("on", "off"),
}
# "Stopped Saved": its memory lies in a file; "Started Restored" goes on with it.
_DETAILS: dict[str, tuple[_Says, SleepKind]] = {
    "Stopped Saved": ("asleep", "pause"),
    "Started Restored": ("awake", "pause"),
    "Started Wakeup": ("awake", "suspend"),
}
_MONITOR_EVENTS: dict[str, tuple[_Says, SleepKind]] = {
    "STOP": ("asleep", "pause"),
    "RESUME": ("awake", "pause"),
    "SUSPEND": ("asleep", "suspend"),
    "WAKEUP": ("awake", "suspend"),
    "SHUTDOWN": ("off", "off"),
    "RESET": ("on", "off"),
}


def read(stream: TextIO, tally: Tally, domain: str | None = None) -> Iterator[Item]:
    """What the lines tell of one domain: of `domain`, or of the first that they name."""
    chosen = domain
    others: set[str] = set()
    for line in lines_of(stream):
        found = _event(line, tally)
        if found is None:
            continue
        wall_ns, of, told, code = found
        tally.saw(wall_ns)
        chosen = chosen or of
        if told is None or (of is not None and of != chosen):
            tally.other += 1
            if of is not None and of != chosen and of not in others:
                others.add(of)
                tally.notes.append(f"domain {of} is another machine and left out; it is imported with --machine {of}")
            continue
        tally.used += 1
        yield Mark(wall_ns, told[0], told[1], code)


_Found = tuple[int, str | None, tuple[_Says, SleepKind] | None, str]


def _event(line: str, tally: Tally) -> _Found | None:
    text = line.strip()
    if text.startswith("{"):
        return _qmp(text, tally)
    if match := _VIRSH.match(text):
        detail = (match["detail"] or "").strip()
        told = _DETAILS.get(detail) or _LIFECYCLE.get(detail.split(" ")[0]) if match["event"] == "lifecycle" else None
        return _timed(match["time"], match["domain"], told, detail, line, tally)
    if match := _MONITOR.match(text):
        wall_ns = int(match["s"]) * NS_PER_S + int(match["us"].ljust(6, "0")) * _NS_PER_US
        return wall_ns, match["domain"], _MONITOR_EVENTS.get(match["event"]), match["event"]
    if match := _DOMAIN_LOG.match(text):
        told = ("on", "off") if match["what"] == "starting up" else ("off", "off")
        return _timed(match["time"], None, told, match["what"], line, tally)
    if re.match(r"\d{4}-\d\d-\d\d \d|event ", text):
        tally.broken(line, "is neither an event nor a line of a domain's log")
    else:
        tally.other += 1  # the command line of QEMU, its own messages, "events received: 12"
    return None


def _timed(
    time: str, domain: str | None, told: tuple[_Says, SleepKind] | None, code: str, line: str, tally: Tally
) -> _Found | None:
    try:
        return _wall_ns(time), domain, told, code
    except ValueError:
        tally.broken(line, "has an impossible time")
        return None


def _wall_ns(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f%z")
    return int(moment.replace(microsecond=0).timestamp()) * NS_PER_S + moment.microsecond * _NS_PER_US


def _qmp(text: str, tally: Tally) -> _Found | None:
    try:
        event: dict[str, Any] = json.loads(text)
        if "event" not in event:
            tally.other += 1  # a greeting, an answer
            return None
        stamp = event["timestamp"]
        wall_ns = int(stamp["seconds"]) * NS_PER_S + int(stamp["microseconds"]) * _NS_PER_US
        return wall_ns, None, _MONITOR_EVENTS.get(str(event["event"])), str(event["event"])
    except (ValueError, KeyError, TypeError, RecursionError):
        tally.broken(text, "is no event in JSON")
        return None
