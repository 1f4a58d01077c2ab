"""The wake guard as kubectl, kustomize, helm and `meshwake guard install` make it of the same files:
equal objects, valid for every pinned Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.guard.cluster import Places

from tests.integration.stack.programs import program, run
from tests.integration.stack.schemas import VERSIONS, check_known
from tests.support.paths import CLUSTERS, REPOSITORY

FOLDER = CLUSTERS / "fixes" / "wake-guard"
IMAGE = "registry.example/wake-guard:7"
ELSEWHERE = Places("zt", "control", ("web", "zt", "shop"))


def by_name(objects: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The order in which a tool prints them is its own."""
    return {
        f"{thing['kind']} {thing['metadata'].get('namespace')}/{thing['metadata']['name']}": thing
        for thing in objects
    }


def documents(text: str) -> list[dict[str, Any]]:
    return [thing for thing in yaml.safe_load_all(text) if thing]


def of_helm(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    helm = program("helm", "make tools")
    made = run(
        *(helm, "template", "wake-guard", str(FOLDER), "--kube-version=1.34.0", "--values=-"),
        says=json.dumps(values),
    )
    assert made.returncode == 0, made.stdout
    return documents(made.stdout)


def of_kustomize(folder: Path) -> list[dict[str, Any]]:
    kubectl = program("kubectl", "https://kubernetes.io/docs/tasks/tools")
    made = run(kubectl, "kustomize", str(folder))
    assert made.returncode == 0, made.stdout
    return documents(made.stdout)


def test_helm_makes_the_same_objects() -> None:
    """By default, and with everything that the chart lets one choose."""
    assert by_name(of_helm({})) == by_name(guard_objects(Places()))
    values = {
        "image": IMAGE,
        "ztunnelNamespace": ELSEWHERE.ztunnel,
        "istiodNamespace": ELSEWHERE.istiod,
        "gatewayNamespaces": list(ELSEWHERE.gateways),
    }
    assert by_name(of_helm(values)) == by_name(guard_objects(ELSEWHERE, IMAGE))


def test_helm_leaves_the_namespace_out_and_hands_arguments_on() -> None:
    """What only the chart has."""
    made = of_helm({"createNamespace": False, "extraArgs": ["--turns=5"]})
    assert "Namespace" not in {thing["kind"] for thing in made}
    (daemon_set,) = [thing for thing in made if thing["kind"] == "DaemonSet"]
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--turns=5"


@pytest.mark.parametrize(
    "values", [{"gatewayNamespace": ["web"]}, {"gatewayNamespaces": ["Web"]}, {"extraArgs": ["x"]}]
)
def test_helm_refuses_what_the_chart_does_not_know(values: dict[str, Any]) -> None:
    """A value that is misspelt would else count for nothing."""
    with pytest.raises(AssertionError, match="values don't meet the specifications"):
        of_helm(values)


def test_kustomize_makes_the_same_objects() -> None:
    assert by_name(of_kustomize(FOLDER)) == by_name(guard_objects(Places()))


def test_the_kustomization_that_docs_show_makes_what_install_makes(tmp_path: Path) -> None:
    """With another image, and gateways of one namespace."""
    page = (REPOSITORY / "docs" / "guard.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(
        "<!-- kustomization: web/kustomization.yaml, kustomization.yaml -->"
    )
    inner, outer = rest.split("```yaml\n")[1:3]
    base = tmp_path / "base"
    base.symlink_to(FOLDER)
    for path, text in ((tmp_path / "web", inner), (tmp_path, outer)):
        path.mkdir(exist_ok=True)
        written = text.partition("```")[0]
        for of in ("/gateways", ""):
            address = f"https://github.com/OWNER/meshwake//clusters/fixes/wake-guard{of}?ref=v0.1.0"
            there = base / of.strip("/")
            written = written.replace(address, str(_relative(there, path)))
        (path / "kustomization.yaml").write_text(written, encoding="utf-8")
    made = by_name(of_kustomize(tmp_path))
    assert made == by_name(guard_objects(Places(gateways=("web",)), IMAGE))


def _relative(path: Path, to: Path) -> Path:
    """kustomize takes no absolute path."""
    return Path(*[".."] * len(to.parts[1:]), *path.resolve().parts[1:])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_every_pinned_kubernetes(version: str) -> None:
    for thing in guard_objects(ELSEWHERE, IMAGE):
        assert check_known(thing, version), thing["kind"]


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((FOLDER / "Chart.yaml").read_text(encoding="utf-8"))
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{chart["version"]}"\n' in project
    assert chart["appVersion"] == chart["version"]
