"""The objects of a fix, as a user would apply them to a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from meshwake.cluster.guard_deployment.manifest import with_gateways
from meshwake.cluster.stack.own_images import GUARD as OUR_GUARD
from meshwake.cluster.stack.own_images import own_images_in, with_own_images
from meshwake.core.plan import Plan
from meshwake.fixes.wake_guard import NAME as GUARD
from meshwake.fixes.weekly_restart import NAME as WEEKLY_RESTART
from meshwake.ztunnel.names import ISTIO_NAMESPACE

CRON_JOBS = (WEEKLY_RESTART, "daily-restart", "log-watchdog", "near-expiry", "restart-applications")
# All other fixes are not objects of a cluster.
APPLIED = (*CRON_JOBS, GUARD)


def objects_of_fix(plan: Plan) -> list[dict[str, Any]]:
    """The manifest that the user would apply, unchanged."""
    if plan.fix is None or plan.fix.name not in APPLIED or plan.fix.manifest is None:
        return []
    return [thing for thing in yaml.safe_load_all(plan.fix.manifest) if isinstance(thing, dict)]


def objects_to_apply(plan: Plan, gateways: Iterable[str]) -> list[dict[str, Any]]:
    """The objects of the fix as they run here: with the images that are built here, and a guard of
    ours that looks after the gateways of this cluster, in the namespaces `gateways`, as `meshwake
    guard install --gateway-namespace` has it."""
    objects = objects_of_fix(plan)
    if OUR_GUARD in own_images_in(objects):
        objects = with_gateways(objects, gateways, ztunnel_namespace=ISTIO_NAMESPACE)
    return with_own_images(objects)


def awaited_of_fix(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(namespace, labels) of the long-running pods of a fix: they must be ready before the first
    fault."""
    for thing in objects_of_fix(plan):
        if thing.get("kind") in ("DaemonSet", "Deployment"):
            yield thing["metadata"]["namespace"], thing["spec"]["selector"]["matchLabels"]
