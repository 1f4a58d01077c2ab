"""Lab `process`: one or more real ztunnels, on clocks that are moved, through a week in seconds.

Needs Linux (x86-64 or ARM64) and a ztunnel binary. No root, no container engine, no network. What
it is made of:

    runner.py      the process in which a run lives, in namespaces of its own
    mesh.py        ztunnels, authority and connections; backend.py the clocks they are on
    ztunnel.py     a real ztunnel, started with its clocks on a page of ours (clocks/vdso/page.py)
    traffic.py     new connections, SOCKS5 -> HBONE with mTLS -> echo
    namespaces.py  a network namespace for each identity

This module starts the runner and receives its events.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from packaging.version import Version

from meshwake.clocks.vdso.page import unsupported_here
from meshwake.core.errors import HarnessFault, LabUnavailable
from meshwake.core.history import Recorder
from meshwake.core.json_types import JsonObject, int_at
from meshwake.core.plan import Plan
from meshwake.fixes import patch_of
from meshwake.fixes.patched import lacks_patch
from meshwake.labs import NO_BINARY, Toolbox
from meshwake.labs.messages import RunReceiver
from meshwake.ztunnel import binaries

# PROXY_WORKLOAD_INFO, by which a ztunnel learns whose proxy it is, came with 1.24.0-alpha.0
# (istio/ztunnel#1218); older ones run in pod mode, behind a node agent of ours.
OLDEST_IN_DEDICATED_MODE = Version("1.24.0a0")
IDENTITIES_MAX = 100
_NAMESPACES_WITHIN_S = 20.0
_ENDS_WITHIN_S = 5.0


class ProcessLab:
    """See meshwake.labs.Lab. `last_cost`: the last run's `jumps` of world time, and `looks`: how
    often it was checked whether everything is quiet."""

    last_cost: dict[str, int] | None = None

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Why it cannot run here."""
        # Alone: on another system or architecture the rest does not matter.
        if reason := unsupported_here():
            return [reason]
        reasons = []
        if ztunnel is None:
            reasons.append(NO_BINARY)
        elif reason := binaries.why_not_started(ztunnel):
            reasons.append(reason)
        if reason := _namespaces_forbidden():
            reasons.append(reason)
        if not os.access("/etc/resolv.conf", os.R_OK):
            reasons.append(
                "/etc/resolv.conf cannot be read, and ztunnel does not start without it; "
                "make an empty one"
            )
        return reasons

    def refusals(self, plan: Plan) -> list[str]:
        """What of the plan it cannot do."""
        refused = []
        if Version(plan.version) < OLDEST_IN_DEDICATED_MODE:
            refused.append(
                f"version {plan.version}: ztunnel before 1.24 has no PROXY_WORKLOAD_INFO, "
                "so it cannot run in "
                "dedicated mode, which is the mode of this lab; use --lab model"
            )

        # A dedicated ztunnel serves one identity, so each costs a process and a namespace.
        count = sum(len(node.identities) for node in plan.nodes)
        if count > IDENTITIES_MAX:
            refused.append(
                f"{count} identities: at most {IDENTITIES_MAX} ztunnels run side by side; "
                "use --lab model"
            )
        if plan.gateways:
            refused.append(
                "gateway: gateways and waypoints are Envoys with a pilot-agent; use --lab model"
            )
        if plan.token_s is not None:
            refused.append("authority.token: no kubelet renews tokens here; use --lab model")
        if plan.fix and plan.fix.name == "restart-applications":
            refused.append(
                "fix restart-applications: a ztunnel in dedicated mode has no pods to "
                "lose; use --lab model"
            )
        return refused

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See meshwake.labs.Lab.run."""
        assert toolbox.ztunnel is not None
        if (why := lacks_patch(patch_of(plan), toolbox.ztunnel)) is not None:
            raise LabUnavailable(why)
        directory = toolbox.work_dir.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        request = {
            "plan": plan.model_dump(mode="json"),
            "ztunnel": str(toolbox.ztunnel.resolve()),
            "work_dir": str(directory),
        }
        stderr_log = directory / "runner.log"
        with stderr_log.open("wb") as log:
            runner = subprocess.Popen(
                # The directory is there for people who read a list of processes.
                [
                    sys.executable,
                    "-m",
                    "meshwake.labs.process.runner",
                    str(os.getpid()),
                    str(directory),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            try:
                self.last_cost = _receive(runner, request, toolbox, recorder, stderr_log)
            finally:
                _end(runner)


def _end(runner: subprocess.Popen[bytes]) -> None:
    """Has it tear down what it made; if it does not, it is killed, and all that it started dies
    with it (PR_SET_PDEATHSIG)."""
    runner.terminate()
    try:
        runner.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        runner.kill()
        runner.wait()


def _receive(
    runner: subprocess.Popen[bytes],
    request: JsonObject,
    toolbox: Toolbox,
    recorder: Recorder,
    stderr_log: Path,
) -> dict[str, int]:
    """Passes on the events of the runner; returns what the run cost."""
    assert runner.stdin is not None
    assert runner.stdout is not None

    # A runner that ended at once: its log has the reason, which is raised below.
    with suppress(BrokenPipeError), runner.stdin as pipe:
        pipe.write(json.dumps(request).encode())
    receiver = RunReceiver(toolbox, recorder)
    with runner.stdout as lines:
        for line in lines:
            receiver.receive(json.loads(line))
            receiver.raise_failure()
            if receiver.done is not None:
                return {name: int_at(receiver.done, name) for name in receiver.done}
    text = stderr_log.read_text(errors="replace").strip()[-1000:]
    raise HarnessFault(
        f"the runner of the process lab ended with code {runner.wait()} and no result: {text}"
    )


@cache
def _namespaces_forbidden() -> str | None:
    """Tried, not assumed: a short-lived process makes what a run needs. Returns the reason why it
    could not, or None."""
    try:
        probe = subprocess.run(
            [sys.executable, "-m", "meshwake.labs.process.namespaces"],
            capture_output=True,
            text=True,
            timeout=_NAMESPACES_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"network namespaces could not be made within {_NAMESPACES_WITHIN_S:.0f} s"
    if probe.returncode:
        return f"network namespaces could not be tried: {probe.stderr.strip()[-300:]}"
    return probe.stdout.strip() or None


LAB = ProcessLab()
