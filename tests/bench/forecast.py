"""Fifty forecasts on real ztunnels: `python -m tests.bench.forecast [HOW MANY]`. Each is made in
the middle of a generated run of the process lab, from what a cluster would have shown then, and set
against what then happened (tests/support/forecasts.py).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.labs import Toolbox, load_lab
from meshwake.ztunnel import binaries

from tests.support import forecasts


def run(plan: Plan, ztunnel: Path, directory: Path) -> History:
    """The history of `plan` on a real ztunnel."""
    recorder = Recorder()
    load_lab("process").run(plan, Toolbox(ztunnel, directory), recorder)
    return recorder.history


def main() -> None:
    """One line a case, then the worst; exit code 1 when one was off by more than two seconds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    found = binaries.find("1.31.0-rc.0")
    if found is None:
        sys.exit("no ztunnel 1.31.0-rc.0 in the cache (meshwake doctor says where it belongs)")
    worst_s, breaks = 0.0, 0
    for seed in range(count):
        case = forecasts.case(seed, lab="process")
        with tempfile.TemporaryDirectory() as folder:
            history = run(case.plan, found.path, Path(folder) / "logs")
            compared = forecasts.compare(case, history, Path(folder) / "saved")
        worst_s, breaks = max(worst_s, compared.off_s), breaks + compared.breaks
        sys.stdout.write(f"case {seed} ({case.way}): {compared.words}\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"{count} cases, {breaks} breaks predicted, none missed; worst {worst_s:.2f} s off\n"
    )
    sys.exit(worst_s > forecasts.WITHIN_S)


if __name__ == "__main__":
    main()
