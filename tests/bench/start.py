"""What starting costs: CPU time of commands in processes of their own, next to `pytest
--version`."""

from __future__ import annotations

import resource
import subprocess
import sys

from tests.bench.numbers import Number, hand_over

ROUNDS = 7
PEER = ("pytest", "--version")
COMMANDS = {
    "help_cpu_s": ("meshwake", "--help"),
    "model_run_cpu_s": ("meshwake", "run", "nightly_sleep", "--lab", "model"),
}


def measure(rounds: int) -> list[Number]:
    """The least of `rounds` each, one after another in turn: noise only adds."""
    least_s: dict[tuple[str, ...], float] = {}
    for _ in range(rounds):
        for command in (PEER, *COMMANDS.values()):
            used_s = _cpu_s(command)
            least_s[command] = min(used_s, least_s.get(command, used_s))
    peer_s = least_s[PEER]
    return [
        Number("start", key, least_s[command], "s", least_s[command] / peer_s, " ".join(PEER))
        for key, command in COMMANDS.items()
    ]


def _cpu_s(command: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *command], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    hand_over(measure(ROUNDS))
