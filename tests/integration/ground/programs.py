"""The programs of a real Kubernetes control plane: where they may lie, which there are, and how
they die with us.

    $KUBEBUILDER_ASSETS/{etcd,kube-apiserver,...}            as controller-runtime's envtest
    <cache>/kubernetes/<version>/{etcd,kube-apiserver,...}   the newest version is taken

etcd and kube-apiserver are enough for an API; kube-controller-manager adds namespaces that can be
deleted and Deployments that make Pods, kube-scheduler and kwok add nodes on which such Pods become
ready without running.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from meshwake.core.resources import SOURCES
from meshwake.ztunnel.binaries import cache_dir
from packaging.version import InvalidVersion, Version

ENDS_WITHIN_S = 10
LAST_LINES = 15
NEEDED = ("etcd", "kube-apiserver")
FOR_WORKLOADS = ("kube-controller-manager", "kube-scheduler", "kwok")
_TIED_TO_PARENT = (
    "import os, sys; from meshwake.system.libc import die_with_parent; "
    "die_with_parent(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True)
class ControlPlane:
    """Programs of one Kubernetes version by name; `version` is the directory's name, or
    "envtest"."""

    version: str
    programs: Mapping[str, Path]

    def lacks(self, names: Sequence[str]) -> list[str]:
        """Which of `names` are not there."""
        return [name for name in names if name not in self.programs]


def control_planes() -> list[ControlPlane]:
    """Every control plane that is complete enough for an API, the preferred one first."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    found = [_control_plane("envtest", Path(assets))] if assets else []
    versions = [
        path for path in (cache_dir() / "kubernetes").glob("*") if _version(path.name) is not None
    ]
    versions.sort(key=lambda path: _version(path.name) or Version("0"), reverse=True)
    found += [_control_plane(path.name, path) for path in versions]
    return [plane for plane in found if not plane.lacks(NEEDED)]


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _control_plane(version: str, directory: Path) -> ControlPlane:
    programs: dict[str, Path] = {}
    for name in (*NEEDED, *FOR_WORKLOADS):
        for path in (directory / name, cache_dir() / "tools" / "bin" / name):
            if path.is_file() and os.access(path, os.X_OK):
                programs.setdefault(name, path)
    return ControlPlane(version, programs)


def control_plane_or_skip(*needed: str) -> ControlPlane:
    """The preferred control plane that also has the programs `needed`; skips the test when there is
    none."""
    planes = control_planes()
    for plane in planes:
        if not plane.lacks(needed):
            return plane
    wanted = ", ".join((*NEEDED, *needed))
    pytest.skip(
        f"needs {wanted} in $KUBEBUILDER_ASSETS or in {cache_dir()}/kubernetes/VERSION "
        "(docs/stack.md "
        f"says how); there {'are' if planes else 'is'} "
        f"{', '.join(plane.version for plane in planes) or 'none'}"
    )


@dataclass
class Program:
    """A program that runs until it is ended, or until this process dies, however that dies
    (PR_SET_PDEATHSIG)."""

    name: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        """Starts it. Must be called from the main thread: the kernel ties a child to the thread
        that made it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _TIED_TO_PARENT, str(os.getpid()), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(SOURCES), **self.environment},
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """Its process id; it has been started."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    def ended(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self.process.poll() if self.process else None

    def end(self) -> None:
        """Ends it: SIGTERM first, killed when it does not end within ENDS_WITHIN_S."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(ENDS_WITHIN_S)

    def last_words(self) -> str:
        """The last lines of its log, for an error message."""
        lines = (
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            if self.log.exists()
            else []
        )
        return (
            "\n".join(f"    {line[:300]}" for line in lines[-LAST_LINES:])
            or "    (its log is empty)"
        )


@dataclass
class Deadline:
    """A bound with a name: `while not ready(): deadline.pause(last)` ends with an error that says
    what was awaited."""

    awaited: str
    within_s: float
    watched: Sequence[Program] = ()
    started_monotonic_s: float = field(default_factory=time.monotonic)

    def pause(self, last_seen: object, every_s: float = 0.1) -> None:
        """Sleeps, unless a watched program has ended or time is up: then AssertionError."""
        for program in self.watched:
            if (status := program.ended()) is not None:
                raise AssertionError(
                    f"{self.awaited}: {program.name} ended with {status}; its last "
                    f"words:\n{program.last_words()}"
                )
        if time.monotonic() - self.started_monotonic_s > self.within_s:
            words = "".join(
                f"\n  last words of {program.name}:\n{program.last_words()}"
                for program in self.watched
            )
            raise AssertionError(
                f"{self.awaited}: not within {self.within_s:g} s; last seen: {last_seen}{words}"
            )
        time.sleep(every_s)
