"""A CronJob, read from the manifest that a user would apply, and when the cluster really runs it.

The CronJob controller lives on the control plane (here: the authority's node) and waits on the same kind of clock as
ztunnel. What it does, from its source (kubernetes pkg/controller/cronjob/cronjob_controllerv2.go, `syncCronJob`,
`nextScheduleTimeDuration`; client-go util/workqueue/delaying_queue.go):

    look     by the wall clock: is there a scheduled time since the last one served? Only the latest counts.
             If it is not older than startingDeadlineSeconds, a job starts for it.
    wait     until the next scheduled time + 100 ms, turned into a delay once, on the monotonic clock

So a job that falls due while the machine sleeps comes late by the time slept. One thing cuts that short: the
controller's informer delivers every object anew at a fixed interval of monotonic time, drawn once between 12 and 24
hours when the controller starts (cmd/kube-controller-manager/app `ResyncPeriod`, --min-resync-period 12h), and a
CronJob delivered anew is looked at at once (`updateCronJob`). Here the draw is made from the plan's seed.

The job itself takes no time. A rollout restarts one node after another, `ROLLOUT_STEP_NS` apart, and waits for a node
that sleeps. Not modelled: a relist after a broken watch, a restart of the controller, daylight saving as robfig/cron
sees it (cronsim follows Debian's cron).
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import yaml
from cronsim import CronSim, CronSimError

from harness.clocks.virtual import NodeClock
from harness.durations import NS_PER_S
from harness.errors import BadInput
from harness.fixes.restart import Clocks, PlannedRestart
from harness.plan import Plan

ROLLOUT_STEP_NS = 30 * NS_PER_S
WAKES_AFTER_SCHEDULE_NS = 100_000_000
RESYNC_MIN_NS = 12 * 3_600 * NS_PER_S

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# What cronsim takes and Kubernetes refuses: last days, n-th weekdays, Sunday as 7.
_NOT_KUBERNETES = re.compile(r"^\S+ \S+ \S*L\S* |[#L]\S*$|(^|[ ,-])7(-\S*)?(,\S*)?$")


class Job(NamedTuple):
    """What the container of a CronJob must run to be the fix that it is taken for."""

    words: str
    patterns: tuple[str, ...]


RESTARTS_ZTUNNEL = Job("runs 'kubectl rollout restart' on ztunnel", (r"rollout\s+restart\b.*ztunnel",))


@dataclass(frozen=True)
class CronJob:
    """What of a CronJob decides when it runs."""

    schedule: str
    zone: tzinfo = UTC
    starting_deadline_s: int | None = None
    suspended: bool = False

    def next_wall_ns(self, after_wall_ns: int) -> int:
        """The first scheduled time after `after_wall_ns`."""
        return _to_wall_ns(next(CronSim(self.schedule, _to_datetime(after_wall_ns, self.zone))))

    def latest_wall_ns(self, after_wall_ns: int, until_wall_ns: int) -> int | None:
        """The last scheduled time after `after_wall_ns` and not after `until_wall_ns`, or None."""
        # CronSim never yields the time it starts from.
        begin = _to_datetime(until_wall_ns, self.zone) + timedelta(seconds=1)
        latest_ns = _to_wall_ns(next(CronSim(self.schedule, begin, reverse=True)))
        return latest_ns if after_wall_ns < latest_ns else None


class _Schedule:
    """The scheduled times of a CronJob, found once and looked up often: a job every ten minutes is due 4,000 times a
    month, and each time is asked for several times."""

    def __init__(self, cron_job: CronJob, from_wall_ns: int) -> None:
        self._cron_job = cron_job
        self._coming = CronSim(cron_job.schedule, _to_datetime(from_wall_ns, cron_job.zone))
        self._known = [_to_wall_ns(next(self._coming))]

    def next_wall_ns(self, after_wall_ns: int) -> int:
        """See CronJob.next_wall_ns."""
        if after_wall_ns < self._known[0]:
            return self._cron_job.next_wall_ns(after_wall_ns)
        self._know(after_wall_ns)
        return self._known[bisect_right(self._known, after_wall_ns)]

    def latest_wall_ns(self, after_wall_ns: int, until_wall_ns: int) -> int | None:
        """See CronJob.latest_wall_ns."""
        if until_wall_ns < self._known[0]:
            return self._cron_job.latest_wall_ns(after_wall_ns, until_wall_ns)
        self._know(until_wall_ns)
        latest_ns = self._known[bisect_right(self._known, until_wall_ns) - 1]
        return latest_ns if after_wall_ns < latest_ns else None

    def _know(self, wall_ns: int) -> None:
        while self._known[-1] <= wall_ns:
            self._known.append(_to_wall_ns(next(self._coming)))


def rollouts(plan: Plan, clocks: Clocks, cron_job: CronJob, cause: str) -> list[PlannedRestart]:
    """All restarts of ztunnel that a CronJob makes whose job is a rollout restart, whatever it finds."""
    return [
        restart
        for world_ns in cron_times_ns(plan, clocks, cron_job, cause)
        for restart in rollout(plan, clocks, world_ns, cause)
    ]


def cron_times_ns(plan: Plan, clocks: Clocks, cron_job: CronJob, name: str) -> Iterator[int]:
    """World times at which the jobs of `cron_job` run, on the control plane of `plan`."""
    resync_ns = RESYNC_MIN_NS + int(RESYNC_MIN_NS * random.Random(f"{name} resync {plan.seed}").random())
    return job_times_ns(cron_job, clocks[plan.authority_node], resync_ns, plan.duration_ns)


def rollout(plan: Plan, clocks: Clocks, job_world_ns: int, cause: str) -> list[PlannedRestart]:
    """One `kubectl rollout restart` of ztunnel: a node after another, each when it is awake."""
    found, next_world_ns = [], job_world_ns
    for node in plan.nodes:
        ready_world_ns = clocks[plan.authority_node].world_ns_when_running(next_world_ns)
        world_ns = clocks[node.name].world_ns_when_running(ready_world_ns)
        found.append(PlannedRestart(world_ns, node.name, cause))
        next_world_ns = world_ns + ROLLOUT_STEP_NS
    return found


def job_times_ns(cron_job: CronJob, controller: NodeClock, resync_ns: int, duration_ns: int) -> Iterator[int]:
    """World times at which jobs start, on a controller that started with the world and knows the CronJob since then."""
    if cron_job.suspended:
        return
    started = controller.reading_before(0)
    served_wall_ns, world_ns = started.wall_ns, 0
    schedule = _Schedule(cron_job, started.wall_ns)
    while world_ns < duration_ns:
        now = controller.reading(world_ns)
        scheduled_ns = schedule.latest_wall_ns(served_wall_ns, now.wall_ns)
        if scheduled_ns is not None and _in_time(cron_job, scheduled_ns, now.wall_ns):
            served_wall_ns = scheduled_ns
            yield world_ns
        wakes_wall_ns = schedule.next_wall_ns(max(served_wall_ns, now.wall_ns)) + WAKES_AFTER_SCHEDULE_NS
        due_monotonic_ns = now.monotonic_ns + wakes_wall_ns - now.wall_ns
        since_resync_ns = (now.monotonic_ns - started.monotonic_ns) % resync_ns
        resync_monotonic_ns = now.monotonic_ns - since_resync_ns + resync_ns
        world_ns = controller.world_ns_at_monotonic(min(due_monotonic_ns, resync_monotonic_ns), world_ns)


def _in_time(cron_job: CronJob, scheduled_wall_ns: int, now_wall_ns: int) -> bool:
    deadline_s = cron_job.starting_deadline_s
    return deadline_s is None or now_wall_ns - scheduled_wall_ns <= deadline_s * NS_PER_S


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def read_cron_job(manifest: str, does: Job = RESTARTS_ZTUNNEL) -> CronJob:
    """The one CronJob in `manifest` (YAML, other objects beside it), whose job must be `does`. Raises BadInput."""
    try:
        documents = [document for document in yaml.safe_load_all(manifest) if document is not None]
    except yaml.YAMLError as error:
        raise BadInput(f"fix.manifest: is no YAML: {' '.join(str(error).split())}") from error
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == "CronJob"]
    if len(found) != 1:
        kinds = ", ".join(str(each.get("kind")) if isinstance(each, dict) else repr(each) for each in documents)
        raise BadInput(f"fix.manifest: holds {len(found)} CronJobs ({kinds or 'nothing at all'}); needed is one")
    spec = found[0].get("spec")
    if not isinstance(spec, dict):
        raise BadInput("fix.manifest: the CronJob has no spec; needed is one with schedule and jobTemplate")
    _check_what_it_does(spec, does)
    deadline_s = spec.get("startingDeadlineSeconds")
    if deadline_s is not None and (not isinstance(deadline_s, int) or deadline_s < 0):
        raise BadInput(
            f"fix.manifest: spec.startingDeadlineSeconds: read {deadline_s!r}, allowed: whole seconds from 0"
        )
    return CronJob(
        _schedule(spec.get("schedule")), _zone(spec.get("timeZone")), deadline_s, spec.get("suspend") is True
    )


def _check_what_it_does(spec: dict[str, Any], does: Job) -> None:
    """A CronJob that does something else would be taken for a fix."""
    try:
        containers = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        words = [str(word) for one in containers for key in ("command", "args") for word in one.get(key) or []]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput("fix.manifest: the CronJob's jobTemplate has no containers") from error
    command = " ".join(words)
    if not all(re.search(pattern, command, re.DOTALL) for pattern in does.patterns):
        raise BadInput(f"fix.manifest: the CronJob runs {command!r}; only a job that {does.words} is understood")


def _schedule(value: object) -> str:
    if not isinstance(value, str):
        raise BadInput(f"fix.manifest: spec.schedule: read {value!r}, needed is text such as '0 3 * * 0'")
    expression = " ".join(_MACROS.get(value.strip(), value).replace("?", "*").upper().split())
    try:
        if len(expression.split()) != 5 or _NOT_KUBERNETES.search(expression):
            raise CronSimError("not as Kubernetes writes it")
        next(CronSim(expression, _EPOCH))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "it never comes"
        raise BadInput(
            f"fix.manifest: spec.schedule: read {value!r} ({why}); allowed are five fields: minute, hour, day of the "
            "month, month, day of the week from 0 (Sunday) to 6, for example '0 3 * * 0'"
        ) from error
    return expression


def _zone(value: object) -> tzinfo:
    """UTC unless given: kube-controller-manager runs in UTC in every cluster that kind or kubeadm makes."""
    if value is None:
        return UTC
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, LookupError) as error:
        raise BadInput(
            f"fix.manifest: spec.timeZone: {value!r} is no known zone; allowed is for example 'Europe/Berlin'"
        ) from error


def _to_datetime(wall_ns: int, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(seconds=wall_ns // NS_PER_S)).astimezone(zone)


def _to_wall_ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1) * NS_PER_S
