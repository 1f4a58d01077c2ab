"""The objects of a fix, as a user would apply them to a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from meshwake.clocks.virtual import clocks_of
from meshwake.cluster.guard_deployment.manifest import with_gateways
from meshwake.cluster.stack.own_images import GUARD as OUR_GUARD
from meshwake.cluster.stack.own_images import own_images_in, with_own_images
from meshwake.cluster.stack.pieces import image_references, with_containers
from meshwake.core.json_types import JsonObject, text_at, texts_at
from meshwake.core.plan import Plan
from meshwake.fixes.cron import DueJob, due_jobs
from meshwake.fixes.wake_guard import NAME as GUARD
from meshwake.fixes.weekly_restart import NAME as WEEKLY_RESTART
from meshwake.labs.kind.cron_jobs import suspended
from meshwake.ztunnel.names import ISTIO_NAMESPACE

DAILY_RESTART = "daily-restart"
# They restart ztunnel at times of the calendar, whatever they find.
BY_THE_CALENDAR = (WEEKLY_RESTART, DAILY_RESTART)
CRON_JOBS = (*BY_THE_CALENDAR, "log-watchdog", "near-expiry", "restart-applications")
# All other fixes are not objects of a cluster.
APPLIED = (*CRON_JOBS, GUARD)


def objects_of_fix(plan: Plan) -> list[JsonObject]:
    """The manifest that the user would apply, unchanged."""
    fix = plan.fix
    if fix is None or fix.manifest is None:
        return []

    # Others have a manifest too, which is a chart's values and not what is applied.
    if fix.name not in APPLIED:
        return []

    documents = yaml.safe_load_all(fix.manifest)
    return [thing for thing in documents if isinstance(thing, dict)]


def objects_to_apply(plan: Plan, gateways: Iterable[str]) -> Sequence[JsonObject]:
    """The objects of the fix as they run here: with the images that are built here, and a guard of
    ours that looks after the gateways of this cluster, in the namespaces `gateways`, as `meshwake
    guard install --gateway-namespace` has it."""
    objects: Sequence[JsonObject] = objects_of_fix(plan)
    if OUR_GUARD in own_images_in(objects):
        objects = with_gateways(objects, gateways, ztunnel_namespace=ISTIO_NAMESPACE)

    # Suspended, so that their controller does not start the same jobs a second time.
    if jobs_are_started_by_run(plan):
        objects = [suspended(thing) for thing in objects]

    built_here = with_own_images(objects)
    return [with_images_of_node(thing) for thing in built_here]


def images_of_fix(plan: Plan) -> tuple[str, ...]:
    """What the objects of the fix run, but for images of ours; in order, each once."""
    objects = objects_of_fix(plan)
    ours = {image.named for image in own_images_in(objects)}

    # As the keys of a dict: each once, and in their order.
    named = dict.fromkeys(image_references(objects))
    return tuple(name for name in named if name not in ours)


def with_images_of_node(thing: Any) -> Any:
    """`thing` with containers that start from an image that the node has. Without a policy
    Kubernetes pulls whatever is tagged latest at each start, and a cluster that was made of a folder
    of images has no registry."""
    return with_containers(thing, lambda each: {"imagePullPolicy": "IfNotPresent", **each})


def jobs_are_started_by_run(plan: Plan) -> bool:
    """Whether the run starts the jobs of the fix's CronJobs in the place of their controller."""
    if plan.fix is None or not plan.is_in_time_lapse:
        return False
    return plan.fix.name in BY_THE_CALENDAR


def due_jobs_of(plan: Plan) -> list[DueJob]:
    """The jobs that the run starts, in order, by the scenario's own calendar. Raises BadInput."""
    if not jobs_are_started_by_run(plan):
        return []
    assert plan.fix is not None
    return due_jobs(plan, clocks_of(plan), plan.fix.name)


def awaited_of_fix(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(namespace, labels) of the long-running pods of a fix: they must be ready before the first
    fault."""
    for thing in objects_of_fix(plan):
        # The pods of a CronJob come and go.
        if thing.get("kind") not in ("DaemonSet", "Deployment"):
            continue
        namespace = text_at(thing, "metadata", "namespace")
        yield namespace, texts_at(thing, "spec", "selector", "matchLabels")
