"""The CronJobs of a fix in time lapse.

kube-controller-manager, which starts the jobs of a CronJob, lives in real time: it would see one
night in a week of the mesh. Its clocks cannot be moved with the mesh's. A leap of hours would be
longer than the 40 s after which it takes every node for lost (node-monitor-grace-period). So here
its decision is computed (fixes/cron.py, from the controller's source: when it looks, and that it
waits on a clock that stops in a suspend), and all that follows is real:

    applied      the CronJob as the user has it, but suspended, so that nothing starts it twice
    due          a Job is created of its template, as `kubectl create job --from=cronjob/NAME` does
    the job      its pod runs on the cluster with the user's image, command and rights
    the rollout  is that of the DaemonSet controller; world time goes on when it is complete

The calendar is that of the scenario: in `0 3 * * 0` it is the Sunday of its week, whatever day it
is on the cluster. That is right only for jobs that do not read the time themselves (refusals.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshwake.cluster.causes import ClusterEvidence, first_cause
from meshwake.cluster.reset import ZTUNNEL, of_this_run
from meshwake.core.errors import SubjectFailed
from meshwake.core.json_types import JsonObject, object_at, text_at, texts_at
from meshwake.fixes.cron import DueJob
from meshwake.kubernetes.api import Kubernetes, Unreachable, condition
from meshwake.kubernetes.rollouts import unmet
from meshwake.labs.kind.session import ClusterSession, FaultsOfRun

# A node that has to pull the job's image first takes a minute or two.
JOB_TIMEOUT_S = 300.0
# One ztunnel after another: each new pod must be ready before the next old one ends.
ROLLOUT_TIMEOUT_S = 300.0
# The API server's bound for the name of a CronJob: names of jobs add 11 characters, and end at 63.
LONGEST_NAME = 52
JOB_LABEL = "job-name"
STARTED_BY = "cronjob.kubernetes.io/instantiate"


class WithJobs:
    """See session.FaultsOfRun: the faults of a run, and between them the jobs of its fix."""

    def __init__(self, faults: FaultsOfRun, jobs: FixJobs) -> None:
        self._faults, self._jobs = faults, jobs

    def next_world_ns(self) -> int | None:
        """See FaultsOfRun."""
        fault_ns = self._faults.next_world_ns()
        job_ns = self._jobs.next_world_ns()
        if fault_ns is None:
            return job_ns
        if job_ns is None:
            return fault_ns
        return min(fault_ns, job_ns)

    def do_next(self) -> None:
        """See FaultsOfRun. A fault comes first where both are due: its time is the plan's own, that
        of a job is what the controller made of it."""
        if self._faults.next_world_ns() == self.next_world_ns():
            self._faults.do_next()
        else:
            self._jobs.do_next()


class FixJobs:
    """Starts the jobs `due`, in order, and waits for what they do."""

    def __init__(
        self, session: ClusterSession, kubernetes: Kubernetes, due: Sequence[DueJob]
    ) -> None:
        self._session, self._kubernetes = session, kubernetes
        self._due = list(due)
        self._started = 0

        # How the last job that was started ended.
        self._outcome: tuple[str, str] | None = None

    def next_world_ns(self) -> int | None:
        """See FaultsOfRun."""
        if not self._due:
            return None
        return self._due[0].world_ns

    def do_next(self) -> None:
        """See FaultsOfRun."""
        due = self._due.pop(0)

        # In other labs a restart takes no time, so a connection that is due meanwhile comes after.
        self._session.restarting = True
        try:
            self._run(due)
        finally:
            self._session.restarting = False

    def _run(self, due: DueJob) -> None:
        name = self._start(due)
        what = f"job {due.namespace}/{name} of the fix"
        self._await(f"the end of {what}", JOB_TIMEOUT_S, lambda: self._running(due, name))
        self._record_end(due, name)

        # A job that failed may have requested a rollout before that; one that did not request any
        # leaves the DaemonSet as it was, which is complete.
        self._await(
            f"the rollout by {what}",
            ROLLOUT_TIMEOUT_S,
            lambda: unmet(self._kubernetes.read(*ZTUNNEL)),
        )
        self._session.poll_pods()

    def _start(self, due: DueJob) -> str:
        """Create the Job; returns its name."""
        cron_job = self._kubernetes.read("CronJob.batch", due.namespace, due.cron_job)
        if cron_job is None:
            raise SubjectFailed(
                f"CronJob {due.namespace}/{due.cron_job}, which this run applied, has been deleted"
            )
        self._started += 1
        name = f"{due.cron_job[:LONGEST_NAME]}-{self._started}"
        self._kubernetes.apply([of_this_run(job_of(cron_job, name))])
        return name

    def _running(self, due: DueJob, name: str) -> str | None:
        """None once it has ended, well or not; until then what it waits for."""
        # Kept: a Job with ttlSecondsAfterFinished may be gone at the next read.
        job = self._kubernetes.read("Job.batch", due.namespace, name) or {}
        self._outcome = _outcome(job)
        if self._outcome is not None:
            return None

        pods = self._kubernetes.all("Pod", due.namespace, {JOB_LABEL: name})
        cause = first_cause(ClusterEvidence({"Pod": pods}), "")
        if cause is None:
            return f"{len(pods)} pods, none has ended"
        return str(cause)

    def _record_end(self, due: DueJob, name: str) -> None:
        """A job that fails restarts nothing, in a cluster as it would anywhere: that is a result,
        and no failure of the run."""
        assert self._outcome is not None
        outcome, message = self._outcome
        world_ns = self._session.world.now_ns
        self._session.events.add(
            world_ns,
            "job_ended",
            None,
            self._session.authority_clocks(world_ns),
            cron_job=f"{due.namespace}/{due.cron_job}",
            job=name,
            outcome=outcome,
            message=message,
        )

    def _await(self, what: str, within_s: float, look: Callable[[], str | None]) -> None:
        """Let real time pass until `look` returns None. Raises SubjectFailed with what it returned
        last."""
        seen: str | None = None

        def done() -> bool:
            nonlocal seen
            try:
                seen = look()
            except Unreachable as error:
                seen = str(error)
            return seen is None

        try:
            self._session.wait_until(what, within_s, done)
        except SubjectFailed as error:
            # `seen` is None when the wait was not ended by its timeout.
            if not seen:
                raise
            raise SubjectFailed(f"{error}; last seen: {seen}") from error


def _outcome(job: JsonObject) -> tuple[str, str] | None:
    """How a Job ended and what its controller reports of that; None while it runs."""
    for name in ("Complete", "Failed"):
        found = condition(job, name)
        if found.get("status") == "True":
            message = str(found.get("message", ""))
            return name.lower(), message
    return None


def job_of(cron_job: JsonObject, name: str) -> JsonObject:
    """The Job that a CronJob's template describes, as its controller and `kubectl create job
    --from` make it."""
    template = object_at(cron_job, "spec", "jobTemplate")
    metadata = object_at(template, "metadata")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "namespace": text_at(cron_job, "metadata", "namespace"),
            "name": name,
            "labels": texts_at(metadata, "labels"),
            # What `kubectl create job --from` writes, so that it is seen who started it.
            "annotations": {**texts_at(metadata, "annotations"), STARTED_BY: "manual"},
        },
        "spec": object_at(template, "spec"),
    }


def suspended(thing: JsonObject) -> JsonObject:
    """`thing`, and where it is a CronJob, one whose jobs only this run starts."""
    if thing.get("kind") != "CronJob":
        return thing
    return {**thing, "spec": {**object_at(thing, "spec"), "suspend": True}}
