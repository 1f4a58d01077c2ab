"""What the engine's own answers are turned into, asked of a small HTTP server in its place."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import docker
import pytest
from meshwake.cluster import docker as engine
from meshwake.cluster import real_time as clocks
from meshwake.cluster.docker import DockerEngine
from meshwake.core.errors import LabUnavailable

GOING = (409, "removal of container abc is already in progress")


@contextmanager
def engine_that_answers(*answers: tuple[int, str]) -> Iterator[tuple[DockerEngine, list[str]]]:
    """An engine that gives these answers, the last of them for ever; and what it was asked."""
    asked: list[str] = []

    class _Handler(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            asked.append(self.path)
            status, message = answers[min(len(asked), len(answers)) - 1]
            body = json.dumps({"message": message}).encode() if message else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        client = docker.DockerClient(
            base_url=f"http://127.0.0.1:{serving.server_port}", version="1.41"
        )
        try:
            yield DockerEngine(client), asked
        finally:
            client.close()
            serving.shutdown()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "LOOK_EVERY_S", 0.01)


@pytest.mark.parametrize(
    "answers", [[(204, "")], [(404, "no such container")], [GOING, GOING, (404, "no such")]]
)
def test_a_container_has_gone_when_it_was_removed_by_whomever(
    answers: list[tuple[int, str]],
) -> None:
    """Two commands that put the same away: the second waits for the first."""
    with engine_that_answers(*answers) as (there, asked):
        there.remove("abc")
    assert len(asked) == len(answers)


def test_a_removal_that_does_not_come_to_an_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "REMOVED_WITHIN_S", 0.05)
    with (
        engine_that_answers(GOING) as (there, _),
        pytest.raises(LabUnavailable, match="already in progress"),
    ):
        there.remove("abc")


def test_another_conflict_is_the_engines_word_at_once() -> None:
    with (
        engine_that_answers((409, "cannot remove: device busy")) as (there, asked),
        pytest.raises(LabUnavailable, match="device busy"),
    ):
        there.remove("abc")
    assert len(asked) == 1
