"""A helper of a node as a process of its own, for tests, and programs for it to take."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.node_helper.client import send
from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.core.errors import LabUnavailable
from meshwake.system.deadline import wait_until

from tests.conformance.injectors import WITHIN_S

OWNER = "a test"


def await_true(what: str, there: Callable[[], bool]) -> None:
    """Until it is so, within a bound."""
    wait_until(there, what, WITHIN_S, every_s=0.005)


class HelperProcess:
    """`node_helper serve` with a socket and a state file in `directory`; takes only what the test
    configures."""

    def __init__(self, directory: Path) -> None:
        self.socket, self.state = directory / "clocks.sock", directory / "clocks.json"
        self._log = directory / "helper.log"
        self.process = self._start()

    def start_again(self) -> None:
        """As kubelet does after it has ended."""
        self.process = self._start()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The result; an assertion when there is none."""
        answer = self.answer(request)
        assert answer["ok"], answer
        result: dict[str, Any] = answer["result"]
        return result

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer."""
        return send(
            self.socket, json.dumps({"version": PROTOCOL_VERSION, "owner": OWNER, **request})
        )

    def take_or_skip(
        self, *executables: Path, launchers: tuple[Path, ...] = (), lease_s: float = 300
    ) -> dict[str, Any]:
        """Takes these programs and nothing else; skips where execs cannot be watched."""
        rules = [{"executable": str(executable)} for executable in executables]
        reported = self.ask(
            do="take", rules=rules, launchers=[str(path) for path in launchers], lease_s=lease_s
        )
        if reported["watch"] is None:
            pytest.skip(f"needs execs to be watched: {reported['unwatched_because']}")
        return reported

    def close(self) -> None:
        """SIGTERM: everything is released."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(WITHIN_S)
            finally:
                self.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "meshwake.clocks.movers.node_helper", "serve"),
                    *("--socket", str(self.socket), "--state", str(self.state), "--node-root", "/"),
                ],
                stdout=log,
                stderr=log,
            )
        await_true("the helper answers", lambda: self._answers(process))
        return process

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self._log.read_text()
        try:
            return bool(self.answer({"do": "hello"})["ok"])
        except LabUnavailable:
            return False


def own_copy(program: Path, name: str, directory: Path) -> Path:
    """A copy of a program that no rule but the test's can mean."""
    copy = directory / name
    shutil.copy(program, copy)
    return copy.resolve()


def python_environment() -> dict[str, str]:
    """What a copy of this Python needs to find its library."""
    libraries = Path(sys.base_prefix, "lib")
    return {**os.environ, "PYTHONHOME": sys.base_prefix, "LD_LIBRARY_PATH": str(libraries)}
