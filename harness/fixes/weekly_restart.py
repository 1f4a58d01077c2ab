"""The CronJob of the original report: ztunnel is restarted on Sunday at 03:00 (cron.py tells when that really is)."""

from __future__ import annotations

from harness.fixes import cron
from harness.fixes.cron import read_cron_job
from harness.fixes.restart import Clocks, PlannedRestart
from harness.plan import Plan

__all__ = ["NAME", "read_cron_job", "restarts"]

NAME = "weekly-restart"


def restarts(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    """All restarts that the CronJobs of `plan` make. Raises BadInput when none restarts ztunnel."""
    return cron.restarts(plan, clocks, NAME)
