"""The node agent against a ztunnel of our own making, which sends and answers what the test wants."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from meshwake.authority.proto.zds_pb2 import Ack, WorkloadRequest, WorkloadResponse, ZdsHello
from meshwake.core.errors import SubjectFailed

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="SOCK_SEQPACKET and namespaces are for Linux"
)
Received = tuple[WorkloadRequest, list[int]]


def speak(path: Path, answers: list[WorkloadResponse | None], version: int = 1) -> list[Received]:
    """A ztunnel that says hello and gives these answers (None: it goes); returns what it received,
    with the inode of each file that came with it."""
    received: list[Received] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.connect(str(path))
        agent.send(ZdsHello(version=version).SerializeToString())
        for answer in answers:
            packet, files, _, _ = socket.recv_fds(agent, 1024, 4)
            if not packet:
                break
            received.append(
                (WorkloadRequest.FromString(packet), [os.fstat(file).st_ino for file in files])
            )
            for file in files:
                os.close(file)
            if answer is None:
                break
            agent.send(answer.SerializeToString())
    return received


OK = WorkloadResponse(ack=Ack())


class Talk:
    """An agent and a thread in which its ztunnel speaks."""

    def __init__(self, directory: Path) -> None:
        from meshwake.labs.process.node_agent import NodeAgent

        self.path = directory / "z.sock"
        self.agent = NodeAgent("laptop", self.path)
        self._pool = ThreadPoolExecutor(1)

    def ztunnel(
        self, answers: list[WorkloadResponse | None], version: int = 1
    ) -> Future[list[Received]]:
        return self._pool.submit(speak, self.path, answers, version)

    def close(self) -> None:
        self.agent.close()
        self._pool.shutdown()


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    talk = Talk(tmp_path)
    yield talk
    talk.close()


def test_every_pod_is_sent_with_its_namespace_and_then_the_end(talk: Talk) -> None:
    """Name, namespace and account of each, one open file each, one after another; then that these
    were all."""
    from meshwake.labs.process.workloads import Workload

    with (
        Path("/proc/self/ns/net").open("rb") as here,
        Path("/proc/self/ns/mnt").open("rb") as there,
    ):
        pods = [
            Workload("default/client", "laptop", here.fileno(), "10.77.0.11"),
            Workload("shop/web", "laptop", there.fileno(), "10.77.0.12", life=2),
        ]
        ztunnel = talk.ztunnel([OK, OK, OK])
        talk.agent.send_pods(pods)
        inodes = [os.fstat(pod.namespace).st_ino for pod in pods]
    (first, first_files), (second, second_files), (last, last_files) = ztunnel.result(10)
    assert (first.add.uid, first.add.workload_info.name) == ("uid/default.client", "default.client")
    assert (second.add.uid, second.add.workload_info.service_account) == ("uid/shop.web/2", "web")
    assert second.add.workload_info.namespace == "shop"
    assert (first_files, second_files, last_files) == ([inodes[0]], [inodes[1]], [])
    assert last.WhichOneof("payload") == "snapshot_sent"


def test_a_pod_that_is_removed_is_sent_without_a_file(talk: Talk) -> None:
    """After the first list, pods go and come one at a time."""
    from meshwake.labs.process.workloads import Workload

    ztunnel = talk.ztunnel([OK, OK])
    talk.agent.send_pods([])
    talk.agent.remove(Workload("default/client", "laptop", -1, "10.77.0.11"))
    request, files = ztunnel.result(10)[1]
    assert (request.WhichOneof("payload"), request.gone.uid) == ("gone", "uid/default.client")
    assert files == []


@pytest.mark.parametrize(
    ("answers", "version", "why"),
    [
        (
            [WorkloadResponse(ack=Ack(error="no such namespace"))],
            1,
            "refused the end of the list.*no such namesp",
        ),
        ([None], 1, "closed its node agent's connection"),
        ([OK], 7, "speaks version 7"),
    ],
)
def test_what_goes_wrong_is_named(
    talk: Talk, answers: list[WorkloadResponse | None], version: int, why: str
) -> None:
    """A refusal, an end, another protocol: the node and what it was about are in the message."""
    ztunnel = talk.ztunnel(answers, version)
    with pytest.raises(SubjectFailed, match=f"node laptop.*{why}"):
        talk.agent.send_pods([])
    talk.agent.close()
    ztunnel.result(10)


def test_a_ztunnel_that_never_comes_is_named(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for it has a bound."""
    monkeypatch.setattr("meshwake.labs.process.node_agent.ANSWERS_WITHIN_S", 0.05)
    with pytest.raises(
        SubjectFailed, match=r"node laptop did not connect to its node agent within"
    ):
        talk.agent.send_pods([])
