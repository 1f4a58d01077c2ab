"""What moved clocks cost who asks for the time: the same loop (calls.py) in a process with its own
vDSO, and in two whose vDSO is rewritten, launched as a ztunnel is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from meshwake.clocks.vdso.code_x86_64 import Mode
from meshwake.clocks.vdso.page import ClockPage, launch, unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S

from tests.bench.numbers import Number, hand_over
from tests.support.paths import REPOSITORY

_COUNT = (sys.executable, "-m", "tests.bench.calls")
# Any time will do; it is fixed while it is read.
_SHOWN: dict[Mode, ClockReading] = {
    "fixed": ClockReading(*[10**18] * 3),
    "offset": ClockReading(*[NS_PER_S] * 3),
}


def measure() -> list[Number]:
    """All as multiples of the untouched call."""
    untouched = _untouched()
    ns = {
        "untouched_ns": untouched["vdso"],
        "fixed_ns": _rewritten("fixed"),
        "offset_ns": _rewritten("offset"),
        "system_call_ns": untouched["system_call"],
    }
    return [
        Number("clocks", key, value, "ns", value / untouched["vdso"], "untouched")
        for key, value in ns.items()
    ]


def _untouched() -> dict[str, float]:
    answer = subprocess.run(_COUNT, cwd=REPOSITORY, capture_output=True, check=True).stdout
    return dict(json.loads(answer))


def _rewritten(mode: Mode) -> float:
    page = ClockPage(mode)
    page.set(_SHOWN[mode])
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as directory:
        log = Path(directory) / "calls.json"
        process = launch(_COUNT, page, environment={}, directory=REPOSITORY, log=log)
        _, status = os.waitpid(process.pid, 0)
        page.close()
        assert status == 0, log.read_text()
        return float(json.loads(log.read_text())["vdso"])


if __name__ == "__main__":
    reason = unsupported_here()
    hand_over([Number("clocks", "", None, refusal=reason)] if reason else measure())
