"""What the engine's machine allows, as its script prints it, and the problems reported of it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.cluster.cluster import bring_up
from meshwake.cluster.images import IMAGE_BYTES, bytes_needed, most_bytes_needed, wanted_images
from meshwake.cluster.limits import (
    INOTIFY_CURE,
    INSTANCES_OF_NODE,
    OPEN_FILES_AT_LEAST,
    SCRIPT,
    TASKS_OF_NODE,
    WATCHES_OF_NODE,
    Limits,
    limit_problems,
    limits_of,
    measure_limits,
)
from meshwake.cluster.preflight import engine_problems
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.render import node_image
from meshwake.core.errors import LabUnavailable

from tests.unit.cluster.stack.choices import pins
from tests.unit.cluster.world import (
    FACTS,
    GIB,
    MIB,
    SimulatedEngine,
    SimulatedTools,
    World,
    machine,
)

PINS = pins()
CHOICE = choose_stack(PINS, name="t")
# A stock Debian 12 with one foreign kind cluster, as SCRIPT prints it.
STOCK = """\
instances 128
watches 29514
threads 31437
pids 4194304
tasks max
files 1048576
instances_used 61
profile docker-default (enforce)
"""
ROOMY = STOCK.replace("instances 128", "instances 1024")


def test_what_the_script_says_is_understood() -> None:
    assert limits_of(STOCK) == Limits(128, 61, 29514, 1048576, 31437)
    assert limits_of("files unlimited\ntasks max\n") == Limits()
    assert limits_of(STOCK + "tasks 4915\n").tasks == 4915
    output = (
        "profile /usr/sbin/named (enforce)\nprofile /usr/sbin/ntpd (enforce)\nprofile named "
        "(complain)\n"
    )
    assert limits_of(output).confined == ("/usr/sbin/named",)


@given(st.text())
def test_no_output_makes_it_fail(output: str) -> None:
    list(limit_problems(limits_of(output), 3))


def test_the_script_runs_in_a_plain_shell() -> None:
    """On this machine: what every Linux has is there, and a number."""
    completed = subprocess.run(
        ["sh", "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    limits = limits_of(completed.stdout)
    assert completed.stderr == ""
    assert limits.instances == int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    assert limits.instances_used is not None and limits.tasks is not None


@pytest.mark.parametrize("nodes", [1, 3, 10])
def test_what_suffices_is_not_mentioned_and_one_less_is(nodes: int) -> None:
    enough = Limits(
        INSTANCES_OF_NODE * nodes + 7,
        7,
        WATCHES_OF_NODE * nodes,
        OPEN_FILES_AT_LEAST,
        TASKS_OF_NODE * nodes,
    )
    assert list(limit_problems(enough, nodes)) == []
    assert list(limit_problems(Limits(), nodes)) == [], "what is not known blocks nothing"
    for field in ("instances", "watches", "open_files", "tasks"):
        (problem,) = limit_problems(replace(enough, **{field: getattr(enough, field) - 1}), nodes)
        assert "sysctl" in problem or "daemon.json" in problem
    (problem,) = limit_problems(replace(enough, confined=("/usr/sbin/named",)), nodes)
    assert problem.endswith("sudo aa-disable /usr/sbin/named")


def test_a_stock_machine_is_refused_for_three_nodes_with_the_line_that_cures_it() -> None:
    (problem,) = limit_problems(limits_of(STOCK), 3)
    assert "max_user_instances of the engine's machine is 128, of which 61 are taken" in problem
    assert problem.endswith(INOTIFY_CURE)
    assert list(limit_problems(limits_of(ROOMY), 3)) == []


# Preflight, the step that makes machines, and the doctor: one way


def up(world: World, **about: Any) -> None:
    bring_up(
        CHOICE,
        PINS,
        SimulatedEngine(world),
        SimulatedTools(world),
        lambda _: None,
        dependencies=world.dependencies(),
        **about,
    )


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path / "state"))


def test_preflight_asks_the_engines_machine_before_anything_is_touched() -> None:
    """In a privileged container of the machines' own image, when that is there."""
    world = World(
        images={node_image(CHOICE, PINS)}, answers=lambda of_machine: STOCK if of_machine else ""
    )
    with pytest.raises(LabUnavailable, match=r"step preflight .*max_user_instances"):
        up(world)
    assert world.acts == []


def test_without_an_image_it_is_checked_before_a_machine_is_made() -> None:
    """An engine elsewhere that has no image yet: the images are pulled, and then it is checked."""
    world = World(answers=lambda of_machine: STOCK)
    with pytest.raises(LabUnavailable, match=r"step cluster .*max_user_instances"):
        up(world)
    assert not world.machines
    world.answers = lambda of_machine: ROOMY
    up(world)
    assert world.machines


def test_an_engine_on_this_machine_is_checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it has no image; what a container would be given is not known then."""
    monkeypatch.setattr("meshwake.cluster.limits.is_on_this_machine", lambda facts: True)
    limits = measure_limits(SimulatedEngine(World()), None)
    assert limits.instances is not None and limits.open_files is None
    monkeypatch.undo()
    assert measure_limits(SimulatedEngine(World()), None) == Limits()


def test_the_doctor_reports_the_same_until_a_cluster_exists() -> None:
    """Its room is not required twice; what goes for all clusters still is."""
    world = World(images={node_image(CHOICE, PINS)}, answers=lambda of_machine: STOCK, disk=1 * GIB)
    engine = SimulatedEngine(world)
    problems = engine_problems(engine, CHOICE, PINS)
    assert len(problems) == 2 and "GiB of disk free" in problems[0] and INOTIFY_CURE in problems[1]
    world.machines["meshwake-t-worker"] = machine("meshwake-t-worker", cluster="meshwake-t")
    assert engine_problems(engine, CHOICE, PINS) == []
    world.facts = replace(FACTS, memory_bytes=GIB)
    assert len(engine_problems(engine, CHOICE, PINS)) == 1


# Room


def test_required_room_follows_from_the_size_of_the_images() -> None:
    """Full needs more than core, more nodes more than few, and what the engine has already is its
    real size."""
    engine = SimulatedEngine(World())
    full = choose_stack(PINS, profile="full", name="t")
    core, more = (
        bytes_needed(engine, CHOICE, PINS),
        bytes_needed(engine, choose_stack(PINS, workers=4), PINS),
    )
    assert core < more and core < bytes_needed(engine, full, PINS)
    # What the plan says beforehand is for an engine that has no image.
    assert most_bytes_needed(full, PINS) == bytes_needed(engine, full, PINS)
    there = SimulatedEngine(World(images=set(wanted_images(full, PINS)), image_bytes=IMAGE_BYTES))
    assert bytes_needed(there, full, PINS) < bytes_needed(engine, full, PINS)
    heavy = SimulatedEngine(
        World(images=set(wanted_images(full, PINS)), image_bytes=4 * IMAGE_BYTES)
    )
    assert bytes_needed(heavy, full, PINS) > 3 * bytes_needed(there, full, PINS) // 2


def test_images_that_turn_out_heavier_are_refused_before_they_fill_the_disk() -> None:
    """Preflight had to guess; now they are in the engine."""
    world = World(disk=20 * GIB, image_bytes=900 * MIB)
    with pytest.raises(
        LabUnavailable, match=r"step nodes-images .*9 images in every node take 2\d\.\d GiB"
    ):
        up(world)
    assert not any(world.in_nodes.values())
