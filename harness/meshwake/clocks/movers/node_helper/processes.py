"""What /proc shows of a process of the node; see proc(5)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from meshwake.clocks.movers.node_helper.answers import DescribedProcess
from meshwake.system.process_stat import read_stat, started_ticks

# /proc/PID/net/tcp: columns are "sl local_address rem_address st ...", in hexadecimal, and the
# state of an established connection is TCP_ESTABLISHED (include/net/tcp_states.h).
_REMOTE_COLUMN = 2
_STATE_COLUMN = 3
# A state of /proc/net/tcp, in hex: TCP_ESTABLISHED (include/net/tcp_states.h).
_ESTABLISHED = "01"


def read_text(pid: int, name: str) -> str:
    """A file of the process; "" when it is not there (any more)."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def executable_of(pid: int) -> str | None:
    """The path of its program, in its own file system."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return None


def age_s(ticks: int) -> float:
    """How long ago a process started that has these `started_ticks`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def describe(pid: int) -> DescribedProcess:
    """Names a process for a reader who knows pods: their ids are part of its control group."""
    cgroup = read_text(pid, "cgroup").strip()
    return {"pid": pid, "executable": executable_of(pid), "cgroup": cgroup}


def other_processes() -> list[int]:
    """All processes but us and our children (guardians of a sleep, children that attach)."""
    own = os.getpid()
    others = []
    for entry in Path("/proc").iterdir():
        # Next to the processes there are the kernel's own files.
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        if pid != own and _parent_of(pid) != own:
            others.append(pid)
    return sorted(others)


def send_signal(pid: int, ticks: int, number: signal.Signals) -> None:
    """Sends it to the process of that pid and start, and to none that has its pid now."""
    with suppress(ProcessLookupError):
        # The pidfd first: what it names is the same process as the one that is then compared.
        process = os.pidfd_open(pid)
        try:
            if started_ticks(pid) == ticks:
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def count_streams(pid: int, port: int) -> int:
    """How many connections from the network of process `pid` to `port` are open."""
    count = 0
    for table in ("net/tcp", "net/tcp6"):
        lines = read_text(pid, table).splitlines()[1:]  # the first is a heading
        count += _count_established(lines, f":{port:04X}")
    return count


def _count_established(lines: Iterable[str], remote_port: str) -> int:
    count = 0
    for line in lines:
        columns = line.split()
        is_to_port = columns[_REMOTE_COLUMN].endswith(remote_port)
        if is_to_port and columns[_STATE_COLUMN] == _ESTABLISHED:
            count += 1
    return count


def _parent_of(pid: int) -> int | None:
    stat = read_stat(pid)
    return None if stat is None else stat.parent
