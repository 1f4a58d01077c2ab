"""Real programs on loopback: found, started, waited for with a bound, ended whatever happens."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.binaries import cache_dir

_ELSEWHERE = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_LOOK_AGAIN_S = 0.05
_END_WITHIN_S = 10


def program(name: str, how: str) -> str:
    """The path of the program `name`: from the cache, else from PATH. Skips the test, saying `how`
    to get it."""
    path = os.pathsep.join(
        [str(cache_dir() / "tools" / "bin"), os.environ.get("PATH", ""), *_ELSEWHERE]
    )
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"needs {name}: {how}")
    return found


def run(
    *command: str, within_s: float = 60, says: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs to the end, with `says` as its stdin; its output (both streams) is in `stdout`."""
    return subprocess.run(
        command,
        check=False,
        text=True,
        input=says,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=within_s,
        env={**os.environ, **environment},
    )


@contextmanager
def running(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    ready: Callable[[], bool],
    within_s: float = 60,
    **environment: str,
) -> Iterator[None]:
    """Runs `command` in `folder` while the block runs, once `ready` says yes. Fails with the end of
    its log."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        deadline = Deadline(f"{command[0]} to be ready", within_s)
        while not ready():
            if process.poll() is not None or deadline.has_passed:
                state = "ended" if process.poll() is not None else f"not ready within {within_s} s"
                pytest.fail(
                    f"{command[0]} {state}; its last "
                    f"words:\n{log.read_text(errors='replace')[-3000:]}"
                )
            deadline.sleep(_LOOK_AGAIN_S)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_WITHIN_S)


def listens(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def replaced(text: str, by: Mapping[str, str]) -> str:
    """`text` with each of these taken for another, which must be in it exactly once: nothing else
    may differ."""
    for old, new in by.items():
        assert text.count(old) == 1, f"{old!r} is in it {text.count(old)} times"
        text = text.replace(old, new)
    return text
