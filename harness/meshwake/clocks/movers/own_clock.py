"""This machine's own clocks, which nothing here may move unless that is explicitly allowed.

Whether an engine runs on this very kernel is checked twice, because an engine may report another
kernel or a boot id may be masked: by the boot id, and by the monotonic clock, which counts from the
boot and so is a kernel's fingerprint to the millisecond."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS

if TYPE_CHECKING:  # the wake guard's image has nothing that reads nodes
    from meshwake.clocks.movers.node_access import ClockMeasurement

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# What a shell in a container adds to the error of a reading.
_ALIKE_WITHIN_NS = 20 * NS_PER_MS


class Own(Protocol):
    """A machine whose clocks can be read."""

    def boot_id(self) -> str | None:
        """Which boot of which kernel; None where this system has none."""

    def clocks(self) -> ClockReading:
        """Now."""


class OwnMachine:
    """This one."""

    def boot_id(self) -> str | None:
        """See Own."""
        # Only Linux has the file.
        if not BOOT_ID.exists():
            return None
        return BOOT_ID.read_text().strip()

    def clocks(self) -> ClockReading:
        """See Own. Where a system has no clock that counts sleep, the monotonic one is used."""
        return own_clocks()


def own_clocks() -> ClockReading:
    """All three, one after the other; a microsecond apart. Where a system has no clock that counts
    sleep, the monotonic one is used."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    monotonic_ns = time.monotonic_ns()
    return ClockReading(
        time.time_ns(),
        monotonic_ns,
        monotonic_ns if boottime is None else time.clock_gettime_ns(boottime),
    )


def shared_kernel(own: Own, measured: ClockMeasurement) -> str | None:
    """What shows that `measured` was read from the kernel of `own`; None when nothing does. Ask
    right after the measurement: its own clock readings are of `measured.real_monotonic_ns` on our
    monotonic clock."""
    if measured.boot_id == own.boot_id():
        return f"its boot id is ours ({measured.boot_id})"
    apart_ns = abs(measured.clocks.monotonic_ns - measured.real_monotonic_ns)
    if apart_ns <= measured.within_ns + measured.round_trip_ns // 2 + _ALIKE_WITHIN_NS:
        return (
            "it says it is another boot, and its monotonic clock is ours to "
            f"{apart_ns / 1e6:.0f} ms"
        )
    return None
