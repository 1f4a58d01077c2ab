"""An environment with the wheel and nothing else than what it asks for, made without a network.

Packages are not downloaded: those of the environment that runs the tests are linked into the new
one, and only those that the wheel's own metadata asks for, with the extras that a test names. So a
module that is missing there is missing for everybody who installs the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import REPOSITORY

WITHIN_S = 300
# What an environment of its own must not take from the one that runs the tests.
_FOREIGN = ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Installed:
    """An environment, and an empty directory to work in."""

    root: Path
    work: Path

    @property
    def site_packages(self) -> Path:
        """Where packages are."""
        (found,) = self.root.glob("lib/python*/site-packages")
        return found

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment in the work directory."""
        clean = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        clean |= {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "MESHWAKE_RUNS": str(self.work / "runs"),
            "MESHWAKE_CACHE": str(self.work / "cache"),
            "HOME": str(self.work),
            "COLUMNS": "100",
        }
        return subprocess.run(
            command,
            cwd=self.work,
            env=clean | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=WITHIN_S,
        )


def build_wheel(place: Path) -> Path:
    """The wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--wheel-dir", str(place), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    return wheel


def install(
    wheel: Path, place: Path, extras: Iterable[str] = (), also: Iterable[str] = ()
) -> Installed:
    """A new environment in `place` with the wheel, its extras, and the packages `also`."""
    root, work = place / "environment", place / "work"
    venv.create(root, with_pip=False, symlinks=True)
    work.mkdir()
    installed = Installed(root, work)
    with ZipFile(wheel) as packed:
        packed.extractall(installed.site_packages)
    link_packages(wheel, installed.site_packages, extras, also)
    _write_scripts(installed)
    return installed


def link_packages(
    wheel: Path, directory: Path, extras: Iterable[str] = (), also: Iterable[str] = ()
) -> None:
    """What comes with the wheel, and not the wheel itself, into `directory`."""
    for each in closure(wheel, extras, also).values():
        _link(each, directory)


def requirements(wheel: Path) -> list[Requirement]:
    """What the metadata of the wheel asks for."""
    with ZipFile(wheel) as packed:
        (name,) = (each for each in packed.namelist() if each.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(packed.read(name).decode("utf-8"))
    return [Requirement(text) for text in header.get_all("Requires-Dist", [])]


def closure(
    wheel: Path, extras: Iterable[str] = (), also: Iterable[str] = ()
) -> dict[str, Distribution]:
    """Every package that comes with the wheel, and with those it needs."""
    extras = tuple(extras)
    todo = [(each, extras) for each in requirements(wheel)]
    todo += [(Requirement(name), ()) for name in also]
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement, of = todo.pop()
        if not _applies(requirement, of):
            continue
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in done:
            continue
        done.add(key)
        if key[0] == "meshwake":  # an extra that brings another
            todo += [(each, tuple(requirement.extras)) for each in requirements(wheel)]
            continue
        found[key[0]] = distribution(key[0])
        wanted = tuple(requirement.extras)
        todo += [(Requirement(text), wanted) for text in found[key[0]].requires or []]
    return found


def _applies(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _link(package: Distribution, site_packages: Path) -> None:
    """Its directories and files, as they are in the environment that runs the tests."""
    for name in {file.parts[0] for file in package.files or ()}:
        if name in ("..", "__pycache__", "."):
            continue
        link, there = site_packages / name, Path(str(package.locate_file(name)))
        if not link.exists():
            link.symlink_to(there)


def _write_scripts(installed: Installed) -> None:
    """The programs that pip would write from the entry points."""
    python = installed.root / "bin" / "python"
    for name, module in (("meshwake", "meshwake.cli.app"), ("pytest", "pytest")):
        script = installed.root / "bin" / name
        # The guard matters: a spawned worker imports the script again.
        script.write_text(
            f"#!{python}\nimport sys\nfrom {module} import main\n"
            'if __name__ == "__main__":\n    sys.exit(main())\n'
        )
        script.chmod(0o755)
