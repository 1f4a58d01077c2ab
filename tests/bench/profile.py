"""Where the runner of lab process spends its time: a week under cProfile, the dearest functions
first.

    python -m tests.bench.profile [VERSION]      default: the newest of the cache

The profiler makes each call of a Python function dearer, system calls not: read the order, not the
seconds.
"""

from __future__ import annotations

import json
import os
import pstats
import subprocess
import sys
import tempfile
from pathlib import Path

from meshwake.core.plan import Plan
from meshwake.core.resolve import resolve
from meshwake.core.scenario import read_scenario
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.ztunnel import binaries

from tests.bench.numbers import NIGHTLY_SLEEP
from tests.support.paths import REPOSITORY

SHOWN = 25


def profiled(plan: Plan, ztunnel: Path) -> pstats.Stats:
    """A run of `plan` as the lab would start it, but under the profiler; what it prints of events
    is not read."""
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as directory:
        profile = Path(directory) / "profile"
        runner = ["meshwake.labs.process.runner", str(os.getpid()), directory]
        command = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", *runner]
        request = {
            "plan": plan.model_dump(mode="json"),
            "ztunnel": str(ztunnel.resolve()),
            "work_dir": directory,
        }
        subprocess.run(
            command,
            cwd=REPOSITORY,
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        return pstats.Stats(str(profile))


def main() -> None:
    """By time in the function itself, then with what it calls."""
    version = sys.argv[1] if len(sys.argv) > 1 else binaries.cached()[-1].version
    case = choose(read_scenario(NIGHTLY_SLEEP), Options(lab="process", istio=(version,)))[0]
    assert case.ztunnel is not None, case.refusal
    stats = profiled(resolve(case), case.ztunnel).strip_dirs()
    for order in ("tottime", "cumtime"):
        stats.sort_stats(order).print_stats(SHOWN)


if __name__ == "__main__":
    main()
