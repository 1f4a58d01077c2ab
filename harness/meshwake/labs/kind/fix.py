"""The objects of a fix, as a user would apply them to a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from meshwake.core.json_types import JsonObject, text_at, texts_at
from meshwake.core.plan import Plan
from meshwake.fixes.wake_guard import NAME as GUARD
from meshwake.fixes.weekly_restart import NAME as WEEKLY_RESTART

CRON_JOBS = (WEEKLY_RESTART, "daily-restart", "log-watchdog", "near-expiry", "restart-applications")
# All other fixes are not objects of a cluster.
APPLIED = (*CRON_JOBS, GUARD)


def objects_of_fix(plan: Plan) -> list[JsonObject]:
    """The manifest that the user would apply, unchanged."""
    if plan.fix is None or plan.fix.name not in APPLIED or plan.fix.manifest is None:
        return []
    return [thing for thing in yaml.safe_load_all(plan.fix.manifest) if isinstance(thing, dict)]


def awaited_of_fix(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(namespace, labels) of the long-running pods of a fix: they must be ready before the first
    fault."""
    for thing in objects_of_fix(plan):
        if thing.get("kind") in ("DaemonSet", "Deployment"):
            namespace = text_at(thing, "metadata", "namespace")
            yield namespace, texts_at(thing, "spec", "selector", "matchLabels")
