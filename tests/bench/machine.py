"""Lab machine: boot, a suspend, an idle hour, memory and image of a guest, in emulation with idle
time skipped.

python -m tests.bench.machine              the bare guest python -m tests.bench.machine VERSION
with two ztunnels of the cache for that release, and the authority"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.history import Recorder
from meshwake.core.resolve import resolve
from meshwake.core.scenario import parse_scenario
from meshwake.labs import Toolbox
from meshwake.labs.machine.image import base_part
from meshwake.labs.machine.lab import LAB
from meshwake.labs.machine.measure import needed_kernel, run_request
from meshwake.runner.choose import choose
from meshwake.runner.options import Options

from tests.bench.numbers import MIB, Number, hand_over

HOUR_NS = 3600 * NS_PER_S
IDLE_HOURS, SUSPENDS, LAB_HOURS = 3, 3, 6
SCENARIO = f"""
title = "Nothing happens"
duration = "{LAB_HOURS}h"
labs = ["machine"]
[[node]]
name = "laptop"
identities = ["default/client", "default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "{LAB_HOURS}h"
[[expect]]
check = "traffic_flows"
verdict = "holds"
because = "nothing happens"
"""


def bare() -> list[Number]:
    """A guest that has only its clocks to look after."""
    steps: list[Mapping[str, object]] = [{"do": "idle", "lasts_ns": HOUR_NS}] * IDLE_HOURS
    steps += [{"do": "suspend", "lasts_ns": 8 * HOUR_NS}] * SUSPENDS
    received_at_s: list[float] = []

    def take(message: Mapping[str, object]) -> None:
        if "hello" in message or "measured" in message:
            received_at_s.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as directory:
        cost = run_request({"do": "clocks", "steps": steps}, Path(directory), take)
    image = base_part(needed_kernel(), with_lab=False).stat().st_size
    idle_s = (received_at_s[IDLE_HOURS] - received_at_s[0]) / IDLE_HOURS
    return [
        Number("machine", "boot to the first word", cost.boot_s, "s"),
        Number(
            "machine",
            "an idle hour of the bare guest",
            idle_s,
            "s",
            3600 / idle_s,
            "its speed, in real time",
        ),
        Number("machine", "a suspend of 8 h", max(cost.faults_s), "s"),
        Number("machine", "memory of QEMU, its peak", cost.memory_mb, "MiB"),
        Number("machine", "image without ztunnel", image / MIB, "MiB"),
    ]


def with_ztunnels(version: str) -> list[Number]:
    """Two ztunnels and the authority, which wait."""
    options = Options(lab="machine", istio=(version,))
    case = choose(parse_scenario(SCENARIO, "bench.toml", "bench"), options)[0]
    if case.refusal:
        raise SystemExit(case.refusal)
    part, attempted_at_s = f"machine {version}", []

    class Watching(Recorder):
        def append(self, event: Event) -> None:
            super().append(event)
            if event.kind in ("connection_attempted", "run_ended"):
                attempted_at_s.append((time.perf_counter(), event.world_ns))

    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        LAB.run(resolve(case), Toolbox(case.ztunnel, Path(directory)), Watching())
    (first_s, first_ns), (last_s, last_ns) = attempted_at_s[0], attempted_at_s[-1]
    hour_s = (last_s - first_s) / ((last_ns - first_ns) / HOUR_NS)
    assert LAB.last_cost is not None
    return [
        Number(part, "start to the first connection", first_s - began_s, "s"),
        Number(
            part, "an hour in which all wait", hour_s, "s", 3600 / hour_s, "its speed, in real time"
        ),
        Number(part, "CPU of the whole run", float(str(LAB.last_cost["cpu_s"])), "s"),
        Number(part, "memory of QEMU, its peak", float(str(LAB.last_cost["memory_mb"])), "MiB"),
    ]


if __name__ == "__main__":
    hand_over(with_ztunnels(sys.argv[1]) if sys.argv[1:] else bare())
