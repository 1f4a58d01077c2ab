"""Prometheus' own programs, found or the test skips; Alertmanager run on loopback and ended
whatever happens."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from meshwake.system.deadline import Deadline

from tests.support.paths import CLUSTERS

ALERTS = CLUSTERS / "observability" / "alerts"
WITHIN_S = 60.0


def tool(*names: str) -> str:
    """The first of `names` that is here; else the test skips and says what to install."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(
        f"no {names[0]} on PATH (Debian, Ubuntu: apt install prometheus prometheus-alertmanager)"
    )


def output_of(*command: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def alertmanager(config: Path, folder: Path) -> Iterator[str]:
    """The address of an Alertmanager with `config`."""
    program = tool("alertmanager", "prometheus-alertmanager")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log = folder / "alertmanager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _await_ready(address, process, log)
            yield address
        finally:
            process.kill()
            process.wait()


def _await_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = Deadline("Alertmanager to be ready", WITHIN_S)
    while process.poll() is None and not deadline.has_passed:
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=5):  # noqa: S310  loopback
                return
        except OSError:
            deadline.sleep(0.05)
    raise deadline.error(log.read_text(errors="replace")[-500:])


def post_alerts(address: str, alerts: list[dict[str, str]]) -> None:
    """Sends alerts with these labels, as Prometheus does."""
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    url, headers = f"{address}/api/v2/alerts", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  loopback
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310  loopback
        pass


def amtool_alerts(address: str, *options: str) -> list[dict[str, Any]]:
    """What `amtool alert query` shows."""
    return list(
        json.loads(
            output_of(
                tool("amtool"),
                f"--alertmanager.url={address}",
                "alert",
                "query",
                "-o",
                "json",
                *options,
            )
        )
    )
