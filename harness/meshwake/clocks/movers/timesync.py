"""Who else sets the clock of the engine's machine, and how they are held for the time of a run.

Looked for among the processes of the machine, from a privileged container in its process namespace.
Each way of holding can be taken back without knowing what was before, so that a crash at any point
leaves something that can be undone:

    service     stopped and started by systemd; timesyncd is not sent SIGSTOP: systemd would take it
                for hung
    process     SIGSTOP and SIGCONT, if it is still the process that was found
    parameter   a switch of the kernel's Hyper-V driver (hv_utils.timesync_implicit, used by WSL2)
    nobody      it cannot be held (the word is in intents on disk): to stop Lima's guest agent,
                which compares the clock with the RTC every 10 s, would also cut the ports
                through which the cluster is reached
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from meshwake.clocks.movers.node_access import Inside, NoAnswer, shell

HOST = "host"  # the "node" for which a way into the process namespace of the machine is needed
FIND = """
read -r init </proc/1/comm; echo "init $init"
for d in /proc/[0-9]*; do
  read -r name 2>/dev/null <"$d/comm" || continue
  case "$name" in
    systemd-timesyn|chronyd|ntpd|openntpd|ntpsec|ptp4l|phc2sys|VBoxService|vmtoolsd|prltoolsd|prltimesync|lima-guestagent)
      stat=$(cat "$d/stat"); set -- ${stat##*) }; [ -n "${20}" ] && echo "process ${d#/proc/} ${20} $name";;
  esac
done
implicit=/sys/module/hv_utils/parameters/timesync_implicit
if [ -e $implicit ]; then read -r value <$implicit; echo "implicit $value"; fi
"""
# Arguments: process id, its start time in ticks, signal. A process that has ended needs nothing.
SIGNAL = """
[ -e "/proc/$1/stat" ] || exit 0
stat=$(cat "/proc/$1/stat"); started=$2; signal=$3; pid=$1
set -- ${stat##*) }; [ "${20}" = "$started" ] || exit 0
kill -s "$signal" "$pid"
"""
# Arguments: stop or start, the service.
SERVICE = 'nsenter -t 1 -m -u -i -n -p -- systemctl "$1" "$2"'
PARAMETER = 'echo "$1" >/sys/module/hv_utils/parameters/timesync_implicit'
TIMESYNCD = "systemd-timesyncd.service"
_CANNOT = {"lima-guestagent"}
_WITHIN_S = 30.0


class TimeSync(BaseModel):
    """One that sets clocks, and how it is held. `pid`, `started_ticks`: of a process."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    how: Literal["service", "process", "parameter", "nobody"]
    pid: int = 0
    started_ticks: int = 0


def find_time_syncs(inside: Inside) -> tuple[TimeSync, ...]:
    """Who sets clocks on the machine. `inside` leads into a privileged container in the machine's
    own process namespace. Raises NoAnswer."""
    answer = shell(inside, HOST, FIND, within_s=_WITHIN_S)
    if not re.search(r"^init ", answer.output, re.MULTILINE):
        raise NoAnswer(
            f"the processes of the engine's machine cannot be seen: {answer.error[-200:]}"
        )
    lines = [line.split(" ") for line in answer.output.splitlines()]
    under_systemd = ["init", "systemd"] in lines
    found = [
        _process(int(line[1]), int(line[2]), line[3], under_systemd)
        for line in lines
        if line[0] == "process"
    ]
    if ["implicit", "Y"] in lines:
        found.append(TimeSync(name="hv_utils.timesync_implicit", how="parameter"))
    return tuple(found)


def _process(pid: int, started_ticks: int, name: str, under_systemd: bool) -> TimeSync:
    if name in _CANNOT:
        return TimeSync(name=name, how="nobody")
    if name == "systemd-timesyn" and under_systemd:
        return TimeSync(name=TIMESYNCD, how="service")
    return TimeSync(name=name, how="process", pid=pid, started_ticks=started_ticks)


def hold(inside: Inside, one: TimeSync) -> None:
    """Keeps it from setting the clock. Raises NoAnswer when that did not work."""
    _do(inside, one, {"service": "stop", "process": "STOP", "parameter": "N"})


def release(inside: Inside, held: Sequence[TimeSync]) -> list[str]:
    """Undoes `hold`, as often as one likes; returns why it failed for those for which it did."""
    failed = []
    for one in held:
        try:
            _do(inside, one, {"service": "start", "process": "CONT", "parameter": "Y"})
        except NoAnswer as error:
            failed.append(f"{one.name}: {error}")
    return failed


def _do(inside: Inside, one: TimeSync, words: dict[str, str]) -> None:
    if one.how == "nobody":
        raise NoAnswer(f"{one.name} cannot be held")
    word = words[one.how]
    if one.how == "service":
        answer = shell(inside, HOST, SERVICE, word, one.name, within_s=_WITHIN_S)
    elif one.how == "process":
        answer = shell(
            inside, HOST, SIGNAL, str(one.pid), str(one.started_ticks), word, within_s=_WITHIN_S
        )
    else:
        answer = shell(inside, HOST, PARAMETER, word, within_s=_WITHIN_S)
    if answer.code:
        raise NoAnswer(f"{one.name}: {word} failed ({answer.error[-200:] or answer.code})")
