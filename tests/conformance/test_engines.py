"""What an engine promises, one body: on the simulated one that `up` is tried on, and on a real one
where a person allows it ($MESHWAKE_TEST_ENGINE=1: the engine that DOCKER_HOST names).

Nothing is pulled: the image is made of this machine's own shell and coreutils. What is made carries
our label, and goes again.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import NotFound
from meshwake.clocks.movers.engine import EngineMover, EngineWays
from meshwake.clocks.movers.node_access import Way, measure, rights_missing
from meshwake.clocks.movers.own_clock import OwnMachine, shared_kernel
from meshwake.clocks.movers.timesync import find_time_syncs
from meshwake.cluster.cluster import our_clusters, remove_looks, take_down
from meshwake.cluster.docker import (
    KIND_CLUSTER_LABEL,
    LOOK_LABEL,
    DockerEngine,
    Engine,
    missing_images,
    open_engine,
    room_inside,
)
from meshwake.cluster.limits import measure_limits
from meshwake.core.errors import LabUnavailable
from meshwake.kubernetes.api import Executed
from meshwake.labs.kind.movers import engine_ways

from tests.unit.cluster.world import SimulatedEngine, World, machine
from tests.unit.labs.kind.runs import plan

CLUSTER = f"meshwake-test-{uuid.uuid4().hex[:8]}"
PROGRAMS = ("sh", "date", "cat", "readlink", "df", "sleep", "find", "wc")


def real_or_skip() -> DockerEngine:
    if os.environ.get("MESHWAKE_TEST_ENGINE") != "1":
        pytest.skip(
            "needs a container engine, and MESHWAKE_TEST_ENGINE=1: containers are made on it"
        )
    return open_engine()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image of this machine's own programs, in the real engine."""
    if os.environ.get("MESHWAKE_TEST_ENGINE") != "1":
        pytest.skip(
            "needs a container engine, and MESHWAKE_TEST_ENGINE=1: containers are made on it"
        )
    client = docker.from_env()
    name = f"localhost/{CLUSTER}:1"
    client.api.import_image_from_data(
        _root_filesystem(), repository=f"localhost/{CLUSTER}", tag="1"
    )
    yield name
    client.images.remove(name, force=True)
    client.close()


def _root_filesystem() -> bytes:
    buffer, wanted = io.BytesIO(), dict[str, str]()
    for name in PROGRAMS:
        program = str(Path(str(shutil.which(name))).resolve())
        wanted[f"bin/{name}"] = program
        for line in subprocess.run(
            ["ldd", program], capture_output=True, text=True, check=True
        ).stdout.splitlines():
            library = next((word for word in line.split() if word.startswith("/")), None)
            if library is not None:
                wanted[library.lstrip("/")] = str(Path(library).resolve())
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for place, file in wanted.items():
            archive.add(file, place, recursive=False)
    return buffer.getvalue()


@pytest.fixture
def node(image: str) -> Iterator[str]:
    """A machine as kind makes them: a privileged container that carries kind's label."""
    client = docker.from_env()
    made = client.containers.run(
        image,
        ["sleep", "600"],
        entrypoint="",
        name=f"{CLUSTER}-control-plane",
        labels={KIND_CLUSTER_LABEL: CLUSTER},
        privileged=True,
        detach=True,
        network_mode="none",
    )
    yield str(made.name)
    with suppress(NotFound):
        made.remove(force=True)
    client.close()


@pytest.fixture(params=["simulated", "real"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Either; in both a machine of ours runs, and one of another user."""
    if request.param == "simulated":
        names = {f"{CLUSTER}-control-plane": CLUSTER, "kind-worker": "kind"}
        yield SimulatedEngine(
            World(machines={name: machine(name, cluster=of) for name, of in names.items()})
        )
        return
    real = real_or_skip()
    request.getfixturevalue("node")
    yield real
    real.close()


def test_facts_are_those_of_an_engine(engine: Engine) -> None:
    """Numbers that a preflight can judge."""
    facts = engine.facts()
    assert facts.cpus >= 1 and facts.memory_bytes > 2**28 and facts.cgroup_version in {1, 2}
    assert facts.platform.startswith("linux/") and facts.version


def test_a_machine_is_found_by_its_label_started_and_removed(engine: Engine) -> None:
    """Also one that is paused; and what is not there is removed in silence."""
    (found,) = engine.containers({KIND_CLUSTER_LABEL: CLUSTER})
    assert (found.name, found.state) == (f"{CLUSTER}-control-plane", "running")
    assert engine.containers({KIND_CLUSTER_LABEL: "no-such-cluster"}) == ()
    assert found in engine.containers({KIND_CLUSTER_LABEL: None})
    assert CLUSTER in our_clusters(engine)
    engine.remove(found.id)
    engine.remove(found.id)
    assert engine.containers({KIND_CLUSTER_LABEL: CLUSTER}) == ()


def test_down_takes_ours_and_nothing_else(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the label that kind gave it."""
    monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path))
    others = {
        each.name
        for each in engine.containers({})
        if each.labels.get(KIND_CLUSTER_LABEL) != CLUSTER
    }
    take_down(CLUSTER, engine, lambda _: None)
    assert {each.name for each in engine.containers({})} == others


def test_an_image_that_is_not_there_is_named(engine: Engine) -> None:
    """In the order of the question."""
    wanted = ["localhost/no/such:1", "localhost/none@sha256:" + "0" * 64]
    assert list(missing_images(engine, wanted)) == wanted


def test_a_network_that_is_not_there(engine: Engine) -> None:
    """None, and no error."""
    assert engine.network("no-such-network-here") is None


# Only a real one can say these


def test_a_question_is_answered_and_leaves_no_container(image: str) -> None:
    """`ask`: the boot id is this kernel's, the room is a number, a look that was left behind is
    taken away."""
    real = real_or_skip()
    try:
        before = {each.id for each in real.containers({})}
        assert missing_images(real, [image]) == ()
        own = OwnMachine().boot_id()
        assert real.ask(image, ["cat", "/proc/sys/kernel/random/boot_id"]).strip() == own
        room = room_inside(real, image)
        assert room is not None and room > 2**20
        assert {each.id for each in real.containers({})} == before
        left = docker.from_env()
        left.api.create_container(image, ["sh"], labels={LOOK_LABEL: "true"})
        left.close()
        assert remove_looks(real) == 1
    finally:
        real.close()


@pytest.mark.parametrize("how", ["stop", "pause", "never started"])
def test_a_container_that_does_not_run_is_started(image: str, how: str) -> None:
    """Whatever stopped it: `docker pause` takes another call to undo than `docker stop`."""
    real, client = real_or_skip(), docker.from_env()
    made = client.api.create_container(
        image, ["sleep", "60"], labels={KIND_CLUSTER_LABEL: CLUSTER}
    )["Id"]
    try:
        if how != "never started":
            client.api.start(made)
            client.api.kill(made) if how == "stop" else client.api.pause(made)
        real.start(made)
        assert client.api.inspect_container(made)["State"]["Status"] == "running"
    finally:
        real.remove(made)
        real.close()
        client.close()


def test_an_image_is_found_by_its_tag_where_it_has_no_digest(image: str) -> None:
    """As one that was loaded from an archive; and it runs by that name, whatever digest was
    requested."""
    real = real_or_skip()
    try:
        pinned = f"{image}@sha256:{'0' * 64}"
        found = real.image(pinned)
        assert found is not None and found == real.image(image)
        assert found.name == image and found.id.startswith("sha256:") and found.size_bytes > 2**20
        assert missing_images(real, [pinned, f"{image}-other"]) == (f"{image}-other",)
        assert real.ask(pinned, ["sh", "-c", "echo here"]).strip() == "here"
    finally:
        real.close()


def test_the_limits_are_those_of_the_engines_machine(image: str, node: str) -> None:
    """This one, where it is the same kernel."""
    real = real_or_skip()
    try:
        limits = measure_limits(real, image)
        assert limits.instances == int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
        assert limits.open_files is not None and limits.tasks is not None
    finally:
        real.close()


def test_a_command_inside_and_its_code(image: str, node: str) -> None:
    """`execute`: both streams, each of its own although they come in pieces, and how it ended."""
    real = real_or_skip()
    try:
        pieces = ("printf 'no ' >&2", "printf 2", "printf 'answer' >&2", "printf 00", "exit 7")
        ended = real.execute(node, ["sh", "-c", "; sleep 0.1; ".join(pieces)])
        assert ended == Executed(7, "200", "no answer")
        assert real.execute(node, ["sh", "-c", ":"]) == Executed(0, "", "")
    finally:
        real.close()


def test_clocks_are_read_inside_a_node_and_are_this_kernels(image: str, node: str) -> None:
    """By the very way that a run goes: docker exec. And the guard sees whose they are, twice."""
    ways = engine_ways(image)
    inside = Way(ways.nodes[0])
    own = OwnMachine()
    before = own.clocks()
    measured = measure(inside, node)
    after = own.clocks()
    for least, read, most in zip(before, measured.clocks, after, strict=True):
        assert least - measured.within_ns <= read <= most + measured.within_ns
    assert "its boot id is ours" in str(shared_kernel(own, measured))
    assert "its monotonic clock is ours" in str(
        shared_kernel(own, replace(measured, boot_id="another"))
    )
    assert rights_missing(inside, node) is None
    assert measure(Way(ways.nodes[1]), "no-such-node").boot_id == measured.boot_id
    assert ways.host is not None
    assert isinstance(find_time_syncs(Way(ways.host)), tuple)


def test_the_guard_refuses_this_machines_own_clock(image: str, node: str, tmp_path: Path) -> None:
    """On a real engine, whose containers share our kernel; nothing was touched."""
    ways: EngineWays = engine_ways(image)
    pause = (
        '[[fault]]\nkind = "pause"\nnode = "*"\nat = "5m"\nlasts = "17m"\ncorrected_after = "25s"\n'
    )
    about: dict[str, Any] = {"directory": tmp_path / "clocks"}
    mover = EngineMover(plan(pause), ways, {"vm": node}, **about)
    with pytest.raises(LabUnavailable, match="own kernel .*--allow-own-clock"):
        mover.prepare()
    assert not (tmp_path / "clocks").exists()
