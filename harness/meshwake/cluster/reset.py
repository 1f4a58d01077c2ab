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
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from meshwake.cluster.hold import hold, is_marked
from meshwake.cluster.moved import is_moved, restore_clocks
from meshwake.cluster.node_channel import GOES_LABELS
from meshwake.cluster.real_time import HostTime, wait_for
from meshwake.core.durations import NS_PER_S, parse_duration_ns
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.core.json_types import (
    JsonObject,
    MutableJsonObject,
    int_at,
    object_at,
    objects_at,
    text_at,
    texts_at,
    value_at,
)
from meshwake.kubernetes.api import (
    Kubernetes,
    Unreachable,
    identity_of,
    kind_of,
    namespace_and_name,
    object_name,
)
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS, is_ours
from meshwake.kubernetes.rollouts import unmet
from meshwake.ztunnel.environment import (
    DEFAULT_SECRET_TTL,
    MAX_STREAMS,
    SECRET_TTL,
    observed_environment,
)
from meshwake.ztunnel.names import ISTIO_NAMESPACE, PROXY_CONTAINER, ZTUNNEL_LABELS, selector

# A new value in the pod template makes the controller replace all pods; the first is ours, the
# second is what `kubectl rollout restart` writes.
RESTARTED = "meshwake.dev/restarted"
RESTARTED_BY_KUBECTL = "kubectl.kubernetes.io/restartedAt"
# What a run has changed in an object, as JSON: a _ZtunnelChange or an _IstiodChange.
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
    # Before the CronJob, whose controller would count them.
    "Job.batch",
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


class _VariableChange(TypedDict):
    """One variable of ztunnel's environment: its whole entry before, None where it was not set, and
    the value that the run has set."""

    was: JsonObject | None
    set: str


class _ZtunnelChange(TypedDict):
    """What a run has changed in ztunnel's DaemonSet; of annotations, what they were."""

    environment: dict[str, _VariableChange]
    annotations: dict[str, str | None]


class _IstiodChange(TypedDict):
    """How many replicas istiod had before it was scaled to 0."""

    replicas: int


def delete_run_objects(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    """Delete the objects of runs and wait until they are gone; returns their names."""
    deleted = []
    for kind in KINDS_OF_A_RUN:
        for namespace, name in _of_runs(kubernetes, kind):
            kubernetes.delete_ours(kind, namespace, name)
            deleted.append(object_name(kind, namespace, name))

    poll = partial(_left_of_runs, kubernetes)
    wait_for("the objects of the last run to go", real, GONE_WITHIN_S, poll)
    return deleted


def _left_of_runs(kubernetes: Kubernetes) -> str | None:
    left = []
    for kind in KINDS_OF_A_RUN:
        left += [f"{kind} {name}" for _, name in _of_runs(kubernetes, kind)]
    return ", ".join(left) or None


def _of_runs(kubernetes: Kubernetes, kind: str) -> list[tuple[str | None, str]]:
    return kubernetes.ours(kind, RUN_LABELS)


def of_this_run(thing: JsonObject) -> JsonObject:
    """`thing` with the labels that mark the objects of a run."""
    metadata = dict(object_at(thing, "metadata"))
    metadata["labels"] = {**texts_at(metadata, "labels"), **OUR_LABELS, **RUN_LABELS}
    return {**thing, "metadata": metadata}


def apply_run_objects(
    kubernetes: Kubernetes,
    real: HostTime,
    objects: Iterable[JsonObject],
    awaited: Iterable[tuple[str, Mapping[str, str]]],
) -> None:
    """Apply `objects`, namespaces first, and wait until each of `awaited` (namespace, labels) has
    a ready pod. Raises LabUnavailable, before anything is changed, when an object of that name
    exists and is not ours."""
    things = [of_this_run(thing) for thing in objects]
    # False sorts before True, and the others keep their order.
    things.sort(key=lambda thing: thing["kind"] != "Namespace")

    # All names are looked at before the first object is applied.
    for thing in things:
        _check_name_is_free(kubernetes, thing)
    kubernetes.apply(things)

    for namespace, labels in awaited:
        _await_pod(kubernetes, real, namespace, labels)


def _check_name_is_free(kubernetes: Kubernetes, thing: JsonObject) -> None:
    namespace, name = namespace_and_name(thing)
    found = kubernetes.read(kind_of(thing), namespace or None, name)
    if found is None or is_ours(texts_at(found, "metadata", "labels")):
        return

    our_label = ", ".join(f"{key}={value}" for key, value in OUR_LABELS.items())
    raise LabUnavailable(
        f"{identity_of(thing)} exists and does not carry our label ({our_label}), so it "
        "is left alone; use another cluster, or rename the identities of the scenario"
    )


def _await_pod(
    kubernetes: Kubernetes, real: HostTime, namespace: str, labels: Mapping[str, str]
) -> None:
    awaited = f"a ready pod of {selector(labels)} in {namespace}"
    poll = partial(_unready_of, kubernetes, namespace, labels)
    wait_for(awaited, real, READY_WITHIN_S, poll)


def _unready_of(kubernetes: Kubernetes, namespace: str, labels: Mapping[str, str]) -> str | None:
    pods = kubernetes.pods(namespace, labels)
    if not pods:
        return "no pod"
    unready = [f"{pod} is not ready" for pod in pods if not pod.ready]
    return ", ".join(unready) or None


def restart_ztunnels(
    kubernetes: Kubernetes, real: HostTime, lifetime_s: int, stamp: str, ours: bool
) -> None:
    """Restart every ztunnel and wait until all are ready. `stamp` must be unique. Raises
    LabUnavailable when a cluster that is not ours is configured for another lifetime."""
    found = check_ambient(kubernetes)
    if not ours:
        _check_environment(found, lifetime_s)
    wanted = observed_environment(lifetime_s) if ours else {}

    environment = _environment(found)
    annotations = texts_at(found, "spec", "template", "metadata", "annotations")
    changed: _ZtunnelChange = {
        "environment": {
            name: {"was": environment.get(name), "set": text} for name, text in wanted.items()
        },
        "annotations": {name: annotations.get(name) for name in (RESTARTED, RESTARTED_BY_KUBECTL)},
    }

    # valueFrom null: a variable that came from elsewhere would else have two sources.
    entries: list[JsonObject] = [
        {"name": name, "value": text, "valueFrom": None} for name, text in wanted.items()
    ]
    added = [name for name in wanted if name not in environment]
    template = _template({RESTARTED: stamp}, entries, [*environment, *added])

    # Written in the same patch as the change itself: a kill between two would leave a change of
    # which nothing is known.
    note = {"annotations": {CHANGED: json.dumps(changed)}}
    kubernetes.patch(*ZTUNNEL, {"metadata": note, "spec": {"template": template}})
    await_ztunnels(kubernetes, real)


def check_ambient(kubernetes: Kubernetes) -> JsonObject:
    """ztunnel's DaemonSet. Raises LabUnavailable when there is none."""
    found = kubernetes.read(*ZTUNNEL)
    if found is not None:
        return found

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


def _environment(daemon_set: JsonObject) -> dict[str, JsonObject]:
    """The entries of ztunnel's environment, by name."""
    entries = {}
    for container in objects_at(daemon_set, "spec", "template", "spec", "containers"):
        if container["name"] != PROXY_CONTAINER:
            continue
        for entry in objects_at(container, "env"):
            entries[text_at(entry, "name")] = entry
    return entries


def _template(
    annotations: Mapping[str, str | None], environment: Sequence[JsonObject], order: list[str]
) -> JsonObject:
    """The strategic merge patch of a pod template. `order` is the order of ztunnel's environment:
    a merge would change it otherwise, and the API server refuses a patch whose entries are in
    another order than its $setElementOrder."""
    template: MutableJsonObject = {"metadata": {"annotations": dict(annotations)}}
    if not environment:
        return template

    kept: list[JsonObject] = []
    deleted: list[JsonObject] = []
    for entry in environment:
        # An entry that is to be deleted has no place in the order.
        if "$patch" in entry:
            deleted.append(entry)
        else:
            kept.append(entry)
    kept.sort(key=lambda entry: order.index(text_at(entry, "name")))

    container = {
        "name": PROXY_CONTAINER,
        "env": [*kept, *deleted],
        "$setElementOrder/env": [{"name": name} for name in order],
    }
    template["spec"] = {"containers": [container]}
    return template


# Restoring


def restore_cluster(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    """Undo everything that runs did to the cluster and wait until it is restored; returns what was
    undone, one sentence each. The caller must hold the cluster (hold.py). A step that fails does
    not keep the others from being undone."""
    # In this order: the objects of runs, fixes among them; clocks, before programs start again;
    # istiod, before the ztunnels that need certificates of it; last the helper, which moves clocks.
    steps = (_remove_objects, restore_clocks, _restore_istiod, _restore_ztunnels, _remove_helper)

    done: list[str] = []
    failed: list[Exception] = []
    for undo in steps:
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
    kubernetes: Kubernetes, real: HostTime, cluster: str, doing: str
) -> list[str]:
    """`restore_cluster`, if a run that was killed left anything behind. Raises InUse when another
    command uses the cluster, and Unreachable."""
    # Looked at without the Lease first: where nothing is left, no other command is kept waiting.
    if not is_marked(kubernetes) and not _is_left(kubernetes):
        return []
    with hold(kubernetes, real, cluster, doing):
        return restore_cluster(kubernetes, real)


def _is_left(kubernetes: Kubernetes) -> bool:
    """Whether the cluster contains or shows anything of a run."""
    for thing in (ZTUNNEL, ISTIOD):
        if _changed_in(kubernetes.read(*thing)) is not None:
            return True

    if is_moved(kubernetes):
        return True

    # A helper that does not stay is removed last, so all else may be undone already.
    if kubernetes.ours("Namespace", GOES_LABELS):
        return True

    # Last, as it takes a request for each kind.
    return any(_of_runs(kubernetes, kind) for kind in KINDS_OF_A_RUN)


def _remove_helper(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    """Delete the helper where it does not stay: in a cluster that is not ours."""
    lines = []
    for _, name in kubernetes.ours("Namespace", GOES_LABELS):
        was_there = kubernetes.delete_ours("Namespace", None, name)
        if was_there:
            lines.append(f"removed Namespace {name}")
    return lines


def _remove_objects(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    gone = delete_run_objects(kubernetes, real)
    if not gone:
        return []
    return [f"removed {', '.join(gone)}"]


def _restore_istiod(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    replicas = scale_istiod_back(kubernetes)
    if replicas is None:
        return []
    return [f"istiod scaled back to {replicas}"]


def _restore_ztunnels(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    # Recorded on the DaemonSet itself, so that a run on another machine can be undone from here.
    found = kubernetes.read(*ZTUNNEL)
    changed: _ZtunnelChange | None = _changed_in(found)
    if found is None or changed is None:
        return []

    template = _restored_template(changed, _environment(found))
    note = {"annotations": {CHANGED: None}}
    kubernetes.patch(*ZTUNNEL, {"metadata": note, "spec": {"template": template}})
    await_ztunnels(kubernetes, real)

    names = ", ".join(changed["environment"])
    # None in a cluster that is not ours: only an annotation was changed there.
    settings = f" ({names})" if names else ""
    return [f"ztunnel restarted with its own settings again{settings}"]


def _restored_template(
    changed: _ZtunnelChange, environment: Mapping[str, JsonObject]
) -> JsonObject:
    """The patch that restores ztunnel's template. A variable that has been changed since by
    another hand is left alone."""
    entries: list[JsonObject] = []
    deleted = set()
    for name, change in changed["environment"].items():
        if value_at(environment.get(name), "value") != change["set"]:
            continue
        if change["was"] is None:
            # A merge removes an entry of a list only by this word of the API.
            entries.append({"name": name, "$patch": "delete"})
            deleted.add(name)
        else:
            entries.append({"value": None, "valueFrom": None, **change["was"]})
    order = [name for name in environment if name not in deleted]
    return _template(changed["annotations"], entries, order)


def _changed_in(thing: JsonObject | None) -> Any:
    """What a run recorded as changed in `thing`, a `_ZtunnelChange` or `_IstiodChange`; None when
    it has changed nothing."""
    note = text_at(thing, "metadata", "annotations", CHANGED)
    if not note:
        return None
    return json.loads(note)


def scale_istiod_down(kubernetes: Kubernetes) -> None:
    """Scale istiod to 0, and record the number of replicas in its annotation."""
    found = kubernetes.read(*ISTIOD)
    if _changed_in(found) is not None:
        return  # an earlier outage, which still lasts, has recorded the number

    # At least one: a cluster whose istiod was at 0 could not be used by the next run.
    change: _IstiodChange = {"replicas": max(int_at(found, "spec", "replicas"), 1)}
    note = {"annotations": {CHANGED: json.dumps(change)}}
    kubernetes.patch(*ISTIOD, {"metadata": note, "spec": {"replicas": 0}})


def scale_istiod_back(kubernetes: Kubernetes) -> int | None:
    """Undo `scale_istiod_down`; returns the number of replicas, None when it was not scaled
    down."""
    changed: _IstiodChange | None = _changed_in(kubernetes.read(*ISTIOD))
    if changed is None:
        return None
    replicas = changed["replicas"]
    note = {"annotations": {CHANGED: None}}
    kubernetes.patch(*ISTIOD, {"metadata": note, "spec": {"replicas": replicas}})
    return replicas


def await_ztunnels(kubernetes: Kubernetes, real: HostTime) -> None:
    """Wait until every node has its current ztunnel, available, and no earlier one (the two overlap
    during a rollout)."""
    wait_for(
        "every ztunnel to be restarted (DaemonSet istio-system/ztunnel)",
        real,
        ROLLED_OUT_WITHIN_S,
        partial(_ztunnels_not_restarted, kubernetes),
    )


def _ztunnels_not_restarted(kubernetes: Kubernetes) -> str | None:
    found = kubernetes.read(*ZTUNNEL)
    if found is None:
        return "no such DaemonSet"
    missing = unmet(found)
    if missing is not None:
        return missing

    wanted = int_at(found, "status", "desiredNumberScheduled")
    pods = kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS)
    if len(pods) == wanted:
        return None
    return f"{len(pods)} pods for {wanted} nodes"


def _check_environment(daemon_set: JsonObject, lifetime_s: int) -> None:
    environment = _environment(daemon_set)
    lifetime_entry = environment.get(SECRET_TTL, {})
    lifetime = str(lifetime_entry.get("value", DEFAULT_SECRET_TTL))
    streams = value_at(environment.get(MAX_STREAMS), "value")
    if _seconds(lifetime) == lifetime_s and streams == "1":
        return

    raise LabUnavailable(
        f"ztunnel of this cluster has {SECRET_TTL}={lifetime} and {MAX_STREAMS}={streams}, "
        "and a cluster that is not ours is not reconfigured; set them yourself: helm upgrade "
        f"ztunnel istio/ztunnel -n {ISTIO_NAMESPACE} --reuse-values "
        f"--set env.{SECRET_TTL}={lifetime_s}s --set-string env.{MAX_STREAMS}=1"
    )


def _seconds(text: str) -> int | None:
    try:
        return parse_duration_ns(text) // NS_PER_S
    except ValueError:
        return None
