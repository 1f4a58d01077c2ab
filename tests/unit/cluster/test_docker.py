"""What the engine's own answers are turned into, with a small HTTP server in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import pytest
from meshwake.cluster import docker as engine
from meshwake.cluster import real_time as clocks
from meshwake.cluster.docker import DockerEngine
from meshwake.core.errors import LabUnavailable

from tests.support.http_server import Request, serving

GOING = (409, "removal of container abc is already in progress")


@contextmanager
def engine_that_answers(*answers: tuple[int, str]) -> Iterator[tuple[DockerEngine, list[str]]]:
    """An engine that gives these answers, the last of them for ever; and the paths requested."""
    paths: list[str] = []

    def answer(request: Request) -> None:
        paths.append(request.path)
        status, message = answers[min(len(paths), len(answers)) - 1]
        request.reply(status, json.dumps({"message": message}).encode() if message else b"")

    with serving(answer) as address:
        client = docker.DockerClient(base_url=address, version="1.41")
        try:
            yield DockerEngine(client), paths
        finally:
            client.close()


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
    with engine_that_answers(*answers) as (there, paths):
        there.remove("abc")
    assert len(paths) == len(answers)


def test_a_removal_that_does_not_come_to_an_end_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "REMOVED_WITHIN_S", 0.05)
    with (
        engine_that_answers(GOING) as (there, _),
        pytest.raises(LabUnavailable, match="already in progress"),
    ):
        there.remove("abc")


def test_another_conflict_is_the_engines_word_at_once() -> None:
    with (
        engine_that_answers((409, "cannot remove: device busy")) as (there, paths),
        pytest.raises(LabUnavailable, match="device busy"),
    ):
        there.remove("abc")
    assert len(paths) == 1
