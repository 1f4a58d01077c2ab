"""Whether the traffic of each ambient pod really goes through ztunnel, asked of the pod's own
network namespace.

The annotation `ambient.istio.io/redirection: enabled` says what istio-cni meant to do. A pod whose
sandbox was made while istio-cni had no part in the CNI configuration (a Cilium agent writes its
file anew at each start) has the annotation of its former sandbox, and nothing listens: it is
outside the mesh, silently and for good. So each pod is asked for ztunnel's listener on port 15008,
in /proc of any of its processes. Only the nodes of a cluster of ours can be looked into.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from meshwake.cluster.bring_up_context import BringUpContext, node_names
from meshwake.cluster.docker import Engine
from meshwake.cluster.steps import Step, Watch
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.kubernetes.api import Kubernetes, identity_of
from meshwake.kubernetes.through_kr8s import pod_of
from meshwake.ztunnel.ports import HBONE_PORT

REDIRECTED_WITHIN_S = 240
MODE_LABEL, REDIRECTION = "istio.io/dataplane-mode", "ambient.istio.io/redirection"
# A ztunnel that starts anew listens again within seconds; pods that lack it for so many looks lack
# it for good.
LOOKS = 6
_POD_UID = "pod[0-9a-f]{8}[-_][0-9a-f_-]{27}"
_LISTENS = f":{HBONE_PORT:04X} [0-9A-F]+:[0-9A-F]+ 0A "
_LOOK = (
    "sh",
    "-c",
    f"grep -EHso '{_POD_UID}' /proc/[0-9]*/cgroup; grep -EHsc '{_LISTENS}' "
    "/proc/[0-9]*/net/tcp /proc/[0-9]*/net/tcp6",
)
_CGROUP = re.compile(rf"^/proc/(\d+)/cgroup:pod({_POD_UID[3:]})$", re.MULTILINE)
_SOCKETS = re.compile(r"^/proc/(\d+)/net/tcp6?:(\d+)$", re.MULTILINE)


def ambient_pods(kubernetes: Kubernetes) -> list[dict[str, Any]]:
    """The pods that run and are in the mesh: by their own label or their namespace's, or as
    istio-cni says."""
    labels = {
        each["metadata"]["name"]: each["metadata"].get("labels") or {}
        for each in kubernetes.all("Namespace")
    }
    return [
        pod
        for pod in kubernetes.all("Pod")
        if _is_ambient(pod, labels.get(pod["metadata"]["namespace"], {}))
    ]


def _is_ambient(pod: Mapping[str, Any], of_namespace: Mapping[str, str]) -> bool:
    metadata = pod["metadata"]
    if (pod.get("status") or {}).get("phase") != "Running" or "deletionTimestamp" in metadata:
        return False
    if pod["spec"].get("hostNetwork"):
        return False
    if (metadata.get("annotations") or {}).get(REDIRECTION) == "enabled":
        return True
    return (metadata.get("labels") or {}).get(MODE_LABEL, of_namespace.get(MODE_LABEL)) == "ambient"


def not_redirected(
    pods: Sequence[Mapping[str, Any]], engine: Engine, nodes: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Those of `pods` in which nothing listens for HBONE. A pod of which no process is seen is not
    judged. Raises LabUnavailable."""
    listens: dict[str, bool] = {}
    for node in nodes:
        listens |= dict(_looked_into(engine, node))
    return [pod for pod in pods if listens.get(pod["metadata"]["uid"]) is False]


def _looked_into(engine: Engine, node: str) -> Iterator[tuple[str, bool]]:
    """(uid of a pod, whether something listens in it), of every pod with processes on a node."""
    _, said = engine.execute(node, _LOOK)  # grep's exit code tells of the last file only
    listeners = Counter[str]()
    for pid, count in _SOCKETS.findall(said):
        listeners[pid] += int(count)
    if not listeners:
        raise LabUnavailable(f"node {node}: /proc shows no sockets: {said[:200]}")
    found: dict[str, bool] = {}
    for pid, uid in _CGROUP.findall(said):
        named = uid.replace("_", "-")
        found[named] = found.get(named, False) or listeners[pid] > 0
    yield from found.items()


def redirection_step() -> Step[BringUpContext]:
    """The step that makes pods anew which ztunnel does not see."""
    return Step(
        "redirection",
        "the traffic of every ambient pod goes through ztunnel",
        REDIRECTED_WITHIN_S,
        _make_anew,
        (
            f"delete the pods in which nothing listens on port {HBONE_PORT}; their "
            "controllers make them anew",
        ),
        done=_all_redirected,
    )


def _lacking(bringup: BringUpContext) -> tuple[int, list[Mapping[str, Any]]]:
    pods = ambient_pods(bringup.kube())
    return len(pods), not_redirected(pods, bringup.engine, node_names(bringup.choice, bringup.pins))


def _all_redirected(bringup: BringUpContext) -> str | None:
    count, lacking = _lacking(bringup)
    return f"{count} ambient pods, and all are" if not lacking else None


def _make_anew(bringup: BringUpContext, watch: Watch) -> None:
    watch.wait_for("every ambient pod to be redirected", partial(_look, bringup, watch, Counter()))


def _look(bringup: BringUpContext, watch: Watch, seen: Counter[str]) -> str | None:
    """One look; a pod that lacks it at the last of so many is ended, if somebody makes it anew."""
    try:
        _, lacking = _lacking(bringup)
        for pod in lacking:
            uid = pod["metadata"]["uid"]
            seen[uid] += 1
            if seen[uid] == LOOKS and pod["metadata"].get("ownerReferences"):
                watch.say(f"{identity_of(pod)} is made anew: nothing listens on {HBONE_PORT} in it")
                bringup.kube().end_pod(pod_of(pod))
    except HarnessError as error:
        return str(error)
    return (
        f"nothing listens on {HBONE_PORT} in {', '.join(map(identity_of, lacking))}"
        if lacking
        else None
    )
