"""What a killed run by --clock process left moved is found by the mark in the cluster and restored,
node by node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.cluster.moved import restore_clocks
from meshwake.cluster.node_channel import DAEMON_SET, LABELS, MARK, NAMESPACE, install_helper
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.kubernetes.api import Executed, Pod, Unreachable
from meshwake.kubernetes.labels import OUR_LABELS

from tests.unit.cluster.simulated import SimulatedCluster
from tests.unit.labs.kind.runs import node_names, plan

SLEPT = {"wall_ns": 0, "monotonic_ns": -210_000_000_000, "boottime_ns": 0}
ISTIOD_UID = "0b3d6a52-1111-2222-3333-444455556666"
ISTIOD = {
    "pid": 9,
    "executable": "/usr/local/bin/pilot-discovery",
    "cgroup": f"0::/kubepods/pod{ISTIOD_UID}/abc",
}


class Marked(SimulatedCluster):
    """A cluster with a helper on two nodes, whose answers a test writes."""

    def __init__(self, ours: bool = True) -> None:
        super().__init__(plan(), node_names(plan()))
        self.helpers: dict[str, dict[str, Any]] = {node: self._helper() for node in ("w1", "w2")}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.ended: list[str] = []
        self.with_moved_programs = {
            "istio-system": [Pod("istio-system", "istiod-1", ISTIOD_UID, "w1", ready=True)]
        }
        self.out_of_reach = ""
        self.updated_after_ns = 0
        mark = {MARK: json.dumps({"owner": "a run of s", "ours": ours})}
        self.objects["DaemonSet", NAMESPACE, DAEMON_SET] = {
            "metadata": {"labels": {}, "annotations": mark}
        }

    def _helper(self) -> dict[str, Any]:
        released = {
            "released": [7, 8],
            "ended": [],
            "failed": {},
            "begun_moved": [],
            "offsets": SLEPT,
        }
        return {
            "list": {"owner": "a run of s", "given_up": None, "processes": []},
            "release": released,
        }

    def pods(self, namespace: str | None, labels: Any) -> list[Pod]:
        if namespace == NAMESPACE:
            return [
                Pod(NAMESPACE, f"helper-{node}", node, node, ready=True, labels=LABELS)
                for node in self.helpers
            ]
        if not labels:
            return self.with_moved_programs.get(str(namespace), [])
        return super().pods(namespace, labels)

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        found = super().read(kind, namespace, name)
        if found is not None and name == DAEMON_SET:
            updated = len(self.helpers) if self.now_ns >= self.updated_after_ns else 0
            counts = {
                "desiredNumberScheduled": len(self.helpers),
                "numberAvailable": len(self.helpers),
            }
            found["kind"], found["status"] = (
                "DaemonSet",
                {**counts, "updatedNumberScheduled": updated},
            )
        return found

    def execute(
        self, pod: Pod, container: str, command: Sequence[str], within_s: float
    ) -> Executed:
        if pod.node == self.out_of_reach:
            raise Unreachable("kubelet does not answer")
        request = json.loads(command[-1])
        self.requests.append((pod.node, request))
        answer = {
            "version": PROTOCOL_VERSION,
            "ok": True,
            "result": self.helpers[pod.node][request["do"]],
        }
        return Executed(0, json.dumps(answer), "")

    def patch(self, kind: str, namespace: str, name: str, patch: Any) -> None:
        assert (kind, namespace, name) == ("DaemonSet.apps", NAMESPACE, DAEMON_SET)
        self.objects["DaemonSet", namespace, name]["metadata"]["annotations"].update(
            patch["metadata"]["annotations"]
        )

    def end_pod(self, pod: Pod) -> None:
        self.ended.append(str(pod))

    @property
    def mark(self) -> Any:
        return self.objects["DaemonSet", NAMESPACE, DAEMON_SET]["metadata"]["annotations"][MARK]


def test_what_is_still_moved_is_released_in_the_name_of_its_owner() -> None:
    """With how far it had been moved, and the mark goes last."""
    cluster = Marked()
    assert restore_clocks(cluster, cluster) == [
        f"node {node}: the clocks of 2 programs were restored (wall +0.000 s, monotonic "
        "-210.000 s, boottime +0.000 s "
        "moved), because this command found it"
        for node in ("w1", "w2")
    ]
    released = [request for _, request in cluster.requests if request["do"] == "release"]
    assert (
        all(request["owner"] == "a run of s" and request["rules"] for request in released)
        and len(released) == 2
    )
    assert cluster.mark is None
    cluster.requests.clear()
    assert restore_clocks(cluster, cluster) == [] and cluster.requests == []


def test_what_the_helper_gave_up_by_itself_is_reported_too() -> None:
    """The next command came later than the lease."""
    cluster = Marked()
    given_up = {
        "owner": "a run of s",
        "why": "its lease was not renewed for 20 s",
        **cluster.helpers["w1"]["release"],
    }
    nothing = {
        "released": [],
        "ended": [],
        "failed": {},
        "begun_moved": [],
        "offsets": dict.fromkeys(SLEPT, 0),
    }
    cluster.helpers = {
        "w1": {"list": {"owner": None, "given_up": given_up, "processes": []}, "release": nothing}
    }
    (messages,) = restore_clocks(cluster, cluster)
    assert messages.endswith(
        "monotonic -210.000 s, boottime +0.000 s moved), because its lease was not renewed for 20 s"
    )


@pytest.mark.parametrize(("ours", "ended"), [(True, ["istio-system/istiod-1"]), (False, [])])
def test_what_began_on_moved_clocks_is_restarted(ours: bool, ended: list[str]) -> None:
    """By the pod that its control group names; where the cluster is not ours it is only named."""
    cluster = Marked(ours)
    cluster.helpers["w1"]["release"]["begun_moved"] = [ISTIOD]
    messages = restore_clocks(cluster, cluster)
    assert "istio-system/istiod-1" in messages[-1]
    assert cluster.ended == ended


def test_what_was_ahead_has_been_ended_where_istiod_is_first() -> None:
    """Its pod is recreated, so that kubelet delays no container; clients of istiod are ended
    after it."""
    cluster = Marked()
    cluster.helpers["w2"]["list"]["processes"] = [ISTIOD]
    cluster.helpers["w2"]["release"]["ended"] = [ISTIOD]
    messages = restore_clocks(cluster, cluster)
    assert (
        "2 programs were restored" in messages[0]
        and "1 of which were ahead and have been ended" in messages[0]
    )
    assert [node for node, request in cluster.requests if request["do"] == "release"] == [
        "w2",
        "w1",
    ]
    assert cluster.ended == ["istio-system/istiod-1"]


@pytest.mark.parametrize("namespace", ["meshwake-observability", "meshwake-guard"])
def test_a_guard_that_was_ahead_has_its_pod_recreated(namespace: str) -> None:
    """That of profile full, and one that was installed. After six runs in half an hour kubelet kept
    those that were only ended in CrashLoopBackOff for five minutes."""
    cluster, uid = Marked(), "5f0e6a52-1111-2222-3333-444455556666"
    cluster.with_moved_programs[namespace] = [Pod(namespace, "guard-1", uid, "w1", ready=True)]
    guard = {"pid": 12, "executable": "/python3", "cgroup": f"0::/kubepods/pod{uid}/abc"}
    cluster.helpers["w1"]["release"]["ended"] = [guard]
    restore_clocks(cluster, cluster)
    assert cluster.ended == [f"{namespace}/guard-1"]


@pytest.mark.parametrize("out_of_reach", ["", "w1"])
def test_what_cannot_be_restored_keeps_its_mark(out_of_reach: str) -> None:
    """The other node is restored all the same, and the next command tries again."""
    cluster = Marked()
    cluster.out_of_reach = out_of_reach
    cluster.helpers["w1"]["release"]["failed"] = {"7": "it hangs"}
    words = "kubelet does not answer" if out_of_reach else "process 7: it hangs"
    with pytest.raises(
        SubjectFailed, match=f"a run of s had moved could not be restored: node w1.*{words}"
    ):
        restore_clocks(cluster, cluster)
    assert ("w2", "release") in [(node, request["do"]) for node, request in cluster.requests]
    assert cluster.mark is not None


def test_helpers_that_never_start_are_reported() -> None:
    """Within a bound: the DaemonSet is there, its pods are not."""
    cluster = Marked()
    cluster.helpers = {}
    with pytest.raises(
        SubjectFailed,
        match="waited 180 s for the helpers that have moved clocks; last seen: no pod",
    ):
        restore_clocks(cluster, cluster)


def test_helpers_of_an_older_image_are_not_taken_for_those_that_were_put_in() -> None:
    """They are ready, and a moment later they end and give back what they have: a run had begun
    with those."""
    cluster = Marked()
    cluster.updated_after_ns = 30 * 10**9
    install_helper(cluster, cluster, {"w1", "w2"}, "c")
    assert cluster.now_ns >= 30 * 10**9
    cluster.updated_after_ns = 10**15
    with pytest.raises(LabUnavailable, match="0 of 2 pods available; its image is in no registry"):
        install_helper(cluster, cluster, {"w1", "w2"}, "c")


def test_the_mark_is_there_before_anything_can_be_moved() -> None:
    """It is part of the very object that is applied."""
    cluster = Marked()
    cluster.objects.clear()
    install_helper(cluster, cluster, {"w1"}, "c", {"owner": "a run of t", "ours": True})
    applied = cluster.objects["DaemonSet", NAMESPACE, DAEMON_SET]["metadata"]
    assert json.loads(applied["annotations"][MARK]) == {"owner": "a run of t", "ours": True}
    assert OUR_LABELS.items() <= applied["labels"].items()
