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
    if meaning in (_ON, _RUNS):
        return _WOKE
    return meaning


class _Guest:
    """What is known of one guest so far."""

    def __init__(self, rows: EntryPlacer) -> None:
        self._rows = rows
        self._starting: _Starting | None = None
        self._reason = ""  # of its last end
        self._stopped = False
        self._moved_out = False  # its memory is on another host
        self._hibernated = False

    def event(self, event: _Event, line: str) -> None:
        """The next event of it."""
        meaning = self._in_context(event)
        # What means nothing still shows that the log reaches to its time.
        if meaning is None:
            self._rows.add(event.wall_ns, line)
            return
        mark = PowerEvent(0, meaning.change, meaning.kind, event.code)
        self._rows.add(event.wall_ns, line, mark)

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
        starting = self._starting
        if starting is None:
            return
        if _MEMORY_FROM.search(line):
            starting.keeps_memory = True
            starting.saw_command = True
        elif _COMMAND.match(line.strip()) and not starting.saw_command:
            # A command line that is there counts more than the reason of the last end.
            starting.keeps_memory = False
            starting.saw_command = True

    def settle(self) -> None:
        """The command line of a start is over."""
        starting = self._starting
        if starting is None:
            return
        self._starting = None
        meaning = _RESTORED if starting.keeps_memory else _ON
        event = _Event(starting.wall_ns, None, meaning, "starting up")
        self.event(event, starting.line)


class _Chooser:
    """Chooses the events of one domain: of the one that was named, or of the first. Notes the
    others."""

    def __init__(self, domain: str | None, tally: Tally) -> None:
        self._chosen = domain
        self._tally = tally
        self._others: set[str] = set()

        # When each domain's last event was. Each by itself: logs of several may follow one another.
        self._last_ns: dict[str | None, int] = {}
        self._rises = 0
        self._falls = 0

    @property
    def is_newest_first(self) -> bool:
        """By all events so far."""
        return self._falls > self._rises

    def is_of_domain(self, event: _Event) -> bool:
        """Whether the next event is of the chosen domain, or names none."""
        self._chosen = self._chosen or event.domain
        before_ns = self._last_ns.get(event.domain, event.wall_ns)
        self._falls += event.wall_ns < before_ns
        self._rises += event.wall_ns > before_ns
        self._last_ns[event.domain] = event.wall_ns
        return event.domain in (None, self._chosen)

    def shows_reach(self, event: _Event) -> bool:
        """Whether an event of another domain shows how far the log of the chosen one reaches: not
        if it is from before."""
        return event.wall_ns >= self._last_ns.get(self._chosen, event.wall_ns)

    def note_other(self, event: _Event) -> None:
        """Says once how to import the domain of `event`."""
        if event.domain is None or event.domain in self._others:
            return
        self._others.add(event.domain)
        self._tally.notes.append(
            f"domain {event.domain} is another machine and left out; it is imported "
            f"with --machine {event.domain}"
        )


def read(stream: TextIO, tally: Tally, domain: str | None = None) -> PlacedJournal | None:
    """What the lines report of one domain: of `domain`, or of the first that they name. Raises
    BadInput where they are newest first: what an event means may depend on the one before it."""
    rows = EntryPlacer(tally)
    guest = _Guest(rows)
    chooser = _Chooser(domain, tally)
    seen: set[tuple[int, str | None, str]] = set()
    for line, event in _lines(stream, tally, guest):
        entry = (event.wall_ns, event.domain, line.strip())
        # Logs that overlap were put together.
        if entry in seen:
            tally.other += 1
            continue
        seen.add(entry)
        if chooser.is_of_domain(event):
            guest.event(event, line)
            continue
        chooser.note_other(event)
        if chooser.shows_reach(event):
            rows.add(event.wall_ns, line)
        else:
            tally.other += 1

    if chooser.is_newest_first:
        raise BadInput(
            f"{tally.path}: the newest event is first; reverse it: tac FILE > events.log"
        )
    guest.settle()
    return rows.placed()


def _lines(stream: TextIO, tally: Tally, guest: _Guest) -> Iterator[tuple[str, _Event]]:
    """The events, with their lines; lines of a domain's own log are passed to `guest`."""
    held = ""  # what is read of an object of QMP that is not whole yet
    for line in lines_of(stream):
        text = PASTED.sub("", line, count=1).strip()
        if not held:
            # Behind a time that another program wrote.
            qmp = _QMP_EVENT.search(text)
            if qmp is not None:
                text = text[qmp.start() :]
        if not held and not text.startswith("{"):
            event = _of_line(line, text, tally, guest)
            if event is not None:
                yield line, event
            continue

        # QMP is one object a line, or pretty-printed: only one that is whole begins with a name.
        if text.startswith('{"'):
            held = ""
        held += text
        whole = _json(held)
        # A brace in the first column ends what is pretty-printed, whole or broken.
        has_ended = line.startswith("}") or held.endswith("}}")
        if whole is None and not has_ended and len(held) < _QMP_CHARACTERS_MAX:
            continue
        event = _qmp(whole, held, tally)
        if event is not None:
            yield held, event
        held = ""
    if held:
        tally.broken(held, "is not an event in JSON")


def _of_line(line: str, text: str, tally: Tally, guest: _Guest) -> _Event | None:
    """The event of a line that is not QMP, `text` being the line without what surrounds it; None
    for another line, which is counted, or passed to `guest`."""
    try:
        in_log = _DOMAIN_LOG.match(text)
        if in_log is not None:
            guest.log_line(in_log, _wall_ns(in_log["time"]), line)
            return None
        event = _event(text)
    except ValueError as error:
        tally.broken(line, str(error))
        return None

    if event is not None:
        guest.settle()
    elif _LOOKS_LIKE_AN_EVENT.match(text) and not _DOMAIN_NOTE.match(text):
        tally.broken(line, "is neither an event nor a line of a domain's log")
    else:
        # The command line of QEMU, its own messages, "events received: 12".
        guest.command(line)
        tally.other += 1
    return event


def _event(text: str) -> _Event | None:
    """The event of a line that virsh prints. Raises ValueError for an impossible time."""
    virsh = _VIRSH.match(text)
    if virsh is not None:
        return _virsh_event(virsh)
    timed = _TIMED_MONITOR.match(text)
    if timed is not None:
        return _monitor_event(timed, _wall_ns(timed["time"]))
    monitor = _MONITOR.match(text)
    if monitor is not None:
        # "1795640592.5" is half a second: the digits are a fraction.
        wall_us = int(monitor["s"] + monitor["us"].ljust(6, "0"))
        return _monitor_event(monitor, checked_ns(wall_us * _NS_PER_US))
    return None


def _virsh_event(match: re.Match[str]) -> _Event:
    """Of `virsh event`; one that is neither about the lifecycle nor a reboot means nothing."""
    detail = (match["detail"] or "").strip()
    meaning: _Meaning | None = None
    if match["event"] == "reboot":
        detail = "reboot"
        meaning = _ON
    elif match["event"] == "lifecycle":
        # "Stopped Saved": the whole may mean something else than the first word.
        general = _LIFECYCLE.get(detail.split(" ")[0])
        meaning = _DETAILS.get(detail, general)
    return _Event(
        wall_ns=_wall_ns(match["time"]),
        domain=match["domain"],
        meaning=meaning,
        code=detail,
    )


def _monitor_event(match: re.Match[str], wall_ns: int) -> _Event:
    """Of `virsh qemu-monitor-event`, which has QEMU's data as JSON."""
    data = _json(match["data"].strip())
    return _Event(wall_ns, match["domain"], *_monitor(match["event"], data))


def _monitor(name: str, data: Any) -> tuple[_Meaning | None, str]:
    """What an event of QEMU means, and its name with its status, if it has one."""
    code = name
    if isinstance(data, dict) and isinstance(data.get("status"), str):
        code = f"{name} {data['status']}"
    return _MONITOR_EVENTS.get(name), code


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


def _qmp(found: Any, shown: str, tally: Tally) -> _Event | None:
    """The event that QMP's object `found` is; None for another or a broken one, which is
    counted."""
    # A greeting, or the answer to a command.
    if isinstance(found, dict) and "event" not in found:
        tally.other += 1
        return None
    try:
        stamp = found["timestamp"]
        whole_ns = int(stamp["seconds"]) * NS_PER_S
        wall_ns = checked_ns(whole_ns + int(stamp["microseconds"]) * _NS_PER_US)
        # QMP is the monitor of one guest, and does not name it.
        return _Event(wall_ns, None, *_monitor(str(found["event"]), found.get("data")))
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
        tally.broken(shown, "is not an event in JSON")
        return None
