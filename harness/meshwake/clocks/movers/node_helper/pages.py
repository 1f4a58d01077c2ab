"""The two clock pages of a node, and which processes are on them.

One page moves all clocks, the other leaves the monotonic clock alone (rules.Rule.keeps_monotonic).
Both live on in the programs that have them when the helper is killed, and are found there again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.clocks.vdso.attach import PageInside, page_inside
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessError

NOT_MOVED = ClockReading(0, 0, 0)


class NodePages:
    """`moved` and `keeps_monotonic`, both in offset mode."""

    def __init__(self) -> None:
        self.moved = ClockPage("offset")
        self.keeps_monotonic = ClockPage("offset")

    @property
    def offsets(self) -> ClockReading:
        """What is added to the kernel's clocks."""
        return self.moved.get()

    def of(self, rule: Rule) -> ClockPage:
        """The page for programs of this rule."""
        return self.keeps_monotonic if rule.keeps_monotonic else self.moved

    def set(self, offsets: ClockReading) -> None:
        """Those that keep their monotonic clock come first: the others ask them (a ztunnel asks
        istiod), and must not ask one that is behind."""
        self.keeps_monotonic.set(offsets._replace(monotonic_ns=0))
        self.moved.set(offsets)

    def has(self, pid: int) -> bool:
        """Whether the clocks of this process are on one of these pages. No longer so after an exec
        that was missed: a fresh program has a fresh vDSO."""
        inside = _page_in_use(pid)
        ours = {self.moved.inode, self.keeps_monotonic.inode}
        return inside is not None and inside.inode in ours

    def adopt(
        self, pids: Iterable[int], rule_of: Callable[[int], Rule | None], saved: ClockReading
    ) -> None:
        """Takes over the pages that processes `pids` still have from a helper before us. They say
        more than `saved`, what that helper wrote down last: it may have been killed between the
        two."""
        found = _pages_in_use(pids, rule_of)
        kept, moved = found.get(True), found.get(False)
        offsets = saved
        if kept is not None:
            self.keeps_monotonic.close()
            self.keeps_monotonic = kept
            # It says nothing about the monotonic clock of the others.
            offsets = kept.get()._replace(monotonic_ns=saved.monotonic_ns)
        if moved is not None:
            self.moved.close()
            self.moved = moved
            offsets = moved.get()
        self.set(offsets)

    def close(self) -> None:
        """Processes that have the pages keep them."""
        self.moved.close()
        self.keeps_monotonic.close()


def is_on_a_page(pid: int) -> bool:
    """Whether some helper's page is in use in this process."""
    return _page_in_use(pid) is not None


def offsets_inside(pid: int) -> ClockReading | None:
    """How far the clocks of this process are moved, by whichever helper; None when they are not on
    a page, or it cannot be read."""
    with suppress(HarnessError, OSError):
        inside = _page_in_use(pid)
        if inside is not None:
            page = _open(pid, inside)
            try:
                return page.get()
            finally:
                page.close()
    return None


def _pages_in_use(
    pids: Iterable[int], rule_of: Callable[[int], Rule | None]
) -> dict[bool, ClockPage]:
    """By whether it keeps the monotonic clock: the first page found of each kind."""
    found: dict[bool, ClockPage] = {}
    for pid in pids:
        with suppress(HarnessError, OSError):
            rule = rule_of(pid)
            if rule is None or rule.keeps_monotonic in found:
                continue
            inside = _page_in_use(pid)
            if inside is not None:
                found[rule.keeps_monotonic] = _open(pid, inside)
    return found


def _page_in_use(pid: int) -> PageInside | None:
    with suppress(HarnessError):
        inside = page_inside(pid)
        if inside is not None and inside.in_use:
            return inside
    return None


def _open(pid: int, inside: PageInside) -> ClockPage:
    """Through /proc/PID/map_files, for root: the memory's own file, to be written to."""
    return ClockPage.of_file(os.open(inside.map_file(pid), os.O_RDWR | os.O_CLOEXEC))
