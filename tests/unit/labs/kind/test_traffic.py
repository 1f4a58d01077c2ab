"""Attempts: what a client's shell says of them, and what becomes of them when it has ended."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from meshwake.kubernetes.api import Pod, Unreachable
from meshwake.labs.kind.traffic import _SHELL, Client, ConnectionAttempt, ConnectionProbe, Route

from tests.support.fake_kubernetes import FakeKubernetes

ROUTE = Route("default/client", "default/server", "http://server.default:8080/")


class Shell:
    """A conversation whose answers a test writes."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self._answer, self.closed, self.lines = answer, False, list[str]()

    def ask(self, line: str, within_s: float) -> str:
        self.lines.append(line)
        return self._answer()

    def close(self) -> None:
        self.closed = True


class Shells(FakeKubernetes):
    """A cluster with one client; each conversation is the next of `shells`."""

    def __init__(self, *shells: Shell, pods: int = 1) -> None:
        self.objects, self.left, self._count = {}, list(shells), pods

    def pods(self, namespace: str | None, labels: Any) -> list[Pod]:
        assert namespace is not None
        return [Pod(namespace, f"client-{at}", "u", "n", ready=True) for at in range(self._count)]

    def converse(self, pod: Pod, container: str, command: Sequence[str]) -> Any:
        return self.left.pop(0)


def lost() -> str:
    raise Unreachable("exec in default/client: the program has ended")


def probe_of(cluster: Shells) -> ConnectionProbe:
    return ConnectionProbe(cluster, {"default/client": Client("default", {"app": "client"}, "app")})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("0 200", ConnectionAttempt(True, None)),
        ("0 503", ConnectionAttempt(True, "HTTP 503")),
        (
            "56 curl: (56) Recv failure: Connection reset by peer 000",
            ConnectionAttempt(True, "curl: (56) Recv failure: Connection reset by peer"),
        ),
        ("28 curl: (28) timed out 000", ConnectionAttempt(True, "curl: (28) timed out")),
        (
            "127 sh: curl: not found",
            ConnectionAttempt(False, "curl of default/client ended with 127: sh: curl: not found"),
        ),
        ("7 000", ConnectionAttempt(True, "curl ended with 7")),
    ],
)
def test_what_the_shell_says_of_an_attempt(answer: str, expected: ConnectionAttempt) -> None:
    """A missing program is not a failed connection."""
    assert probe_of(Shells(Shell(lambda: answer))).attempt(ROUTE) == expected


def test_one_shell_does_for_all_attempts_of_a_route() -> None:
    """It is begun once, and ended with the run."""
    shell = Shell(lambda: "0 200")
    made = probe_of(Shells(shell))
    assert [made.attempt(ROUTE).error for _ in range(5)] == [None] * 5
    assert len(shell.lines) == 5 and ROUTE.url in shell.lines[0]
    made.close()
    assert shell.closed


def test_a_shell_that_has_ended_is_replaced() -> None:
    """The pod was replaced: the first line was not read, so it is sent again."""
    answers = iter(["0 200"])
    first = Shell(lambda: next(answers, None) or lost())
    made = probe_of(Shells(first, Shell(lambda: "0 200")))
    assert made.attempt(ROUTE) == made.attempt(ROUTE) == ConnectionAttempt(True, None)
    assert first.closed


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        (Shells(Shell(lost)), "the program has ended"),
        (Shells(pods=0), "no pod of default/client is ready"),
        (Shells(Shell(lambda: "what?")), "unexpected answer"),
    ],
)
def test_an_attempt_that_was_not_made_is_not_a_failure(cluster: Shells, why: str) -> None:
    """The reason is recorded."""
    found = probe_of(cluster).attempt(ROUTE)
    assert not found.made and why in str(found.error)


def test_a_real_shell_answers_each_line_with_one(tmp_path: Path) -> None:
    """Whatever the program writes, on either stream, and however it ends."""
    program = tmp_path / "curl"
    program.write_text('#!/bin/sh\nprintf "two\\nlines\\n" >&2; cat; printf " 200"; exit $1\n')
    program.chmod(0o755)
    lines = "".join(f"{program} {code}\n" for code in (0, 7))
    output = subprocess.run(
        list(_SHELL), input=lines, capture_output=True, text=True, check=True
    ).stdout
    assert output == "0 two lines 200\n7 two lines 200\n"
