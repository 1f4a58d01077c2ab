"""What somebody changed, and what a node's restart left, is told by `status` and mended by `up`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness.labs.kind.engine import KIND_CLUSTER_LABEL
from tests.cluster.trial import Trial

CHANGED = "changed since up: "


def _environment(name: str, value: str) -> dict[str, Any]:
    container = {"name": "istio-proxy", "env": [{"name": name, "value": value}]}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


CHANGES: Mapping[str, tuple[tuple[str, str], Mapping[str, Any], str]] = {
    "lifetime": (("DaemonSet", "ztunnel"), _environment("SECRET_TTL", "7m"), "SECRET_TTL is 7m, was "),
    "added": (("DaemonSet", "ztunnel"), _environment("ADDED", "by hand"), "ADDED is by hand, was not set"),
    "away": (("Deployment", "istiod"), {"spec": {"replicas": 0}}, "replicas is 0, was 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_drift_is_told_and_put_back(trial: Trial, change: str) -> None:
    (kind, name), patch, words = CHANGES[change]
    made = trial.settings()
    with trial.cluster.opened() as kubernetes:
        kubernetes.patch(f"{kind}.apps", "istio-system", name, patch)
    assert f"{CHANGED}{kind} istio-system/{name}: {words}" in trial.command("status")
    trial.up()
    assert trial.settings() == made
    assert CHANGED not in trial.command("status")
    trial.is_ready()


def test_a_pod_that_ztunnel_does_not_see_is_found_and_made_anew(trial: Trial) -> None:
    """Its sandbox is made anew while istio-cni is out of the nodes' chain, as in the first seconds after a restart: the
    pod keeps its name and the annotation that says it is redirected."""


WHICH: Mapping[str, Callable[[Trial], str]] = {
    "worker": lambda trial: trial.cluster.nodes[0],
    "control-plane": lambda trial: trial.cluster.nodes[-1],
}


@pytest.mark.parametrize("which", ["worker", pytest.param("control-plane", marks=pytest.mark.slow)])
def test_up_repairs_what_the_restart_of_a_node_leaves(trial: Trial, which: str) -> None:
    node = WHICH[which](trial)
    subprocess.run(["docker", "restart", node], check=True, capture_output=True, timeout=180)
    trial.up()
    (told,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert told["health"] and {each["verdict"] for each in told["health"]} == {"HOLDS"}, told["health"]
    assert told["drift"] == []


def test_up_starts_a_cluster_that_was_stopped(trial: Trial) -> None:
    """As after a restart of the engine, which starts none of kind's machines by itself."""
    machines = [machine.name for machine in trial.engine.containers({KIND_CLUSTER_LABEL: trial.name})]
    subprocess.run(["docker", "stop", *machines], check=True, capture_output=True, timeout=300)
    (told,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert (told["state"], told["health"]) == ("stopped", [])
    trial.up()
    (told,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert told["state"] == "up"
    assert told["health"] and {each["verdict"] for each in told["health"]} == {"HOLDS"}, told["health"]
