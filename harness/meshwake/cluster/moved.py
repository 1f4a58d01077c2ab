"""Restores the clocks that a killed run by `--clock process` had moved.

The owner is recorded before clocks are moved: on the helper's DaemonSet (`MARK`, visible from
every machine that reaches the cluster) and, by the helper, on each node (/run/meshwake). A helper
whose owner no longer renews its lease restores the clocks by itself (clocks/movers/node_helper/).
This module does the same without waiting for that lease, reports what had been moved, and restarts
the programs that had started on moved clocks. The two may run in either order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

from meshwake.clocks.movers.node_helper.answers import DescribedProcess, Listing, Released
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
from meshwake.cluster.real_time import HostTime, wait_for
from meshwake.cluster.stack.pieces import DEMO_NAMESPACE, OBSERVABILITY_NAMESPACE
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import seconds
from meshwake.core.errors import HarnessError, SubjectFailed
from meshwake.core.json_types import JsonObject, MutableJsonObject, text_at
from meshwake.guard import names as guard_names
from meshwake.kubernetes.api import Kubernetes, Pod
from meshwake.ztunnel.names import ISTIO_NAMESPACE

NEXT_WITHIN_S = 120.0
# Where programs run that a run moves and that stay afterwards: istiod, gateways and waypoints, and
# the guards of profile full and of `guard install`.
_WITH_MOVED_PROGRAMS = (
    ISTIO_NAMESPACE,
    DEMO_NAMESPACE,
    OBSERVABILITY_NAMESPACE,
    guard_names.NAMESPACE,
)
_POD_UID = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")


def restore_clocks(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    """Restore the clocks that a killed run has moved; returns one sentence a node. The caller must
    hold the cluster, and must restart ztunnels only afterwards: one that starts on moved clocks
    keeps a wrong time base. Raises SubjectFailed when a node cannot be restored."""
    mark = _mark(kubernetes)
    if mark is None:
        return []
    nodes = _nodes_with_helper(kubernetes, real)
    with closing(PodChannel(kubernetes, {node: node for node in nodes})) as channel:
        return _restore(kubernetes, real, channel, nodes, mark)


def _restore(
    kubernetes: Kubernetes,
    real: HostTime,
    channel: PodChannel,
    nodes: list[str],
    mark: JsonObject,
) -> list[str]:
    lines: list[str] = []
    failed: list[str] = []
    begun_moved: list[DescribedProcess] = []

    # Nodes with istiod first; of equal ones, by name.
    in_order = sorted(nodes, key=lambda node: (not _has_istiod(channel, node), node))
    for node in in_order:
        try:
            answer, why = _release(channel, node)
        except HarnessError as error:
            failed.append(str(error))
            continue
        failed += [f"node {node}: process {pid}: {how}" for pid, how in answer["failed"].items()]
        begun_moved += [*answer["begun_moved"], *answer["ended"]]
        lines += _sentences(node, answer, why)

    # With the mark left as it is, the next command tries again.
    if failed:
        raise SubjectFailed(
            f"clocks that {mark['owner']} had moved could not be restored: "
            f"{'; '.join(failed)}; delete the pods of those programs (kubectl delete pod): new "
            "ones have the clocks of their node"
        )
    lines += end_begun_moved(kubernetes, real, begun_moved, ours=bool(mark["ours"]))
    unmark(kubernetes)
    return lines


def is_moved(kubernetes: Kubernetes) -> bool:
    """Whether clocks may be moved at present."""
    return _mark(kubernetes) is not None


def unmark(kubernetes: Kubernetes) -> None:
    """Remove the mark: all clocks are restored."""
    kubernetes.patch(
        "DaemonSet.apps", NAMESPACE, DAEMON_SET, {"metadata": {"annotations": {MARK: None}}}
    )


def end_begun_moved(
    kubernetes: Kubernetes, real: HostTime, begun_moved: Iterable[DescribedProcess], ours: bool
) -> list[str]:
    """Restart the pods of programs that took their time base while clocks were moved, or were ended
    because their clocks were ahead (kubelet would delay the restart of such a container: its
    back-off counts). In a cluster that is not ours they are only named. ztunnels are left out:
    every run restarts them at its end."""
    pods = _pods_of(kubernetes, begun_moved)
    if not ours:
        return [
            f"{pod} started on moved clocks and still runs; restart it: kubectl delete pod"
            for pod in pods
        ]

    # Counted before the first pod is ended: afterwards some of them are missing.
    wanted = []
    for pod in pods:
        labels = _lasting(pod)
        count = len(kubernetes.pods(pod.namespace, labels))
        wanted.append((pod.namespace, labels, count))

    for pod in pods:
        kubernetes.end_pod(pod)
    _await_next(kubernetes, real, wanted)
    return [f"{pod} had started on moved clocks and is restarted" for pod in pods]


def _pods_of(kubernetes: Kubernetes, processes: Iterable[DescribedProcess]) -> list[Pod]:
    """The pods in which `processes` run, by the uid in the name of their cgroup; no ztunnel's."""
    uids: set[str] = set()
    for process in processes:
        for uid in _POD_UID.findall(process["cgroup"]):
            # The systemd driver of cgroups has underscores in the place of dashes.
            uids.add(uid.replace("_", "-"))
    if not uids:
        return []

    found = []
    for namespace in _WITH_MOVED_PROGRAMS:
        for pod in kubernetes.pods(namespace, {}):
            is_ztunnel = pod.labels.get("app") == "ztunnel"
            if pod.uid in uids and not is_ztunnel:
                found.append(pod)
    return found


def _lasting(pod: Pod) -> dict[str, str]:
    """The labels that the next pod of its controller will have too."""
    # pod-template-hash, controller-revision-hash: of one version of the template.
    return {name: value for name, value in pod.labels.items() if not name.endswith("-hash")}


def _await_next(
    kubernetes: Kubernetes, real: HostTime, wanted: Iterable[tuple[str, Mapping[str, str], int]]
) -> None:
    """Wait until as many pods are ready as before. One that does not become ready is no reason to
    leave the rest of the restore undone: the next check of the cluster reports it."""
    for namespace, labels, count in wanted:
        look = partial(_not_ready_again, kubernetes, namespace, labels, count)
        with suppress(SubjectFailed):
            wait_for(f"the restarted pods in {namespace}", real, NEXT_WITHIN_S, look)


def _not_ready_again(
    kubernetes: Kubernetes,
    namespace: str,
    labels: Mapping[str, str],
    count: int,
) -> str | None:
    """What is observed until `count` pods are ready; None then."""
    pods = kubernetes.pods(namespace, labels)
    ready = [pod for pod in pods if pod.ready]
    if len(ready) >= count:
        return None
    return f"{len(ready)} of {count} ready"


def _mark(kubernetes: Kubernetes) -> MutableJsonObject | None:
    found = kubernetes.read("DaemonSet.apps", NAMESPACE, DAEMON_SET)
    text = text_at(found, "metadata", "annotations", MARK)
    if not text:
        return None
    return dict(json.loads(text))


def _nodes_with_helper(kubernetes: Kubernetes, real: HostTime) -> list[str]:
    """The Kubernetes nodes of all helpers, once all are ready: a helper may have been killed too,
    and reads its state from the node when it is restarted."""
    pods: list[Pod] = []
    poll = partial(_helpers_not_ready, kubernetes, pods)
    wait_for("the helpers that have moved clocks", real, HELPER_WITHIN_S, poll)
    return sorted(pod.node for pod in pods)


def _helpers_not_ready(kubernetes: Kubernetes, pods: list[Pod]) -> str | None:
    """Puts the helpers' pods into `pods`, and says which are not ready."""
    pods[:] = kubernetes.pods(NAMESPACE, LABELS)
    if not pods:
        return "no pod"
    unready = [str(pod) for pod in pods if not pod.ready]
    return ", ".join(unready) or None


def _has_istiod(channel: PodChannel, node: str) -> bool:
    """Nodes with istiod are restored first: after a time lapse programs that are ahead are ended,
    and those that are restarted must not get a certificate from an istiod that is still ahead. A
    node that does not answer fails when it is released."""
    try:
        listing: Listing = _request(channel, node, do="list")
    except HarnessError:
        return False
    executables = {process["executable"] for process in listing["processes"]}
    return ISTIOD.executable in executables


def _release(channel: PodChannel, node: str) -> tuple[Released, str]:
    """What the helper of `node` released, and why: now, or earlier, when its lease ran out."""
    listing: Listing = _request(channel, node, do="list")
    rules = [rule._asdict() for rule in EVERY_RULE]
    released: Released = _request(channel, node, do="release", owner=listing["owner"], rules=rules)
    earlier = listing["given_up"]
    if earlier is None:
        return released, "this command found it"

    # What failed then may have been released now, and the other way round.
    earlier["failed"] = released["failed"]
    return earlier, earlier["why"]


def _request(channel: PodChannel, node: str, **request: Any) -> Any:
    answer = channel.send(node, {"version": PROTOCOL_VERSION, **request})
    if not answer["ok"]:
        raise SubjectFailed(f"node {node}: {text_at(answer, 'error', 'message')}")
    return answer["result"]


def _sentences(node: str, answer: Released, why: str) -> list[str]:
    if not answer["released"]:
        return []

    moved = ClockReading(**answer["offsets"])
    offsets = [
        f"{name} {seconds(value):+.3f} s"
        for name, value in zip(("wall", "monotonic", "boottime"), moved, strict=True)
    ]
    count = f"the clocks of {len(answer['released'])} programs"
    ended = ""
    if answer["ended"]:
        ended = f", {len(answer['ended'])} of which were ahead and have been ended for that"
    return [
        f"node {node}: {count} were restored ({', '.join(offsets)} moved){ended}, because {why}"
    ]
