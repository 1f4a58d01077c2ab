"""Lab process: jumps of world time per second, real seconds per simulated week, start-up, memory of
everybody.

python -m tests.bench.process VERSION      the ztunnel of the cache for that release python -m
tests.bench.process polling      a fake for ztunnel that wakes every ten seconds of its time"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from meshwake.core.durations import NS_PER_S
from meshwake.core.history import Recorder
from meshwake.core.plan import Plan
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import parse_scenario, read_scenario
from meshwake.core.versions import newest
from meshwake.labs import Toolbox, load_lab
from meshwake.labs.process.lab import LAB
from meshwake.runner.choose import choose
from meshwake.runner.options import Options

from tests.bench.numbers import DAY_S, MIB, NIGHTLY_SLEEP, Number, hand_over, seconds_of
from tests.bench.use import cpu_s, peak_bytes, tree
from tests.support.fake_ztunnel import write_fake_ztunnel

WEEK_S, POLLING_S = 7 * DAY_S, 8 * 3_600
STARTS, ROUNDS, STOPS = 3, 2, 2_000
ROLES = ("harness", "runner", "authority", "ztunnel")

POLLING_SCENARIO = """
title = "Eight hours of a program that polls"
duration = "8h"
labs = ["process"]
[[node]]
name = "laptop"
identities = ["default/client", "default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "8h"
[[expect]]
check = "traffic_flows"
verdict = "broken"
because = "no program serves"
"""


@dataclass(frozen=True)
class Seen:
    """What one process had used when it was last seen: its peak of memory; time on a CPU, the
    kernel's included."""

    role: str
    peak_bytes: int
    cpu_s: float


@dataclass
class Watcher:
    """Looks on from outside while a run goes on: called with every progress, about five times a
    second, it costs less than a hundredth of the run. The first progress comes when all ztunnels
    listen and have been made to request."""

    ztunnel: Path
    began_s: float = field(default_factory=time.perf_counter)
    start_up_s: float = 0.0
    seen: dict[int, Seen] = field(default_factory=dict)

    def __call__(self, world_ns: int) -> None:
        self.start_up_s = self.start_up_s or time.perf_counter() - self.began_s
        for pid in tree(os.getpid()):
            with suppress(OSError):
                self.seen[pid] = Seen(self._role(pid), peak_bytes(pid) or 0, cpu_s(pid))

    def peak_mib(self, *roles: str) -> float:
        """The sum of the peaks of all processes in these roles."""
        return sum(each.peak_bytes for each in self.seen.values() if each.role in roles) / MIB

    def cpu_s(self, role: str) -> float:
        """Time on a CPU of all processes in that role."""
        return sum(each.cpu_s for each in self.seen.values() if each.role == role)

    def _role(self, pid: int) -> str:
        if pid == os.getpid():
            return "harness"
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words == [b""]:  # it has ended and was not waited for: what was seen of it before stays
            raise ProcessLookupError(pid)
        if bytes(self.ztunnel) in words:
            return "ztunnel"
        return "runner" if b"meshwake.labs.process.runner" in words else "authority"


@dataclass(frozen=True)
class Run:
    """One run: real time from call to return, what the runner says it took, and what a watcher
    saw."""

    seconds: float
    cost: dict[str, int]
    watcher: Watcher

    @property
    def jumps_per_s(self) -> float:
        """While world time moves: start-up left out."""
        return self.cost["jumps"] / (self.seconds - self.watcher.start_up_s)


def run(plan: Plan, ztunnel: Path) -> Run:
    """`plan` on the process lab, recorded in memory only."""
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as directory:
        watcher = Watcher(ztunnel.resolve())
        toolbox = Toolbox(ztunnel, Path(directory), watcher)
        seconds = seconds_of(lambda: LAB.run(plan, toolbox, Recorder()))
    assert LAB.last_cost is not None
    return Run(seconds, LAB.last_cost, watcher)


def best_run(plan: Plan, ztunnel: Path) -> Run:
    """The quickest of some rounds: whatever disturbs a machine only makes it slower."""
    return min((run(plan, ztunnel) for _ in range(ROUNDS)), key=lambda each: each.seconds)


def bare_stops_per_s() -> float:
    """How often a second a process that does nothing can be stopped, seen to be stopped, and
    continued."""
    idler = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    try:
        return STOPS / min(seconds_of(lambda: _stop_and_continue(idler.pid)) for _ in range(STARTS))
    finally:
        idler.kill()
        idler.wait()


def _stop_and_continue(pid: int) -> None:
    for _ in range(STOPS):
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        os.kill(pid, signal.SIGCONT)


def measure_ztunnel(version: str) -> list[Number]:
    """A week of nights with traffic every ten minutes, the same with an attempt a day, and some
    starts."""
    part = f"process {version}"
    case = choose(read_scenario(NIGHTLY_SLEEP), Options(lab="process", istio=(version,)))[0]
    if case.refusal is not None or case.ztunnel is None:
        return [Number(part, "", None, refusal=case.refusal or "no binary")]
    plan, ztunnel = resolve(case), case.ztunnel
    polling_per_s = run_polling().jumps_per_s
    busy = best_run(plan, ztunnel)
    idle = best_run(plan.model_copy(update={"attempt_every_ns": DAY_S * NS_PER_S}), ztunnel)
    brief = plan.model_copy(update={"duration_ns": 60 * NS_PER_S, "faults": ()})
    start_up_s = min(
        each.watcher.start_up_s
        for each in (busy, idle, *(run(brief, ztunnel) for _ in range(STARTS)))
    )
    alone_s = min(seconds_of(lambda: _say_version(ztunnel)) for _ in range(STARTS))
    return [
        Number(part, "start_up_s", start_up_s, "s", start_up_s / alone_s, "ztunnel version"),
        *_speed(part, "week", busy, WEEK_S / busy.seconds, "real time", polling_per_s),
        *_speed(part, "week_idle", idle, idle.seconds / busy.seconds, "week_s", polling_per_s),
        *_use(part, busy),
    ]


def measure_polling() -> list[Number]:
    """Eight hours of a program that wakes every ten seconds: hardly anything but jumps."""
    part = "process polling"
    if reasons := load_lab("process").missing(Path(sys.executable)):
        return [Number(part, "", None, refusal=reasons[0])]
    polling = run_polling()
    ratio, stops_per_s = POLLING_S / polling.seconds, bare_stops_per_s()
    numbers = _speed(
        part, "eight_hours", polling, ratio, "real time", stops_per_s, "stop + continue"
    )
    # On a machine that others use too, only time on a CPU can be compared.
    cpu_s = sum(polling.watcher.cpu_s(role) for role in ROLES)
    per_cpu_s = polling.cost["jumps"] / cpu_s
    return [
        *numbers,
        Number(
            part, "jumps_per_cpu_s", per_cpu_s, "/s", per_cpu_s / polling.jumps_per_s, "jumps_per_s"
        ),
    ]


def run_polling() -> Run:
    """Eight hours of the fake."""
    plan = resolve(
        PlanRequest(
            parse_scenario(POLLING_SCENARIO, "bench.toml", "bench"),
            "process",
            newest().version,
            "E",
        )
    )
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as directory:
        return best_run(plan, write_fake_ztunnel(Path(directory), every_s=10, at_tick="pass"))


def _speed(
    part: str,
    key: str,
    of: Run,
    ratio: float,
    peer: str,
    peer_per_s: float,
    peer_of_jumps: str = "polling",
) -> list[Number]:
    jumps, looks = of.cost["jumps"], of.cost["looks"]
    return [
        Number(part, f"{key}_s", of.seconds, "s", ratio, peer),
        Number(part, f"{key}_jumps", jumps),
        Number(part, f"{key}_looks", looks, "", looks / jumps, "jumps"),
        Number(
            part,
            f"{key}_jumps_per_s",
            of.jumps_per_s,
            "/s",
            of.jumps_per_s / peer_per_s,
            peer_of_jumps,
        ),
    ]


def _use(part: str, of: Run) -> list[Number]:
    """Memory and time on a CPU, of everybody and of each role."""
    watcher = of.watcher
    everybody_mib, ztunnels_mib = watcher.peak_mib(*ROLES), watcher.peak_mib("ztunnel")
    peaks = {role: watcher.peak_mib(role) for role in ROLES}
    times = {role: watcher.cpu_s(role) for role in ROLES}
    return [
        Number(
            part, "peak_mib", everybody_mib, "MiB", everybody_mib / ztunnels_mib, "the ztunnels"
        ),
        *(
            Number(part, f"peak_{role}_mib", mib, "MiB", mib / everybody_mib, "peak_mib")
            for role, mib in peaks.items()
        ),
        *(
            Number(part, f"cpu_{role}_s", cpu_s, "s", cpu_s / of.seconds, "week_s")
            for role, cpu_s in times.items()
        ),
    ]


def _say_version(ztunnel: Path) -> None:
    subprocess.run([ztunnel, "version"], capture_output=True, check=True)


if __name__ == "__main__":
    hand_over(measure_polling() if sys.argv[1] == "polling" else measure_ztunnel(sys.argv[1]))
