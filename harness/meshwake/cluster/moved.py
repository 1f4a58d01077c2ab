"""Clocks that a run by `--clock process` has moved, found again and put back by whoever comes next.

Who moves them is written down before they are moved: on the helper's DaemonSet (`MARK`: any machine
that reaches the cluster sees it) and, by the helper, on each node (/run/meshwake). A helper that
hears nothing of its owner puts back by itself (clocks/movers/node_helper/); what is done here is
to wait for no lease, to say what had been moved, and to start anew what began on moved clocks.
Which was first makes no difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.clocks.movers.process import EVERY_RULE, ISTIOD
from meshwake.cluster.node_channel import (
    DAEMON_SET,
    HELPER_WITHIN_S,
    LABELS,
    MARK,
    NAMESPACE,
    PodChannel,
)
from meshwake.cluster.real_time import RealTime, wait_for
from meshwake.cluster.stack.pieces import DEMO_NAMESPACE
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import seconds
from meshwake.core.errors import HarnessError, SubjectFailed
from meshwake.kubernetes.api import Kubernetes, Pod
from meshwake.ztunnel.names import ISTIO_NAMESPACE

NEXT_WITHIN_S = 120.0
_POD_UID = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")


def restore_clocks(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    """Puts back what a run that was killed has moved; one sentence a node. To be called by whoever
    holds the cluster, before ztunnels are started anew: one that starts on moved clocks keeps a
    wrong time base. Raises SubjectFailed when a node cannot be put back."""
    mark = _mark(kubernetes)
    if mark is None:
        return []
    nodes = _nodes_with_helper(kubernetes, real)
    with closing(PodChannel(kubernetes, {node: node for node in nodes})) as channel:
        return _restore(kubernetes, real, channel, nodes, mark)


def _restore(
    kubernetes: Kubernetes,
    real: RealTime,
    channel: PodChannel,
    nodes: list[str],
    mark: Mapping[str, Any],
) -> list[str]:
    said, failed, begun_moved = [], [], []
    for node in sorted(nodes, key=lambda node: (not _has_istiod(channel, node), node)):
        try:
            told = _give_back(channel, node)
        except HarnessError as error:
            failed.append(str(error))
            continue
        failed += [f"node {node}: process {pid}: {why}" for pid, why in told["failed"].items()]
        begun_moved += [*told["begun_moved"], *told["ended"]]
        said += _sentences(node, told)
    if failed:
        raise SubjectFailed(
            f"clocks that {mark['owner']} had moved could not be put back: "
            f"{'; '.join(failed)}; end the pods of those "
            "programs (kubectl delete pod), new ones have the clocks of their node"
        )
    said += end_begun_moved(kubernetes, real, begun_moved, ours=bool(mark["ours"]))
    unmark(kubernetes)
    return said


def is_moved(kubernetes: Kubernetes) -> bool:
    """Whether clocks may be moved."""
    return _mark(kubernetes) is not None


def unmark(kubernetes: Kubernetes) -> None:
    """Nothing is moved any more."""
    kubernetes.patch(
        "DaemonSet.apps", NAMESPACE, DAEMON_SET, {"metadata": {"annotations": {MARK: None}}}
    )


def end_begun_moved(
    kubernetes: Kubernetes, real: RealTime, begun_moved: Iterable[Mapping[str, Any]], ours: bool
) -> list[str]:
    """Programs that took their time base while clocks were moved, or were ended because they were
    ahead, are started anew with their pods (a container that ends again and again is made to wait
    by kubelet); in a cluster that is not ours they are only named. ztunnels are left out: every run
    starts them anew at its end."""
    uids = {
        uid.replace("_", "-") for each in begun_moved for uid in _POD_UID.findall(each["cgroup"])
    }
    pods = [
        pod
        for namespace in (ISTIO_NAMESPACE, DEMO_NAMESPACE)
        for pod in (kubernetes.pods(namespace, {}) if uids else ())
        if pod.uid in uids and pod.labels.get("app") != "ztunnel"
    ]
    if ours:
        wanted = [
            (pod.namespace, _lasting(pod), len(kubernetes.pods(pod.namespace, _lasting(pod))))
            for pod in pods
        ]
        for pod in pods:
            kubernetes.end_pod(pod)
        _await_next(kubernetes, real, wanted)
        return [f"{pod} had begun on moved clocks and is started anew" for pod in pods]
    return [
        f"{pod} began on moved clocks and runs on; start it anew: kubectl delete pod"
        for pod in pods
    ]


def _lasting(pod: Pod) -> dict[str, str]:
    """The labels that the next pod of its controller has too."""
    return {key: value for key, value in pod.labels.items() if not key.endswith("-hash")}


def _await_next(
    kubernetes: Kubernetes, real: RealTime, wanted: Iterable[tuple[str, Mapping[str, str], int]]
) -> None:
    """Waits until as many are ready as there were. What does not come is no reason to leave more
    undone: it is told by whoever needs it."""
    for namespace, labels, count in wanted:
        look = partial(_not_ready_again, kubernetes, namespace, labels, count)
        with suppress(SubjectFailed):
            wait_for(f"the pods in {namespace} that are started anew", real, NEXT_WITHIN_S, look)


def _not_ready_again(
    kubernetes: Kubernetes, namespace: str, labels: Mapping[str, str], count: int
) -> str | None:
    """What is seen until `count` pods are ready; None then."""
    ready = [pod for pod in kubernetes.pods(namespace, labels) if pod.ready]
    return None if len(ready) >= count else f"{len(ready)} of {count} ready"


def _mark(kubernetes: Kubernetes) -> dict[str, Any] | None:
    found = kubernetes.read("DaemonSet.apps", NAMESPACE, DAEMON_SET) or {"metadata": {}}
    text = (found["metadata"].get("annotations") or {}).get(MARK)
    return None if text is None else dict(json.loads(text))


def _nodes_with_helper(kubernetes: Kubernetes, real: RealTime) -> list[str]:
    """Kubernetes' names, when each of its helpers is there: it may have been killed too, and finds
    everything again."""
    pods: list[Pod] = []

    def look() -> str | None:
        pods[:] = kubernetes.pods(NAMESPACE, LABELS)
        return ", ".join(str(pod) for pod in pods if not pod.ready) or (None if pods else "no pod")

    wait_for("the helpers that have moved clocks", real, HELPER_WITHIN_S, look)
    return sorted(pod.node for pod in pods)


def _has_istiod(channel: PodChannel, node: str) -> bool:
    """Those first: where time was skipped, what is ahead is ended, and what is started anew must
    not ask an istiod that is. A node that does not answer says so when it is released."""
    with suppress(HarnessError):
        processes = _asked(channel, node, do="list")["processes"]
        return any(process["executable"] == ISTIOD.executable for process in processes)
    return False


def _give_back(channel: PodChannel, node: str) -> dict[str, Any]:
    """What the helper of `node` says of what it released, now or before when it had given up
    waiting."""
    told = _asked(channel, node, do="list")
    rules = [rule._asdict() for rule in EVERY_RULE]
    released = _asked(channel, node, do="release", owner=told["owner"], rules=rules)
    if told["given_up"] is not None:
        earlier = told["given_up"]
        return {**earlier, "failed": released["failed"]}
    return {**released, "why": "this command has found it"}


def _asked(channel: PodChannel, node: str, **request: Any) -> dict[str, Any]:
    answer = channel.send(node, {"version": PROTOCOL_VERSION, **request})
    if not answer["ok"]:
        raise SubjectFailed(f"node {node}: {answer['error']['message']}")
    return dict(answer["result"])


def _sentences(node: str, told: Mapping[str, Any]) -> list[str]:
    moved = ClockReading(**told["offsets"])
    shown = [
        f"{name} {seconds(value):+.3f} s"
        for name, value in zip(("wall", "monotonic", "boottime"), moved, strict=True)
    ]
    if not told["released"]:
        return []
    count = f"the clocks of {len(told['released'])} programs"
    how = (
        f", {len(told['ended'])} of which were ahead and have been ended for that"
        if told["ended"]
        else ""
    )
    return [
        f"node {node}: {count} were put back ({', '.join(shown)} moved){how}, because {told['why']}"
    ]
