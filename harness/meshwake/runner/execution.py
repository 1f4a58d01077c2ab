"""The one way from a plan to its findings: the lab acts and records, then every check judges what
was recorded.

Whatever needs a verdict (a run, the matrix, a sweep, the falsifier, a confirmation, a trial of the
guard) calls `execute`. Calling a check directly would skip the assumptions, and a world in which
nothing could be judged would count as one in which nothing broke.
"""

from __future__ import annotations

import time
from pathlib import Path

from meshwake.checks import judge
from meshwake.core.history import Recorder
from meshwake.core.plan import Plan
from meshwake.core.run import Run
from meshwake.labs import Toolbox, load_lab


def execute(plan: Plan, toolbox: Toolbox | None = None, recorder: Recorder | None = None) -> Run:
    """Runs `plan` on its lab and judges what happened. `toolbox`: without one, no binary and no
    directory for logs; `recorder`: where events go as they happen, by default only into memory.
    Raises what the lab raises; judging never raises."""
    toolbox = toolbox or Toolbox(None, Path())
    recorder = recorder or Recorder()
    began_s = time.perf_counter()
    try:
        load_lab(plan.lab).run(plan, toolbox, recorder)
    finally:
        # Also after an error: what was recorded until then is the evidence.
        recorder.close()
    history = recorder.history
    findings = judge(plan, history)
    return Run(plan, history, findings, real_s=time.perf_counter() - began_s)
