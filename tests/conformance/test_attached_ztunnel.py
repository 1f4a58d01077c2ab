"""The proof on the real program: attached it shows the fault, and restarted under a moved clock it
renews on time."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.binaries import cache_dir

from tests.conformance.helpers import HelperProcess, own_copy
from tests.conformance.injectors import WITHIN_S, needs_vdso

VERSION = "1.31.0-rc.0"
LIFETIME_S, BACKDATE_S = 12, 4
INTERVAL_S = (LIFETIME_S - BACKDATE_S) / 2
HOUR_NS = 3600 * 10**9

pytestmark = [
    needs_vdso,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it watches execs by fanotify"),
]


class Apart:
    """tests/conformance/ztunnels_apart.py, from outside."""

    def __init__(self, directory: Path, ztunnel: Path) -> None:
        self.log = directory / "world"
        with self.log.open("w") as output, (directory / "world.err").open("w") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.conformance.ztunnels_apart"),
                    *(str(directory), str(ztunnel), str(LIFETIME_S), str(BACKDATE_S)),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                text=True,
            )
        self.errors = directory / "world.err"
        self.await_lines("ready", 1)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def lines(self, beginning: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(beginning)]

    def requested_s(self, name: str) -> list[float]:
        """When it requested certificates, by this machine's monotonic clock."""
        return [int(line.split()[2]) / 1e9 for line in self.lines(f"requested mesh/{name} ")]

    def await_lines(self, beginning: str, count: int, within_s: float = 2 * WITHIN_S) -> None:
        deadline = Deadline(f"{count} lines {beginning!r}", within_s)
        while len(self.lines(beginning)) < count:
            assert self.process.poll() is None, self.errors.read_text()[-600:]
            deadline.pause(0.01, seen=self.log.read_text())

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(WITHIN_S)
        finally:
            self.process.kill()
            self.process.wait()


def test_a_restarted_ztunnel_renews_on_time_and_one_that_ran_on_does_not(tmp_path: Path) -> None:
    """An hour's suspend. ztunnel a ran before: its next renewals are an hour late. b is restarted
    after it: drift 0."""
    real = cache_dir() / "ztunnel" / VERSION / "x86_64" / "ztunnel"
    if not real.exists():
        pytest.skip(f"needs a ztunnel {VERSION} in the cache")
    ztunnel = own_copy(real, "ztunnel-under-test", tmp_path)
    helper, world = HelperProcess(tmp_path), Apart(tmp_path, ztunnel)
    try:
        for name in ("a", "b"):
            world.say(f"start {name}")
            world.await_lines(f"requested mesh/{name} ", 1)
        reported = helper.take_or_skip(ztunnel)
        assert [process["how"] for process in reported["processes"]] == ["attached"] * 2
        world.say(f"wall {HOUR_NS}")
        helper.ask(do="set", wall_ns=HOUR_NS, monotonic_ns=0, boottime_ns=HOUR_NS)
        # The timers that both had armed before the jump still fire; those that they arm then are
        # late by the hour.
        for name in ("a", "b"):
            world.await_lines(f"requested mesh/{name} ", 2)
        before = len(world.requested_s("b"))
        world.say("restart b")
        world.await_lines("requested mesh/b ", before + 4)
        assert {process["how"] for process in helper.ask(do="list")["processes"]} == {
            "attached",
            "caught",
        }
        times = world.requested_s("b")[before:]
        intervals = [later - earlier for earlier, later in pairwise(times)]
        # Each is due at a whole second of its certificate, and comes when this machine gets to it.
        assert intervals == pytest.approx([INTERVAL_S] * 3, abs=1.5)
        assert len(world.requested_s("a")) == 2
        assert world.requested_s("b")[-1] - world.requested_s("a")[-1] > 2 * INTERVAL_S
    finally:
        world.close()
        helper.close()
