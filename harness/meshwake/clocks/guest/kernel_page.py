"""A clock injector that injects nothing: a page of clocks that are the kernel's own, for labs
inside a guest.

It has the interface of vdso/page.py's `ClockPage`, so that the process lab runs on it unchanged:
`get` reads the kernel's clocks, `set` sets the one clock that a kernel allows to set, the wall
clock. Programs are started without any change."""

from __future__ import annotations

import time

from meshwake.clocks.guest.init import kernel_clocks
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading

NO_FILE = -1


class KernelClockPage(ClockPage):
    """The clocks of this very kernel. To `set` it needs the right to set the time: only a guest of
    ours has it."""

    def __init__(self) -> None:
        self.mode, self.file = "kernel", NO_FILE

    def set(self, clocks: ClockReading) -> None:
        """Sets the wall clock so that it shows `clocks.wall_ns` at the moment when boottime shows
        `boottime_ns`."""
        passed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - clocks.boottime_ns
        time.clock_settime_ns(time.CLOCK_REALTIME, clocks.wall_ns + passed_ns)

    def get(self) -> ClockReading:
        """What the kernel shows now."""
        return kernel_clocks()

    def close(self) -> None:
        """Nothing is open."""
