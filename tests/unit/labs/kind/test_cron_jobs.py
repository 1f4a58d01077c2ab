"""The jobs of a fix's CronJob in time lapse: started by the scenario's calendar, real in all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.core.history import History
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan, PlannedCluster, PlannedFix
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import read_scenario
from meshwake.fixes import FIXES
from meshwake.fixes.cron import due_jobs
from meshwake.labs.kind.cron_jobs import job_of
from meshwake.labs.kind.fix import (
    due_jobs_of,
    images_of_fix,
    objects_of_fix,
    objects_to_apply,
    with_images_of_node,
)
from meshwake.labs.kind.refusals import refusals

from tests.support.paths import SCENARIOS
from tests.unit.cluster.simulated import Clock, SimulatedCluster
from tests.unit.labs.kind.lapse import SimulatedLapse, lapsed
from tests.unit.labs.kind.runs import cluster_of, verdicts
from tests.unit.labs.kind.test_lapse import on_the_model


def week(fix: str = "weekly-restart", *, scenario: str = "nightly_sleep.toml") -> Plan:
    """Nights of eight hours for a week, from Monday at 08:00 on, with a fix, in time lapse."""
    plan = resolve(PlanRequest(read_scenario(SCENARIOS / scenario), "model", "1.31.0", "E"))
    manifest = FIXES[fix].read_manifest()
    return plan.model_copy(
        update={
            "fix": PlannedFix(name=fix, manifest=manifest),
            "cluster": PlannedCluster(clock="process", lapse=True),
        }
    )


@dataclass
class ClusterWithJobs(SimulatedCluster):
    """Its job controller ends each job `takes_looks` looks after it was created; what the job
    requested is done then, unless it fails."""

    takes_looks: int = 3
    fails: bool = False
    stuck: str = ""  # why the container of a job's pod waits for ever

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """See Kubernetes. The fix's objects are applied by the lab, not by its session."""
        super().apply(objects)
        for _, namespace, name in [key for key in self.objects if key[0] == "Job"]:
            state = {"waiting": {"reason": "ErrImagePull", "message": self.stuck}}
            self.objects["Pod", namespace, f"{name}-x"] = {
                "metadata": {"name": f"{name}-x", "labels": {"job-name": name}},
                "status": {"containerStatuses": [{"name": "kubectl", "state": state}]},
            }

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """See Kubernetes."""
        found = super().read(kind, namespace, name)
        if kind != "Job.batch" or found is None or self.stuck:
            return found
        stored = self.objects["Job", namespace, name]
        looks = stored.setdefault("looks", 0) + 1
        stored["looks"] = looks
        if looks == self.takes_looks:
            ended = "Failed" if self.fails else "Complete"
            stored["status"] = {"conditions": [{"type": ended, "status": "True", "message": "m"}]}
            if not self.fails:
                self.start_ztunnels()
        return stored


def applied(of: Plan) -> list[dict[str, Any]]:
    """The objects of the fix as the lab applies them."""
    return [dict(thing) for thing in objects_to_apply(of, ())]


def cron_job_in(objects: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    (found,) = [each for each in objects if each["kind"] == "CronJob"]
    return found


def on_cluster(of: Plan, **about: Any) -> tuple[History, SimulatedCluster]:
    clocks = {node.name: Clock() for node in of.nodes}
    cluster = cluster_of(of, ClusterWithJobs, clocks=clocks, **about)
    for thing in applied(of):
        metadata = thing["metadata"]
        cluster.objects[thing["kind"], metadata["namespace"], metadata["name"]] = dict(thing)
    history, _ = lapsed(of, SimulatedLapse(cluster))
    return history, cluster


@pytest.mark.parametrize(
    ("fix", "traffic"), [("weekly-restart", Verdict.BROKEN), ("daily-restart", Verdict.HOLDS)]
)
def test_restarts_come_when_the_model_has_them(fix: str, traffic: Verdict) -> None:
    """As many, and each as soon after its time as a job takes."""
    of = week(fix)
    history, cluster = on_cluster(of)
    theirs = [event.world_ns for event in on_the_model(of).of("ztunnel_started", cause=fix)]
    ours = [event.world_ns for event in history.of("ztunnel_started", cause=fix)]
    assert theirs and ours == pytest.approx(theirs, abs=10 * NS_PER_S)
    assert verdicts(of, history)["traffic_flows"] is traffic
    jobs = [name for kind, _, name in cluster.objects if kind == "Job"]
    assert len(jobs) == len(theirs) == len(history.of("job_ended", outcome="complete"))
    assert len(set(jobs)) == len(jobs)


def test_a_job_that_fails_is_recorded_and_the_run_goes_on() -> None:
    """It restarts nothing: the mesh breaks as it does without a fix."""
    of = week("daily-restart")
    history, _ = on_cluster(of, fails=True)
    assert history.of("job_ended", outcome="failed")
    assert not history.of("ztunnel_started", cause="daily-restart")
    assert verdicts(of, history)["traffic_flows"] is Verdict.BROKEN


def test_a_job_that_never_starts_ends_the_run_with_what_kubelet_reports() -> None:
    """Its image cannot be had, for example."""
    with pytest.raises(
        SubjectFailed,
        match="waiting for the end of job istio-system/ztunnel-rest.*ErrImagePull: no such host",
    ):
        on_cluster(week(), stuck="no such host")


def test_a_job_is_made_of_the_template_of_its_cron_job() -> None:
    """Nothing is left out, and the CronJob itself starts none."""
    of = week()
    cron_job = cron_job_in(applied(of))
    users = cron_job_in(objects_of_fix(of))
    assert cron_job["spec"]["suspend"] is True and "suspend" not in users["spec"]
    job: Any = job_of(cron_job, "ztunnel-restart-1")
    assert job["spec"] == cron_job["spec"]["jobTemplate"]["spec"]
    assert job["metadata"]["namespace"] == "istio-system"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["imagePullPolicy"] == "IfNotPresent"
    del container["imagePullPolicy"]
    assert [container] == users["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert images_of_fix(of) == ("bitnami/kubectl:latest",)


def test_a_list_of_something_else_that_is_called_containers_stays() -> None:
    """In a custom resource that is applied with a fix."""
    thing = {
        "kind": "Policy",
        "spec": {"containers": ["a", "b"], "initContainers": [{"name": "c"}]},
    }
    policy = {"imagePullPolicy": "IfNotPresent", "name": "c"}
    spec = {"containers": ["a", "b"], "initContainers": [policy]}
    assert with_images_of_node(thing) == {"kind": "Policy", "spec": spec}


def test_a_policy_that_the_user_wrote_stays() -> None:
    """It is the user's decision whether an image is pulled at each start."""
    of = week()
    assert of.fix is not None and of.fix.manifest is not None
    image = "image: bitnami/kubectl:latest"
    manifest = of.fix.manifest.replace(image, f"{image}\n              imagePullPolicy: Always")
    changed = of.model_copy(update={"fix": of.fix.model_copy(update={"manifest": manifest})})
    job: Any = job_of(cron_job_in(applied(changed)), "a")
    assert job["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        ("weekly-restart", None),
        ("daily-restart", None),
        ("log-watchdog", "kubelet dates that in real time"),
        ("near-expiry", "the time of its own pod"),
        ("restart-applications", "the pods that the run makes its connections from"),
    ],
)
def test_only_jobs_that_read_no_time_are_taken(fix: str, words: str | None) -> None:
    """The others are refused each for its own reason."""
    message = "\n".join(refusals(week(fix)))
    assert message == "" if words is None else words in message


@pytest.mark.parametrize(("minute", "refused"), [(29, False), (35, True), (40, False)])
def test_a_rollout_to_a_node_that_sleeps_is_refused(minute: int, refused: bool) -> None:
    """A node sleeps from half an hour after the start for nine minutes; the control plane does
    not."""
    of = week("daily-restart", scenario="kind/one_node_sleeps_alone.toml")
    assert of.fix is not None and of.fix.manifest is not None
    hour = of.starts_wall_s % 86_400 // 3_600
    manifest = of.fix.manifest.replace("0 3 * * *", f"{minute} {hour} * * *")
    fix = of.fix.model_copy(update={"manifest": manifest})
    message = "\n".join(refusals(of.model_copy(update={"fix": fix})))
    assert ("while node sleeper sleeps" in message) is refused


def test_in_real_time_the_controller_starts_them() -> None:
    """The CronJob is applied as it is, and no job is due by the run."""
    of = week().model_copy(update={"cluster": PlannedCluster(clock="process", lapse=False)})
    cron_job = cron_job_in(applied(of))
    assert "suspend" not in cron_job["spec"] and due_jobs_of(of) == []


def test_jobs_of_several_cron_jobs_come_in_order() -> None:
    """Each in its own namespace."""
    of = week()
    assert of.fix is not None and of.fix.manifest is not None
    second = of.fix.manifest.replace("ztunnel-restart", "second").replace("0 3 * * 0", "0 4 * * *")
    fix = of.fix.model_copy(update={"manifest": f"{of.fix.manifest}\n---\n{second}"})
    jobs = due_jobs(of.model_copy(update={"fix": fix}), clocks_of(of), "weekly-restart")
    assert [job.world_ns for job in jobs] == sorted(job.world_ns for job in jobs)
    assert {job.cron_job for job in jobs} == {"ztunnel-restart", "second"}
    assert {job.namespace for job in jobs} == {"istio-system"}
