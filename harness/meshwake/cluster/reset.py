"""Brings the cluster to a known state before a run, and restores it afterwards.

    delete_run_objects   delete what runs applied, by label; nothing else is ever deleted
    apply_run_objects    apply the workloads of this run and wait until they are ready
    restart_ztunnels     restart every ztunnel, so that none keeps the drift of an earlier run
    scale_istiod_down    scale istiod to 0; scale_istiod_back undoes it
    restore_cluster      undo all of that: at the end of a run, and by the next command after a run
                         that was killed

One cluster serves all scenarios of a version, so the lifetime of certificates is set here and not
by the installation: `SECRET_TTL` in ztunnel's own DaemonSet. A cluster that is not ours is not
changed: it must fit the plan already, and the restart is that of `kubectl rollout restart`.

What a run changes in an object that it did not create is recorded in an annotation of that object,
by the same request that makes the change. So whenever a run is killed, the cluster itself says what
has to be restored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from meshwake.cluster.hold import hold, is_marked
from meshwake.cluster.moved import is_moved, restore_clocks
from meshwake.cluster.node_channel import GOES_LABELS
from meshwake.cluster.real_time import RealTime, wait_for
from meshwake.core.durations import NS_PER_S, parse_duration_ns
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.kubernetes.api import Kubernetes, Unreachable, identity_of, kind_of
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS, is_ours
from meshwake.kubernetes.rollouts import unmet
from meshwake.ztunnel.environment import (
    DEFAULT_SECRET_TTL,
    MAX_STREAMS,
    SECRET_TTL,
    observed_environment,
)
from meshwake.ztunnel.names import ISTIO_NAMESPACE, PROXY_CONTAINER, ZTUNNEL_LABELS

RESTARTED = "meshwake.dev/restarted"
RESTARTED_BY_KUBECTL = "kubectl.kubernetes.io/restartedAt"
# What a run has changed in an object, as JSON: see _restored_template and
# scale_istiod_down.
CHANGED = "meshwake.dev/changed"
ZTUNNEL = ("DaemonSet.apps", ISTIO_NAMESPACE, "ztunnel")
ISTIOD = ("Deployment.apps", ISTIO_NAMESPACE, "istiod")
GONE_WITHIN_S, READY_WITHIN_S, ROLLED_OUT_WITHIN_S = 180.0, 240.0, 300.0
# In order of deletion. Objects that are owned, or are in one of these namespaces, are deleted by
# Kubernetes.
KINDS_OF_A_RUN = (
    "Namespace",
    # Before the Deployment and the Service that istiod makes of it, and would make again.
    "Gateway.gateway.networking.k8s.io",
    "HTTPRoute.gateway.networking.k8s.io",
    "DestinationRule.networking.istio.io",
    "CronJob.batch",
    "DaemonSet.apps",
    "Deployment.apps",
    "Service",
    "RoleBinding.rbac.authorization.k8s.io",
    "Role.rbac.authorization.k8s.io",
    "ClusterRoleBinding.rbac.authorization.k8s.io",
    "ClusterRole.rbac.authorization.k8s.io",
    "ServiceAccount",
    "ConfigMap",
)


def delete_run_objects(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    """Delete the objects of runs and wait until they are gone; returns their names."""
    gone = []
    for kind in KINDS_OF_A_RUN:
        for namespace, name in _of_runs(kubernetes, kind):
            kubernetes.delete_ours(kind, namespace, name)
            gone.append(f"{kind.partition('.')[0]} {f'{namespace}/' if namespace else ''}{name}")

    def look() -> str | None:
        return (
            ", ".join(
                f"{kind} {name}"
                for kind in KINDS_OF_A_RUN
                for _, name in _of_runs(kubernetes, kind)
            )
            or None
        )

    wait_for("the objects of the last run to go", real, GONE_WITHIN_S, look)
    return gone


def _of_runs(kubernetes: Kubernetes, kind: str) -> list[tuple[str | None, str]]:
    return kubernetes.ours(kind, RUN_LABELS)


def of_this_run(thing: Mapping[str, Any]) -> dict[str, Any]:
    """`thing` with the labels that mark the objects of a run."""
    metadata = dict(thing["metadata"])
    metadata["labels"] = {**metadata.get("labels", {}), **OUR_LABELS, **RUN_LABELS}
    return {**thing, "metadata": metadata}


def apply_run_objects(
    kubernetes: Kubernetes,
    real: RealTime,
    objects: Iterable[Mapping[str, Any]],
    awaited: Iterable[tuple[str, Mapping[str, str]]],
) -> None:
    """Apply `objects`, namespaces first, and wait until each of `awaited` (namespace, labels) has
    a ready pod. Raises LabUnavailable, before anything is changed, when an object of that name
    exists and is not ours."""
    things = sorted(
        (of_this_run(thing) for thing in objects), key=lambda thing: thing["kind"] != "Namespace"
    )
    for thing in things:
        _check_name_is_free(kubernetes, thing)
    kubernetes.apply(things)
    for namespace, labels in awaited:
        _await_pod(kubernetes, real, namespace, labels)


def _check_name_is_free(kubernetes: Kubernetes, thing: Mapping[str, Any]) -> None:
    found = kubernetes.read(
        kind_of(thing), thing["metadata"].get("namespace"), thing["metadata"]["name"]
    )
    if found is not None and not is_ours(found["metadata"].get("labels")):
        raise LabUnavailable(
            f"{identity_of(thing)} exists and does not carry our label "
            f"({', '.join(f'{key}={value}' for key, value in OUR_LABELS.items())}), so it "
            "is left alone; use another "
            "cluster, or rename the identities of the scenario"
        )


def _await_pod(
    kubernetes: Kubernetes, real: RealTime, namespace: str, labels: Mapping[str, str]
) -> None:
    def look() -> str | None:
        pods = kubernetes.pods(namespace, labels)
        return ", ".join(f"{pod} is not ready" for pod in pods if not pod.ready) or (
            None if pods else "no pod"
        )

    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    wait_for(f"a ready pod of {selector} in {namespace}", real, READY_WITHIN_S, look)


def restart_ztunnels(
    kubernetes: Kubernetes, real: RealTime, lifetime_s: int, stamp: str, ours: bool
) -> None:
    """Restart every ztunnel and wait until all are ready. `stamp` must be unique. Raises
    LabUnavailable when a cluster that is not ours is configured for another lifetime."""
    found = check_ambient(kubernetes)
    if not ours:
        _check_environment(found, lifetime_s)
    wanted = observed_environment(lifetime_s) if ours else {}
    environment = _environment(found)
    marks = found["spec"]["template"].get("metadata", {}).get("annotations") or {}
    changed = {
        "environment": {
            name: {"was": environment.get(name), "set": text} for name, text in wanted.items()
        },
        "annotations": {name: marks.get(name) for name in (RESTARTED, RESTARTED_BY_KUBECTL)},
    }
    template = _template(
        {RESTARTED: stamp},
        [{"name": name, "value": text, "valueFrom": None} for name, text in wanted.items()],
        [*environment, *(name for name in wanted if name not in environment)],
    )
    note = {"annotations": {CHANGED: json.dumps(changed)}}
    kubernetes.patch(*ZTUNNEL, {"metadata": note, "spec": {"template": template}})
    await_ztunnels(kubernetes, real)


def check_ambient(kubernetes: Kubernetes) -> dict[str, Any]:
    """ztunnel's DaemonSet. Raises LabUnavailable when there is none."""
    found = kubernetes.read(*ZTUNNEL)
    if found is None:
        elsewhere = sorted({pod.namespace for pod in kubernetes.pods(None, ZTUNNEL_LABELS)})
        if elsewhere:
            raise LabUnavailable(
                f"ztunnel runs in namespace {', '.join(elsewhere)}; runs need it in "
                f"{ISTIO_NAMESPACE} (meshwake "
                "forecast does not)"
            )
        raise LabUnavailable(
            "the cluster has no DaemonSet istio-system/ztunnel; install Istio in ambient mode first"
        )
    return found


def _environment(daemon_set: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of ztunnel's environment, by name."""
    containers = daemon_set["spec"]["template"]["spec"]["containers"]
    found = [each.get("env") or [] for each in containers if each["name"] == PROXY_CONTAINER]
    return {entry["name"]: entry for entries in found for entry in entries}


def _template(
    annotations: Mapping[str, Any], environment: list[dict[str, Any]], order: list[str]
) -> dict[str, Any]:
    """The strategic merge patch of a pod template. `order` is the order of ztunnel's environment:
    a merge would change it otherwise, and the API server refuses a patch whose entries are in
    another order than its $setElementOrder."""
    template: dict[str, Any] = {"metadata": {"annotations": dict(annotations)}}
    if environment:
        kept = sorted(
            (each for each in environment if "$patch" not in each),
            key=lambda each: order.index(each["name"]),
        )
        container = {
            "name": PROXY_CONTAINER,
            "env": [*kept, *(each for each in environment if "$patch" in each)],
        }
        container["$setElementOrder/env"] = [{"name": name} for name in order]
        template["spec"] = {"containers": [container]}
    return template


# Restoring


def restore_cluster(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    """Undo everything that runs did to the cluster and wait until it is restored; returns what was
    undone, one sentence each. The caller must hold the cluster (hold.py). A step that fails does
    not keep the others from being undone."""
    done: list[str] = []
    failed: list[Exception] = []
    for undo in (
        _remove_objects,
        restore_clocks,
        _restore_istiod,
        _restore_ztunnels,
        _remove_helper,
    ):
        try:
            done += undo(kubernetes, real)
        except (Unreachable, HarnessError) as error:
            failed.append(error)
            if undo is restore_clocks:
                break  # programs that are restarted now would start on moved clocks
    if failed:
        raise failed[0]
    return done


def restore_after_kill(
    kubernetes: Kubernetes, real: RealTime, cluster: str, doing: str
) -> list[str]:
    """`restore_cluster`, if a run that was killed left anything behind. Raises InUse when another
    command uses the cluster, and Unreachable."""
    if not is_marked(kubernetes) and not _is_left(kubernetes):
        return []
    with hold(kubernetes, real, cluster, doing):
        return restore_cluster(kubernetes, real)


def _is_left(kubernetes: Kubernetes) -> bool:
    """Whether the cluster contains or shows anything of a run."""
    changed = any(_changed_in(kubernetes.read(*thing)) is not None for thing in (ZTUNNEL, ISTIOD))
    helper = is_moved(kubernetes) or kubernetes.ours("Namespace", GOES_LABELS)
    return changed or bool(helper) or any(_of_runs(kubernetes, kind) for kind in KINDS_OF_A_RUN)


def _remove_helper(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    """Delete the helper where it does not stay: in a cluster that is not ours."""
    found = [name for _, name in kubernetes.ours("Namespace", GOES_LABELS)]
    gone = [name for name in found if kubernetes.delete_ours("Namespace", None, name)]
    return [f"removed Namespace {name}" for name in gone]


def _remove_objects(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    gone = delete_run_objects(kubernetes, real)
    return [f"removed {', '.join(gone)}"] if gone else []


def _restore_istiod(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    replicas = scale_istiod_back(kubernetes)
    return [] if replicas is None else [f"istiod scaled back to {replicas}"]


def _restore_ztunnels(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    found = kubernetes.read(*ZTUNNEL)
    changed = _changed_in(found)
    if found is None or changed is None:
        return []
    template = _restored_template(changed, _environment(found))
    note = {"annotations": {CHANGED: None}}
    kubernetes.patch(*ZTUNNEL, {"metadata": note, "spec": {"template": template}})
    await_ztunnels(kubernetes, real)
    names = ", ".join(changed["environment"])
    return [f"ztunnel restarted with its own settings again{f' ({names})' if names else ''}"]


def _restored_template(
    changed: Mapping[str, Any], environment: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The patch that restores ztunnel's template. A variable that has been changed since by
    another hand is left alone."""
    entries = []
    for name, note in changed["environment"].items():
        if environment.get(name, {}).get("value") != note["set"]:
            continue
        delete = {"name": name, "$patch": "delete"}
        entries.append(
            delete if note["was"] is None else {"value": None, "valueFrom": None, **note["was"]}
        )
    gone = {entry["name"] for entry in entries if "$patch" in entry}
    return _template(
        changed["annotations"], entries, [name for name in environment if name not in gone]
    )


def _changed_in(thing: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a run recorded as changed in `thing`; None when it has changed nothing."""
    note = ((thing or {}).get("metadata", {}).get("annotations") or {}).get(CHANGED)
    return None if note is None else dict(json.loads(note))


def scale_istiod_down(kubernetes: Kubernetes) -> None:
    """Scale istiod to 0, and record the number of replicas in its annotation."""
    found = kubernetes.read(*ISTIOD) or {}
    if _changed_in(found) is not None:
        return  # an earlier outage, which still lasts, has recorded the number
    replicas = max(int(found.get("spec", {}).get("replicas") or 1), 1)
    note = {"annotations": {CHANGED: json.dumps({"replicas": replicas})}}
    kubernetes.patch(*ISTIOD, {"metadata": note, "spec": {"replicas": 0}})


def scale_istiod_back(kubernetes: Kubernetes) -> int | None:
    """Undo `scale_istiod_down`; returns the number of replicas, None when it was not scaled
    down."""
    changed = _changed_in(kubernetes.read(*ISTIOD))
    if changed is None:
        return None
    replicas = int(changed["replicas"])
    kubernetes.patch(
        *ISTIOD, {"metadata": {"annotations": {CHANGED: None}}, "spec": {"replicas": replicas}}
    )
    return replicas


def await_ztunnels(kubernetes: Kubernetes, real: RealTime) -> None:
    """Wait until every node has its current ztunnel, available, and no earlier one (the two overlap
    during a rollout)."""

    def look() -> str | None:
        found = kubernetes.read(*ZTUNNEL)
        if found is None or (seen := unmet(found)) is not None:
            return "no such DaemonSet" if found is None else seen
        wanted, there = (
            found["status"]["desiredNumberScheduled"],
            kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS),
        )
        return None if len(there) == wanted else f"{len(there)} pods for {wanted} nodes"

    wait_for(
        "every ztunnel to be restarted (DaemonSet istio-system/ztunnel)",
        real,
        ROLLED_OUT_WITHIN_S,
        look,
    )


def _check_environment(daemon_set: Mapping[str, Any], lifetime_s: int) -> None:
    environment = {name: entry.get("value", "") for name, entry in _environment(daemon_set).items()}
    asked = environment.get(SECRET_TTL, DEFAULT_SECRET_TTL)
    streams = environment.get(MAX_STREAMS)
    if _seconds(asked) != lifetime_s or streams != "1":
        raise LabUnavailable(
            f"ztunnel of this cluster has {SECRET_TTL}={asked} and "
            f"{MAX_STREAMS}={streams}, and a "
            "cluster that is not ours is not reconfigured; set them yourself: helm upgrade "
            "ztunnel istio/ztunnel "
            f"-n {ISTIO_NAMESPACE} --reuse-values --set env.{SECRET_TTL}={lifetime_s}s "
            f"--set-string env.{MAX_STREAMS}=1"
        )


def _seconds(text: str) -> int | None:
    try:
        return parse_duration_ns(text) // NS_PER_S
    except ValueError:
        return None
