"""CronJobs that look before they restart: the log-scanning watchdog, and the check for certificates about to expire.

Both come when the CronJob controller comes (cron.py), both end in a rollout restart of all ztunnels, and neither knows
why a certificate ran out. The watchdog needs traffic that fails: it reads what ztunnel logged since `--since`. The
near-expiry check needs a certificate that is about to expire while the machine is awake.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from harness.durations import NS_PER_S, said_ns
from harness.errors import BadInput
from harness.fixes.cron import CronJob, Job, cron_times_ns, read_cron_job, rollout
from harness.fixes.deploy import manifest_of
from harness.fixes.restart import Clocks, PlannedRestart
from harness.fixes.watch import View, Watcher
from harness.plan import Plan

LOG_WATCHDOG, NEAR_EXPIRY = "log-watchdog", "near-expiry"
_RESTARTS = r"rollout\s+restart\b.*ztunnel"
SCANS_LOGS = Job(
    "greps 'kubectl logs --since=...' for expired certificates and then runs 'kubectl rollout restart' on ztunnel",
    (r"logs\b.*--since=\w+.*[Ee]xpired", _RESTARTS),
)
CHECKS_EXPIRY = Job(
    "compares the expirationTime of ztunnel's config_dump with THRESHOLD_SECONDS and then runs 'kubectl rollout "
    "restart' on ztunnel",
    (r"expirationTime.*THRESHOLD_SECONDS|THRESHOLD_SECONDS.*expirationTime", _RESTARTS),
)


class _CronWatcher:
    """Looks when its job runs; what it looks for is `finds`."""

    def __init__(self, plan: Plan, clocks: Clocks, cron_job: CronJob, name: str) -> None:
        self._plan, self._clocks, self._name = plan, clocks, name
        self._times_ns = list(cron_times_ns(plan, clocks, cron_job, name))

    def next_look_world_ns(self, after_world_ns: int) -> int | None:
        """See Watcher."""
        position = bisect_right(self._times_ns, after_world_ns)
        return self._times_ns[position] if position < len(self._times_ns) else None

    def look(self, view: View) -> list[PlannedRestart]:
        """See Watcher."""
        if not any(self.finds(view, node.name) for node in self._plan.nodes):
            return []
        return rollout(self._plan, self._clocks, view.world_ns, self._name)

    def finds(self, view: View, node: str) -> bool:
        """Whether something on `node` calls for a restart."""
        raise NotImplementedError


class _LogWatcher(_CronWatcher):
    """`since_ns`: how far back the job reads the logs, by the wall clock."""

    since_ns = 0

    def finds(self, view: View, node: str) -> bool:
        """See _CronWatcher."""
        return view.expiry_logged(node, view.clocks(node).wall_ns - self.since_ns)


class _ExpiryWatcher(_CronWatcher):
    """`threshold_ns`: how little of a certificate's life is taken for trouble."""

    threshold_ns = 0

    def finds(self, view: View, node: str) -> bool:
        """See _CronWatcher. It asks ztunnels only, as the check that people use does."""
        latest_wall_ns = view.clocks(node).wall_ns + self.threshold_ns
        ztunnels = (process for process in view.seen(node) if process.target == "ztunnel")
        return any(held.not_after_wall_ns < latest_wall_ns for each in ztunnels for held in each.certificates)


def log_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    """The watchdog of `plan`."""
    manifest = manifest_of(plan)
    watcher = _LogWatcher(plan, clocks, read_cron_job(manifest, SCANS_LOGS), LOG_WATCHDOG)
    since = re.search(r"--since=(\w+)", manifest)
    assert since is not None
    watcher.since_ns = said_ns(since[1], "fix.manifest: --since")
    return [watcher]


def expiry_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    """The near-expiry check of `plan`."""
    manifest = manifest_of(plan)
    watcher = _ExpiryWatcher(plan, clocks, read_cron_job(manifest, CHECKS_EXPIRY), NEAR_EXPIRY)
    threshold = re.search(r"THRESHOLD_SECONDS[\"']?\s*[:=]\s*[\"']?(\d+)", manifest)
    if threshold is None:
        raise BadInput("fix.manifest: THRESHOLD_SECONDS is given no number of seconds, such as THRESHOLD_SECONDS=3600")
    watcher.threshold_ns = int(threshold[1]) * NS_PER_S
    return [watcher]
