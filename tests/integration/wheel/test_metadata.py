"""What the wheel says of itself, what it holds, what comes with it."""

from __future__ import annotations

import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from meshwake.core.extras import EXTRAS
from packaging.utils import canonicalize_name

from tests.integration.wheel.installed import closure, requirements
from tests.support.paths import CLUSTERS, SCENARIOS

MB = 1_000_000


def test_the_base_install_is_light(wheel: Path) -> None:
    """Under 20 packages and 40 MB, the wheel itself included, and byte code that pip makes of the
    dependencies."""
    packages = closure(wheel)
    size = sum(
        Path(str(file.locate())).stat().st_size
        for package in packages.values()
        for file in package.files or ()
        if Path(str(file.locate())).exists()
    )
    with ZipFile(wheel) as packed:
        size += sum(each.file_size for each in packed.infolist())
    assert len(packages) + 1 < 20, sorted(packages)
    assert size < 40 * MB, f"{size / MB:.1f} MB"


def test_data_is_in_the_wheel(wheel: Path) -> None:
    """Every scenario and every file of clusters/, the mark that it is typed, the templates."""
    with ZipFile(wheel) as packed:
        names = set(packed.namelist())
    for folder, below in ((SCENARIOS, "meshwake/scenarios"), (CLUSTERS, "meshwake/clusters")):
        wanted = {
            f"{below}/{file.relative_to(folder).as_posix()}"
            for file in folder.rglob("*")
            if file.is_file() and not {"__pycache__", ".git"} & set(file.parts)
        }
        assert wanted - names == set()
    assert "meshwake/py.typed" in names
    assert "meshwake/report/html/templates/run.html.j2" in names
    assert {name.split("/")[0] for name in names} == {"meshwake", "meshwake-0.1.0.dist-info"}


def test_what_it_says_of_itself(wheel: Path) -> None:
    """Entry points for the shell and for pytest, classifiers, the licence."""
    with ZipFile(wheel) as packed:
        info = "meshwake-0.1.0.dist-info"
        header = HeaderParser().parsestr(packed.read(f"{info}/METADATA").decode("utf-8"))
        points = packed.read(f"{info}/entry_points.txt").decode("utf-8")
    assert "meshwake = meshwake.cli.app:main" in points
    assert "[pytest11]\nmeshwake.pytest_plugin = meshwake.pytest_plugin" in points
    assert {"Framework :: Pytest", "Typing :: Typed"} <= set(header.get_all("Classifier", []))
    assert header["License-Expression"] == "Apache-2.0"
    assert set(EXTRAS) <= set(header.get_all("Provides-Extra", []))


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_that_a_message_names(wheel: Path, extra: str) -> None:
    """So `pip install 'meshwake[...]'` is the right answer."""
    if extra in ("faketime", "machine") and sys.platform != "linux":
        pytest.skip(f"{extra} needs Linux")
    for module in EXTRAS[extra][1]:
        pytest.importorskip(module, reason=f"{module} is not installed here: make develop")
    base = closure(wheel)
    brought = {name: each for name, each in closure(wheel, [extra]).items() if name not in base}
    tops = {
        file.parts[0].removesuffix(".py") for each in brought.values() for file in each.files or ()
    }
    for module in EXTRAS[extra][1]:
        assert module in tops, f"{module} comes with none of {sorted(brought)}"


def test_a_real_ztunnel_needs_no_second_extra(wheel: Path) -> None:
    """What fetches one, and what runs one in a guest, brings what runs it."""
    process = closure(wheel, ["process"]).keys()
    assert process <= closure(wheel, ["fetch"]).keys()
    assert process <= closure(wheel, ["machine"]).keys()
    assert "grpclib" in process - closure(wheel).keys()


def test_no_dependency_is_named_twice(wheel: Path) -> None:
    """What the base has, no extra repeats."""
    base = [
        canonicalize_name(each.name) for each in requirements(wheel) if "extra" not in str(each)
    ]
    assert len(base) == len(set(base))
