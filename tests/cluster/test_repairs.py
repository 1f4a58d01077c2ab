"""What was changed by hand, and what a node's restart left, is shown by `status` and repaired by
`up`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from meshwake.cluster.docker import KIND_CLUSTER_LABEL
from meshwake.cluster.redirection import REDIRECTION
from meshwake.cluster.stack.pieces import DEMO_NAMESPACE
from meshwake.core.json_types import text_at

from tests.cluster.trial import Trial

CHANGED = "changed since up: "


def _environment(name: str, value: str) -> dict[str, Any]:
    container = {"name": "istio-proxy", "env": [{"name": name, "value": value}]}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def _node_selector(name: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"nodeSelector": {f"meshwake.dev/{name}": "true"}}}}}


CHANGES: Mapping[str, tuple[tuple[str, str], Mapping[str, Any], str]] = {
    "lifetime": (
        ("DaemonSet", "ztunnel"),
        _environment("SECRET_TTL", "7m"),
        "SECRET_TTL is 7m, was ",
    ),
    "added": (
        ("DaemonSet", "ztunnel"),
        _environment("ADDED", "by hand"),
        "ADDED is by hand, was not set",
    ),
    "nowhere": (
        ("DaemonSet", "istio-cni-node"),
        _node_selector("no-node"),
        "node selector meshwake.dev/no-node is ",
    ),
    "away": (("Deployment", "istiod"), {"spec": {"replicas": 0}}, "replicas is 0, was 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_drift_is_reported_and_restored(trial: Trial, change: str) -> None:
    (kind, name), patch, words = CHANGES[change]
    made = trial.settings()
    with trial.cluster.opened() as kubernetes:
        kubernetes.patch(f"{kind}.apps", "istio-system", name, patch)
    assert f"{CHANGED}{kind} istio-system/{name}: {words}" in trial.command("status")
    trial.up()
    assert trial.settings() == made
    assert CHANGED not in trial.command("status")
    trial.is_ready()


CNI_FILES, ASIDE = "/etc/cni/net.d", "/run/meshwake-aside"
# Takes istio-cni out of the chain of the node while its agent is stopped, ends the client's
# sandbox, and puts all of it back once kubelet has made another.
GAP = f"""
set -e
agent=$(pgrep -x install-cni)
old=$(crictl pods --name client --namespace {DEMO_NAMESPACE} --state ready -q)
mkdir -p {ASIDE}
kill -STOP "$agent"
trap 'mv {ASIDE}/* {CNI_FILES}/; kill -CONT "$agent"' EXIT
for file in $(grep -l istio-cni {CNI_FILES}/*); do mv "$file" {ASIDE}/; done
crictl stopp "$old"
for second in $(seq 60); do
  new=$(crictl pods --name client --namespace {DEMO_NAMESPACE} --state ready -q)
  if [ -n "$new" ] && [ "$new" != "$old" ] && [ -n "$(crictl ps --pod "$new" -q)" ]; then exit 0; fi
  sleep 1
done
exit 1
"""


def test_a_pod_that_ztunnel_does_not_see_is_found_and_recreated(trial: Trial) -> None:
    """Its sandbox is recreated while istio-cni is not in the chain, as in the first seconds after a
    node's restart: the pod keeps its name, and the annotation that says it is redirected."""
    node = trial.cluster.nodes[0]
    if not _istio_has_a_file_of_its_own(trial, node):
        pytest.skip("needs Istio 1.27 or newer: before, without its file a node has no CNI at all")
    made = trial.execute(node, "bash", "-c", GAP)
    assert made.code == 0, made.output
    with trial.cluster.opened() as kubernetes:
        (client,) = [
            pod
            for pod in kubernetes.all("Pod", DEMO_NAMESPACE, {"app": "client"})
            if _on(pod) == node
        ]
    assert text_at(client, "metadata", "annotations", REDIRECTION) == "enabled"
    lacks = (
        "ambient_redirected: BROKEN: nothing listens on 15008 in Pod "
        f"{DEMO_NAMESPACE}/{text_at(client, 'metadata', 'name')}"
    )
    assert lacks in trial.command("status")
    assert "is replaced" in trial.up()
    assert "ambient_redirected: HOLDS" in trial.command("status")


def _istio_has_a_file_of_its_own(trial: Trial, node: str) -> bool:
    listed = trial.execute(
        node, "sh", "-c", f"grep -L istio-cni {CNI_FILES}/*; ls {CNI_FILES} | wc -l"
    )
    *others, count = listed.stdout.splitlines()
    return 0 < len(others) < int(count)


def _on(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("nodeName"))


WHICH: Mapping[str, Callable[[Trial], str]] = {
    "worker": lambda trial: trial.cluster.nodes[0],
    "control-plane": lambda trial: trial.cluster.nodes[-1],
}


@pytest.mark.parametrize(
    "which",
    [
        "worker",
        pytest.param("control-plane", marks=pytest.mark.slow(reason="the control plane restarts")),
    ],
)
def test_up_repairs_what_the_restart_of_a_node_leaves(trial: Trial, which: str) -> None:
    node = WHICH[which](trial)
    subprocess.run(["docker", "restart", node], check=True, capture_output=True, timeout=180)
    trial.up()
    (cluster,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert cluster["health"] and {each["verdict"] for each in cluster["health"]} == {"HOLDS"}, (
        cluster["health"]
    )
    assert cluster["drift"] == []


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_up_starts_a_stopped_cluster(trial: Trial, how: str) -> None:
    """As after a restart of the engine, which starts none of kind's machines by itself, or a
    `docker pause`."""
    machines = [
        machine.name for machine in trial.engine.containers({KIND_CLUSTER_LABEL: trial.name})
    ]
    subprocess.run(["docker", how, *machines], check=True, capture_output=True, timeout=300)
    (cluster,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert (cluster["state"], cluster["health"]) == ("stopped", [])
    trial.up()
    (cluster,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert cluster["state"] == "up"
    assert cluster["health"] and {each["verdict"] for each in cluster["health"]} == {"HOLDS"}, (
        cluster["health"]
    )
