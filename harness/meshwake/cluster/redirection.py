"""Checks in each ambient pod's network namespace whether its traffic really goes through ztunnel.

The annotation `ambient.istio.io/redirection: enabled` only records what istio-cni intended. A pod
whose sandbox was created while istio-cni was not in the CNI chain (a Cilium agent rewrites its file
at every start) has the annotation of its former sandbox, and nothing listens: it is outside the
mesh, silently and permanently. So ztunnel's listener on port 15008 is looked up in each pod, in
/proc/PID/net of any of its processes. Only nodes of our own clusters can be inspected.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from meshwake.cluster.bring_up_context import BringUpContext, node_names
from meshwake.cluster.docker import Engine
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.core.json_types import JsonObject, list_at, object_at, text_at, texts_at, value_at
from meshwake.kubernetes.api import Kubernetes, identity_of
from meshwake.kubernetes.through_kr8s import pod_of
from meshwake.ztunnel.ports import HBONE_PORT

REDIRECTED_WITHIN_S = 240
MODE_LABEL, REDIRECTION = "istio.io/dataplane-mode", "ambient.istio.io/redirection"
# A ztunnel that is restarted listens again within seconds; a pod without its listener for this many
# polls will not get one.
POLLS = 6
# The systemd cgroup driver writes the dashes of a uid as underscores, since a dash separates
# slices.
_POD_UID = "pod[0-9a-f]{8}[-_][0-9a-f_-]{27}"
# A line of /proc/net/tcp: local address, remote address, state 0A (TCP_LISTEN); ports in hex.
_LISTENS = f":{HBONE_PORT:04X} [0-9A-F]+:[0-9A-F]+ 0A "
_LOOK = (
    "sh",
    "-c",
    f"grep -EHso '{_POD_UID}' /proc/[0-9]*/cgroup; grep -EHsc '{_LISTENS}' "
    "/proc/[0-9]*/net/tcp /proc/[0-9]*/net/tcp6",
)
_CGROUP = re.compile(rf"^/proc/(\d+)/cgroup:pod({_POD_UID[3:]})$", re.MULTILINE)
_SOCKETS = re.compile(r"^/proc/(\d+)/net/tcp6?:(\d+)$", re.MULTILINE)


def ambient_pods(kubernetes: Kubernetes) -> list[JsonObject]:
    """The running pods that are in the mesh: by their own label, their namespace's label, or
    istio-cni's annotation."""
    labels_of_namespace = {
        text_at(each, "metadata", "name"): texts_at(each, "metadata", "labels")
        for each in kubernetes.all("Namespace")
    }
    ambient = []
    for pod in kubernetes.all("Pod"):
        namespace = text_at(pod, "metadata", "namespace")
        if _is_ambient(pod, labels_of_namespace.get(namespace, {})):
            ambient.append(pod)
    return ambient


def _is_ambient(pod: JsonObject, namespace_labels: Mapping[str, str]) -> bool:
    if text_at(pod, "status", "phase") != "Running":
        return False

    # It is being deleted, and its listener may have ended before it.
    if "deletionTimestamp" in object_at(pod, "metadata"):
        return False

    # istio-cni redirects by the network namespace of a pod; the host's is left alone.
    if value_at(pod, "spec", "hostNetwork"):
        return False
    if texts_at(pod, "metadata", "annotations").get(REDIRECTION) == "enabled":
        return True

    # The label of a pod counts before that of its namespace, also to take it out (mode "none").
    own_mode = texts_at(pod, "metadata", "labels").get(MODE_LABEL)
    mode = own_mode if own_mode is not None else namespace_labels.get(MODE_LABEL)
    return mode == "ambient"


def not_redirected(
    pods: Sequence[JsonObject], engine: Engine, nodes: Sequence[str]
) -> list[JsonObject]:
    """Those of `pods` in which nothing listens for HBONE. A pod without a visible process is
    skipped. Raises LabUnavailable."""
    listens: dict[str, bool] = {}
    for node in nodes:
        listens |= dict(_listening_pods(engine, node))

    found = []
    for pod in pods:
        uid = text_at(pod, "metadata", "uid")
        # None: it has no process that a node shows.
        if listens.get(uid) is False:
            found.append(pod)
    return found


def _listening_pods(engine: Engine, node: str) -> Iterator[tuple[str, bool]]:
    """(uid, whether something listens) for every pod with processes on a node."""
    ended = engine.execute(node, _LOOK)  # its code is that of the last grep only
    listeners = Counter[str]()
    for pid, count in _SOCKETS.findall(ended.stdout):
        listeners[pid] += int(count)
    if not listeners:
        raise LabUnavailable(f"node {node}: /proc shows no sockets: {ended.output[:200]}")
    found: dict[str, bool] = {}
    for pid, uid in _CGROUP.findall(ended.stdout):
        named = uid.replace("_", "-")
        # A pod has several processes, in one network namespace.
        found[named] = found.get(named, False) or listeners[pid] > 0
    yield from found.items()


def redirection_step() -> BringUpStep[BringUpContext]:
    """The step that deletes pods which are not redirected, so that they are created again."""
    return BringUpStep(
        "redirection",
        "the traffic of every ambient pod goes through ztunnel",
        REDIRECTED_WITHIN_S,
        _recreate,
        (
            f"delete the pods in which nothing listens on port {HBONE_PORT}; their "
            "controllers replace them",
        ),
        done=_all_redirected,
    )


def _lacking(bringup: BringUpContext) -> tuple[int, list[JsonObject]]:
    pods = ambient_pods(bringup.kube())
    return len(pods), not_redirected(pods, bringup.engine, node_names(bringup.choice, bringup.pins))


def _all_redirected(bringup: BringUpContext) -> str | None:
    count, lacking = _lacking(bringup)
    if lacking:
        return None
    return f"{count} ambient pods, and all are"


def _recreate(bringup: BringUpContext, watch: Watch) -> None:
    watch.wait_for("every ambient pod to be redirected", partial(_poll, bringup, watch, Counter()))


def _poll(bringup: BringUpContext, watch: Watch, seen: Counter[str]) -> str | None:
    """Poll once. A pod that lacks the listener for the POLLS-th time is deleted, if it has a
    controller that will replace it."""
    try:
        _, lacking = _lacking(bringup)
        for pod in lacking:
            # By its uid: a pod of a StatefulSet that was replaced has the same name.
            uid = text_at(pod, "metadata", "uid")
            seen[uid] += 1
            # One without a controller would not come back.
            has_controller = bool(list_at(pod, "metadata", "ownerReferences"))
            if seen[uid] == POLLS and has_controller:
                watch.say(f"{identity_of(pod)} is replaced: nothing listens on {HBONE_PORT} in it")
                bringup.kube().end_pod(pod_of(pod))
    except HarnessError as error:
        return str(error)

    if not lacking:
        return None
    names = ", ".join(identity_of(pod) for pod in lacking)
    return f"nothing listens on {HBONE_PORT} in {names}"
