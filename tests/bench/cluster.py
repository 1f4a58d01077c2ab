"""What a simulated week costs in real seconds on each lab: model, one real ztunnel, a guest kernel
where there is one, and the whole cluster that MESHWAKE_TEST_CLUSTER names, as for tests/cluster.

Each run is the command that a user types, from start to end. On a cluster that includes the
workloads, and every restart before and after the week.
"""

from __future__ import annotations

import os
import subprocess
import sys

from meshwake.cluster.cluster import find_cluster
from meshwake.core.errors import ExitCode

from tests.bench.numbers import NIGHTLY_SLEEP, Number, hand_over, seconds_of

VARIABLE = "MESHWAKE_TEST_CLUSTER"
PART, PEER = "a week", "lab process"
TIMEOUT_S = 3600.0


def measure(name: str) -> list[Number]:
    """One number a lab; the ratio is to lab process."""
    cluster = find_cluster(name if name.startswith("meshwake-") else f"meshwake-{name}")
    if cluster is None or cluster.choice is None:
        raise SystemExit(f"{VARIABLE}={name}: no such cluster was brought up here")
    version = ("--istio", cluster.choice.istio)
    words = {
        "model": ("--lab", "model", *version),
        "process": ("--lab", "process", *version),
        "machine": ("--lab", "machine", *version),
        "kind": ("--lab", "kind", "--name", cluster.name, "--clock", "process"),
    }
    took_s = {lab: _week_s(*options) for lab, options in words.items()}
    peer_s = took_s["process"]
    return [
        Number(
            PART, f"on lab {lab}", each_s, "s", None if peer_s is None else each_s / peer_s, PEER
        )
        for lab, each_s in took_s.items()
        if each_s is not None
    ]


def _week_s(*options: str) -> float | None:
    """Real seconds of a run that ended as expected; None where the lab is not available."""
    command = [sys.executable, "-m", "meshwake", "run", str(NIGHTLY_SLEEP), *options]
    ended: list[subprocess.CompletedProcess[str]] = []

    def run() -> None:
        ended.append(
            subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        )

    took_s = seconds_of(run)
    code = ended[0].returncode
    if code == ExitCode.LAB_UNAVAILABLE:
        return None
    if code != ExitCode.AS_EXPECTED:
        raise SystemExit(f"{' '.join(options)}: exit code {code}: {ended[0].stderr[-300:]}")
    return took_s


if __name__ == "__main__":
    hand_over(measure(os.environ[VARIABLE]))
