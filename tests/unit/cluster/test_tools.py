"""Programs are found in a version that goes, run with a bound, out of the user's way, and end with
the harness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from meshwake.cluster.tools import InstalledTools, ToolFailed, find_tools, goes_with, look_for_tools
from meshwake.core.errors import LabUnavailable
from meshwake.system.deadline import wait_until

from tests.support.processes import state_of

WANTED = {"kind": "0.33.0", "helm": "3.18.0"}
SAYS = {
    "docker": "Docker version 28.2.2, build e6534b4",
    "kind": "kind v0.33.1 go1.25 linux/amd64",
    "helm": "v3.19.2+g1",
}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs are shell scripts")


def put(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with the three in it; the cache is empty."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, says in SAYS.items():
        put(place, name, f"echo '{says}'")
    monkeypatch.setenv("PATH", f"{place}:/bin:/usr/bin")
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "cache"))
    return place


def test_all_are_found_in_versions_that_go(programs: Path) -> None:
    """By what they say of themselves."""
    assert find_tools(WANTED).found == {
        name: programs / name for name in ("docker", "kind", "helm")
    }


def test_what_make_tools_installed_is_found_too(programs: Path, tmp_path: Path) -> None:
    """A wrong version earlier on PATH does no harm."""
    put(programs, "kind", "echo 'kind v0.20.0 go1.20 linux/amd64'")
    place = tmp_path / "cache" / "tools" / "bin"
    place.mkdir(parents=True)
    put(place, "kind", f"echo '{SAYS['kind']}'")
    assert find_tools(WANTED).found["kind"] == place / "kind"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("kind", None, r"kind: not found on PATH, nor in .*; run: make tools"),
        (
            "kind",
            "echo 'kind v0.20.0'",
            r"kind: found 0\.20\.0 at .*, wanted 0\.33\.0 or a later 0\.33; run: make tools",
        ),
        ("helm", "echo v2.17.0", r"helm: found 2\.17\.0 at .*, wanted 3\.18 or a later 3"),
        ("helm", "echo hello", r"printed no version but 'hello'"),
        ("docker", "exit 3", r"docker --version: ended with 3"),
    ],
)
def test_what_is_missing_or_wrong_is_named_with_what_to_do(
    programs: Path, name: str, text: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by name."""
    monkeypatch.setenv("PATH", str(programs))
    (programs / name).unlink()
    if text is not None:
        put(programs, name, text)
    with pytest.raises(LabUnavailable, match=message):
        find_tools(WANTED)


def test_all_that_is_wrong_is_reported_at_once(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user does not install one thing only to learn of the next."""
    monkeypatch.setenv("PATH", str(programs))
    for name in SAYS:
        (programs / name).unlink()
    assert len(look_for_tools(WANTED)[1]) == 3


@pytest.mark.parametrize(
    ("version", "wanted", "goes"),
    [
        ("0.33.0", "0.33.0", True),
        ("0.33.2", "0.33.0", True),
        ("0.32.9", "0.33.0", False),
        ("0.34.0", "0.33.0", False),
        ("3.18", "3.18.4", True),
        ("3.21.0", "3.18.0", True),
        ("3.17.9", "3.18.0", False),
        ("4.0.0", "3.18.0", False),
    ],
)
def test_versions_that_go(version: str, wanted: str, goes: bool) -> None:
    """Below 1.0 the same minor, from 1.0 the same major; nothing older."""
    assert goes_with(version, wanted) is goes


def only(path: Path) -> InstalledTools:
    """A machine with one program, called "it"."""
    return InstalledTools({"it": path})


def test_the_users_kubeconfig_is_out_of_sight(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor anything else that would send a program elsewhere."""
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    monkeypatch.setenv("HELM_KUBECONTEXT", "production")
    put(programs, "helm", "env")
    message = (
        only(programs / "helm")
        .run("it", within_s=20, environment={"HELM_DATA_HOME": "/ours"})
        .stdout
    )
    assert (
        "KUBECONFIG" not in message
        and "production" not in message
        and "HELM_DATA_HOME=/ours" in message
    )


def test_a_program_that_fails_leaves_its_words(programs: Path, tmp_path: Path) -> None:
    """In the error and on disk."""
    put(programs, "helm", "echo out; echo 'Error: no such chart' >&2; exit 7")
    with pytest.raises(
        ToolFailed,
        match=r"helm install x: ended with 7: Error: no such chart; all of it: .*words.err",
    ):
        only(programs / "helm").run("it", "install", "x", within_s=20, log=tmp_path / "words")
    assert (tmp_path / "words.out").read_text() == "out\n"


@pytest.mark.slow(reason="waits for a bound of five seconds")
def test_a_program_that_hangs_is_ended_with_its_children(programs: Path, tmp_path: Path) -> None:
    """Within the bound, and with it all that it had started."""
    put(programs, "kind", f"sleep 300 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(ToolFailed, match="did not end within"):
        only(programs / "kind").run("it", within_s=5)
    _await_gone(int((tmp_path / "child").read_text()))


_HARNESS = """
import sys
from pathlib import Path
from meshwake.cluster.tools import InstalledTools
InstalledTools({"it": Path(sys.argv[1])}).run("it", within_s=300)
"""


def test_a_program_ends_when_the_harness_is_killed(programs: Path, tmp_path: Path) -> None:
    """kill -9 leaves no helm that works on behind everybody's back."""
    program = put(programs, "helm", f"echo $$ > {tmp_path}/pid; sleep 300 & wait")
    harness = subprocess.Popen([sys.executable, "-c", _HARNESS, str(program)])
    pid = _await_number(tmp_path / "pid")
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    _await_gone(pid)


def _await_number(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path}", 30)
    return int(path.read_text())


def _await_gone(pid: int) -> None:
    wait_until(lambda: state_of(pid) == "Z", f"the end of process {pid}", 30)
