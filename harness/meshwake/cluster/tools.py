"""The programs that a cluster is made with: docker, kind and helm. Found, started for their
version, run with a bound.

    PATH, then <cache>/tools/bin        where `make tools` puts what it installs

A program runs without a shell, in a process group of its own that ends with the harness
(system/supervised.py), with the user's kubeconfig out of its sight. What it says is written to
files as it says it, so a run that was killed leaves its words. kubectl is not among them:
Kubernetes is spoken to through kr8s.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from packaging.version import Version

from meshwake.core.errors import LabUnavailable
from meshwake.system.supervised import release, start_guarded
from meshwake.ztunnel.binaries import cache_dir

ASK_VERSION_WITHIN_S = 20
LAST_WORDS = 1500
# Each names something of the user's that a program of ours must not use, or that would send it
# elsewhere.
_NOT_HANDED_ON = (
    "KUBECONFIG",
    "KIND_CLUSTER_NAME",
    "KIND_EXPERIMENTAL_PROVIDER",
    "KIND_EXPERIMENTAL_DOCKER_NETWORK",
    "HELM_NAMESPACE",
    "HELM_KUBECONTEXT",
    "HELM_KUBEAPISERVER",
    "HELM_KUBETOKEN",
)
_VERSION = re.compile(r"v?(\d+\.\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Needed:
    """One program: how it prints its version, and what to do where it is missing."""

    name: str
    ask: tuple[str, ...]
    get: str


NEEDED = (
    Needed(
        "docker",
        ("--version",),
        "install Docker's command line: https://docs.docker.com/engine/install/",
    ),
    Needed("kind", ("version",), "run: make tools"),
    Needed("helm", ("version", "--short"), "run: make tools"),
)


@dataclass(frozen=True)
class Output:
    """What a program that ended with 0 wrote."""

    stdout: str
    stderr: str


class ToolFailed(LabUnavailable):
    """A program ended with another code than 0, or not in time."""


class Tools(Protocol):
    """Programs that can be run."""

    def run(
        self,
        name: str,
        *arguments: str,
        within_s: float,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Output:
        """Runs `name` with `arguments` and waits for its end. `log` (a path without ending) keeps
        what it says in `log`.out and `log`.err. Raises ToolFailed with its last words; it has ended
        whatever happens, also at ^C."""


@dataclass(frozen=True)
class InstalledTools:
    """The programs of this machine, by name."""

    found: Mapping[str, Path]

    def run(
        self,
        name: str,
        *arguments: str,
        within_s: float,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Output:
        """As `Tools.run` promises."""
        path = self.found[name]
        title = " ".join([path.name, *arguments[:2]])
        with _words(log) as (out, err):
            code = _run_guarded([str(path), *arguments], within_s, out, err, environment or {})
            output = Output(_text(out), _text(err))

        # The end of it: helm and kind print warnings first and the error last.
        words = (output.stderr.strip() or output.stdout.strip())[-LAST_WORDS:]
        kept = f"; all of it: {log}.err" if log is not None else ""
        if code is None:
            raise ToolFailed(
                f"{title}: did not end within {within_s:.0f} s; it was ended; last words: "
                f"{words}{kept}"
            )
        if code != 0:
            raise ToolFailed(f"{title}: ended with {code}: {words}{kept}")
        return output


def search_path() -> str:
    """Where programs are looked for, first place first."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), str(cache_dir() / "tools" / "bin")])


def find_tools(wanted: Mapping[str, str]) -> InstalledTools:
    """Every program of `NEEDED`, in a version that goes with `wanted` (name -> version, of
    clusters/stack.toml). Raises LabUnavailable that names each one that is missing or of a wrong
    version, and what to do."""
    found, problems = look_for_tools(wanted)
    if problems:
        raise LabUnavailable("\n".join(problems))
    return InstalledTools(found)


def look_for_tools(wanted: Mapping[str, str]) -> tuple[dict[str, Path], list[str]]:
    """What was found, and what is wrong, one sentence a program, each with what to do; never
    raises."""
    found: dict[str, Path] = {}
    problems: list[str] = []
    for needed in NEEDED:
        try:
            found[needed.name] = _find(needed, wanted.get(needed.name))
        except LabUnavailable as error:
            problems.append(str(error))
    return found, problems


def _find(needed: Needed, wanted: str | None) -> Path:
    """The first of `search_path` that answers and has the right version: an old one on PATH hides
    no good one."""
    wrong = []
    for directory in search_path().split(os.pathsep):
        # One directory after the other: `which` alone finds only the first of a name.
        path = shutil.which(needed.name, path=directory)
        if path is None:
            continue
        try:
            version = _ask_version(needed, Path(path))
        except LabUnavailable as error:
            wrong.append(str(error))
            continue
        if wanted is None or goes_with(version, wanted):
            return Path(path)
        wrong.append(f"{needed.name}: found {version} at {path}")

    want = f", wanted {_range(wanted)}" if wanted else ""
    output = "; ".join(wrong)
    if not wrong:
        output = f"{needed.name}: not found on PATH, nor in {cache_dir() / 'tools' / 'bin'}"
    raise LabUnavailable(f"{output}{want}; {needed.get}")


def _ask_version(needed: Needed, path: Path) -> str:
    tool = InstalledTools({needed.name: path})
    output = tool.run(needed.name, *needed.ask, within_s=ASK_VERSION_WITHIN_S).stdout
    match = _VERSION.search(output)
    if match is None:
        raise LabUnavailable(
            f"{path} {' '.join(needed.ask)} printed no version but {output.strip()[:100]!r}"
        )
    return match.group(1)


def goes_with(version: str, wanted: str) -> bool:
    """Whether a program of `version` does what `wanted` does: nothing older; below 1.0 the same
    minor, which may change anything; from 1.0 on the same major. A program built from source may
    say 3.22 for 3.22.0."""
    mine, pinned = Version(version), Version(wanted)
    if pinned.major == 0:
        is_same_line = mine.release[:2] == pinned.release[:2]
        return is_same_line and mine >= pinned

    is_same_line = mine.major == pinned.major
    return is_same_line and mine.release[:2] >= pinned.release[:2]


def _range(wanted: str) -> str:
    pinned = Version(wanted)
    if pinned.major == 0:
        return f"{pinned} or a later 0.{pinned.minor}"
    return f"{pinned.major}.{pinned.minor} or a later {pinned.major}"


def _run_guarded(
    command: list[str],
    within_s: float,
    out: IO[bytes],
    err: IO[bytes],
    environment: Mapping[str, str],
) -> int | None:
    """The exit code of `command`, None when it took too long. Its process group has ended when this
    returns."""
    # KUBECONFIG and the like would send kind and helm to another cluster.
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}
    process = start_guarded(command, out=out, error=err, environment={**inherited, **environment})
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None
    # Whatever it started is ended too: kind runs docker, and helm may run plugins.
    finally:
        release(process)


@contextmanager
def _words(log: Path | None) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    if log is None:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            yield out, err
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{log}.out").open("w+b") as out, Path(f"{log}.err").open("w+b") as err:
        yield out, err


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
