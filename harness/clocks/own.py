"""The clocks of the machine that this very process runs on. Read here, and handed on; nothing else looks at a clock."""

from __future__ import annotations

import time

from harness.clocks.reading import ClockReading


def own_clocks() -> ClockReading:
    """All three, one after the other; a microsecond apart."""
    return ClockReading(
        time.clock_gettime_ns(time.CLOCK_REALTIME),
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )
