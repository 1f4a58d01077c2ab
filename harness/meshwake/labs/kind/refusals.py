"""What a plan requires that this lab cannot do, refused by name before anything is changed. The lab
never does something weaker instead."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.faults import CLOCK_FAULTS, FaultKind
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedCaClock, PlannedFault, PlannedStep
from meshwake.fixes.cron import namespace_of
from meshwake.fixes.wake_guard import NAME as GUARD
from meshwake.fixes.weekly_restart import read_cron_job
from meshwake.labs.kind.fix import (
    APPLIED,
    BY_THE_CALENDAR,
    CRON_JOBS,
    due_jobs_of,
    jobs_are_started_by_run,
)
from meshwake.ztunnel.names import ISTIO_NAMESPACE

# istio security/pkg/pki/util/generate_cert.go, ClockSkewGracePeriod: the same in every release, and
# no option.
BACKDATE_S = 120
# ztunnel renews (lifetime - backdate) / 2 after the issue: a minute at this lifetime. What is
# renewed sooner is too short-lived to be seen by polls from outside.
LIFETIME_MIN_S = 240
# In real time; longer ones are for a time lapse, which skips what is idle.
DURATION_MAX_NS = 2 * 3_600 * NS_PER_S
# Time lapse takes istiod ahead, and its API server has a certificate of a year (kubeadm).
LAPSE_MAX_NS = 90 * 86_400 * NS_PER_S
WORKERS_MAX = 5
_NEVER = {
    "drift": "a wall clock that runs at another rate would have to be kept so for the whole run, "
    "and nothing in a "
    "cluster does that; use --lab process",
    "freeze": "a node that is silent for 40 s is lost to Kubernetes and its pods are evicted, so "
    "what came after would "
    "not be about clocks; use --clock process, which stops only the programs that are judged",
    "ca_hang": "the connections of an istiod that is stopped are closed by HTTP/2 pings within "
    "seconds, so no request "
    "would hang; use --lab process",
    "ca_slow": "nothing in istiod can be made to take its time; use --lab process",
    "ca_root_change": "what a new root does to gateways and istiod's own clients is another question; use "
    "--lab model",
    "ca_clock": "istiod has the clock of its node, and that is not moved apart; use --lab process",
    "ca_lifetime": "istiod gives what is requested; use --lab process",
    "ca_root": "istiod's root is not changed under it; use --lab process",
    "pod_restart": "pods are replaced by kubectl there, not by a scenario; use --lab process",
    "token_expired": "kubelet renews tokens and their life is counted in hours; use --lab process",
}
_NOT_ELSEWHERE = {
    "restart": "ends a pod of ztunnel, and in a cluster that is not ours only what carries our label "
    "is ended",
    "ca_outage": "scales istiod to nothing, which is not done to a cluster that is not ours",
}

# What the jobs of these CronJobs do besides restarting ztunnel, which time lapse does not reach.
_NOT_IN_LAPSE = {
    "log-watchdog": "its job reads the last minutes of ztunnel's log, and kubelet dates that in real "
    "time, in which the whole run lasts minutes",
    "near-expiry": "its job compares certificates with the time of its own pod, and a pod that "
    "lives for seconds gets no moved clocks",
    "restart-applications": "its job replaces the pods that the run makes its connections from",
}


def refusals(plan: Plan) -> list[str]:
    """One sentence for each reason, with the next step; [] when the plan can be run."""
    return [*_about_numbers(plan), *_about_faults(plan), *_about_authority(plan), *_about_fix(plan)]


def _about_numbers(plan: Plan) -> Iterator[str]:
    if plan.backdate_s != BACKDATE_S:
        yield (
            f"backdate {plan.backdate_s} s: istiod dates certificates back by {BACKDATE_S} "
            "s, which is built in; write "
            "2m in [real_time], or leave it out"
        )
    if plan.lifetime_s < LIFETIME_MIN_S:
        yield (
            f"lifetime {plan.lifetime_s} s: too short to be seen from outside; at least "
            f"{LIFETIME_MIN_S} s, best 6 to "
            "10 min"
        )
    if plan.is_in_time_lapse and plan.duration_ns > LAPSE_MAX_NS:
        yield (
            f"duration {format_duration(plan.duration_ns)}: istiod's clocks would go past "
            "the end of the API server's "
            f"certificate, which lives a year; at most {format_duration(LAPSE_MAX_NS)}, or "
            "use --lab process"
        )
    if not plan.is_in_time_lapse and plan.duration_ns > DURATION_MAX_NS:
        yield (
            f"duration {format_duration(plan.duration_ns)}: a run in real time lasts at most 2 "
            "h; shorten [real_time]"
        )
    if len(plan.nodes) > WORKERS_MAX:
        yield f"{len(plan.nodes)} nodes: at most {WORKERS_MAX} workers; use --lab model"


def _about_faults(plan: Plan) -> Iterator[str]:
    is_elsewhere = plan.cluster is not None and plan.cluster.kubeconfig is not None
    moves_programs = plan.cluster is not None and plan.cluster.clock == "process"

    # Of faults that come again and again the first is named.
    for (kind, _), group in groupby(plan.faults, key=_kind_and_step):
        fault = next(group)
        place = f"[fault {fault.index}]"
        if kind == "freeze" and moves_programs:
            continue

        if kind in _NEVER:
            yield f"{place} {kind}: {_NEVER[kind]}"
        elif kind in _NOT_ELSEWHERE and is_elsewhere:
            yield f"{place} {kind}: {_NOT_ELSEWHERE[kind]}; leave --kubeconfig out"
        elif fault.kind == "step" and _floods(plan, fault):
            yield (
                f"{place} step by {format_duration(fault.by_wall_ns)}: more "
                "than half a certificate's "
                "life back, so ztunnel renews without a pause, and from outside only the "
                "last certificate is seen; "
                "use --lab process"
            )


def _kind_and_step(fault: PlannedFault) -> tuple[FaultKind, int]:
    """Equal for faults that one sentence can be about."""
    if isinstance(fault, PlannedStep | PlannedCaClock):
        return fault.kind, fault.by_wall_ns
    return fault.kind, 0


def _floods(plan: Plan, fault: PlannedStep) -> bool:
    return -fault.by_wall_ns >= plan.half_life_s * NS_PER_S


def _about_authority(plan: Plan) -> Iterator[str]:
    if plan.authority_node is not None:
        return
    clock = plan.cluster.clock if plan.cluster is not None else "engine"

    # Of single programs istiod can be left out.
    if clock == "process":
        return

    if any(fault.kind in CLOCK_FAULTS for fault in plan.faults):
        yield (
            f"authority apart: istiod runs on a machine whose clock --clock {clock} moves "
            "too; use --clock process, or "
            "let it live on a node"
        )


def _about_fix(plan: Plan) -> Iterator[str]:
    """A fix is applied as a user would apply it, so its own schedule decides whether it acts within
    the duration of a run."""
    if plan.token_s is not None:
        yield "authority.token: kubelet decides how long tokens live; use --lab model"
    fix = plan.fix
    if fix is None or fix.name == "none":
        return

    if fix.name not in APPLIED:
        yield (
            f"fix {fix.name}: not an object to apply to a cluster (but a chart's value, "
            "a setting of the machine, "
            "or another ztunnel); use --lab model or --lab process"
        )
        return
    namespace = namespace_of(plan)
    if namespace != ISTIO_NAMESPACE:
        yield (
            f"fix.ztunnel_namespace {namespace}: ztunnel of a run lives in "
            f"{ISTIO_NAMESPACE}, where what is "
            "meant for another namespace finds none; leave ztunnel_namespace out and name "
            f"{ISTIO_NAMESPACE} in the manifest, or use --lab model"
        )
        return

    if plan.cluster is not None and plan.cluster.clock == "process":
        yield from _about_clocks_of_fix(plan, fix.name)
    if fix.name not in BY_THE_CALENDAR or fix.manifest is None:
        return
    if jobs_are_started_by_run(plan):
        yield from _about_sleeping_nodes(plan, fix.name)
    else:
        yield from _about_schedule(plan, fix.name, fix.manifest)


def _about_clocks_of_fix(plan: Plan, name: str) -> Iterator[str]:
    """The program that acts for a fix must see the moved clocks of its node, and --clock process
    moves the clocks of selected programs only. kube-controller-manager cannot be one of them:
    kubelet would restart it while it is stopped, which does not happen in a real sleep."""
    if name == GUARD:
        yield from _together_with(plan, f"fix {name}")
    if name not in CRON_JOBS:
        return

    # There the run starts the jobs (cron_jobs.py), whatever clock kube-controller-manager has.
    if plan.is_in_time_lapse:
        if name in _NOT_IN_LAPSE:
            yield f"fix {name}: {_NOT_IN_LAPSE[name]}; use --real-time, or --lab process"
        return

    moved_nodes = {fault.node for fault in plan.faults if fault.kind in CLOCK_FAULTS}
    if plan.authority_node in moved_nodes:
        yield (
            f"fix {name}: its CronJob is run by kube-controller-manager on the control "
            "plane (authority.node "
            f"{plan.authority_node}), whose clock --clock process does not move with its "
            "node, and its jobs read the "
            "node's own; use --clock engine or --lab process, or let the authority live on "
            "a node that stays awake"
        )


def with_installed_guard(plan: Plan) -> list[str]:
    """Why `plan` cannot run on a cluster in which a wake guard is installed."""
    remove = "remove it for the run: meshwake guard uninstall"
    if plan.fix is not None and plan.fix.name == GUARD:
        return [
            f"fix {GUARD}: a wake guard is installed already, and its objects are those of the "
            f"fix; {remove}, or leave the fix out: the installed one is judged then"
        ]

    # A whole machine whose clock is moved has its guard moved with it.
    if plan.cluster is None or plan.cluster.clock != "process":
        return []
    return list(_together_with(plan, f"a wake guard that is installed ({remove})"))


def _together_with(plan: Plan, what: str) -> Iterator[str]:
    for fault in plan.faults:
        if fault.kind in ("pause", "step"):
            yield (
                f"[fault {fault.index}] {fault.kind} together with {what}: the guard "
                "learns from kubelet and /proc "
                "when a ztunnel started, and --clock process moves neither, so a new "
                "ztunnel would look old to it; "
                "use --clock engine, or a suspend"
            )


def _about_sleeping_nodes(plan: Plan, name: str) -> Iterator[str]:
    """A rollout waits for a node that sleeps. Only the mesh's programs are stopped here, so kubelet
    would replace the ztunnel of such a node in its sleep."""
    clocks = clocks_of(plan)
    for job in due_jobs_of(plan):
        asleep = [
            node.name for node in plan.nodes if not clocks[node.name].processes_run(job.world_ns)
        ]
        if asleep:
            yield (
                f"fix {name}: its CronJob runs at {format_duration(job.world_ns)}, while node "
                f"{', '.join(asleep)} sleeps, and kubelet of that node goes on in time lapse; use "
                "--lab process"
            )
            return


def _about_schedule(plan: Plan, name: str, manifest: str) -> Iterator[str]:
    cron_job = read_cron_job(manifest, namespace_of(plan))
    first_ns = cron_job.next_wall_ns(plan.starts_wall_s * NS_PER_S)
    every_ns = cron_job.next_wall_ns(first_ns) - first_ns
    if every_ns > plan.duration_ns // 2:
        yield (
            f"fix {name}: its CronJob {cron_job.schedule!r} runs every "
            f"{format_duration(every_ns)}, and the "
            f"whole run lasts {format_duration(plan.duration_ns)}; what never acts shows "
            "nothing: use --lab model, or "
            "a manifest whose schedule is minutes"
        )
