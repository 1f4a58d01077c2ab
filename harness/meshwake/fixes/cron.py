"""A CronJob, read from the manifest that a user would apply (jobs.py), and when the cluster really
runs it.

The CronJob controller lives on the control plane (here: the authority's node) and waits on the same
kind of clock as ztunnel. What it does, from its source (kubernetes
pkg/controller/cronjob/cronjob_controllerv2.go, `syncCronJob`, `nextScheduleTimeDuration`; client-go
util/workqueue/delaying_queue.go):

    look     by the wall clock: is there a scheduled time since the last one served? Only the latest counts.
             If it is not older than startingDeadlineSeconds, a job starts for it.
    wait     until the next scheduled time + 100 ms, turned into a delay once, on the monotonic clock

So a job that falls due while the machine sleeps comes late by the time slept. One thing cuts that
short: the controller's informer delivers every object again at a fixed interval of monotonic time,
drawn once between 12 and 24 hours when the controller starts (cmd/kube-controller-manager/app
`ResyncPeriod`, --min-resync-period 12h), and a CronJob delivered again is looked at at once
(`updateCronJob`). Here the draw is made from the plan's seed.

The job itself takes no time but what it sleeps. A rollout restarts one node after another,
`ROLLOUT_STEP_NS` apart, and waits for a node that sleeps. Not modelled: a relist after a broken
watch, a restart of the controller.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from meshwake.clocks.virtual import Clocks, NodeClock
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.fixes.actions import Action
from meshwake.fixes.deploy import manifest_of
from meshwake.fixes.jobs import CronJob, Task, acting, read_tasks, without_conditions
from meshwake.fixes.schedule import Times
from meshwake.guard.watch import PlannedRestart
from meshwake.ztunnel.names import ISTIO_NAMESPACE

ROLLOUT_STEP_NS = 30 * NS_PER_S
# cronjob_controllerv2.go, nextScheduleDelta.
WAKES_AFTER_SCHEDULE_NS = 100_000_000
# kube-controller-manager --min-resync-period; the interval is drawn from one to two of it.
RESYNC_MIN_NS = 12 * 3_600 * NS_PER_S
RESTARTS_ZTUNNEL = (
    "one that restarts ztunnel, for example: kubectl rollout restart daemonset/ztunnel -n "
    "istio-system"
)
RESTARTS_APPLICATIONS = (
    "one that restarts applications, for example: kubectl rollout restart deployment -n default"
)


class DueJob(NamedTuple):
    """One job of a CronJob: when the controller starts it."""

    world_ns: int
    namespace: str
    cron_job: str


def namespace_of(plan: Plan) -> str:
    """Where ztunnel lives in the cluster of `plan`."""
    if plan.fix is None:
        return ISTIO_NAMESPACE
    return plan.fix.ztunnel_namespace or ISTIO_NAMESPACE


def tasks_of(plan: Plan) -> tuple[Task, ...]:
    """The CronJobs that were applied. Raises BadInput."""
    return read_tasks(manifest_of(plan), namespace_of(plan))


def restarts(plan: Plan, clocks: Clocks, cause: str) -> list[PlannedRestart]:
    """All ztunnels that CronJobs restart whatever they find. Raises BadInput when none does. What
    they restart besides makes no difference: a new ztunnel fetches every certificate again."""
    return _restarts(plan, clocks, _restarting(tasks_of(plan)), cause)


def _restarting(tasks: Sequence[Task]) -> list[tuple[Task, list[Action]]]:
    """Those of `tasks` that restart ztunnel whatever they find, with how they do it. Raises
    BadInput when none does."""
    doing = []
    for task in acting(tasks, "ztunnel", RESTARTS_ZTUNNEL):
        actions = without_conditions(task, task.reading.of("ztunnel"))
        doing.append((task, actions))
    return doing


def due_jobs(plan: Plan, clocks: Clocks, cause: str) -> list[DueJob]:
    """Every job that the CronJobs of `restarts` start, in order: for a lab in which the jobs
    themselves are real, and only the controller that starts them is computed. Raises BadInput as
    `restarts` does."""
    tasks = [task for task, _ in _restarting(tasks_of(plan))]
    times = _times_of_jobs(plan, clocks, tasks, cause)
    due = []
    for task, times_ns in zip(tasks, times, strict=True):
        # An object without a namespace is created in "default".
        namespace = task.place.namespace or "default"
        due += [DueJob(world_ns, namespace, task.name) for world_ns in times_ns]
    return sorted(due)


def _times_of_jobs(
    plan: Plan, clocks: Clocks, tasks: Sequence[Task], cause: str
) -> Iterator[Iterator[int]]:
    """For each of `tasks`: when its jobs start, in world time. The draw of a controller's resync
    is made by the name, so several CronJobs do not share one."""
    for number, task in enumerate(tasks):
        # A draw for each of several; a single one is drawn by the name of the fix alone.
        name = cause if len(tasks) == 1 else f"{cause} {number}"
        yield cron_times_ns(plan, clocks, task.cron_job, name)


def application_restarts(plan: Plan, clocks: Clocks, cause: str) -> list[PlannedRestart]:
    """All that CronJobs restart whatever they find, applications among it. Raises BadInput when
    none are."""
    tasks = tasks_of(plan)
    acting(tasks, "applications", RESTARTS_APPLICATIONS)

    here = []

    # Of applications, also of those that the scenario lacks.
    of_applications: list[Action] = []
    for task in tasks:
        # A CronJob that restarts nothing does no harm next to one that does.
        if not task.reading.actions:
            continue
        actions = without_conditions(task, task.reading.actions)
        of_applications += [action for action in actions if action.what == "applications"]
        here_too = [action for action in actions if _is_here(plan, action)]
        here.append((task, here_too))

    are_here = any(_identities(plan, action) for action in of_applications)
    if not are_here:
        first = of_applications[0]
        names = ", ".join(first.names or ("*",))
        what = f"{first.namespace}/{names}"
        raise BadInput(
            f"fix.manifest: {first.command!r} restarts {what}, and no identity of the scenario has "
            "that name"
        )
    return _restarts(plan, clocks, here, cause)


def _restarts(
    plan: Plan, clocks: Clocks, doing: list[tuple[Task, list[Action]]], cause: str
) -> list[PlannedRestart]:
    """What the jobs of each task restart, when they come; each once, whatever restarts it."""
    found: set[PlannedRestart] = set()
    times = _times_of_jobs(plan, clocks, [task for task, _ in doing], cause)
    for (_, actions), times_ns in zip(doing, times, strict=True):
        # Also where no job comes before the end: what cannot be done is refused all the same.
        for action in actions:
            check_possible(plan, action)

        for world_ns in times_ns:
            for action in actions:
                found.update(carried_out(plan, clocks, world_ns, action, cause))
    return list(found)


def read_cron_job(manifest: str, ztunnel_namespace: str = ISTIO_NAMESPACE) -> CronJob:
    """When the first CronJob of `manifest` comes that restarts ztunnel. Raises BadInput when none
    does."""
    task, _ = _restarting(read_tasks(manifest, ztunnel_namespace))[0]
    return task.cron_job


def check_possible(plan: Plan, action: Action, own_node: str | None = None) -> None:
    """Raises BadInput for what cannot be carried out on `plan`: on a node that is not in it, on the
    own node of a job that may run anywhere, on some of the applications of a node."""
    _nodes(plan, action, own_node)


def carried_out(
    plan: Plan,
    clocks: Clocks,
    world_ns: int,
    action: Action,
    cause: str,
    own_node: str | None = None,
) -> list[PlannedRestart]:
    """What an action at `world_ns` restarts, on each node when that is awake. Raises BadInput as
    check_possible."""
    at_ns = world_ns + int(action.after_s * NS_PER_S)
    if action.what == "ztunnel" and action.how == "rollout":
        return rollout(plan, clocks, at_ns, cause)

    # The API server must be awake to take the request, and then each node to act on it.
    ready_ns = clocks[plan.authority_node].world_ns_when_running(at_ns)
    found = []
    for name in _nodes(plan, action, own_node):
        restart_ns = clocks[name].world_ns_when_running(ready_ns)
        found.append(PlannedRestart(restart_ns, name, cause, action.what))
    return found


def _nodes(plan: Plan, action: Action, own_node: str | None) -> list[str]:
    """The nodes on which an action restarts something. Raises BadInput as check_possible."""
    if action.what == "applications":
        return _nodes_of_applications(plan, action)

    names = [node.name for node in plan.nodes]
    if action.node is not None:
        if action.node not in names:
            raise BadInput(
                f"fix.manifest: {action.command!r}: the scenario has no node "
                f"{action.node!r} ({', '.join(names)})"
            )
        return [action.node]

    # A sleep hook is on a node that is known; the pod of a job may be scheduled to any.
    if action.how == "own node" and own_node is not None:
        return [own_node]
    restarts_one = action.how in ("own node", "one of them")
    if restarts_one and len(names) > 1:
        raise BadInput(
            f"fix.manifest: {action.command!r} restarts one ztunnel, and which of "
            f"{len(names)} is not known"
        )
    return names


def _identities(plan: Plan, action: Action) -> dict[str, tuple[list[str], list[str]]]:
    """For each node that has some of the applications: those, and all that live there."""
    found = {}
    for node in plan.nodes:
        all_of_them = list(node.identities)
        own = [identity for identity in all_of_them if _is_about(action, identity)]
        # A node without any is left alone.
        if own:
            found[node.name] = own, all_of_them
    return found


def _is_about(action: Action, identity: str) -> bool:
    # A Deployment is taken to run under a service account of its own name: a scenario has no other
    # name for its pods.
    namespace, name = identity.split("/")
    is_in_namespace = action.namespace == namespace
    if action.names is None:
        # "": all namespaces.
        return is_in_namespace or action.namespace == ""
    return is_in_namespace and name in action.names


def _is_here(plan: Plan, action: Action) -> bool:
    # ztunnel is on every node.
    if action.what == "ztunnel":
        return True
    return bool(_identities(plan, action))


def _nodes_of_applications(plan: Plan, action: Action) -> list[str]:
    """The nodes on which those pods live; a lab restarts all pods of a node, or none."""
    found = _identities(plan, action)
    for name, (own, all_of_them) in found.items():
        # Those that the action does not name would be restarted with them.
        others = [identity for identity in all_of_them if identity not in own]
        if others:
            raise BadInput(
                f"fix.manifest: {action.command!r} restarts {', '.join(own)} on node {name}, and "
                f"not {', '.join(others)}; a lab restarts all applications of a node, or none"
            )
    return list(found)


def cron_times_ns(plan: Plan, clocks: Clocks, cron_job: CronJob, name: str) -> Iterator[int]:
    """World times at which the jobs of `cron_job` run, on the control plane of `plan`."""
    draw = random.Random(f"{name} resync {plan.seed}").random()
    resync_ns = RESYNC_MIN_NS + int(RESYNC_MIN_NS * draw)
    return job_times_ns(cron_job, clocks[plan.authority_node], resync_ns, plan.duration_ns)


def rollout(plan: Plan, clocks: Clocks, job_world_ns: int, cause: str) -> list[PlannedRestart]:
    """One `kubectl rollout restart` of ztunnel: a node after another, each when it is awake."""
    found = []
    next_world_ns = job_world_ns
    for node in plan.nodes:
        # The DaemonSet controller on the control plane deletes the pod, and then the node acts.
        ready_world_ns = clocks[plan.authority_node].world_ns_when_running(next_world_ns)
        world_ns = clocks[node.name].world_ns_when_running(ready_world_ns)
        found.append(PlannedRestart(world_ns, node.name, cause))
        # The next pod is replaced only when this one is ready.
        next_world_ns = world_ns + ROLLOUT_STEP_NS
    return found


def job_times_ns(
    cron_job: CronJob, controller: NodeClock, resync_ns: int, duration_ns: int
) -> Iterator[int]:
    """World times at which jobs start, on a controller that started with the world and knows the
    CronJob since then."""
    if cron_job.suspended:
        return

    # A controller that starts finds nothing missed: the CronJob is created with the world.
    started = controller.reading_before(0)
    served_wall_ns = started.wall_ns
    times = Times(cron_job.parsed, cron_job.zone, started.wall_ns)
    world_ns = 0
    while world_ns < duration_ns:
        now = controller.reading(world_ns)
        scheduled_ns = times.latest_wall_ns(
            served_wall_ns, now.wall_ns, cron_job.starting_deadline_s
        )
        if scheduled_ns is not None:
            served_wall_ns = scheduled_ns
            yield world_ns

        # A delay, counted from now on the monotonic clock: a sleep in between makes it late.
        wakes_wall_ns = times.next_wall_ns(served_wall_ns, now.wall_ns) + WAKES_AFTER_SCHEDULE_NS
        due_monotonic_ns = now.monotonic_ns + wakes_wall_ns - now.wall_ns
        # Or the next resync, whichever comes first by the same clock.
        since_resync_ns = (now.monotonic_ns - started.monotonic_ns) % resync_ns
        resync_monotonic_ns = now.monotonic_ns - since_resync_ns + resync_ns
        next_monotonic_ns = min(due_monotonic_ns, resync_monotonic_ns)
        world_ns = controller.world_ns_at_monotonic(next_monotonic_ns, world_ns)
