"""Runs that are killed at random: of each, a message shows how it ended, and nothing is left.

    python -m tests.bench.kills [RUNS [SEED]]

Each run is of a real ztunnel (or of a fake, where there is none), in a mode drawn by chance.
After a time drawn by chance one of its processes is ended with SIGKILL: harness, runner, authority
or a ztunnel. Then: did the harness end within the bound, did it say why (or had it ended well
before), is any process, or mount, of the run left? (A network namespace lives as long as a process
holds it.) One line of JSON at the end; exit code 1 when any run was not as it should be. It takes
seconds a run, so it is not part of `make bench`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from meshwake.system.deadline import Deadline
from meshwake.ztunnel import binaries

from tests.support import plans
from tests.support.fake_ztunnel import write_fake_ztunnel

ENDS_WITHIN_S, GONE_WITHIN_S = 120.0, 30.0
ROLES = ("harness", "runner", "authority", "ztunnel")
WORDS = (
    "ended by itself",
    "the authority ended",
    "the runner of the process lab ended",
    "gave no answer",
    "closed its",
)
RUN = """
import sys
from pathlib import Path
from meshwake.core.errors import HarnessError
from meshwake.core.history import Recorder
from meshwake.labs import Toolbox, load_lab
from meshwake.core.plan import Plan
try:
    plan = Plan.model_validate_json(sys.argv[1])
    load_lab("process").run(plan, Toolbox(Path(sys.argv[2]), Path(sys.argv[3])), Recorder())
except HarnessError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(int(error.exit_code))
"""


@dataclass(frozen=True)
class Ending:
    """How one run ended: whom we killed (None: it was over before), what the harness ended with,
    and what was wrong about it ("": nothing)."""

    killed: str | None
    ended_with: str
    wrong: str


def processes_of(directory: Path) -> dict[int, str]:
    """Every process of the run in `directory`, by what it is in the run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            home = str((process / "cwd").resolve())
            if str(directory) in " ".join(words) or home.startswith(str(directory)):
                found[int(process.name)] = role_of(words)
    return found


def role_of(words: list[str]) -> str:
    """What a process is, by its command line."""
    if "meshwake.labs.process.runner" in words:
        return "runner"
    if "meshwake.authority.server" in words:
        return "authority"
    return "harness" if "-c" in words else "ztunnel"


def run_once(chance: random.Random, binary: Path, directory: Path) -> Ending:
    """One run, killed after a while."""
    plan = plans.plan(plans.NIGHTS, duration="3d", every="30m", lab="process")
    mode = chance.choice(["dedicated", "in-pod"]) if binary.name == "ztunnel" else "dedicated"
    plan_json = plan.model_copy(update={"ztunnel_mode": mode}).model_dump_json()
    with (directory / "complaint").open("wb") as complaint:
        harness = subprocess.Popen(
            [sys.executable, "-c", RUN, plan_json, str(binary), str(directory / "logs")],
            stderr=complaint,
        )
        role = chance.choice(ROLES)
        await_role(directory, role, harness)
        time.sleep(chance.uniform(0.0, 3.0))
        killed = kill_one(chance, directory, role)
        try:
            code = harness.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            harness.kill()
            harness.wait()
            return Ending(killed, "no end", "the harness did not end")
    message = (directory / "complaint").read_text(errors="replace")
    return Ending(
        killed,
        ended_with(code, message),
        unexplained(killed, code, message) or left_of(directory),
    )


def await_role(directory: Path, role: str, harness: subprocess.Popen[bytes]) -> None:
    """Until a process is there in that role, or the run is over."""
    deadline = Deadline(f"a process in the role {role}", ENDS_WITHIN_S)
    while role not in processes_of(directory).values():
        if harness.poll() is not None or deadline.has_passed:
            return
        deadline.sleep(0.02)


def kill_one(chance: random.Random, directory: Path, role: str) -> str | None:
    """Ends one process in that role, or in another where there is none yet."""
    there = processes_of(directory)
    wanted = [pid for pid, is_a in there.items() if is_a == role] or list(there)
    if not wanted:
        return None
    pid = chance.choice(sorted(wanted))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return there[pid]


def unexplained(killed: str | None, code: int, message: str) -> str:
    """What the ending does not explain; "" when it does."""
    if code == 0 or (killed == "harness" and code == -signal.SIGKILL):
        return ""
    if killed is None or "Traceback" in message or not any(words in message for words in WORDS):
        return f"exit code {code} after the kill of {killed}: {message.strip()[-300:]!r}"
    return ""


def ended_with(code: int, message: str) -> str:
    """In a few words."""
    if code < 0:
        return signal.Signals(-code).name
    return (
        "0, run to its end"
        if code == 0
        else f"{code}, " + next((words for words in WORDS if words in message), "?")
    )


def left_of(directory: Path) -> str:
    """What is still there of a run that has ended; "" when nothing is."""
    deadline = Deadline("every process to end", GONE_WITHIN_S)
    while left := processes_of(directory):
        if deadline.has_passed:
            return f"left behind: {sorted(left.values())}"
        deadline.sleep(0.02)
    return "a mount is left" if str(directory) in Path("/proc/self/mountinfo").read_text() else ""


def main() -> int:
    """Prints what happened."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chance = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    cached = binaries.cached()
    endings: list[Ending] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="meshwake-kills-") as text:
            directory = Path(text)
            binary = cached[-1].path if cached else write_fake_ztunnel(directory)
            endings.append(run_once(chance, binary, directory))
        if endings[-1].wrong:
            sys.stderr.write(f"run {len(endings)}: {endings[-1].wrong}\n")
        if len(endings) % 20 == 0:
            sys.stderr.write(f"{len(endings)} runs\n")
    killed = Counter(str(ending.killed) for ending in endings)
    ends = Counter(f"{ending.killed}: {ending.ended_with}" for ending in endings)
    wrong = [ending.wrong for ending in endings if ending.wrong]
    left = sum("left" in words for words in wrong)
    summary = {
        "runs": runs,
        "killed": killed,
        "ended_with": dict(ends.most_common()),
        "left_behind": left,
        "wrong": wrong,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
