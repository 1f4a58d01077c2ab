"""A cluster that is up says of itself what it is, and `up` finds nothing to do."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.cluster.trial import Trial

# By part; a check whose parts are not all there is not made
# (harness/meshwake/cluster/health.py).
QUESTIONS = {
    "chained_cni": {"cilium", "istio"},
    "ambient_redirected": {"istio"},
    "cilium_settings": {"cilium"},
    "hbone_used": {"istio"},
    "address_in_pool": {"gateway", "metallb"},
    "gateway_answers": {"gateway"},
    "waypoint_in_the_way": {"waypoint"},
}


def test_status_holds_on_every_question(trial: Trial) -> None:
    (cluster,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    assert (cluster["name"], cluster["state"], cluster["in_use"], cluster["drift"]) == (
        trial.name,
        "up",
        None,
        [],
    )
    expected = {name for name, parts in QUESTIONS.items() if parts <= trial.parts}
    assert {each["check"]: each["verdict"] for each in cluster["health"]} == dict.fromkeys(
        expected, "HOLDS"
    ), cluster["health"]


def test_the_versions_reported_are_those_that_run(trial: Trial) -> None:
    """Read from the programs themselves, on the nodes, and of what containerd says that it runs
    there."""
    (cluster,) = json.loads(trial.meshwake("status", "--json").stdout)["clusters"]
    for node in trial.cluster.nodes:
        version = trial.execute(node, "kubelet", "--version").stdout.split()[-1]
        assert cluster["runs"]["kubernetes"][node] == version
    # By containerd's word, which names an image by its configuration; Kubernetes by the digest of
    # its manifest.
    node = trial.cluster.nodes[0]
    running = _of_containerd(trial, node, "ps", "--name", "^istio-proxy$")["containers"]
    here = {
        each["imageRef"]
        for each in running
        if each["labels"]["io.kubernetes.pod.name"].startswith("ztunnel-")
    }
    names = [
        each["repoDigests"]
        for each in _of_containerd(trial, node, "images")["images"]
        if each["id"] in here
    ]
    assert len(here) == len(names) == 1
    assert cluster["runs"]["image_ids"]["ztunnel"][0] in {*names[0], *here}


def _of_containerd(trial: Trial, node: str, *command: str) -> dict[str, Any]:
    return dict(json.loads(trial.execute(node, "crictl", *command, "-o", "json").stdout))


def test_a_second_up_has_nothing_to_do(trial: Trial) -> None:
    """Each step is looked at, and left alone; only what is never remembered is done again."""
    before = trial.objects()
    output = trial.up()
    steps = re.findall(r"^\[\d+/\d+\] ([a-z-]+): +nothing to do", output, re.MULTILINE)
    every = set(re.findall(r"^\[\d+/\d+\] ([a-z-]+):", output, re.MULTILINE))
    assert every - set(steps) == {"preflight", "leftovers", "health"}, output
    assert trial.objects() == before
