"""Two real kernels in one time: one is suspended, or paused, while the other goes on. Needs QEMU
and a kernel.

The guests are bare ones, whose only program reports their clocks; several ztunnels on several
guests are the agreement suite's (MESHWAKE_TEST_MACHINE).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from meshwake.clocks.guest.fleet import Fleet
from meshwake.clocks.guest.qemu import Machine
from meshwake.core.clock_reading import ClockReading
from meshwake.labs.machine.image import assemble, base_part, guest_python
from meshwake.labs.machine.kernel import find_kernel

from tests.conformance.test_guest import H, M, S, _why_not

pytestmark = pytest.mark.skipif(bool(_why_not()), reason=str(_why_not()))
OBEYS = """
import json, os, select
from meshwake.clocks.guest.init import CHANNEL_VARIABLE, Channel, GuestClocks, kernel_clocks
channel, received = Channel(int(os.environ[CHANNEL_VARIABLE])), b""
while True:
    select.select([channel.file], [], [])
    *lines, received = (received + os.read(channel.file, 4096)).split(b"\\n")
    for order in map(json.loads, lines):
        channel.send(answer=order["order"], result=kernel_clocks())
        if order["do"] == "suspend":
            channel.drain()
            GuestClocks(channel).suspend_on_request()
"""
# The second that a battery-backed clock does not show, before and after a sleep.
NEAR_NS = 5 * S // 2


@dataclass(frozen=True)
class Passed:
    """How far the clocks of both went between two readings, the time that they share between the
    readings (`least_ns`) and around them (`most_ns`), and how long the sleeper was suspended or
    stopped. A reading takes seconds on a busy machine."""

    least_ns: int
    most_ns: int
    away_ns: int
    sleeper: ClockReading
    awake: ClockReading

    def is_all(self, moved_ns: int) -> bool:
        """Whether that is the time between the readings."""
        return self.least_ns - NEAR_NS < moved_ns < self.most_ns + NEAR_NS

    def is_time_awake(self, moved_ns: int) -> bool:
        """Whether that is at most what the sleeper was there for."""
        return moved_ns < self.most_ns - self.away_ns + NEAR_NS


class Pair:
    """Two guests."""

    def __init__(self, directory: Path) -> None:
        kernel = find_kernel()
        assert kernel is not None
        program = {
            "do": "program",
            "argv": [guest_python(), "-c", OBEYS],
            "environment": {"PYTHONPATH": "/meshwake/site"},
        }
        image = directory / "guest.cpio"
        assemble([base_part(kernel, with_lab=False)], program, image)
        machine = Machine(kernel.image, image, 384, skip_idle=False, moved_time=True)
        self.fleet = Fleet(
            {"sleeper": machine, "awake": machine},
            directory,
            lambda guest, message: None,
            cards=False,
        )

    def passed(self, begins: str, ends: str, lasts_ns: int) -> Passed:
        """From before the fault `begins` of the sleeper until after it `ends`."""
        reads_from_ns = self.fleet.now_ns
        before = (self.fleet.clocks("sleeper"), self.fleet.clocks("awake"))
        began_ns = self.fleet.now_ns
        getattr(self.fleet, begins)("sleeper")
        away_from_ns = self.fleet.now_ns
        self.fleet.pass_until(away_from_ns + lasts_ns, lambda: False)
        away_ns = self.fleet.now_ns - away_from_ns
        getattr(self.fleet, ends)("sleeper")
        ended_ns = self.fleet.now_ns
        after = (self.fleet.clocks("sleeper"), self.fleet.clocks("awake"))
        return Passed(
            least_ns=ended_ns - began_ns,
            most_ns=self.fleet.now_ns - reads_from_ns,
            away_ns=away_ns,
            sleeper=after[0].since(before[0]),
            awake=after[1].since(before[1]),
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("fleet"))
    try:
        made.fleet.boot()
        yield made
    finally:
        made.fleet.close()


def test_one_sleeps_and_the_other_goes_on(pair: Pair) -> None:
    """Ten minutes for both; the monotonic clock of one did not see them. It took seconds."""
    began_s = time.monotonic()
    passed = pair.passed("suspend", "wake", 10 * M)
    assert passed.away_ns >= 10 * M
    assert all(passed.is_all(moved_ns) for moved_ns in passed.awake)
    assert passed.is_all(passed.sleeper.wall_ns)
    assert passed.is_all(passed.sleeper.boottime_ns)
    assert passed.is_time_awake(passed.sleeper.monotonic_ns)
    assert time.monotonic() - began_s < 300


def test_a_paused_guest_does_not_notice(pair: Pair) -> None:
    """None of its clocks has moved; the other's have."""
    passed = pair.passed("stop", "go_on", 17 * M)
    assert passed.away_ns >= 17 * M
    assert all(passed.is_time_awake(moved_ns) for moved_ns in passed.sleeper)
    assert all(passed.is_all(moved_ns) for moved_ns in passed.awake)


def test_two_that_are_awake_stay_together(pair: Pair) -> None:
    """`Fleet.clocks` itself ends a run in which they do not."""
    first_ns, first_took_ns = apart(pair)
    pair.fleet.pass_until(pair.fleet.now_ns + H // 4, lambda: False)
    second_ns, second_took_ns = apart(pair)
    assert abs(second_ns - first_ns) < S + first_took_ns + second_took_ns


def apart(pair: Pair) -> tuple[int, int]:
    """By how much the boottimes of both differ, and how long it took to read them."""
    from_ns = pair.fleet.now_ns
    sleeper, awake = pair.fleet.clocks("sleeper"), pair.fleet.clocks("awake")
    return sleeper.boottime_ns - awake.boottime_ns, pair.fleet.now_ns - from_ns


def test_all_are_gone_when_it_is_closed(tmp_path: Path) -> None:
    """Also one that has just been started."""
    made = Pair(tmp_path)
    guests = list(made.fleet._guests.values())
    with suppress(TimeoutError):
        made.fleet._run(_for_a_moment(made))
    pids = [guest._process.pid for guest in guests if guest._process]
    assert len(pids) == 2
    made.fleet.close()
    assert not any(_lives(pid) for pid in pids)


async def _for_a_moment(pair: Pair) -> None:
    import asyncio

    await asyncio.wait_for(pair.fleet._boot(), 0.5)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
