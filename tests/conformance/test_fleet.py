"""Two real kernels in one time: one is suspended, or stands, while the other goes on. Needs QEMU
and a kernel.

The guests are bare ones, whose only program tells their clocks; several ztunnels on several guests
are the agreement suite's (MESHWAKE_TEST_MACHINE).
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
# What a reading takes on a busy machine, and the second that a battery-backed clock does not show.
NEAR_NS = 5 * S // 2


@dataclass(frozen=True)
class Passed:
    """How far the clocks of both went, and the time that they share."""

    shared_ns: int
    sleeper: ClockReading
    awake: ClockReading


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
        before = (self.fleet.clocks("sleeper"), self.fleet.clocks("awake"))
        began_ns = self.fleet.now_ns
        getattr(self.fleet, begins)("sleeper")
        self.fleet.pass_until(began_ns + lasts_ns, lambda: False)
        getattr(self.fleet, ends)("sleeper")
        after = (self.fleet.clocks("sleeper"), self.fleet.clocks("awake"))
        shared_ns = self.fleet.now_ns - began_ns
        return Passed(shared_ns, after[0].since(before[0]), after[1].since(before[1]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("fleet"))
    try:
        made.fleet.boot()
        yield made
    finally:
        made.fleet.close()


def near(one_ns: int, other_ns: int) -> bool:
    return abs(one_ns - other_ns) < NEAR_NS


def test_one_sleeps_and_the_other_goes_on(pair: Pair) -> None:
    """Ten minutes for both; the monotonic clock of one did not see them. It took seconds."""
    began_s = time.monotonic()
    passed = pair.passed("suspend", "wake", 10 * M)
    assert near(passed.shared_ns, 10 * M)
    assert all(near(moved, passed.shared_ns) for moved in passed.awake)
    assert near(passed.sleeper.wall_ns, passed.shared_ns)
    assert near(passed.sleeper.boottime_ns, passed.shared_ns)
    assert passed.sleeper.monotonic_ns < NEAR_NS
    assert time.monotonic() - began_s < 300


def test_one_stands_and_knows_nothing_of_it(pair: Pair) -> None:
    """None of its clocks has moved; the other's have."""
    passed = pair.passed("stop", "go_on", 17 * M)
    assert max(passed.sleeper) < NEAR_NS
    assert all(near(moved, 17 * M) for moved in passed.awake)


def test_two_that_are_awake_stay_together(pair: Pair) -> None:
    """To a tenth of a second; `Fleet.clocks` itself ends a run in which they do not."""
    first = pair.fleet.clocks("sleeper").boottime_ns - pair.fleet.clocks("awake").boottime_ns
    pair.fleet.pass_until(pair.fleet.now_ns + H // 4, lambda: False)
    second = pair.fleet.clocks("sleeper").boottime_ns - pair.fleet.clocks("awake").boottime_ns
    assert abs(second - first) < S


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
