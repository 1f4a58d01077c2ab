"""--clock engine on this machine's own kernel is refused before anything is made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.engine import EngineWays
from meshwake.clocks.movers.node_access import Way
from meshwake.cluster.cluster import bring_up
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.render import node_image
from meshwake.cluster.state import ClusterState
from meshwake.cluster.steps import Progress
from meshwake.core.errors import LabUnavailable
from meshwake.labs.kind import own_clock
from meshwake.labs.kind.local_environment import _steps_before
from meshwake.labs.kind.own_clock import own_clock_step

from tests.unit.clocks.machines import BOOT_ID, Box, Machine, answer
from tests.unit.clocks.movers.test_engine import Ours
from tests.unit.cluster.stack.choices import pins
from tests.unit.cluster.world import SimulatedEngine, SimulatedTools, World, steps_taken
from tests.unit.labs.kind.test_movers import PAUSE, on

PINS = pins()
CHOICE = choose_stack(PINS, name="t", workers=1)


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that the engine's machine was entered by; it is another machine."""
    monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(Way, "run", answer)
    images: list[str] = []
    box = Box(tmp_path / "box", Machine())

    def environment(image: str) -> EngineWays:
        images.append(image)
        return EngineWays(nodes=(("never",), box.way), host=None)

    monkeypatch.setattr(own_clock, "engine_ways", environment)
    return images


def up(world: World, own: Any, folder: Path | None = None) -> list[str]:
    lines: list[Progress] = []
    engine, tools = SimulatedEngine(world), SimulatedTools(world)
    before = (own_clock_step(own),)
    bring_up(
        CHOICE,
        PINS,
        engine,
        tools,
        lines.append,
        dependencies=world.dependencies(),
        folder=folder,
        before=before,
    )
    return steps_taken(lines)


def test_our_own_kernel_is_refused_and_nothing_is_made(pulled: list[str]) -> None:
    """One image is fetched, the machines' own, for the clock check needs it; no machine, nothing
    remembered."""
    world = World()
    with pytest.raises(LabUnavailable, match=r"step own-clock .*own kernel .*--clock process"):
        up(world, Ours(boot=BOOT_ID))
    assert world.acts == [f"pull {node_image(CHOICE, PINS)}"]
    assert not world.machines and not ClusterState.of(CHOICE.name).directory.exists()


def test_another_machine_is_accepted(pulled: list[str]) -> None:
    """It is checked right after preflight, by the name that the engine has the image by."""
    assert up(World(), Ours(boot="another"))[:3] == [
        "preflight: done",
        "own-clock: done",
        "images: done",
    ]
    assert pulled == [node_image(CHOICE, PINS)]


def test_an_image_of_a_folder_does_as_well(pulled: list[str], tmp_path: Path) -> None:
    """And the archives after it are not loaded for the question."""
    (tmp_path / "images").mkdir()
    for number, reference in enumerate([node_image(CHOICE, PINS), "docker.io/other/one:1"]):
        (tmp_path / "images" / f"{number}.tar").write_text(reference)
    world = World(registry=False)
    with pytest.raises(LabUnavailable, match="step own-clock"):
        up(world, Ours(boot=BOOT_ID), tmp_path)
    assert pulled == [node_image(CHOICE, PINS).partition("@")[0]]
    assert len(world.acts) == 1


@pytest.mark.parametrize(
    ("about", "steps"),
    [
        ({"clock": "engine"}, ["own-clock"]),
        ({"clock": "engine", "allow_own_clock": True}, []),
        ({"clock": "process"}, []),
    ],
)
def test_only_a_run_that_would_set_a_clock_asks(about: dict[str, Any], steps: list[str]) -> None:
    assert [step.name for step in _steps_before(on(PAUSE, **about))] == steps
    assert _steps_before(on("", **about)) == ()
