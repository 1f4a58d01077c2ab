"""The images of ours and their manifests: what they say agrees with what the programs are."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.clocks.movers.process import GUARD as GUARD_RULE
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.cluster.stack import own_images, pieces
from meshwake.cluster.stack.own_images import (
    GUARD,
    HELPER,
    OwnImage,
    own_images_in,
    with_own_images,
)
from meshwake.cluster.stack.pieces import image_references
from meshwake.core.errors import LabUnavailable
from meshwake.core.resources import SOURCES
from meshwake.guard.cluster import Places

from tests.support.paths import REPOSITORY

# What is asked for only where there is no image (a kubeconfig on a node without containers).
NOT_IN_THE_IMAGE = {"yaml"}
BOTH = pytest.mark.parametrize(
    ("image", "program"),
    [
        (HELPER, "meshwake/clocks/movers/node_helper/__main__.py"),
        (GUARD, "meshwake/guard/__main__.py"),
    ],
)


class _Imports(ast.NodeVisitor):
    """Modules that are imported when the program runs, not those that only a type checker reads."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.found.append(node.module or "")

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [alias.name for alias in node.names]


def imports(file: str) -> list[str]:
    visitor = _Imports()
    visitor.visit(ast.parse((SOURCES / file).read_text()))
    return visitor.found


@cache
def imported(module: str) -> frozenset[str]:
    """All files of the harness that a module needs, itself included."""
    files = {module}
    package = Path(module).parent
    files |= {f"{parent}/__init__.py" for parent in (package, *package.parents) if parent.name}
    for name in imports(module):
        if name.startswith("meshwake."):
            files |= imported(name.replace(".", "/") + ".py")
    return frozenset(files)


def objects_of(image: OwnImage) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY.joinpath("clusters", *image.manifest)).read_text()))


def daemon_set(image: OwnImage) -> dict[str, Any]:
    return next(entry for entry in objects_of(image) if entry["kind"] == "DaemonSet")


@BOTH
def test_an_image_holds_what_its_program_imports_and_no_more(image: OwnImage, program: str) -> None:
    """It has no package installed, so a module that is missing is found when it is too late."""
    needed = imported(program) | _package_of(program)
    assert {str(path) for path in image.sources()} == needed


def _package_of(program: str) -> set[str]:
    """The guard is copied whole."""
    guard = (SOURCES / "meshwake" / "guard").glob("*.py")
    return {str(path.relative_to(SOURCES)) for path in guard} if "guard" in program else set()


@BOTH
def test_a_program_in_an_image_of_ours_needs_nothing_but_python(
    image: OwnImage, program: str
) -> None:
    """Every import is of the harness or of the standard library."""
    for file in imported(program):
        names = {name.split(".")[0] for name in imports(file)}
        assert names <= {"meshwake", *sys.stdlib_module_names, *NOT_IN_THE_IMAGE}, file


@BOTH
def test_the_engine_is_given_the_files_that_are_copied(
    image: OwnImage, program: str, tmp_path: Path
) -> None:
    """And no others: an installed package lies among all that is installed. The program starts."""
    image.write_context(tmp_path)
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert copied == {str(path) for path in image.sources()}
    module = program.removesuffix(".py").replace("/", ".").removesuffix(".__main__")
    command = [sys.executable, "-E", "-s", "-S", "-m", module, "--help"]
    said = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr


def test_a_tag_changes_with_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with nothing else: an image in a node that has it is never of sources that are gone."""
    before = GUARD.reference
    sources = tmp_path / "harness"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "clusters", tmp_path / "clusters")
    monkeypatch.setattr(own_images, "ROOT", tmp_path)
    monkeypatch.setattr(own_images, "SOURCES", sources)
    (sources / "meshwake" / "core" / "outcome.py").write_text("nothing of it is in the image")
    assert GUARD.reference == before and before.startswith(f"{GUARD.named}-")
    (sources / "meshwake" / "guard" / "guard.py").write_text("changed")
    assert GUARD.reference != before
    (tmp_path / GUARD.dockerfile).unlink()
    with pytest.raises(LabUnavailable, match="install meshwake anew"):
        _ = GUARD.reference


def test_a_published_image_is_built_here_under_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release names its image by digest; a run on a cluster of ours still builds from sources."""
    assert not GUARD.is_published
    shutil.copytree(REPOSITORY / "clusters", tmp_path / "clusters")
    manifest = tmp_path.joinpath("clusters", *GUARD.manifest)
    published = f"ghcr.io/owner/meshwake/wake-guard:v7@sha256:{'a' * 64}"
    manifest.write_text(manifest.read_text().replace(GUARD.named, published))
    monkeypatch.setattr(pieces, "CLUSTERS", tmp_path / "clusters")
    assert GUARD.is_published and GUARD.named == published
    assert re.fullmatch(r"localhost/meshwake/wake-guard:v7-[0-9a-f]{12}", GUARD.reference)
    objects = guard_objects(Places())
    assert own_images_in(objects) == (GUARD,)
    assert set(image_references(with_own_images(objects))) == {GUARD.reference}


def test_only_our_images_are_named_anew() -> None:
    """A guard from somebody's own registry stays what it is."""
    guards = with_own_images(objects_of(GUARD))
    assert own_images_in(objects_of(GUARD)) == (GUARD,) and own_images_in(objects_of(HELPER)) == (
        HELPER,
    )
    image = next(thing for thing in guards if thing["kind"] == "DaemonSet")["spec"]["template"][
        "spec"
    ]["containers"]
    assert image[0]["image"] == GUARD.reference
    text = (
        REPOSITORY.joinpath("clusters", *GUARD.manifest)
        .read_text()
        .replace(GUARD.named, "registry.example/guard:7")
    )
    theirs = list(yaml.safe_load_all(text))
    assert with_own_images(theirs) == theirs and own_images_in(theirs) == ()


def test_the_helper_carries_our_label_and_runs_on_every_node() -> None:
    """So that it can be found again and taken away."""
    for entry in objects_of(HELPER):
        assert entry["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshwake"
    template = daemon_set(HELPER)["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshwake"
    spec = template["spec"]
    assert spec["hostPID"] and spec["containers"][0]["securityContext"]["privileged"]
    assert spec["tolerations"] == [{"operator": "Exists"}]


def test_image_and_manifest_name_the_same_socket_and_protocol() -> None:
    """The probe asks where the helper listens."""
    container = daemon_set(HELPER)["spec"]["template"]["spec"]["containers"][0]
    probe = container["startupProbe"]["exec"]["command"]
    command = re.search(r"CMD \[(.*)\]", (REPOSITORY / HELPER.dockerfile).read_text())
    assert command is not None
    assert f'"{probe[probe.index("--socket") + 1]}"' in command[1]
    assert yaml.safe_load(probe[-1]) == {"version": PROTOCOL_VERSION, "do": "hello"}


def test_the_guards_interpreter_is_the_one_whose_clocks_are_moved() -> None:
    """It is made, and started, under the name that the mover's rule has; no other Python has that
    name."""
    text = (REPOSITORY / GUARD.dockerfile).read_text()
    assert f"/image{GUARD_RULE.executable};" in text
    assert f'ENTRYPOINT ["{GUARD_RULE.executable}", ' in text
