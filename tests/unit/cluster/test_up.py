"""A cluster is brought up whatever happens on the way: every step may be taken again, wherever it
was cut off."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from meshwake.cli.cluster import plan_lines
from meshwake.cluster.cluster import (
    bring_up,
    find_cluster,
    our_clusters,
    plan_down,
    plan_up,
    take_down,
)
from meshwake.cluster.hold import InUse
from meshwake.cluster.images import machine_image, may_hold, prunable, wanted_images
from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.own_images import GUARD, HELPER, OwnImage
from meshwake.cluster.stack.pool import addresses_in
from meshwake.cluster.stack.render import node_image
from meshwake.cluster.state import ClusterState, clusters_dir
from meshwake.cluster.steps import Progress, StepFailed
from meshwake.cluster.tools import ToolFailed
from meshwake.cluster.up import steps_of
from meshwake.core.errors import BadInput, LabUnavailable

from tests.unit.cluster.stack.choices import pins
from tests.unit.cluster.world import (
    GIB,
    Killed,
    SimulatedEngine,
    SimulatedTools,
    World,
    id_of,
    machine,
    steps_taken,
    workload,
)

PINS = pins()


def choice_of(**about: Any) -> Choice:
    return choose_stack(PINS, **{"name": "t", "workers": 1, **about})


CHOICE = choice_of()


def up(
    world: World,
    choice: Choice = CHOICE,
    *,
    tools: SimulatedTools | None = None,
    folder: Path | None = None,
) -> list[Progress]:
    """All progress that was reported."""
    lines: list[Progress] = []
    tools = tools or SimulatedTools(world)
    bring_up(
        choice,
        PINS,
        SimulatedEngine(world),
        tools,
        lines.append,
        folder=folder,
        dependencies=world.dependencies(),
    )
    return lines


def test_up_takes_every_step_and_the_second_time_none() -> None:
    """The steps of the plan in their order; then everything is kept but what only looks."""
    world = World()
    names = [step.name for step in steps_of(CHOICE, PINS)]
    assert [word.split(":")[0] for word in steps_taken(up(world))] == names
    acts, state = len(world.acts), world.state()
    again = [
        word
        for word in steps_taken(up(world))
        if not word.startswith(("preflight", "leftovers", "health"))
    ]
    assert again and all(word.endswith(": kept") for word in again)
    assert world.state() == state
    assert len(world.acts) == acts
    cluster = find_cluster(CHOICE.name)
    assert cluster is not None and cluster.ours and cluster.choice == CHOICE
    assert our_clusters(SimulatedEngine(world)) == (CHOICE.name,)


def _whole_way() -> tuple[int, dict[str, Any]]:
    world = World()
    up(world)
    return len(world.acts), world.state()


@pytest.mark.parametrize(
    ("side", "every"),
    [
        ("before", 3),
        pytest.param(
            "after", 1, marks=pytest.mark.slow(reason="a bring-up is killed after each of its acts")
        ),
    ],
)
def test_killed_at_any_act_it_goes_on_and_ends_where_it_should(side: str, every: int) -> None:
    """kill -9 after each single thing that is done to the world (before one is after another, so of
    those a third will do); then up again, and the end is the same."""
    count, whole = _whole_way()
    take_down(CHOICE.name, SimulatedEngine(World()), lambda _: None)
    assert count > 30
    for at in range(0, count, every):
        world = World()

        def kill(number: int, name: str, at: int = at) -> None:
            if number == at:
                raise Killed(name)

        setattr(world, side, kill)
        with pytest.raises(Killed):
            up(world)
        setattr(world, side, lambda number, name: None)
        up(world)
        assert world.state() == whole, f"killed {side} act {at}: {world.acts[at]}"
        take_down(CHOICE.name, SimulatedEngine(world), lambda _: None)
        assert not world.machines and not ClusterState.of(CHOICE.name).directory.exists()


def test_what_is_done_is_not_done_twice() -> None:
    """Killed late, the second up pulls nothing, makes no machine, and puts in only what was
    missing."""
    count, _ = _whole_way()
    take_down(CHOICE.name, SimulatedEngine(World()), lambda _: None)
    world = World()

    def kill(number: int, name: str) -> None:
        if number == count - 2:
            raise Killed(name)

    world.before = kill
    with pytest.raises(Killed):
        up(world)
    world.before, first = (lambda number, name: None), len(world.acts)
    up(world)
    again = world.acts[first:]
    assert not [act for act in again if act.startswith(("pull", "make", "load"))]


@pytest.mark.parametrize(
    ("act", "step"),
    [
        ("pull", "images"),
        ("make", "cluster"),
        ("write kubeconfig", "cluster"),
        ("helm", "cilium"),
        ("apply", "gateway"),
    ],
)
def test_a_program_that_fails_names_its_step_and_the_next_up_goes_on(act: str, step: str) -> None:
    """An error, not a kill: the step is named, evidence kept where there is any, and nothing is
    half remembered."""
    world = World()

    def fail(number: int, name: str) -> None:
        if name.startswith(act):
            raise ToolFailed(f"{name}: ended with 1: no")

    world.before = fail
    with pytest.raises(StepFailed, match=f"step {step}"):
        up(world)
    world.before = lambda number, name: None
    up(world)
    assert find_cluster(CHOICE.name) is not None


@pytest.mark.parametrize("program", ["docker", "kind", "helm"])
def test_a_program_that_is_gone_meanwhile(program: str) -> None:
    """docker only saves images into the nodes, which kubelets can also pull: the others end the
    step."""
    world = World()
    tools = SimulatedTools(world, frozenset({program}))
    if program == "docker":
        lines = up(world, tools=tools)
        assert [line.detail for line in lines if "left to the nodes to pull" in line.detail]
        return
    with pytest.raises(StepFailed, match=f"{program}: No such file"):
        up(world, tools=tools)


def test_a_wait_ends_at_its_bound_and_says_what_it_saw() -> None:
    """Cilium does not come up."""
    world = World()
    world.unmet.add("cilium")
    message = (
        r"step cilium .*waited .* s for .* to be ready; "
        r"last seen: Deployment kube-system/cilium: not seen by its"
    )
    with pytest.raises(StepFailed, match=message):
        up(world)
    failed = ClusterState.of(CHOICE.name).directory / "failures" / "cilium-1"
    assert "last seen" in (failed / "error.txt").read_text() and (failed / "nodes.json").exists()
    world.unmet.clear()
    up(world)


def test_what_was_changed_is_restored_by_the_next_up() -> None:
    """A run that was killed left its settings in ztunnel: that stage is taken again, and no
    other."""
    world = World()
    up(world)
    whole = deepcopy(world.objects["DaemonSet", "istio-system", "ztunnel"])
    (container,) = world.objects["DaemonSet", "istio-system", "ztunnel"]["spec"]["template"][
        "spec"
    ]["containers"]
    container["env"] = [
        *container["env"],
        {"name": "POOL_MAX_STREAMS_PER_CONNECTION", "value": "1"},
    ]
    lines = up(world)
    assert "ztunnel: done" in steps_taken(lines) and "istiod: kept" in steps_taken(lines)
    assert [
        line.detail
        for line in lines
        if "POOL_MAX_STREAMS_PER_CONNECTION is 1, was not set" in line.detail
    ]
    back = world.objects["DaemonSet", "istio-system", "ztunnel"]["spec"]["template"]
    assert back["spec"] == whole["spec"]["template"]["spec"]
    assert "ztunnel: kept" in steps_taken(up(world))


def test_a_deleted_workload_is_put_in_again() -> None:
    """The mark says that the stage was in, and the cluster that it is not."""
    world = World()
    up(world)
    del world.objects["Deployment", "istio-system", "istiod"]
    assert "istiod: done" in steps_taken(up(world))
    assert ("Deployment", "istio-system", "istiod") in world.objects


def test_an_unhealthy_stack_is_not_up() -> None:
    """Every pod may be ready, and the stack broken."""
    world = World(unhealthy=["hbone_used: BROKEN: no mutual TLS"])
    with pytest.raises(StepFailed, match="hbone_used: BROKEN"):
        up(world)
    assert find_cluster(CHOICE.name) is None


def test_a_release_that_a_killed_helm_left_pending_is_healed() -> None:
    """Helm itself would refuse it for ever."""
    world = World()

    def kill(number: int, name: str) -> None:
        if name == "helm cilium":
            raise Killed(name)

    world.before = kill
    with pytest.raises(Killed):
        up(world)
    assert world.releases == {"cilium": "pending-install"}
    world.before = lambda number, name: None
    up(world)
    assert set(world.releases.values()) == {"deployed"}


def test_stopped_machines_are_started() -> None:
    """After a restart of the engine."""
    world = World()
    up(world)
    for name, each in world.machines.items():
        world.machines[name] = replace(each, state="exited")
    up(world)
    assert {each.state for each in world.machines.values()} == {"running"}


def test_statuses_of_before_a_restart_are_not_believed() -> None:
    """The machines were started a moment ago, and the kubelets have not reported it: every stage
    would hold at once."""
    world = World()
    up(world)
    world.booted_s, world.renewed_s = world.now_s - 1, world.now_s - 300
    with pytest.raises(
        StepFailed,
        match="step statuses .*kubelet has not renewed its Lease since its machine was started",
    ):
        up(world)
    world.renewed_s = None
    up(world)


def test_ambient_pods_without_redirection_are_recreated() -> None:
    """Those that a controller recreates, after a while in which a ztunnel that starts would listen
    again."""
    world = World()
    up(world)
    uids = {
        name: f"{at:08x}-1111-4222-8333-444455556666" for at, name in enumerate(("seen", "unseen"))
    }
    for name, uid in uids.items():
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": "meshwake-demo",
            "uid": uid,
            "ownerReferences": [{}],
        }
        metadata["annotations"] = {"ambient.istio.io/redirection": "enabled"}
        thing = {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
        world.objects["Pod", "meshwake-demo", name] = thing
    node = next(iter(world.machines))
    world.pods_in[node] = {uid: name == "seen" for name, uid in uids.items()}
    began_s = world.now_s
    lines = up(world)
    assert "redirection: done" in steps_taken(lines)
    assert [key[2] for key in world.objects if key[0] == "Pod"] == ["seen"]
    assert 10 <= world.now_s - began_s < 60
    assert "redirection: kept" in steps_taken(up(world))


def test_a_gateway_whose_status_istiod_left_stale_gets_it_computed_again() -> None:
    """Seen after the restart of the node of its pod, which was ready again within 20 s: `up` waited
    for Programmed until its bound."""
    world = World()
    up(world)
    name, labels = "gateway-istio", {"gateway.networking.k8s.io/gateway-name": "gateway"}
    for kind in ("Service", "Deployment"):
        made = workload("meshwake-demo", name, kind)
        made["metadata"]["labels"] = dict(labels)
        world.objects[kind, "meshwake-demo", name] = made
    world.stale_gateways.add("gateway")
    lines = up(world)
    assert "gateway: done" in steps_taken(lines)
    assert any("its status is stale" in line.detail for line in lines)
    assert world.objects["Service", "meshwake-demo", name]["metadata"]["labels"] == labels
    assert "gateway: kept" in steps_taken(up(world))


def test_an_account_that_pebble_has_forgotten_is_registered_again() -> None:
    """Seen after the restart of its node: no renewal succeeded any more, and the Gateway's
    certificate ran out a quarter of an hour later."""
    world, choice = World(), choice_of(profile="full")
    up(world, choice)
    account = {"name": "meshwake-acme-account", "creationTimestamp": "2026-11-30T17:34:10Z"}
    world.objects["Secret", "cert-manager", account["name"]] = {
        "kind": "Secret",
        "metadata": account,
    }
    assert "certificate: kept" in steps_taken(up(world, choice))
    running = {"state": {"running": {"startedAt": "2026-11-30T17:55:41Z"}}}
    world.objects["Pod", "meshwake-acme", "pebble"] = {
        "kind": "Pod",
        "metadata": {"name": "pebble", "namespace": "meshwake-acme", "labels": {"app": "pebble"}},
        "status": {"containerStatuses": [running]},
    }
    lines = up(world, choice)
    assert "certificate: done" in steps_taken(lines)
    assert any("cert-manager gets a new one" in line.detail for line in lines)
    assert world.accounts == 2
    assert ("Certificate", "meshwake-demo", "demo-tls") in world.objects
    assert "certificate: kept" in steps_taken(up(world, choice))


def test_without_a_network_the_missing_images_are_listed_and_nothing_is_left() -> None:
    """No machine, and nothing remembered."""
    world = World(registry=False)
    with pytest.raises(StepFailed) as failed:
        up(world)
    message = str(failed.value)
    for reference in wanted_images(CHOICE, PINS):
        assert f"  missing: {reference}" in message
    assert "--folder DIR" in message and "--mirror HOST" in message
    assert not world.acts and not world.machines
    assert not ClusterState.of(CHOICE.name).directory.exists()


def _folder(place: Path, references: Iterable[str]) -> Path:
    """As a person makes it with docker save."""
    (place / "images").mkdir()
    for number, reference in enumerate(references):
        (place / "images" / f"{number}.tar").write_text(reference)
    return place


def test_images_come_from_a_folder(tmp_path: Path) -> None:
    """For a machine without a network: an archive has no digest, so the machines' image is there by
    its tag; and a chart that is not in the folder is named."""
    world, folder = World(registry=False), _folder(tmp_path, wanted_images(CHOICE, PINS))
    with pytest.raises(StepFailed, match=r"step cilium .*chart cilium .* is there; put it there"):
        up(world, folder=folder)
    tagged = node_image(CHOICE, PINS).partition("@")[0]
    assert {each.image for each in world.machines.values()} == {tagged}
    machine = machine_image(SimulatedEngine(world), CHOICE, PINS)
    assert machine is not None and (machine.name, machine.id) == (tagged, id_of(tagged))
    assert not [act for act in world.acts if act.startswith("pull")]


def test_an_image_that_neither_folder_nor_engine_has_is_named(tmp_path: Path) -> None:
    """By tag or by digest: another tag of the same image is none of them."""
    one, *rest = wanted_images(CHOICE, PINS)
    folder = _folder(tmp_path, [f"{one.partition('@')[0]}-rebuilt", *rest])
    with pytest.raises(
        StepFailed, match=f"1 of .* images are not in the engine(.|\n)*  missing: {one}"
    ):
        up(World(registry=False), folder=folder)


def test_layers_that_lie_in_a_node_twice_are_pruned() -> None:
    world = World()
    up(world)
    assert world.pruned == set(world.machines)


# Of a real worker (containerd 2.3): agnhost has been unpacked, CoreDNS not yet, and an index names
# one of them.
CONTENT = """\
DIGEST\tSIZE\tAGE\tLABELS
sha256:{a}\t423B\tAbout a minute\t{config}=sha256:{b},containerd.io/gc.ref.content.l.0=sha256:{c}
sha256:{b}\t362B\t6 minutes\t-
sha256:{c}\t22.8MiB\t6 minutes\tcontainerd.io/uncompressed=sha256:{c}
sha256:{d}\t428B\t2 minutes\t{config}=sha256:{e},containerd.io/gc.ref.content.l.0=sha256:{f}
sha256:{e}\t428B\t2 minutes\tcontainerd.io/gc.ref.snapshot.overlayfs=sha256:{f}
sha256:{0}\t368B\t2 minutes\tcontainerd.io/gc.ref.content.m.0=sha256:{d}
"""


def test_layers_of_an_image_that_no_pod_has_needed_yet_stay() -> None:
    """Without them it could never be unpacked. One that has been pruned already has nothing
    left."""
    blobs = {name: name * 64 for name in "abcdef"}
    listed = CONTENT.format("0" * 64, config="containerd.io/gc.ref.content.config", **blobs)
    assert prunable(listed) == {f"sha256:{'d' * 64}": ["containerd.io/gc.ref.content.l.0"]}
    pruned = listed.replace(f",containerd.io/gc.ref.content.l.0=sha256:{'f' * 64}", "")
    assert prunable(pruned) == {} == prunable("")


def _up_with(world: World, *images: OwnImage) -> list[str]:
    lines: list[Progress] = []
    engine, tools = SimulatedEngine(world), SimulatedTools(world)
    bring_up(
        CHOICE,
        PINS,
        engine,
        tools,
        lines.append,
        dependencies=world.dependencies(),
        own_images=images,
    )
    return [step for step in steps_taken(lines) if step.startswith(images[0].name)]


@pytest.mark.parametrize("image", [HELPER, GUARD])
def test_an_image_of_ours_is_built_once_and_put_into_every_node(image: OwnImage) -> None:
    """No registry has it; a second run keeps it, and one killed in between goes on."""
    world = World()

    def kill(number: int, name: str) -> None:
        if name.startswith("build"):
            raise Killed(name)

    world.after = kill
    with pytest.raises(Killed):
        _up_with(world, image)
    world.after = lambda number, name: None
    assert _up_with(world, image) == [f"{image.name}: done"]
    assert all(image.reference in images for images in world.in_nodes.values())
    assert [act for act in world.acts if act.startswith("build")] == [f"build {image.reference}"]
    assert _up_with(world, image) == [f"{image.name}: kept"]


def test_the_base_of_an_image_of_ours_comes_from_the_folder_too(tmp_path: Path) -> None:
    """Without a network no other place exists; and by the name under which the engine has it
    then."""
    world, folder = (
        World(registry=False),
        _folder(tmp_path, [*wanted_images(CHOICE, PINS), GUARD.base]),
    )
    with pytest.raises(StepFailed, match="step cilium"):
        bring_up(
            *(CHOICE, PINS, SimulatedEngine(world), SimulatedTools(world), lambda progress: None),
            folder=folder,
            dependencies=world.dependencies(),
            own_images=[GUARD],
        )
    assert [act for act in world.acts if act.startswith("build")] == [f"build {GUARD.reference}"]
    assert GUARD.base in world.images and HELPER.base == GUARD.base


def test_an_image_of_a_fix_is_loaded_where_it_is_at_hand_and_else_left_to_the_nodes(
    tmp_path: Path,
) -> None:
    """From the folder into every node, once. What neither folder nor engine has is not pulled by
    the engine: the nodes may have a login that it lacks."""
    fix, private = "docker.io/bitnami/kubectl:latest", "registry.example/private:1"
    world = World()
    folder = _folder(tmp_path, [*wanted_images(CHOICE, PINS), fix])
    for _ in range(2):
        lines: list[Progress] = []
        # The folder has no charts.
        with pytest.raises(StepFailed, match="step cilium"):
            bring_up(
                *(CHOICE, PINS, SimulatedEngine(world), SimulatedTools(world), lines.append),
                folder=folder,
                dependencies=world.dependencies(),
                further_images=(fix, private),
            )
        assert any(f"{private} is left to the nodes to pull" in str(line) for line in lines)
    assert all(fix in images for images in world.in_nodes.values())
    into_nodes = [act for act in world.acts if act.startswith(f"load {fix} into")]
    assert into_nodes == [f"load {fix} into {node}" for node in sorted(world.in_nodes)]
    assert not [act for act in world.acts if private in act]


def test_only_those_archives_are_loaded_that_have_what_is_missing(tmp_path: Path) -> None:
    """Loading one takes a minute. One that does not say what it has is loaded: it may."""
    for name, tags in (("a", ["python:3.11"]), ("b", ["quay.io/cilium/cilium:v1"])):
        manifest = json.dumps([{"RepoTags": tags}]).encode()
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(manifest)
            archive.addfile(entry, io.BytesIO(manifest))
    (tmp_path / "c.tar").write_text("no archive")
    wanted = ["docker.io/library/python:3.11@sha256:" + "0" * 64]
    assert [
        name for name in ("a.tar.gz", "b.tar.gz", "c.tar") if may_hold(tmp_path / name, wanted)
    ] == [
        "a.tar.gz",
        "c.tar",
    ]


@pytest.mark.parametrize("image", [HELPER, GUARD])
def test_an_image_of_ours_that_cannot_be_built_says_what_it_needs(image: OwnImage) -> None:
    """A base image, which another may replace."""
    world = World()

    def fail(number: int, name: str) -> None:
        if name.startswith("build"):
            raise ToolFailed("docker build: ended with 1: no such host")

    world.before = fail
    with pytest.raises(
        StepFailed,
        match=rf"step {image.name} .*could not be built: .*no such host; .*--build-arg BASE=",
    ):
        _up_with(world, image)


# Bad input: refused before anything is touched


def _refused(world: World, message: str, choice: Choice = CHOICE) -> None:
    before = world.state()
    with pytest.raises((StepFailed, LabUnavailable, BadInput), match=message):
        up(world, choice)
    assert world.acts == [] and world.state() == before


def test_an_engine_that_is_too_small_or_too_old() -> None:
    """All of it at once, each with what to do."""
    facts = replace(World().facts, memory_bytes=2 * GIB, cgroup_version=1)
    with pytest.raises(StepFailed) as failed:
        up(World(facts=facts, disk=1 * GIB), choice_of(istio="1.31", kubernetes="1.37"))
    message = str(failed.value)
    assert (
        "cgroup v1" in message
        and "2.0 GiB of memory" in message
        and "1.0 GiB of disk free" in message
    )
    assert not ClusterState.of(CHOICE.name).directory.exists()


def test_no_disk() -> None:
    _refused(World(disk=1 * GIB), r"1\.0 GiB of disk free, and \d+ GiB are needed; make room")


def test_a_cluster_of_that_name_without_a_record() -> None:
    """It is not ours to touch, however it was made."""
    name = f"{CHOICE.name}-control-plane"
    _refused(
        World(machines={name: machine(name, cluster=CHOICE.name)}),
        "how it was made is not recorded here",
    )


def test_an_older_cluster_of_the_same_name_that_is_another_one() -> None:
    """The differences are reported; the cluster stays up."""
    world = World()
    up(world)
    state = world.state()
    with pytest.raises(
        StepFailed, match=r"is there and is another one: .*istio .* there, .* wanted.*meshwake down"
    ):
        up(world, choice_of(istio="1.31"))
    assert world.state() == state
    up(world)


def test_two_at_once(tmp_path: Path) -> None:
    """The second learns which command is at work."""
    with (
        ClusterState.of(CHOICE.name).lock("run of nightly_sleep"),
        pytest.raises(
            InUse, match=r"meshwake-t is in use: run of nightly_sleep \(process \d+ on .*, since 20"
        ),
    ):
        up(World())


def test_two_clusters_hand_out_different_addresses() -> None:
    """Side by side on one network."""
    world = World()
    up(world)
    up(world, choice_of(name="u"))
    assert len(set(world.pools.values())) == 2


def test_addresses_are_others_than_those_of_any_kind_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of ours with another state directory, and a foreign one with MetalLB: their machines
    have the addresses."""
    world = World(machines={"k-control-plane": machine("k-control-plane", cluster="k")})
    world.metallb["k-control-plane"] = "172.18.255.240-172.18.255.250 10.9.0.0/24 fc00::/64"
    for place in ("one", "two", "three"):
        monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path / place))
        up(world, choice_of(name=place))
        for name, each in world.machines.items():
            if "one" in name:  # files of a machine can be read in whatever state it is
                world.machines[name] = replace(each, state="paused")
    pools = [
        pool for text in (*world.pools.values(), *world.metallb.values()) for pool in text.split()
    ]
    taken = [set(addresses_in(pool)) for pool in pools]
    assert len(taken) == 6 and sum(map(len, taken)) == len(set().union(*taken))


def test_a_stopped_machine_without_addresses_is_named(tmp_path: Path) -> None:
    """One by another program: its addresses cannot be known."""
    world = World(machines={"k-control-plane": machine("k-control-plane", "exited", cluster="k")})
    lines = [each.detail for each in up(world)]
    assert "k-control-plane is exited: which addresses k hands out is unknown" in lines


def test_of_two_that_choose_the_same_at_once_one_chooses_again() -> None:
    """The other's choice is seen after one's own has been written."""
    world = World(machines={"a-control-plane": machine("a-control-plane", cluster="a")})

    def other_is_as_fast(number: int, name: str) -> None:
        if name.startswith("publish") and not world.pools.get("a-control-plane"):
            (world.pools["a-control-plane"],) = world.pools.values()

    world.after = other_is_as_fast
    up(world)
    assert len(set(world.pools.values())) == 2


def test_a_recreated_machine_has_its_addresses_again() -> None:
    """They stay as they were chosen; others must see them."""
    world = World()
    up(world)
    before = dict(world.pools)
    world.pools.clear()
    assert "facts: done" in steps_taken(up(world)) and world.pools == before


# Putting away


def test_down_removes_only_its_own(tmp_path: Path) -> None:
    """Another cluster of ours, a foreign one and a plain container stay."""
    others = {"kind-worker": machine("kind-worker", cluster="kind"), "db": machine("db")}
    world = World(machines=dict(others))
    up(world)
    up(world, choice_of(name="u"))
    take_down("meshwake-t", SimulatedEngine(world), lambda _: None)
    assert set(others) < set(world.machines)
    assert {name for name in world.machines if name.startswith("meshwake-t")} == set()
    assert our_clusters(SimulatedEngine(world)) == ("meshwake-u",)
    with pytest.raises(BadInput, match="only clusters called meshwake-NAME"):
        take_down("kind", SimulatedEngine(world), lambda _: None)
    take_down("meshwake-t", SimulatedEngine(world), lambda _: None)


def test_down_killed_anywhere_goes_on() -> None:
    """Between any two machines."""
    for at in range(2):
        world = World()
        up(world)
        first = len(world.acts)

        def kill(number: int, name: str, at: int = first + at) -> None:
            if number == at:
                raise Killed(name)

        world.after = kill
        with pytest.raises(Killed):
            take_down(CHOICE.name, SimulatedEngine(world), lambda _: None)
        world.after = lambda number, name: None
        take_down(CHOICE.name, SimulatedEngine(world), lambda _: None)
        assert not world.machines and our_clusters(SimulatedEngine(world)) == ()


# Plans


def test_a_plan_names_every_step_and_touches_nothing(tmp_path: Path) -> None:
    """The same every time, for people; no state is made."""
    plan = plan_up(CHOICE, PINS)
    assert plan == plan_up(CHOICE, PINS)
    lines = list(plan_lines("up", plan))
    text = "\n".join(lines)
    for step in steps_of(CHOICE, PINS):
        assert f". {step.name}: {step.title} (within {step.within_s:.0f} s)" in text
    assert max(len(line) for line in lines) < 160
    assert "remove every container labelled io.x-k8s.kind.cluster=meshwake-t" in str(
        plan_down("meshwake-t")
    )
    assert not clusters_dir().exists()
