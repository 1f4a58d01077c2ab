"""The helper's image and DaemonSet: what they say agrees with what the program is."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import yaml

from harness.clocks.node_helper import PROTOCOL_VERSION

ROOT = Path(__file__).parents[3]
HELPER = ROOT / "clusters" / "helper"


def copied() -> set[str]:
    lines = (HELPER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    return set(sources)


def imported(module: str) -> set[str]:
    """All files of the harness that a module needs, itself included."""
    files = {module}
    package = Path(module).parent
    files |= {f"{parent}/__init__.py" for parent in (package, *package.parents) if parent.name}
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("harness."):
            files |= imported(node.module.replace(".", "/") + ".py")
    return files


def daemon_set() -> dict[str, Any]:
    objects = list(yaml.safe_load_all((HELPER / "daemonset.yaml").read_text()))
    return next(entry for entry in objects if entry["kind"] == "DaemonSet")


def test_the_image_holds_what_the_helper_imports_and_no_more() -> None:
    """It has no package installed, so a module that is missing is found when it is too late."""
    assert copied() == imported("harness/clocks/node_helper.py")


def test_the_helper_needs_nothing_but_python() -> None:
    """Every import is of the harness or of the standard library."""
    import sys

    for file in imported("harness/clocks/node_helper.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert all(name.split(".")[0] in {"harness", *sys.stdlib_module_names} for name in names), (file, names)


def test_everything_carries_our_label_and_runs_on_every_node() -> None:
    """So that it can be found again and taken away."""
    for entry in yaml.safe_load_all((HELPER / "daemonset.yaml").read_text()):
        assert entry["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshwake"
    template = daemon_set()["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshwake"
    spec = template["spec"]
    assert spec["hostPID"] and spec["containers"][0]["securityContext"]["privileged"]
    assert spec["tolerations"] == [{"operator": "Exists"}]


def test_image_and_manifest_name_the_same_socket_and_protocol() -> None:
    """The probe asks where the helper listens."""
    probe = daemon_set()["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
    command = re.search(r"CMD \[(.*)\]", (HELPER / "Dockerfile").read_text())
    assert command is not None
    assert f'"{probe[probe.index("--socket") + 1]}"' in command[1]
    assert yaml.safe_load(probe[-1]) == {"version": PROTOCOL_VERSION, "do": "hello"}
