"""The clocks of a node, read and set from inside it, with nothing but what a node has: a shell and
coreutils.

    wall        date +%s.%N                    CLOCK_REALTIME
    monotonic   /proc/timer_list, "now at N"   ktime_get(), CLOCK_MONOTONIC in ns; root only, masked
                                               in a container that is not privileged (kind's nodes
                                               are)
    boottime    /proc/uptime                   CLOCK_BOOTTIME, in hundredths of a second

The monotonic clock is read twice, around the other two: nothing was read further from the middle
than half of what lies between. Every program of the node sees these clocks, unless it lives in
another time namespace, which is looked for.

A clock is set by its distance to the monotonic one ("base" = wall - monotonic): a process that sets
the same base twice has set it once, so a request whose answer was lost may be sent again.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshwake.clocks.movers.base import Moment
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed

ANSWERS_WITHIN_S = 20.0
# One reading is good enough when it took no longer than this inside; a machine under load is read
# again.
LOOK_WITHIN_NS = NS_PER_S // 4
_LOOKS_MAX = 5
# /proc/uptime has two decimals (proc_uptime(5)), so boottime is known to a hundredth of a second.
_TICK_NS = 10_000_000
# /proc/timer_list begins with "now at N nsecs", which is CLOCK_MONOTONIC
# (kernel/time/timer_list.c). No other file shows it, and a node's image has a shell but need not
# have Python.
_MONOTONIC = """
now() { while read -r a b ns rest; do if [ "$a $b" = "now at" ]; then echo "$ns"; return; fi; done </proc/timer_list; }
"""
READ = (
    _MONOTONIC
    + """
echo "boot_id $(cat /proc/sys/kernel/random/boot_id)"
m1=$(now); read -r up idle </proc/uptime; w=$(date +%s.%N); m2=$(now)
echo "clocks $m1 $up $w $m2"
"""
)
# Arguments: base in ns. The wall clock becomes monotonic + base.
SET_BASE = (
    _MONOTONIC
    + """
m=$(now); [ -n "$m" ] || exit 9
t=$(($1 + m))
date -u -s "@$((t / 1000000000)).$(printf %09d $((t % 1000000000)))" >/dev/null
"""
)
RIGHTS = """
while read -r name value; do case "$name" in CapEff:) echo "capabilities $value";; esac; done </proc/self/status
while read -r first outside count; do echo "user_namespace $first $outside $count"; done </proc/self/uid_map
here=$(readlink /proc/self/ns/time)
for d in /proc/[0-9]*; do
  read -r name 2>/dev/null <"$d/comm" || continue
  case "$name" in ztunnel|envoy|pilot-agent|pilot-discovery)
    there=$(readlink "$d/ns/time"); [ -z "$there" ] || [ "$there" = "$here" ] || echo "elsewhere ${d#/proc/} $name";;
  esac
done
"""
# include/uapi/linux/capability.h: capability 25, as a bit of CapEff in /proc/PID/status.
CAP_SYS_TIME = 1 << 25


class NoAnswer(Exception):
    """A command could not be given, or there was no answer in time; whether it was carried out is
    not known."""


@dataclass(frozen=True)
class CommandResult:
    """What a command printed and how it ended."""

    code: int
    output: str
    error: str


class Inside(Protocol):
    """Runs a command in a node."""

    def run(self, node: str, argv: Sequence[str], within_s: float) -> CommandResult:
        """Raises NoAnswer."""


@dataclass(frozen=True)
class Way(Inside):
    """A command line that runs another one in a node, such as ("docker", "exec", "{node}"); can be
    written down."""

    prefix: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, node: str, argv: Sequence[str], within_s: float) -> CommandResult:
        """See Inside."""
        command = [part.replace("{node}", node) for part in self.prefix] + list(argv)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=within_s,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )
        except subprocess.TimeoutExpired as error:
            raise NoAnswer(f"{' '.join(command[:3])}: no answer within {within_s:.0f} s") from error
        except OSError as error:
            raise NoAnswer(f"{command[0]}: cannot be run ({error.strerror})") from error
        return CommandResult(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(output: bytes) -> str:
    return output.decode(errors="replace").strip()


@dataclass(frozen=True)
class ClockMeasurement:
    """One reading and how good it is. `within_ns`: how far the three clocks may have been read
    apart. `real_monotonic_ns`, `round_trip_ns`: the harness's own monotonic clock in the middle,
    and from asking to answer."""

    boot_id: str
    clocks: ClockReading
    within_ns: int
    real_monotonic_ns: int
    round_trip_ns: int

    @property
    def base_ns(self) -> int:
        """Wall minus monotonic: it stays while the wall clock is not moved."""
        return self.clocks.wall_ns - self.clocks.monotonic_ns

    @property
    def moment(self) -> Moment:
        """For a history."""
        return Moment(
            self.real_monotonic_ns, self.clocks, max(self.within_ns, self.round_trip_ns // 2)
        )


def shell(
    inside: Inside, node: str, script: str, *arguments: str, within_s: float = ANSWERS_WITHIN_S
) -> CommandResult:
    """Runs a shell script in a node. Raises NoAnswer, also when the node could not be entered."""
    answer = inside.run(node, ["sh", "-c", script, "meshwake", *arguments], within_s)
    if answer.code in (125, 126, 127, 255):
        raise NoAnswer(f"node {node}: cannot be entered ({_words(answer)})")
    return answer


def _words(answer: CommandResult) -> str:
    """Docker says on standard output why a command could not be started."""
    words = answer.error or answer.output
    # The end of it: what failed is what was written last.
    return words[-300:] or f"exit code {answer.code}"


def measure(inside: Inside, node: str) -> ClockMeasurement:
    """The clocks of `node`. Raises NoAnswer, or SubjectFailed when what it says are no clocks or it
    is too slow."""
    for _ in range(_LOOKS_MAX):
        sent_ns = time.monotonic_ns()
        answer = shell(inside, node, READ)
        measured = _parse(node, answer, sent_ns, time.monotonic_ns())
        if measured.within_ns <= LOOK_WITHIN_NS + _TICK_NS:
            return measured
    raise SubjectFailed(
        f"node {node}: its clocks cannot be read exactly: {_LOOKS_MAX} times in a row more than "
        f"{2 * LOOK_WITHIN_NS // 10**6} ms lay within one reading; the machine is too busy"
    )


def _parse(node: str, answer: CommandResult, sent_ns: int, answered_ns: int) -> ClockMeasurement:
    values = dict(line.split(" ", 1) for line in answer.output.splitlines() if " " in line)
    try:
        first, up, wall, second = values["clocks"].split(" ")
        earlier_ns, later_ns = int(first), int(second)
        clocks = ClockReading(
            _ns(wall, 9), (earlier_ns + later_ns) // 2, _ns(up, 2) + _TICK_NS // 2
        )
        boot_id = values["boot_id"].strip()
    except (KeyError, ValueError) as error:
        raise SubjectFailed(
            f"node {node}: its clocks cannot be read ({answer.output[-200:]!r}, "
            f"{answer.error[-200:]!r}); "
            "it takes a privileged container with /proc/timer_list, /proc/uptime and GNU "
            "date, as kind's node image is"
        ) from error
    within_ns = (later_ns - earlier_ns) // 2 + _TICK_NS // 2
    return ClockMeasurement(
        boot_id, clocks, within_ns, (sent_ns + answered_ns) // 2, answered_ns - sent_ns
    )


def _ns(text: str, digits: int) -> int:
    """Exact: seconds with so many digits behind the point."""
    whole, fraction = text.split(".")
    if len(fraction) != digits:
        raise ValueError(f"{text!r} has not {digits} digits behind the point")
    return int(whole) * NS_PER_S + int(fraction) * int(10 ** (9 - digits))


def set_base(inside: Inside, node: str, base_ns: int) -> CommandResult:
    """Sets the wall clock of `node` to its monotonic one plus `base_ns`. Whether
    it was done must be measured: programs that say they set a clock are known to lie. Raises
    NoAnswer."""
    return shell(inside, node, SET_BASE, str(base_ns))


def rights_missing(inside: Inside, node: str) -> str | None:
    """Why the wall clock cannot be set from `node`, or is not what its programs see; None when it
    can. Raises NoAnswer."""
    answer = shell(inside, node, RIGHTS)
    capabilities: list[int] = []
    elsewhere: list[str] = []
    maps_all_users = False
    for line in answer.output.splitlines():
        words = line.split()
        # user_namespace, 0, 0, 2^32 - 1: user 0 of the node is user 0 of the machine, and so on.
        if words == ["user_namespace", "0", "0", str(2**32 - 1)]:
            maps_all_users = True
        elif words[:1] == ["capabilities"] and len(words) == 2:
            capabilities.append(int(words[1], 16))
        elif words[:1] == ["elsewhere"]:
            elsewhere.append(words[2])

    if not capabilities:
        return f"node {node} does not report its capabilities ({answer.error[-200:]})"
    if not capabilities[0] & CAP_SYS_TIME:
        return (
            f"node {node} may not set the clock (no CAP_SYS_TIME); nodes must be privileged "
            "containers, as kind's are"
        )
    if not maps_all_users:
        return (
            f"the engine is rootless: root in node {node} is not root of the machine and may "
            "not set its clock"
        )
    if elsewhere:
        return f"{elsewhere[0]} in node {node} lives in a time namespace of its own"
    return None
