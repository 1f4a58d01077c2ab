"""What processes use: peaks of memory, time on a CPU; of this process, or of a tree of processes.

getrusage's ru_maxrss is useless on Linux: a process inherits the peak of the one that started it.
/proc has the peak of the program itself (VmHWM, counted again at each exec). Elsewhere ru_maxrss is
all there is.

    python -m tests.bench.use idle|week      the peak of a process that has imported the model, or
    also run a week"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def own_peak_bytes() -> int | None:
    """The most memory this process has had resident; None where the system does not report it."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":
        return peak_bytes("self")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def peak_bytes(pid: int | str) -> int | None:
    """The peak of a process on Linux; None when it has ended. Pages shared with others count in
    each."""
    with suppress(OSError):
        match = re.search(
            r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
        )
        return int(match[1]) * 1024 if match else None
    return None


def cpu_s(pid: int) -> float:
    """Time that a process has been on a CPU, its own and the kernel's for it (Linux;
    proc_pid_stat(5))."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """`pid` and all that it started, and they started (Linux)."""
    yield pid
    children = ""
    with suppress(OSError):
        children = " ".join(
            path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")
        )
    for child in children.split():
        yield from tree(int(child))


if __name__ == "__main__":
    from tests.bench.model import nightly_sleep, run

    if sys.argv[1] == "week":
        run(nightly_sleep())
    sys.stdout.write(f"{own_peak_bytes() or 0}\n")
