"""The live way through kr8s itself, against an API that is simulated over HTTP: what it says when a cluster shows too
little. There is no kubelet behind it, so port forwards and execs are refused.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.answers import forecast_cluster
from harness.cli import run_command
from harness.errors import ExitCode
from harness.labs.kind.kubernetes import Unreachable
from harness.labs.kind.through_kr8s import ThroughKr8s

POD: dict[str, Any] = {
    "metadata": {"name": "ztunnel-x", "namespace": "istio-system", "uid": "u", "labels": {"app": "ztunnel"}},
    "spec": {"nodeName": "laptop", "containers": [{"name": "istio-proxy"}]},
    "status": {"podIP": "10.0.0.1", "conditions": [], "containerStatuses": []},
}


class _SilentServer(ThreadingHTTPServer):
    """Its own trouble with a client that hung up is not what the program says: it was taken for that."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent."""


@contextmanager
def api(answers: dict[str, tuple[int, dict[str, Any]]], folder: Path) -> Iterator[Path]:
    """A kubeconfig that leads to a server with these answers; every other path is forbidden."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            refusal = {"kind": "Status", "status": "Failure", "message": f"may not GET {path}", "code": 403}
            status, thing = answers.get(path, (403, refusal))
            body = json.dumps(thing).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            """Silent."""

    server = _SilentServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield _kubeconfig(folder / "config", f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _kubeconfig(path: Path, server: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "ctx", "context": {"cluster": "c", "user": "me"}}],
        "current-context": "ctx",
    }
    path.write_text(yaml.safe_dump(config))
    return path


VERSION = {"/version": (200, {"major": "1", "minor": "34", "gitVersion": "v1.34.4"})}
ZTUNNELS = "/api/v1/namespaces/istio-system/pods"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (VERSION | {ZTUNNELS: (200, {"items": []})}, "no ztunnel in istio-system"),
        (VERSION, "list ztunnels: "),
        (VERSION | {ZTUNNELS: (200, {"items": [POD]})}, "config_dump of istio-system/ztunnel-x: "),
        ({}, "does not answer"),
    ],
    ids=["no ztunnel", "may not list", "may not forward", "no answer"],
)
def test_what_a_cluster_does_not_show_is_named(
    answers: dict[str, tuple[int, dict[str, Any]]],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 4 with a sentence and something to try, never a traceback."""
    monkeypatch.setattr(forecast_cluster, "ANSWER_WITHIN_S", 1.0)
    with api(answers, tmp_path) as kubeconfig:
        assert run_command(["forecast", "--kubeconfig", str(kubeconfig)]) == ExitCode.LAB_UNAVAILABLE
    told = capsys.readouterr()
    assert said in told.err
    assert "Traceback" not in told.err and told.out == ""


def test_a_forward_that_broke_in_all_its_tasks_is_a_pod_out_of_reach(tmp_path: Path) -> None:
    """What its tasks raise comes as a group; a fault that is no broken connection stays one."""

    async def breaks(error: Exception) -> None:
        raise ExceptionGroup("a forward", [ExceptionGroup("its tasks", [error])])

    with api(VERSION, tmp_path) as kubeconfig:
        kubernetes = ThroughKr8s(kubeconfig)
        try:
            with pytest.raises(Unreachable, match="look: ReadError"):
                kubernetes._call(breaks(httpx.ReadError("gone")), 5, "look")
            with pytest.raises(ExceptionGroup, match="a forward"):
                kubernetes._call(breaks(KeyError("ours")), 5, "look")
        finally:
            kubernetes.close()
