"""The systemd journal as `journalctl -o json` prints it: one object a line.

Every entry carries __REALTIME_TIMESTAMP and __MONOTONIC_TIMESTAMP (microseconds; systemd.journal-fields(7)), both read
by journald at one moment. Their difference stands still within a boot while nobody sleeps. So each jump of it IS what
makes ztunnel late, to the microsecond, and shows also where no message tells of it: a VM that its host paused writes
nothing. Messages only tell what a jump was:

    kernel          PM: suspend entry (deep) ... PM: suspend exit; PM: hibernation: ...
    systemd-sleep   MESSAGE_ID 6bbd95ee... (begins), 8811e6df... (has ended)

A jump ahead without such a message is taken for a pause of the whole VM, one backwards for a step. A new _BOOT_ID is a
boot. Jumps of less than `NOTICED_NS` are let grow until they are as large: a clock that drifts (WSL) shows as many
small pauses that add up to the same.

The limit: the moment of a silent pause is known as finely as entries lie. Jumps in the first two minutes after a boot
are taken for part of it: nothing of a cluster runs yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from harness.durations import NS_PER_S
from harness.errors import BadInput
from harness.journals.items import Item, Mark, Span, Step, Tally, lines_of

SYSTEM = "systemd journal"
NOTICED_NS = 30 * NS_PER_S
BOOTING_NS = 120 * NS_PER_S
# A message of a suspend may be written just after the jump: the kernel's own lines are read when journald runs again.
TELLS_FOR_NS = 120 * NS_PER_S
_NS_PER_US = 1_000
_SLEEP_IDS = {"6bbd95ee977941e497c48be27c254128", "8811e6df2a8e40f58a94cea26f8ebf14"}
_SLEEP_WORDS = ("PM: suspend entry", "PM: suspend exit", "PM: hibernation")


@dataclass
class _Jump:
    """A jump that waits for a message to say what it was."""

    span: Span
    until_monotonic_ns: int


@dataclass
class _Boot:
    """One boot: its name, the last entry, and by how much the clocks were apart when that was last noticed."""

    name: str
    wall_ns: int
    monotonic_ns: int
    apart_ns: int
    told_monotonic_ns: int | None = None
    pending: _Jump | None = None


def read(stream: TextIO, tally: Tally) -> Iterator[Item]:
    """What the journal tells. Raises BadInput when it is printed newest first."""
    boot: _Boot | None = None
    for line in lines_of(stream):
        entry = _entry(line, tally)
        if entry is None:
            continue
        wall_ns, monotonic_ns, name, tells = entry
        tally.saw(wall_ns)
        if tells:
            tally.used += 1
        else:
            tally.other += 1
        if boot is None or boot.name != name:
            if boot is not None:
                yield from _settled(boot)
                yield Mark(boot.wall_ns, "off", "off", "last entry of a boot")
                yield Mark(max(wall_ns, boot.wall_ns), "on", "off", "first entry of a boot")
            boot = _Boot(name, wall_ns, monotonic_ns, wall_ns - monotonic_ns)
        yield from _follow(boot, wall_ns, monotonic_ns, tells, tally)
    if boot is not None:
        yield from _settled(boot)


def _entry(line: str, tally: Tally) -> tuple[int, int, str, bool] | None:
    """Wall, monotonic, the boot, and whether it tells of sleep; None for what is no entry."""
    if line.isspace():
        return None
    try:
        fields = json.loads(line)
        return (
            int(fields["__REALTIME_TIMESTAMP"]) * _NS_PER_US,
            int(fields["__MONOTONIC_TIMESTAMP"]) * _NS_PER_US,
            str(fields["_BOOT_ID"]),
            _tells_of_sleep(fields),
        )
    except KeyError as error:
        tally.broken(line, f"has no {error.args[0]}")
    except (ValueError, TypeError, RecursionError):
        tally.broken(line, "is no entry in JSON")
    return None


def _tells_of_sleep(fields: dict[str, Any]) -> bool:
    message = fields.get("MESSAGE")
    if fields.get("MESSAGE_ID") in _SLEEP_IDS:
        return True
    return isinstance(message, str) and message.startswith(_SLEEP_WORDS) and fields.get("_TRANSPORT") == "kernel"


def _follow(boot: _Boot, wall_ns: int, monotonic_ns: int, tells: bool, tally: Tally) -> Iterator[Item]:
    if monotonic_ns < boot.monotonic_ns - NOTICED_NS:
        raise BadInput(
            f"{tally.path}: entry {tally.entries} is older than the one before it; expected oldest first: "
            "print it anew without -r (--reverse)"
        )
    if tells:
        boot.told_monotonic_ns = monotonic_ns
    if boot.pending is not None and (tells or monotonic_ns > boot.pending.until_monotonic_ns):
        yield from _settled(boot, told=tells and monotonic_ns <= boot.pending.until_monotonic_ns)
    jumped_ns = wall_ns - monotonic_ns - boot.apart_ns
    if abs(jumped_ns) >= NOTICED_NS:
        boot.apart_ns += jumped_ns
        if monotonic_ns >= BOOTING_NS:
            yield from _jumped(boot, jumped_ns, monotonic_ns)
    boot.wall_ns, boot.monotonic_ns = wall_ns, monotonic_ns


def _jumped(boot: _Boot, jumped_ns: int, monotonic_ns: int) -> Iterator[Item]:
    yield from _settled(boot)
    if jumped_ns < 0:
        yield Step(boot.wall_ns, jumped_ns)
        return
    span = Span(boot.wall_ns, boot.wall_ns + jumped_ns, "pause")
    boot.pending = _Jump(span, monotonic_ns + TELLS_FOR_NS)
    if boot.told_monotonic_ns is not None and monotonic_ns - boot.told_monotonic_ns <= TELLS_FOR_NS:
        yield from _settled(boot, told=True)


def _settled(boot: _Boot, told: bool = False) -> Iterator[Item]:
    """The jump that waited, if any: what it was is known now."""
    if boot.pending is not None:
        yield boot.pending.span._replace(kind="suspend") if told else boot.pending.span
        boot.pending = None
