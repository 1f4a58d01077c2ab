"""What people deploy against the fault: all of it, by name, read from what they would really apply.

`FIXES` is the list. Every lab asks the same three questions: `adapted` (what does it change of the
plan?), `deploy` (what does it restart, and what looks while the world runs?), `patch_of` (is it
another ztunnel?). So a fix does the same in all of them.

Reading manifests takes a shell, a YAML reader and a model of Kubernetes objects. Most runs deploy
nothing, so each fix imports its module when it acts: that is a third of what a run on the model
imports.
"""

from __future__ import annotations

from meshwake.clocks.virtual import Clocks
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.fixes.deploy import DeployableFix, Deployment, Patch
from meshwake.guard.watch import PlannedRestart, Watcher

__all__ = [
    "FIXES",
    "Clocks",
    "DeployableFix",
    "Deployment",
    "PlannedRestart",
    "adapted",
    "deploy",
    "fix_of",
    "patch_of",
]


def _weekly(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    # Imported when it acts, as all below: a shell, a YAML reader and the models of Kubernetes
    # objects were a fifth of the CPU time of a run on the model that deploys none of them.
    from meshwake.fixes import weekly_restart

    return weekly_restart.restarts(plan, clocks)


def _daily(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    from meshwake.fixes import cron

    return cron.restarts(plan, clocks, "daily-restart")


def _applications(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    """Pods of all nodes at once: a Deployment's rollout replaces them without regard to nodes."""
    from meshwake.fixes import cron

    return cron.application_restarts(plan, clocks, "restart-applications")


def _after_sleep(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    from meshwake.fixes import sleep_hook

    return sleep_hook.restarts(plan, clocks)


def _log_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    from meshwake.fixes import looking

    return looking.log_watchers(plan, clocks)


def _expiry_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    from meshwake.fixes import looking

    return looking.expiry_watchers(plan, clocks)


def _guards(plan: Plan, clocks: Clocks) -> list[Watcher]:
    from meshwake.fixes import wake_guard

    return wake_guard.watchers(plan, clocks)


def _with_istiod_default(plan: Plan) -> Plan:
    from meshwake.fixes import settings

    return settings.with_istiod_default(plan)


def _with_secret_ttl(plan: Plan) -> Plan:
    from meshwake.fixes import settings

    return settings.with_secret_ttl(plan)


def _with_makestep(plan: Plan) -> Plan:
    from meshwake.fixes import settings

    return settings.with_makestep(plan)


_ALL = (
    DeployableFix("none", "nothing", "what most people deploy"),
    DeployableFix(
        "weekly-restart",
        "a CronJob restarts ztunnel on Sunday at 03:00; forgets the drift, once a week, "
        "and comes late after a sleep",
        "the original report",
        "cronjob.yaml",
        restarts=_weekly,
    ),
    DeployableFix(
        "daily-restart",
        "the same every day",
        "the original report, made stronger",
        "cronjob.yaml",
        restarts=_daily,
    ),
    DeployableFix(
        "log-watchdog",
        "a CronJob looks every ten minutes whether ztunnel logged an expired certificate, "
        "then restarts all ztunnels",
        "dam-agents/dam#333",
        "cronjob.yaml",
        watchers=_log_watchers,
    ),
    DeployableFix(
        "near-expiry",
        "a CronJob asks ztunnel every ten minutes what expires within the hour, then "
        "restarts all ztunnels",
        "rossoctl/rossoctl#2464 (which only warns)",
        "cronjob.yaml",
        watchers=_expiry_watchers,
    ),
    DeployableFix(
        "istiod-default-ttl",
        "istiod's default lifetime, which counts only for requests that name none; "
        "ztunnel's always name one",
        "dam-agents/dam#333",
        "values.yaml",
        adapt=_with_istiod_default,
    ),
    DeployableFix(
        "secret-ttl-720h",
        "certificates of 30 days: expired ones are served from 15 days of drift on, "
        "instead of 12 hours",
        "istio/ztunnel#742",
        "values.yaml",
        adapt=_with_secret_ttl,
    ),
    DeployableFix(
        "sleep-hook",
        "systemd-sleep restarts the node's ztunnel after each sleep; a VM that is paused "
        "is never notified",
        "vorta PR#2537 has the limits",
        "restart-ztunnel",
        restarts=_after_sleep,
    ),
    DeployableFix(
        "restart-applications",
        "a CronJob restarts application pods: a fresh certificate, whose own renewal is as "
        "late as before",
        "rossoctl/rossoctl#1009",
        "cronjob.yaml",
        restarts=_applications,
    ),
    DeployableFix(
        "chrony-makestep",
        "puts the wall clock right soon after a pause; the step is the jump",
        "podman#11541",
        "chrony.conf",
        adapt=_with_makestep,
    ),
    DeployableFix(
        "fresh-time-base",
        "a ztunnel that turns wall into monotonic time again at every issue: late once "
        "after a sleep, then right again",
        "our patch, as pilot-agent does it",
        patch="fresh-time-base",
    ),
    DeployableFix(
        "boottime",
        "a ztunnel that waits on CLOCK_BOOTTIME, which counts a suspend and stops in a pause",
        "tokio-rs/tokio#3185, rust-lang/rust#87906",
        patch="boottime",
    ),
    DeployableFix(
        "wall-polling",
        "a ztunnel that looks at the wall clock every ten seconds: is a renewal due, is a "
        "certificate not valid yet?",
        "our patch, as cert-manager#8464 and dapr#7565 do it",
        patch="wall-polling",
    ),
    DeployableFix(
        "wake-guard",
        "our guard: sees clocks part, works out which certificate will be served expired, "
        "restarts only then",
        "harness/meshwake/guard",
        "daemonset.yaml",
        watchers=_guards,
    ),
)
FIXES: dict[str, DeployableFix] = {fix.name: fix for fix in _ALL}


def fix_of(plan: Plan) -> DeployableFix:
    """What is deployed in `plan`. Raises BadInput when there is no such fix."""
    name = plan.fix.name if plan.fix else "none"
    if name not in FIXES:
        raise BadInput(f"fix.name: read {name!r}, allowed: {', '.join(FIXES)}")
    return FIXES[name]


def adapted(plan: Plan) -> Plan:
    """`plan` with the settings that its fix changes. Raises BadInput when the manifest is not what
    it should be."""
    return fix_of(plan).adapt(plan)


def patch_of(plan: Plan) -> Patch | None:
    """Which patched ztunnel the fix is, or None for one as released."""
    return fix_of(plan).patch


def deploy(plan: Plan, clocks: Clocks) -> Deployment:
    """What of the fix acts during a run; restarts in order, all before the end. `clocks` as from
    `clocks_of(plan)`.

    Raises BadInput when there is no such fix, or its manifest is not what it should be.
    """
    fix = fix_of(plan)
    planned = fix.restarts(plan, clocks)

    # A restart that waits for a node to wake may come after the end.
    restarts = sorted(restart for restart in planned if restart.world_ns < plan.duration_ns)
    return Deployment(tuple(restarts), tuple(fix.watchers(plan, clocks)))
