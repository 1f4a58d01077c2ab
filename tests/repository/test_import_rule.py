"""The map of harness/__init__.py, enforced on the syntax tree: imports go downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if not path.name.endswith("_pb2.py"))
LEVEL = {room: level for level, rooms in enumerate(harness.LAYERS) for room in rooms}
LEVEL["__main__"] = len(harness.LAYERS)  # a door: `python -m harness`
VALUES = harness.LAYERS[0]
# A value by its nature (it imports nothing), though it lives with the other things about clocks.
ALSO_A_VALUE = "harness.clocks.reading"
ONLY_LINUX = ("harness.labs.process", "harness.clocks.vdso", "harness.clocks.ptrace", "harness.clocks.skip", "pyroute2")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module of `harness` that `path` imports, at its top or within a function, by its full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("harness"))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "harness":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (ROOT.parent / Path(*inner.split("."))).is_dir() or Path(
                    ROOT.parent, *inner.split(".")
                ).with_suffix(".py").is_file()
                yield inner if is_module else str(node.module)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that this test can read them"


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def allowed(importer: str, imported: str) -> bool:
    """Whether the map lets `importer` import `imported`."""
    mine, theirs = room_of(importer), room_of(imported)
    if mine is None or theirs is None or mine == theirs or imported == ALSO_A_VALUE:
        return _labs_keep_apart(importer, imported)
    if mine in VALUES and theirs in VALUES:
        return VALUES.index(theirs) < VALUES.index(mine)
    return LEVEL[theirs] < LEVEL[mine] and not (mine == "labs" and theirs == "checks")


def _labs_keep_apart(importer: str, imported: str) -> bool:
    """No lab imports another; what all labs share lies directly in `harness.labs`."""
    mine, theirs = importer.split(".")[2:3], imported.split(".")[2:3]
    labs = ("model", "process", "machine", "kind")
    if room_of(importer) != "labs" or room_of(imported) != "labs" or not mine or not theirs:
        return True
    return theirs[0] not in labs or theirs == mine or (mine[0] == "machine" and theirs[0] == "process")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    """A room imports the rooms below it and itself."""
    wrong = [imported for imported in imports_of(path) if not allowed(name_of(path), imported)]
    assert wrong == [], f"{name_of(path)} may not import {', '.join(wrong)} (see harness/__init__.py)"


@pytest.mark.parametrize("path", sorted(ROOT.iterdir()), ids=lambda path: path.name)
def test_every_room_is_on_the_map(path: Path) -> None:
    """A new module or package has a place, or the rule would not know it."""
    if path.is_dir() and not any(path.rglob("*.py")):
        return
    if path.name.startswith("__") or path.suffix not in ("", ".py"):
        return
    assert path.stem in LEVEL, f"{path.name} stands in no layer of harness/__init__.py"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("harness.labs.model.lab", "harness.checks.derive"),
        ("harness.checks.derive", "harness.labs.probes"),
        ("harness.labs.model.lab", "harness.labs.process.world"),
        ("harness.labs.kind.lab", "harness.labs.process.world"),
        ("harness.plan", "harness.verdict"),
        ("harness.report.result", "harness.pipeline"),
        ("harness.pipeline", "harness.cli"),
        ("harness.cli", "harness.plugin"),
    ],
)
def test_the_rule_itself_refuses(importer: str, imported: str) -> None:
    """What the map forbids is found: a rule that never says no is no rule."""
    assert not allowed(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("harness.labs.model.lab", "harness.labs.probes"),
        ("harness.labs.machine.lab", "harness.labs.process.world"),
        ("harness.history", "harness.clocks.reading"),
        ("harness.cli", "harness.pipeline"),
    ],
)
def test_the_rule_itself_allows(importer: str, imported: str) -> None:
    """And what it allows passes."""
    assert allowed(importer, imported)


def test_the_doors_import_nothing_that_only_linux_has() -> None:
    """`meshwake` and the plugin start anywhere; what only Linux has is imported when its lab is used."""
    program = "import sys, harness.cli, harness.plugin; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    wrong = [name for name in loaded if name.startswith(ONLY_LINUX)]
    assert wrong == []
