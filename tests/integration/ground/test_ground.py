"""The ground itself: it answers as Kubernetes does, refuses what Kubernetes refuses, and leaves
nothing running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ground.api import RealApi, Refused
from tests.integration.ground.programs import (
    Deadline,
    Program,
    control_plane_or_skip,
    control_planes,
)
from tests.support.paths import REPOSITORY
from tests.support.processes import state_of

WITHIN_S = 60


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


def test_what_is_applied_can_be_read(real_api: RealApi) -> None:
    real_api.apply(config_map("read-back", answer="42"))
    assert real_api.get("/api/v1/namespaces/default/configmaps/read-back")["data"] == {
        "answer": "42"
    }


def test_a_dry_run_changes_nothing(real_api: RealApi) -> None:
    real_api.apply(config_map("dry"), dry_run=True)
    assert not real_api.exists("/api/v1/namespaces/default/configmaps/dry")


def test_an_unknown_field_is_refused_by_name(real_api: RealApi) -> None:
    with pytest.raises(Refused, match="dta"):
        real_api.apply({**config_map("typing-error"), "dta": {}}, dry_run=True)


def test_an_unknown_kind_is_refused_by_name(real_api: RealApi) -> None:
    with pytest.raises(Refused, match="kind Widget"):
        real_api.apply({"apiVersion": "v1", "kind": "Widget", "metadata": {"name": "w"}})


def test_objects_are_found_by_label(real_api: RealApi) -> None:
    marked = config_map("marked")
    marked["metadata"]["labels"] = {"ground": "found"}
    real_api.apply(marked)
    assert real_api.everything("ground=found") == {"ConfigMap default/marked"}


def test_deployments_become_ready_on_simulated_nodes(real_cluster: RealApi) -> None:
    labels = {"app": "idle"}
    container = {"name": "idle", "image": "localhost/idle"}
    real_cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "idle", "namespace": "default"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
    )
    deadline = Deadline("Deployment idle has two ready replicas", WITHIN_S)
    while (
        status := real_cluster.get("/apis/apps/v1/namespaces/default/deployments/idle")["status"]
    ).get("readyReplicas") != 2:
        deadline.pause(status)


def test_a_namespace_goes_with_what_is_in_it(real_cluster: RealApi) -> None:
    real_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short"}})
    real_cluster.apply(
        {**config_map("inside"), "metadata": {"name": "inside", "namespace": "short"}}
    )
    real_cluster.request("DELETE", "/api/v1/namespaces/short")
    deadline = Deadline("namespace short is gone", WITHIN_S)
    while real_cluster.exists("/api/v1/namespaces/short"):
        deadline.pause("still there")


STARTS_AND_WAITS = """
import sys, time
from pathlib import Path
from tests.integration.ground.api import start_api
from tests.integration.ground.programs import control_plane_or_skip
api = start_api(control_plane_or_skip(), Path(sys.argv[1]))
print(*[program.pid for program in api.programs.values()], flush=True)
time.sleep(600)
"""


def test_nothing_is_left_when_the_tests_are_killed(tmp_path: Path) -> None:
    control_plane_or_skip()
    tests = subprocess.Popen(
        [sys.executable, "-c", STARTS_AND_WAITS, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert tests.stdout is not None
    with tests.stdout:
        pids = [int(word) for word in tests.stdout.readline().split()]
    assert len(pids) == 2
    assert not any(state_of(pid) == "Z" for pid in pids)
    tests.kill()
    tests.wait()
    deadline = Deadline("etcd and kube-apiserver are gone", WITHIN_S)
    while left := [pid for pid in pids if state_of(pid) != "Z"]:
        deadline.pause(left)


def test_a_program_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    program = Program(
        "talker", ["/bin/sh", "-c", "echo port 1 is in use; exit 3"], tmp_path / "log"
    ).start()
    deadline = Deadline("the talker is ready", WITHIN_S, [program])
    assert program.process is not None
    program.process.wait(WITHIN_S)
    with pytest.raises(
        AssertionError, match=r"(?s)the talker is ready: talker ended with 3.*port 1 is in use"
    ):
        deadline.pause("nothing")


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    program = Program("sleeper", ["/bin/sleep", "600"], tmp_path / "log").start()
    try:
        deadline = Deadline("never", 0, [program], started_monotonic_s=time.monotonic() - 1)
        with pytest.raises(AssertionError, match="never: not within 0 s; last seen: snow"):
            deadline.pause("snow")
    finally:
        program.end()
    assert program.ended() == -signal.SIGTERM


def test_the_usual_place_of_envtest_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in (tmp_path / "assets", tmp_path / "cache" / "kubernetes" / "1.34.4"):
        directory.mkdir(parents=True)
        for name in ("etcd", "kube-apiserver"):
            (directory / name).touch(mode=0o755)
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert [plane.version for plane in control_planes()] == ["envtest", "1.34.4"]
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    assert [plane.version for plane in control_planes()] == ["1.34.4"]


def test_without_programs_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match=r"needs etcd, kube-apiserver, kwok .* there is none"
    ):
        control_plane_or_skip("kwok")
