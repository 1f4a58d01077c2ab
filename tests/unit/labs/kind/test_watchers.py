"""Tokens are read on the node: nothing is ever asked of a distroless image."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from meshwake.clocks.movers.node_access import Answer, Inside, NoAnswer
from meshwake.kubernetes.api import Unreachable
from meshwake.labs.kind.watchers import Tokens

from tests.unit.labs.kind.runs import TWO_NODES, cluster_of, plan

FILE = "/proc/1/root/var/lib/kubelet/pods/uid-ztunnel-{}/volumes/kubernetes.io~projected/istio-token/istio-token"


def token(expires_wall_s: int) -> str:
    claims = (
        base64.urlsafe_b64encode(json.dumps({"exp": expires_wall_s}).encode()).decode().rstrip("=")
    )
    return f"head.{claims}.signature"


@dataclass
class Nodes(Inside):
    """The nodes' files, by node and path."""

    files: dict[tuple[str, str], str]
    silent: bool = False
    asked: list[Sequence[str]] = field(default_factory=list)

    def run(self, node: str, argv: Sequence[str], within_s: float) -> Answer:
        self.asked.append(argv)
        if self.silent:
            raise NoAnswer("docker: no answer")
        said = self.files.get((node, argv[-1]))
        return (
            Answer(0, said, "")
            if said is not None
            else Answer(1, "", f"cat: {argv[-1]}: No such file")
        )


def test_each_token_is_read_on_its_own_node() -> None:
    """From the directory of its pod; ztunnel is not asked to run anything."""
    cluster = cluster_of(plan(nodes=TWO_NODES))
    nodes = Nodes(
        {("worker0", FILE.format(1)): token(1000), ("worker1", FILE.format(2)): token(2000)}
    )
    told = Tokens(cluster, nodes).poll()
    assert {each.data["pod"]: each.data["expires_wall_s"] for each in told} == {
        "istio-system/ztunnel-1": 1000,
        "istio-system/ztunnel-2": 2000,
    }
    assert not [call for call in cluster.calls if call.startswith("exec")]
    assert "signature" not in repr(told), "the token itself is read and forgotten"


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (Nodes({}), "cat on worker0 ended with 1: cat: .*No such file"),
        (Nodes({}, silent=True), "docker: no answer"),
        (Nodes({("worker0", FILE.format(1)): "no token"}), "holds no token with an expiry"),
    ],
)
def test_what_cannot_be_read_is_said(nodes: Nodes, said: str) -> None:
    """A watcher out of reach; the run tells it once."""
    with pytest.raises(Unreachable, match=said):
        Tokens(cluster_of(plan()), nodes).poll()
