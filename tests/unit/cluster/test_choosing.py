"""Which cluster a command means: the one that was named, or the only one that fits the options."""

from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.choosing import (
    There,
    choose_cluster,
    clusters_there,
    fitting,
    misfits,
    remembered,
    the_one,
    version_there,
)
from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.state import ClusterState, Record
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan, PlannedCluster

from tests.unit.cluster.world import SimulatedEngine, World, machine
from tests.unit.labs.kind.runs import TWO_NODES, plan

PINS = read_pins()
NEWEST, OLDER = PINS.istio_minor("1.31").version, PINS.istio_minor("1.30").version


def made(name: str, world: World, **about: Any) -> Choice:
    """A cluster that `up` made, and that runs."""
    choice = choose_stack(PINS, name=name, **about)
    state = ClusterState.of(choice.name)
    state.write(Record(choice.name, choice, 1_800_000_000, 1_800_000_100))
    world.machines[f"{choice.name}-worker"] = machine(f"{choice.name}-worker", cluster=choice.name)
    return choice


def requested(nodes: str = "", version: str = NEWEST, **words: Any) -> Plan:
    of = plan(nodes=nodes) if nodes else plan()
    return of.model_copy(update={"version": version, "cluster": PlannedCluster(**words)})


def chosen(world: World, of: Plan) -> Choice:
    return choose_cluster(of, SimulatedEngine(world))[0]


def test_the_only_cluster_there_is_is_used_whatever_it_was_made_of() -> None:
    """Another name, other parts, another Kubernetes, from a mirror: none of it needs an option
    again."""
    world = World()
    choice = made(
        "mine",
        world,
        istio=NEWEST,
        kubernetes="1.35",
        workers=3,
        with_parts=["hubble"],
        without_parts=["waypoint"],
        mirror="mirror.test:5000",
    )
    assert chosen(world, requested()) == choice
    assert (
        chosen(world, requested(name="mine"))
        == chosen(world, requested(name="meshwake-mine"))
        == choice
    )


def test_of_several_the_one_that_fits() -> None:
    """By version, by part, by what is left out, by number of nodes."""
    world = World()
    bare = made("bare", world, istio=NEWEST, without_parts=["waypoint"])
    older = made("older", world, istio=OLDER)
    big = made("big", world, istio=NEWEST, workers=4, with_parts=["hubble"])
    assert chosen(world, requested(version=OLDER)) == older
    assert (
        chosen(world, requested(with_parts=("hubble",)))
        == chosen(world, requested(workers=4))
        == big
    )
    assert chosen(world, requested(without_parts=("waypoint",))) == bare
    four = "".join(f'[[node]]\nname = "n{at}"\nidentities = ["default/{at}"]\n' for at in "abcd")
    four = four.replace("default/a", "default/client").replace("default/b", "default/server")
    assert chosen(world, requested(nodes=four)) == big


def test_several_that_fit_are_listed() -> None:
    """With what each is made of."""
    world = World()
    made("a", world, istio=NEWEST)
    made("b", world, istio=NEWEST, workers=3)
    with pytest.raises(BadInput) as refused:
        chosen(world, requested())
    lines = str(refused.value).splitlines()
    assert lines[0] == "run: which cluster? say --name NAME; there are:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["meshwake-a", "meshwake-b"]
    assert "3 workers" in lines[2] and NEWEST in lines[1]


def test_one_that_is_named_and_does_not_fit_is_refused() -> None:
    """With every difference, and it is not touched."""
    world = World()
    made("a", world, istio=OLDER, without_parts=["waypoint"])
    with pytest.raises(BadInput) as refused:
        chosen(world, requested(name="a", with_parts=("waypoint",), kubernetes="1.37", workers=3))
    for words in (
        f"Istio {OLDER} there, {NEWEST} requested",
        "without waypoint there",
        "1.37 requested",
        "workers 2 there, 3",
    ):
        assert words in str(refused.value)


def test_without_any_that_fits_one_is_made_from_the_options() -> None:
    """And the reasons why those that are there are not used are printed."""
    world = World()
    choice, remarks = choose_cluster(
        requested(name="new", profile="full", workers=3), SimulatedEngine(world)
    )
    assert (choice.name, choice.profile, choice.workers, remarks) == ("meshwake-new", "full", 3, [])
    made("older", world, istio=OLDER)
    choice, remarks = choose_cluster(requested(nodes=TWO_NODES), SimulatedEngine(world))
    assert choice.istio == NEWEST
    assert remarks == [f"meshwake-older is there, but Istio {OLDER} there, {NEWEST} requested"]


def test_what_is_gone_is_not_there() -> None:
    """The machines were removed; only the memory is left. That does not make it right to make an
    old one again."""
    world = World()
    made("gone", world, istio=OLDER)
    world.machines.clear()
    assert clusters_there(SimulatedEngine(world)) == ()
    assert [one.name for one in remembered(SimulatedEngine(world))] == ["meshwake-gone"]


def test_the_version_under_test_is_that_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --istio; several of different versions are listed, of one version they are none of
    its business."""
    world = World()
    monkeypatch.setattr("meshwake.cluster.choosing.open_engine", lambda: SimulatedEngine(world))
    assert version_there(PlannedCluster()) is None
    made("older", world, istio=OLDER)
    made("older2", world, istio=OLDER)
    assert version_there(PlannedCluster()) == OLDER
    made("newest", world, istio=NEWEST)
    assert version_there(PlannedCluster(name="newest")) == NEWEST
    with pytest.raises(BadInput, match="which cluster"):
        version_there(PlannedCluster())


def test_down_means_the_only_one_that_fits() -> None:
    """Words of `up` choose; without any, one without a record is meant too."""
    world = World()
    world.machines["m"] = machine("m", cluster="meshwake-lost")
    there = remembered(SimulatedEngine(world))
    assert the_one(fitting(there, PlannedCluster()), there, "down").name == "meshwake-lost"
    made("full", world, profile="full")
    there = remembered(SimulatedEngine(world))
    assert (
        the_one(fitting(there, PlannedCluster(profile="full")), there, "down").name
        == "meshwake-full"
    )
    with pytest.raises(BadInput, match="down: no cluster fits that"):
        the_one(fitting(there, PlannedCluster(workers=9)), there, "down")


@pytest.mark.parametrize("wanted", ["1.34", "v1.34", "1.34.11"])
def test_a_version_may_be_a_minor(wanted: str) -> None:
    """As with `up`."""
    there = There("meshwake-a", choose_stack(PINS, kubernetes="1.34"))
    assert there.choice is not None and there.choice.kubernetes == "1.34.11"
    assert (
        list(misfits(there, PlannedCluster(kubernetes=wanted), istio=there.choice.istio[:4])) == []
    )
    assert list(misfits(there, PlannedCluster(kubernetes="1.3"))) == [
        "Kubernetes 1.34.11 there, 1.3 requested"
    ]


def test_the_folder_is_remembered(tmp_path: Any) -> None:
    """What was taken from files once is taken from there again; a folder that is gone is not read
    for."""
    state = ClusterState.of("meshwake-f")
    assert state.remembered_folder(None) is None
    folder = tmp_path / "images"
    folder.mkdir()
    assert state.remembered_folder(folder) == folder
    assert state.remembered_folder(None) == folder
    folder.rmdir()
    assert state.remembered_folder(None) is None
