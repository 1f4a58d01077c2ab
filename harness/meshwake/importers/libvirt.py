"""Virtual machines under libvirt and QEMU, as their host logged them. Four kinds of lines are
understood, also mixed:

    virsh event --all --loop --timestamp  2026-11-24 21:03:12.345+0000: event 'lifecycle' for domain 'k3s': Suspended
    ... virsh qemu-monitor-event --loop       event STOP at 1795640592.123456 for domain 'k3s': <null>
    ... with --timestamp                  2026-11-24 21:03:12.345+0000: event STOP for domain 'k3s': <null>
    QMP, as a monitor prints it           {"timestamp": {"seconds": 1795640592, "microseconds": 5}, "event": "STOP"}
    /var/log/libvirt/qemu/NAME.log        2026-11-24 08:00:01.234+0000: starting up libvirt version: 9.0.0, ...

What counts is whether the guest continued with its memory. Suspended/STOP to Resumed/RESUME is a
pause: all clocks of the guest stop. So is the time from saved to restored, and from stopped to
started from a snapshot; a guest that migrates continues elsewhere a moment later, and comes back as
it was. A QEMU that was started with -incoming or -loadvm continues with a memory that it had.
PMSuspended/SUSPEND to WAKEUP is a suspend, the guest's own, and so is a guest that hibernated and
was started again. All other Stopped, SHUTDOWN and "shutting down" switch it off, and a reboot
(RESET) is a restart.

The host's own sleep is not in these logs: import the host's journal for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple, TextIO

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.importers.items import (
    PASTED,
    PowerEvent,
    SleepKind,
    Tally,
    checked_ns,
    lines_of,
    shifted,
)
from meshwake.importers.placement import EntryPlacer, PlacedJournal

SYSTEM = "libvirt, QEMU"
LINES = re.compile(
    rf"^{PASTED.pattern}\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+[+-]\d{{4}}: "
    r"(?:event '|event [A-Z_]+ for domain|starting up|shutting down)"
    rf"|^{PASTED.pattern}event [A-Z_]+ at \d+\.\d+ for domain"
    r'|"timestamp"\s*:\s*\{\s*"(?:micro)?seconds"|"event"\s*:\s*"[A-Z_]+"',
    re.MULTILINE,
)
_TIME = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+[+-]\d{4}): "
_VIRSH = re.compile(
    _TIME + r"event '(?P<event>[\w-]+)' for domain '?(?P<domain>[^':]+)'?(?:: (?P<detail>.*))?"
)
_QMP_EVENT = re.compile(r'\{\s*"(?:timestamp|event|data)"\s*:')
_TIMED_MONITOR = re.compile(
    _TIME + r"event (?P<event>[A-Z_]+) for domain '?(?P<domain>[^':]+)'?:(?P<data>.*)"
)
_MONITOR = re.compile(
    r"event (?P<event>\w+) at (?P<s>\d{1,12})\.(?P<us>\d{1,6}) "
    r"for domain '?(?P<domain>[^':]+)'?:(?P<data>.*)"
)
_DOMAIN_LOG = re.compile(
    _TIME + r"(?P<what>starting up|shutting down)(?:, reason=(?P<reason>[\w-]+))?"
)
# What libvirtd itself writes into a domain's log, besides starts and ends.
_DOMAIN_NOTE = re.compile(_TIME + r"(?:Domain id=|initiating migration|debug)")
_LOOKS_LIKE_AN_EVENT = re.compile(r"\d{4}-\d\d-\d\d \d|event ")
_MEMORY_FROM = re.compile(r"(?:^|\s)-(?:incoming|loadvm)\s")
_COMMAND = re.compile(r"\S*qemu\S*(?:\s|$)|-name\s|[A-Z_]+=\S* \\?$|-machine\s")
_NS_PER_US = 1_000
# Of an object that has no end.
_QMP_CHARACTERS_MAX = 10_000

_Change = Literal["asleep", "awake", "off", "on", "restored"]


class _Meaning(NamedTuple):
    change: _Change
    kind: SleepKind


_PAUSED, _RUNS = _Meaning("asleep", "pause"), _Meaning("awake", "pause")
_SUSPENDED, _WOKE = _Meaning("asleep", "suspend"), _Meaning("awake", "suspend")
_OFF, _ON, _RESTORED = _Meaning("off", "off"), _Meaning("on", "off"), _Meaning("restored", "pause")
# A guest that hibernated is off, and continues from its own disk: the next start is its wake.
_HIBERNATED = _Meaning("asleep", "suspend")

_LIFECYCLE = {
    "Suspended": _PAUSED,
    "Resumed": _RUNS,
    "PMSuspended": _SUSPENDED,
    "Stopped": _OFF,
    "Crashed": _OFF,
    "Started": _ON,
}
_DETAILS = {
    # In a post-copy migration it runs on the other host already, and its memory follows.
    "Suspended Post-copy": _RUNS,
    "Stopped Migrated": _RUNS,
    "Stopped Saved": _PAUSED,
    "Stopped Snapshot": _PAUSED,
    "Stopped From snapshot": _PAUSED,
    # A start, or a migration to this host, that failed: no guest was here.
    "Stopped Failed": None,
    "Started Restored": _RESTORED,
    "Started Migrated": _RUNS,
    "Started Snapshot": _RESTORED,
    "Started From snapshot": _RESTORED,
    "Started Wakeup": _WOKE,
    "Started Event wakeup": _WOKE,
    "PMSuspended Disk": _HIBERNATED,
}
_REASONS = {
    "saved": _PAUSED,
    "migrated": _RUNS,
    "from-snapshot": _PAUSED,
    "failed": None,
    "daemon": None,
}
# Reasons after which a QEMU continues with its memory, when its command line was not saved with
# the log.
_KEEP_MEMORY = {"saved", "migrated", "from-snapshot"}
_MONITOR_EVENTS = {
    "STOP": _PAUSED,
    "RESUME": _RUNS,
    "SUSPEND": _SUSPENDED,
    "SUSPEND_DISK": _HIBERNATED,
    "WAKEUP": _WOKE,
    "SHUTDOWN": _OFF,
    "RESET": _ON,
}


class _Event(NamedTuple):
    wall_ns: int
    domain: str | None
    meaning: _Meaning | None
    code: str


@dataclass
class _Starting:
    """A QEMU that is starting: its command line follows in the log, and shows whether it continues
    with a memory that it had."""

    wall_ns: int
    line: str
    keeps_memory: bool
    saw_command: bool = False


def _after_hibernation(meaning: _Meaning | None) -> _Meaning | None:
    """A guest that hibernated is off already, and its next start is its wake."""
    if meaning == _OFF:
        return None
    return _WOKE if meaning in (_ON, _RUNS) else meaning


class _Guest:
    """What is known of one guest so far."""

    def __init__(self, rows: EntryPlacer) -> None:
        self._rows = rows
        self._starting: _Starting | None = None
        self._reason = ""
        self._stopped = self._moved_out = self._hibernated = False

    def event(self, event: _Event, line: str) -> None:
        """The next event of it."""
        meaning = self._in_context(event)
        # What means nothing still shows that the log reaches to its time.
        if meaning is None:
            self._rows.add(event.wall_ns, line)
            return
        mark = PowerEvent(0, meaning.change, meaning.kind, event.code)
        self._rows.add(event.wall_ns, line, partial(shifted, mark))

    def _in_context(self, event: _Event) -> _Meaning | None:
        """What an event means after those before it."""
        if self._stopped and event.code == "MIGRATION completed":
            self._moved_out = True
        meaning = event.meaning
        if self._hibernated:
            meaning = _after_hibernation(meaning)
        if event.code == "SHUTDOWN":
            # A guest whose memory was written out before is not off: saved, or on another host.
            return None if self._moved_out else meaning
        if meaning is not None:
            self._remember(event, meaning)
        return meaning

    def _remember(self, event: _Event, meaning: _Meaning) -> None:
        self._stopped = meaning == _PAUSED
        self._moved_out = self._moved_out and self._stopped
        self._hibernated = event.code in ("PMSuspended Disk", "SUSPEND_DISK")

    def log_line(self, match: re.Match[str], wall_ns: int, line: str) -> None:
        """A start or an end in a domain's own log."""
        self.settle()
        if match["what"] == "starting up":
            self._starting = _Starting(wall_ns, line, self._reason in _KEEP_MEMORY)
            return
        self._reason = match["reason"] or ""
        meaning = _REASONS.get(self._reason, _OFF)
        code = f"shutting down, reason={self._reason}" if self._reason else "shutting down"
        self.event(_Event(wall_ns, None, meaning, code), line)

    def command(self, line: str) -> None:
        """A line of a command, or of something else that a domain's log holds."""
        if self._starting is None:
            return
        if _MEMORY_FROM.search(line):
            self._starting.keeps_memory = self._starting.saw_command = True
        elif _COMMAND.match(line.strip()) and not self._starting.saw_command:
            self._starting.keeps_memory, self._starting.saw_command = False, True

    def settle(self) -> None:
        """The command line of a start is over."""
        if self._starting is not None:
            meaning = _RESTORED if self._starting.keeps_memory else _ON
            self.event(
                _Event(self._starting.wall_ns, None, meaning, "starting up"), self._starting.line
            )
            self._starting = None


def read(stream: TextIO, tally: Tally, domain: str | None = None) -> PlacedJournal | None:
    """What the lines report of one domain: of `domain`, or of the first that they name. Raises
    BadInput where they are newest first: what an event means may depend on the one before it."""
    rows = EntryPlacer(tally)
    guest = _Guest(rows)
    chosen = domain
    others: set[str] = set()
    last: dict[str | None, int] = {}
    falls = rises = 0
    seen: set[tuple[int, str | None, str]] = set()
    for line, found in _lines(stream, tally, guest):
        entry = (found.wall_ns, found.domain, line.strip())
        # Logs that overlap were put together.
        if entry in seen:
            tally.other += 1
            continue
        seen.add(entry)
        chosen = chosen or found.domain
        # Of each domain by itself: logs of several may follow one another.
        before_ns = last.get(found.domain, found.wall_ns)
        falls += found.wall_ns < before_ns
        rises += found.wall_ns > before_ns
        last[found.domain] = found.wall_ns
        if found.domain is None or found.domain == chosen:
            guest.event(found, line)
            continue
        # It shows how far the log reaches, unless it is from before.
        if found.wall_ns >= last.get(chosen, found.wall_ns):
            rows.add(found.wall_ns, line)
        else:
            tally.other += 1
        if found.domain not in others:
            others.add(found.domain)
            tally.notes.append(
                f"domain {found.domain} is another machine and left out; it is imported "
                f"with --machine {found.domain}"
            )
    if falls > rises:
        raise BadInput(
            f"{tally.path}: the newest event is first; reverse it: tac FILE > events.log"
        )
    guest.settle()
    return rows.placed()


def _lines(stream: TextIO, tally: Tally, guest: _Guest) -> Iterator[tuple[str, _Event]]:
    """The events, with their lines; lines of a domain's own log are passed to `guest`."""
    held = ""
    for line in lines_of(stream):
        text = PASTED.sub("", line, count=1).strip()
        # Behind a time that another program wrote.
        if not held and (event := _QMP_EVENT.search(text)):
            text = text[event.start() :]
        if held or text.startswith("{"):
            # QMP is one object a line, or pretty-printed.
            held = f"{held}{text}" if not text.startswith('{"') else text
            whole = _json(held)
            # A brace in the first column ends what is pretty-printed, whole or broken.
            may_go_on = not line.startswith("}") and not held.endswith("}}")
            if whole is None and may_go_on and len(held) < _QMP_CHARACTERS_MAX:
                continue
            shown, held = held, ""
            yield from ((shown, event) for event in _qmp(whole, shown, tally))
            continue
        try:
            if match := _DOMAIN_LOG.match(text):
                guest.log_line(match, _wall_ns(match["time"]), line)
            elif found := _event(text):
                guest.settle()
                yield line, found
            elif _LOOKS_LIKE_AN_EVENT.match(text) and not _DOMAIN_NOTE.match(text):
                tally.broken(line, "is neither an event nor a line of a domain's log")
            else:
                # The command line of QEMU, its own messages, "events received: 12".
                guest.command(line)
                tally.other += 1
        except ValueError as error:
            tally.broken(line, str(error))
    if held:
        tally.broken(held, "is not an event in JSON")


def _event(text: str) -> _Event | None:
    """The event of a line that virsh prints. Raises ValueError for an impossible time."""
    if match := _VIRSH.match(text):
        detail = (match["detail"] or "").strip()
        meaning = None
        if match["event"] == "reboot":
            meaning, detail = _ON, "reboot"
        elif match["event"] == "lifecycle":
            general = _LIFECYCLE.get(detail.split(" ")[0])
            meaning = _DETAILS.get(detail, general)
        return _Event(_wall_ns(match["time"]), match["domain"], meaning, detail)
    if match := _TIMED_MONITOR.match(text):
        data = _json(match["data"].strip())
        return _Event(_wall_ns(match["time"]), match["domain"], *_monitor(match["event"], data))
    if match := _MONITOR.match(text):
        wall_ns = checked_ns(
            int(match["s"]) * NS_PER_S + int(match["us"].ljust(6, "0")) * _NS_PER_US
        )
        return _Event(
            wall_ns, match["domain"], *_monitor(match["event"], _json(match["data"].strip()))
        )
    return None


def _monitor(name: str, data: Any) -> tuple[_Meaning | None, str]:
    """What an event of QEMU means, and its name with its status, if it has one."""
    status = data.get("status") if isinstance(data, dict) else None
    return _MONITOR_EVENTS.get(name), f"{name} {status}" if isinstance(status, str) else name


def _wall_ns(text: str) -> int:
    try:
        moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f%z")
    except ValueError as error:
        raise ValueError("has an impossible time") from error
    # Whole seconds and the rest apart: a float of today's seconds is exact to some 200 ns only.
    whole_s = int(moment.replace(microsecond=0).timestamp())
    return checked_ns(whole_s * NS_PER_S + moment.microsecond * _NS_PER_US)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _qmp(found: Any, shown: str, tally: Tally) -> Iterator[_Event]:
    # A greeting, or the answer to a command.
    if isinstance(found, dict) and "event" not in found:
        tally.other += 1
        return
    try:
        stamp = found["timestamp"]
        wall_ns = checked_ns(
            int(stamp["seconds"]) * NS_PER_S + int(stamp["microseconds"]) * _NS_PER_US
        )
        event = _Event(wall_ns, None, *_monitor(str(found["event"]), found.get("data")))
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
        tally.broken(shown, "is not an event in JSON")
        return
    yield event
