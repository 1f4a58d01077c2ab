"""The live way through kr8s itself, against an API that is simulated over HTTP: what it says when a
cluster shows too little. It has no kubelet behind it, so port forwards and execs are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from meshwake.analysis import forecast_cluster
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode

from tests.support.api_server import VERSION, api

POD: dict[str, Any] = {
    "metadata": {
        "name": "ztunnel-x",
        "namespace": "istio-system",
        "uid": "u",
        "labels": {"app": "ztunnel"},
    },
    "spec": {"nodeName": "laptop", "containers": [{"name": "istio-proxy"}]},
    "status": {"podIP": "10.0.0.1", "conditions": [], "containerStatuses": []},
}


EVERYWHERE = "/api/v1/pods"
ZTUNNELS = "/api/v1/namespaces/istio-system/pods"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (VERSION | {ZTUNNELS: (200, {"items": []})}, "no ztunnel in istio-system and ztunnel"),
        (VERSION | {EVERYWHERE: (200, {"items": []})}, "no ztunnel in any namespace"),
        (VERSION, "list ztunnels: "),
        (VERSION | {ZTUNNELS: (200, {"items": [POD]})}, "config_dump of istio-system/ztunnel-x: "),
        ({}, "does not answer"),
    ],
    ids=["no ztunnel to be seen", "no ztunnel", "may not list", "may not forward", "no answer"],
)
def test_what_a_cluster_does_not_show_is_named(
    answers: dict[str, tuple[int, dict[str, Any]]],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 4 with a sentence and something to try, never a traceback."""
    monkeypatch.setattr(forecast_cluster, "ANSWER_WITHIN_S", 1.0)
    with api(answers, tmp_path) as kubeconfig:
        assert (
            run_command(["forecast", "--kubeconfig", str(kubeconfig)]) == ExitCode.LAB_UNAVAILABLE
        )
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err and printed.out == ""
