"""When the clocks of a guest are no longer those of the others; no guest is started here
(tests/conformance does)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from meshwake.clocks.guest.fleet import Guest
from meshwake.clocks.guest.qemu import Machine
from meshwake.clocks.vdso.page import ClockPage, unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import SubjectFailed

pytestmark = pytest.mark.skipif(bool(unsupported_here()), reason=str(unsupported_here()))
S = 10**9


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    page = ClockPage("offset")
    made = Guest("sleeper", Machine(Path("kernel"), Path("initrd")), tmp_path, page, None)
    made.check_time(shown(50 * S), 1000 * S, 1000 * S)
    yield made
    page.close()


def shown(boottime_ns: int) -> ClockReading:
    return ClockReading(10**18, boottime_ns, boottime_ns)


def test_a_guest_that_goes_with_the_others_may(guest: Guest) -> None:
    """A second early or late, and anywhere between question and answer."""
    for boottime_s in (149, 150, 151):
        guest.check_time(shown(boottime_s * S), 1100 * S, 1100 * S)
    guest.check_time(shown(140 * S), 1090 * S, 1100 * S)


@pytest.mark.parametrize(("boottime_s", "words"), [(107, "-43.0 s off"), (193, r"\+43.0 s off")])
def test_a_guest_that_lost_or_won_time_ends_the_run(
    guest: Guest, boottime_s: int, words: str
) -> None:
    """By how much, what was expected, and what to do."""
    with pytest.raises(
        SubjectFailed, match=f"guest sleeper are {words}.*at most 1.0 s; run it again"
    ):
        guest.check_time(shown(boottime_s * S), 1100 * S, 1100 * S)


def test_a_sleep_is_known_to_a_second(guest: Guest) -> None:
    """The kernel reads its length from a clock of whole seconds, and wakes a moment later."""
    guest.note_sleep()
    guest.check_time(shown(148 * S), 1100 * S, 1100 * S)
    with pytest.raises(SubjectFailed, match=r"at most 2.5 s"):
        guest.check_time(shown(147 * S), 1100 * S, 1100 * S)


def test_a_guest_that_was_paused_does_not_notice(guest: Guest) -> None:
    """And is right not to."""
    guest.note_stopped(1100 * S)
    guest.note_goes_on(2100 * S)
    guest.check_time(shown(150 * S), 2100 * S, 2100 * S)
    with pytest.raises(SubjectFailed, match=r"\+1000.0 s off"):
        guest.check_time(shown(1150 * S), 2100 * S, 2100 * S)


def test_how_long_it_waits_is_read_from_its_memory(guest: Guest) -> None:
    """A timespec; no address means for ever."""
    import ctypes

    waits = (ctypes.c_longlong * 2)(3, 250)
    guest._memory = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        assert guest._timespec_ns(ctypes.addressof(waits)) == 3 * S + 250
        assert guest._timespec_ns(0) is None
    finally:
        os.close(guest._memory)
        guest._memory = -1
