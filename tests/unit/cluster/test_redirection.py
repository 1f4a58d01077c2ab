"""Ambient pods that ztunnel does not see are found by their network namespace, and recreated."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from meshwake.cluster import redirection
from meshwake.cluster.redirection import ambient_pods, not_redirected
from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import text_at
from meshwake.kubernetes.api import Executed
from meshwake.ztunnel.ports import HBONE_PORT

from tests.support.fake_kubernetes import FakeKubernetes
from tests.unit.cluster.world import SimulatedEngine, World

UIDS = [f"{at:08x}-1111-4222-8333-444455556666" for at in range(4)]


def pod(at: int, *, namespace: str = "mesh", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    metadata = {
        "name": f"p{at}",
        "namespace": namespace,
        "uid": UIDS[at],
        "labels": {},
        "annotations": {},
    }
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": phase}}


class Cluster(FakeKubernetes):
    """Namespaces mesh (ambient) and plain."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.objects = {("Pod", "", each["metadata"]["name"]): each for each in pods}
        labels = {"mesh": {"istio.io/dataplane-mode": "ambient"}, "plain": {}}
        for name, of in labels.items():
            self.objects["Namespace", None, name] = {"metadata": {"name": name, "labels": of}}


class Node(SimulatedEngine):
    """What the two greps show on a node, given as text."""

    def __init__(self, output: str) -> None:
        super().__init__(World())
        self.output = output

    def execute(self, container: str, command: Sequence[str]) -> Executed:
        return Executed(1, self.output, "")


def test_which_pods_are_in_the_mesh() -> None:
    """By namespace, by their own label, by the annotation; not those that left it, ended or use the
    node's network."""
    labelled, out, annotated = pod(1, namespace="plain"), pod(2), pod(3, namespace="plain")
    labelled["metadata"]["labels"] = {"istio.io/dataplane-mode": "ambient"}
    out["metadata"]["labels"] = {"istio.io/dataplane-mode": "none"}
    annotated["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    found = ambient_pods(Cluster(pod(0), labelled, out, annotated))
    assert [text_at(each, "metadata", "name") for each in found] == ["p0", "p1", "p3"]
    assert (
        ambient_pods(
            Cluster(pod(0, hostNetwork=True), pod(1, phase="Succeeded"), pod(2, namespace="plain"))
        )
        == []
    )


# Both drivers of cgroups, v1 and v2; pause and program of one pod share a namespace.
OUTPUT = f"""/proc/10/cgroup:pod{UIDS[0]}
/proc/11/cgroup:pod{UIDS[0]}
/proc/20/cgroup:pod{UIDS[1].replace("-", "_")}
/proc/20/cgroup:pod{UIDS[1].replace("-", "_")}
/proc/1/net/tcp:0
/proc/10/net/tcp:0
/proc/11/net/tcp:0
/proc/20/net/tcp:0
/proc/1/net/tcp6:0
/proc/10/net/tcp6:1
/proc/11/net/tcp6:1
/proc/20/net/tcp6:0
"""


def test_a_pod_is_redirected_when_ztunnel_listens_in_it() -> None:
    """On either family. The annotation is not used; a pod without a process that is seen is not
    judged."""
    pods = [pod(0), pod(1), pod(2)]
    assert not_redirected(pods, Node(OUTPUT), ["n"]) == [pods[1]]


@pytest.mark.parametrize("output", ["", "sh: grep: not found"])
def test_a_node_without_output_proves_nothing(output: str) -> None:
    """Neither of redirection nor of the lack of it."""
    with pytest.raises(LabUnavailable, match="node n: /proc shows no sockets"):
        not_redirected([pod(0)], Node(output), ["n"])


@pytest.mark.slow(reason="reads the sockets of every process of this machine")
def test_the_look_itself_finds_a_listener_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very command, on a real /proc: with a socket that listens on the port, and after it has
    gone."""
    if not Path("/proc/1/net/tcp").exists():
        pytest.skip("needs /proc")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        script = redirection._LOOK[-1].replace(f":{HBONE_PORT:04X} ", f":{port:04X} ")
        assert _count(script) == 0
        listening.listen()
        assert _count(script) > 0
    assert _count(script) == 0


def _count(script: str) -> int:
    output = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False
    ).stdout
    found = redirection._SOCKETS.findall(output)
    assert found
    return sum(int(count) for _, count in found)
