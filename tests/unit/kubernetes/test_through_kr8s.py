"""What the adapter makes of answers, of silence and of this machine's own trouble."""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import kr8s
import pytest
from meshwake.kubernetes.api import LocalFailure, Pod, Refused, Unreachable
from meshwake.kubernetes.through_kr8s import ThroughKr8s

from tests.support.api_server import VERSION, Answers, Inside, Program, api

LOOKS = 48


def pod(name: str) -> Pod:
    return Pod("istio-system", name, "uid", "node", ready=True)


@contextmanager
def cluster(
    folder: Path,
    answers: Answers = VERSION,
    inside: Inside | None = None,
    program: Program | None = None,
) -> Iterator[ThroughKr8s]:
    with api(answers, folder, inside, program) as kubeconfig:
        opened = ThroughKr8s(kubeconfig)
        try:
            yield opened
        finally:
            opened.close()


def names_the_target(name: str, port: int, sent: bytes) -> bytes:
    body = f"{name}:{port}{sent.split()[1].decode()}".encode() * 300
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_many_looks_at_once_open_no_port_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own pod's answer, and nothing listens on this machine: two could choose the
    same port."""

    async def listens(*args: Any, **about: Any) -> None:
        raise OSError(errno.EADDRINUSE, "address already in use")

    monkeypatch.setattr(asyncio, "start_server", listens)
    with (
        cluster(tmp_path, inside=names_the_target) as kubernetes,
        ThreadPoolExecutor(LOOKS) as pool,
    ):
        looks = [
            pool.submit(kubernetes.get, pod(f"z{at}"), 15000, "/config_dump", 20)
            for at in range(LOOKS)
        ]
        assert [look.result() for look in looks] == [
            f"z{at}:15000/config_dump".encode() * 300 for at in range(LOOKS)
        ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            "an error occurred forwarding 15000: connection refused",
            "forwarding 15000: connection refused",
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope!", "HTTP 404: nope!"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", "ended early"),
        (b"SSH-2.0-dropbear\r\n\r\n", "not HTTP"),
        (b"", "3 forwards were closed without an answer"),
    ],
)
def test_a_port_that_does_not_answer_well_is_out_of_reach(
    tmp_path: Path, answer: bytes | str, message: str
) -> None:
    """By the kubelet's error, by HTTP's own, or cut off; never an answer that is half of one."""
    with (
        cluster(tmp_path, inside=lambda name, port, sent: answer) as kubernetes,
        pytest.raises(Unreachable, match=message) as lost,
    ):
        kubernetes.get(pod("z"), 15000, "/config_dump", 5)
    assert not isinstance(lost.value, LocalFailure)


def test_a_forward_that_was_closed_without_an_answer_is_opened_again(tmp_path: Path) -> None:
    """Twice; a request that has begun to be answered is not sent again."""
    names: list[str] = []

    def closes_first(name: str, port: int, sent: bytes) -> bytes:
        names.append(name)
        if name == "half":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"
        return b"" if names.count(name) < 3 else names_the_target(name, port, sent)

    with cluster(tmp_path, inside=closes_first) as kubernetes:
        assert kubernetes.get(pod("z"), 1, "/", 10) == b"z:1/" * 300
        with pytest.raises(Unreachable, match="ended early"):
            kubernetes.get(pod("half"), 1, "/", 10)
    assert names == ["z"] * 3 + ["half"]


def test_chunks_and_an_end_by_hanging_up_are_read(tmp_path: Path) -> None:
    """Both are ways in which admin servers answer."""
    ways = {
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "hung-up": b"HTTP/1.1 200 OK\r\n\r\nabcde",
    }
    with cluster(tmp_path, inside=lambda name, port, sent: ways[name]) as kubernetes:
        assert {kubernetes.get(pod(name), 1, "/", 5) for name in ways} == {b"abcde"}


def test_out_of_files_is_our_own_failure(tmp_path: Path) -> None:
    """It says nothing of the pod; the limit is the kernel's own."""
    with cluster(tmp_path, inside=names_the_target) as kubernetes:
        assert kubernetes.version() == "v1.34.4"
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(LocalFailure, match="Too many open files"):
                kubernetes.get(pod("z"), 15000, "/config_dump", 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENOBUFS]
)
def test_what_this_machine_has_run_out_of_is_found_behind_other_errors(
    tmp_path: Path, number: int
) -> None:
    """Libraries wrap it once, twice and in groups."""

    async def fails() -> None:
        try:
            raise OSError(number, "of this machine")
        except OSError as error:
            raise ExceptionGroup("tasks", [httpx.ConnectError("all attempts failed")]) from error

    async def breaks() -> None:
        raise httpx.ConnectError("lost") from OSError(number, "of this machine")

    with cluster(tmp_path) as kubernetes:
        for work in (fails, breaks):
            with pytest.raises(LocalFailure, match="of this machine"):
                kubernetes._call(work(), 5, "look")


def test_a_refused_connection_is_the_other_sides(tmp_path: Path) -> None:
    """No program listens there: out of reach, and not a failure of ours."""
    with api(VERSION, tmp_path) as kubeconfig:
        pass
    kubernetes = ThroughKr8s(kubeconfig)
    try:
        assert not kubernetes.ready()
        with pytest.raises(Unreachable) as lost:
            kubernetes.pods("default", {})
        assert not isinstance(lost.value, LocalFailure)
    finally:
        kubernetes.close()


def test_a_forward_that_broke_in_all_its_tasks_is_a_pod_out_of_reach(tmp_path: Path) -> None:
    """What its tasks raise comes as a group; a fault that is not a broken connection stays one."""

    async def breaks(error: Exception) -> None:
        raise ExceptionGroup("a forward", [ExceptionGroup("its tasks", [error])])

    with cluster(tmp_path) as kubernetes:
        with pytest.raises(Unreachable, match="look: ReadError"):
            kubernetes._call(breaks(httpx.ReadError("gone")), 5, "look")
        with pytest.raises(ExceptionGroup, match="a forward"):
            kubernetes._call(breaks(TypeError("ours")), 5, "look")


def test_a_task_that_a_breaking_websocket_cancels_is_a_pod_out_of_reach(tmp_path: Path) -> None:
    """Not a fault of meshwake: the caller may try again."""

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    kubernetes = ThroughKr8s(tmp_path / "unused")
    try:
        with pytest.raises(Unreachable, match="look: its connection was ended"):
            kubernetes._call(is_cancelled(), 5, "look")
    finally:
        kubernetes.close()


def test_a_refusal_has_its_status_and_a_servers_own_trouble_is_none(tmp_path: Path) -> None:
    """403 goes to the caller; 500 (a webhook that is not up yet) may be gone in a moment."""
    body = {"kind": "Status", "message": "failed calling webhook"}
    answers = VERSION | {
        "/api/v1/namespaces/default/pods/x": (500, body),
        "/apis/apps": (404, {"message": "none"}),
    }
    with cluster(tmp_path, answers) as kubernetes:
        with pytest.raises(Refused, match="may not GET") as refused:
            kubernetes.read("Pod", "default", "y")
        assert refused.value.status == 403
        with pytest.raises(Unreachable, match="failed calling webhook"):
            kubernetes.read("Pod", "default", "x")
        assert kubernetes.read("DaemonSet.apps", "default", "x") is None
        assert kubernetes.all("DaemonSet.apps") == []


def test_a_kind_is_found_in_whichever_version_of_its_group_has_it(tmp_path: Path) -> None:
    """MetalLB's pools are in v1beta1 only, and the server prefers v1beta2."""
    versions = [{"version": "v1beta2"}, {"version": "v1beta1"}]
    pool = {"metadata": {"name": "ours"}}
    answers: dict[str, tuple[int, dict[str, Any]]] = VERSION | {
        "/apis/metallb.io": (200, {"preferredVersion": versions[0], "versions": versions}),
        "/apis/metallb.io/v1beta2": (
            200,
            {"resources": [{"kind": "BGPPeer", "name": "bgppeers", "namespaced": True}]},
        ),
        "/apis/metallb.io/v1beta1": (
            200,
            {
                "resources": [
                    {"kind": "IPAddressPool", "name": "ipaddresspools", "namespaced": True}
                ]
            },
        ),
        "/apis/metallb.io/v1beta1/namespaces/m/ipaddresspools/ours": (200, pool),
    }
    with cluster(tmp_path, answers) as kubernetes:
        assert kubernetes.read("IPAddressPool.metallb.io", "m", "ours") == pool
        assert kubernetes.read("Nothing.metallb.io", "m", "ours") is None


def test_a_kubeconfig_that_leads_nowhere_is_reported_without_traceback(tmp_path: Path) -> None:
    """No such context, no such file, an empty one, none at all: kr8s' own words, as an error of
    ours."""
    (tmp_path / "empty").touch()
    (tmp_path / "list").write_text("[1, 2]")
    with api(VERSION, tmp_path) as kubeconfig:
        files = [
            (kubeconfig, "no-such-context"),
            *((tmp_path / name, None) for name in ("nothing", "empty", "list")),
        ]
        for path, context in files:
            kubernetes = ThroughKr8s(path, context)
            try:
                with pytest.raises(Unreachable):
                    kubernetes.version()
            finally:
                kubernetes.close()


def test_kr8s_still_chooses_ports_before_it_has_them() -> None:
    """The reason for `ported`: when this fails, kr8s' own forward may have become good enough."""
    assert hasattr(kr8s.portforward.PortForward, "_find_available_port")


def echoes(name: str, command: list[str], line: str) -> str | None:
    return f"{name} {command[-1]}: {line} {'x' * 50}\n"


def test_a_conversation_is_one_exec_for_all_its_questions(tmp_path: Path) -> None:
    """Each line gets its own, whole, whatever the frames; what is written on stderr is not an
    answer."""
    begun: list[str] = []

    def program(name: str, command: list[str], line: str) -> str | None:
        begun.append(line)
        return echoes(name, command, line)

    with cluster(tmp_path, program=program) as kubernetes:
        talk = kubernetes.converse(pod("c"), "app", ["sh", "-c", "loop"])
        assert [talk.ask(f"line {at}", 5) for at in range(20)] == [
            f"c loop: line {at} {'x' * 50}" for at in range(20)
        ]
        talk.close()
    assert begun == [f"line {at}" for at in range(20)]


def test_a_program_that_ends_is_out_of_reach_and_says_how(tmp_path: Path) -> None:
    """At the question that ended it, and at every later one."""
    with cluster(tmp_path, program=lambda name, command, line: None) as kubernetes:
        talk = kubernetes.converse(pod("c"), "app", ["sh"])
        for _ in range(2):
            with pytest.raises(Unreachable, match="ended.*exit code 3.*a word on stderr"):
                talk.ask("x", 5)
        talk.close()


def test_a_program_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    """Within the bound, and closing it takes no longer."""
    with cluster(tmp_path, program=lambda name, command, line: "") as kubernetes:
        talk = kubernetes.converse(pod("c"), "app", ["sh"])
        with pytest.raises(Unreachable, match="no answer within 0 s"):
            talk.ask("x", 0.3)
        talk.close()
