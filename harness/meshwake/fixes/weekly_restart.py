"""The CronJob of the original report: ztunnel is restarted on Sunday at 03:00 (cron.py computes
when that really is)."""

from __future__ import annotations

from meshwake.clocks.virtual import Clocks
from meshwake.core.plan import Plan
from meshwake.fixes import cron
from meshwake.fixes.cron import read_cron_job
from meshwake.guard.watch import PlannedRestart

__all__ = ["NAME", "read_cron_job", "restarts"]

NAME = "weekly-restart"


def restarts(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    """All restarts that the CronJobs of `plan` make. Raises BadInput when none restarts ztunnel."""
    return cron.restarts(plan, clocks, NAME)
