"""A script of systemd-sleep that restarts ztunnel when the machine has slept.

systemd runs what lies in /usr/lib/systemd/system-sleep with the arguments `pre` or `post` and `suspend` (or hibernate,
hybrid-sleep): on the machine that goes to sleep by itself, and nowhere else. A VM whose host slept, which was paused or
migrated, was never told, and neither does it run when a clock is stepped or drifts.
"""

from __future__ import annotations

import re

from harness.durations import NS_PER_S
from harness.errors import BadInput
from harness.fixes.deploy import manifest_of
from harness.fixes.restart import Clocks, PlannedRestart
from harness.plan import Plan

NAME = "sleep-hook"
# systemd thaws user space, runs the hooks one after another, and the API server must answer.
ACTS_AFTER_NS = 5 * NS_PER_S


def restarts(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    """One restart of a node's ztunnel after each sleep of that node, when its control plane is there. Raises BadInput
    when the script is none."""
    _check(manifest_of(plan))
    found = []
    for fault in plan.faults:
        if fault.kind != "suspend" or fault.node is None:
            continue
        ready_ns = clocks[plan.authority_node].world_ns_when_running(fault.ends_world_ns + ACTS_AFTER_NS)
        found.append(PlannedRestart(clocks[fault.node].world_ns_when_running(ready_ns), fault.node, NAME))
    return found


def _check(script: str) -> None:
    if not script.startswith("#!"):
        raise BadInput("fix.manifest: the sleep hook does not begin with '#!'; systemd-sleep runs programs only")
    if not re.search(r"\bpost\b", script) or not re.search(
        r"(rollout\s+restart|delete\s+pod)\b.*ztunnel", script, re.DOTALL
    ):
        raise BadInput(
            "fix.manifest: the sleep hook does not restart ztunnel on 'post'; systemd-sleep calls it with 'pre' before "
            "and 'post' after the sleep"
        )
