"""Which programs of a node are meant, and what is particular about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshwake.clocks.movers.node_helper.processes import executable_of, read_text


class Rule(NamedTuple):
    """Programs of one executable, optionally of one control group only.

    An `executable` without a slash is compared with the last part of a program's path. `cgroup`: a
    part of the cgroup's path, or None. `keeps_monotonic`: such a program gets wall and boottime
    moved, and its monotonic clock is left alone. `idles_in_epoll`: when its first thread waits in
    anything but epoll, it is at work (a Python that waits for an answer). `streams_to_port`: a port
    to which it keeps connections open; one that it has lost is waited for, within a bound, before
    the node counts as idle; 0: none.
    """

    executable: str
    cgroup: str | None = None
    keeps_monotonic: bool = False
    idles_in_epoll: bool = False
    streams_to_port: int = 0

    def fits(self, pid: int) -> bool:
        """Whether process `pid` is meant by this rule."""
        # The executable first: for most processes it alone decides.
        if not self._fits_executable(pid):
            return False
        return self.cgroup is None or self.cgroup in read_text(pid, "cgroup")

    def _fits_executable(self, pid: int) -> bool:
        path = executable_of(pid)
        if path is None:
            return False

        # A whole path, or the name of a file in whatever folder.
        if "/" in self.executable:
            return path == self.executable
        return path.rpartition("/")[2] == self.executable


def first_rule(rules: Sequence[Rule], pid: int) -> Rule | None:
    """The first rule that fits the process; None when it is not meant."""
    for rule in rules:
        if rule.fits(pid):
            return rule
    return None
