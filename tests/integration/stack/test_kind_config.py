"""The configuration of every choice, taken by the real kind program up to the containers that it
asks the engine for.

kind reads a configuration before it looks for an engine, but judges it only when one has answered.
So an engine answers here that has every image, writes down the requests, and runs nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import kind_config, node_image

from tests.integration.stack.programs import program, run

KIND = "go install sigs.k8s.io/kind@v0.33.0"
ENGINE = """#!/bin/sh
echo "$@" >> "$REQUESTS"
case "$1" in
    -v) echo Docker version 29.0.0 ;;
    info) echo '{"CgroupVersion":"2","SecurityOptions":[],"MemoryLimit":true,"PidsLimit":true,"CPUShares":true}' ;;
    network) echo kind ;;
    run) echo nothing runs here >&2; exit 1 ;;
esac
"""
CHOICES: list[dict[str, Any]] = [
    {},
    {"profile": "full", "workers": 9},
    {"workers": 1, "without_parts": ["cilium"]},
    {"mirror": "registry.local:5000/all", "name": "x" * 31},
    *({"kubernetes": version} for version in read_pins().kubernetes),
]


def create(
    config: dict[str, Any], folder: Path
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """What kind printed for this configuration, and what it requested of the engine."""
    kind, engine, requests = (
        program("kind", KIND),
        folder / "engine" / "docker",
        folder / "requests",
    )
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    requests.touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    completed = run(
        *(
            kind,
            "create",
            "cluster",
            f"--config={folder / 'config.yaml'}",
            f"--kubeconfig={folder / 'kubeconfig'}",
        ),
        PATH=f"{engine.parent}{os.pathsep}{os.environ['PATH']}",
        REQUESTS=str(requests),
        KIND_EXPERIMENTAL_PROVIDER="docker",
    )
    return completed, [shlex.split(line) for line in requests.read_text().splitlines()]


@pytest.mark.parametrize(
    "words", CHOICES, ids=lambda words: "-".join(f"{key}={value}" for key, value in words.items())
)
def test_kind_takes_the_configuration_and_asks_for_these_nodes(
    words: dict[str, Any], tmp_path: Path
) -> None:
    choice = choose_stack(read_pins(), **words)
    completed, requests = create(kind_config(choice, read_pins()), tmp_path)
    assert "nothing runs here" in completed.stdout, completed.stdout
    nodes = [line for line in requests if line[0] == "run"]
    assert {line[-1] for line in nodes} == {node_image(choice, read_pins())}
    names = {line[line.index("--name") + 1] for line in nodes}
    workers = [
        f"{choice.name}-worker{number if number > 1 else ''}"
        for number in range(1, choice.workers + 1)
    ]
    # kind starts them side by side, and may give up before the last when the first is refused.
    assert names and names <= {f"{choice.name}-control-plane", *workers}
    assert not (tmp_path / "kubeconfig").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodez": []}, "field nodez not found"),
        ({"name": "No_Name"}, "'No_Name' is not a valid cluster name"),
        ({"networking": {"ipFamily": "ipv5"}}, "invalid ipFamily"),
        (
            {"nodes": [{"role": "worker", "image": "kindest/node:v1.34.0"}]},
            "at least one control-plane",
        ),
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    """So the test above can fail; nothing is run then."""
    answer, requests = create(
        {**kind_config(choose_stack(read_pins()), read_pins()), **wrong}, tmp_path
    )
    assert answer.returncode != 0
    assert message in answer.stdout
    assert not [line for line in requests if line[0] == "run"]
