"""The machines of a cluster, made by kind, and the addresses it hands out."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from functools import partial

import yaml
from pytest_kubernetes.options import ClusterOptions
from pytest_kubernetes.providers import select_provider_manager

from meshwake.cluster.bring_up_context import BringUpContext, node_names, read_facts
from meshwake.cluster.docker import (
    KIND_CLUSTER_LABEL,
    KIND_NETWORK,
    KIND_ROLE_LABEL,
    Container,
    name_in_engine,
)
from meshwake.cluster.images import machine_image
from meshwake.cluster.limits import limit_problems, measure_limits
from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.pieces import Facts
from meshwake.cluster.stack.pins import Pins
from meshwake.cluster.stack.pool import addresses_in, pool_of
from meshwake.cluster.stack.render import kind_config
from meshwake.cluster.state import ClusterState, known_names
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject, MutableJsonObject, objects_at, text_at
from meshwake.kubernetes.api import Refused, Unreachable

READY_WITHIN_S = 180
# What a cluster of ours will hand out, from before MetalLB is in it; and how any cluster of kind's
# is queried.
_POOL_FILE = "/etc/meshwake-pool"
_ASK_FOR_POOLS = (
    "sh",
    "-c",
    "kubectl --kubeconfig=/etc/kubernetes/admin.conf --request-timeout=5s get "
    "ipaddresspools.metallb.io -A -o jsonpath='{.items[*].spec.addresses[*]}'",
)


def cluster_step(choice: Choice, pins: Pins) -> BringUpStep[BringUpContext]:
    """The step in which kind makes the machines."""
    return BringUpStep(
        "cluster",
        f"{len(node_names(choice, pins))} machines made by kind",
        900,
        _make_cluster,
        (
            "kind create cluster --config kind.yaml --kubeconfig "
            f"<state>/{choice.name}/kubeconfig --retain",
            *(f"machine {name}" for name in node_names(choice, pins)),
        ),
        ("the API server is ready", "every machine has registered as a node"),
        done=_cluster_done,
    )


def _cluster_done(bringup: BringUpContext) -> str | None:
    wanted = node_names(bringup.choice, bringup.pins)
    running = {machine.name for machine in bringup.containers() if machine.state == "running"}
    if not running.issuperset(wanted):
        return None

    # kind writes it last: without it the cluster was not made to its end.
    if not bringup.state.kubeconfig.is_file():
        return None
    if _unregistered(bringup) is not None:
        return None
    return f"{len(wanted)} machines run"


def _unregistered(bringup: BringUpContext) -> str | None:
    """None when the API is ready and all nodes have registered; else what was seen."""
    try:
        if not bringup.kube().ready():
            return "the API server is not ready"
        nodes = bringup.kube().all("Node")
    except (Unreachable, Refused) as error:
        return str(error)

    there = {text_at(node, "metadata", "name") for node in nodes}
    wanted = node_names(bringup.choice, bringup.pins)
    missing = [name for name in wanted if name not in there]
    if missing:
        return f"not registered: {', '.join(missing)}"
    return None


def _make_cluster(bringup: BringUpContext, watch: Watch) -> None:
    wanted = node_names(bringup.choice, bringup.pins)
    machines = bringup.containers()
    all_there = {machine.name for machine in machines} >= set(wanted)

    # kind writes the kubeconfig last, so a cluster that has one was made to its end.
    if all_there and bringup.state.kubeconfig.is_file():
        for machine in machines:
            if machine.state != "running":
                watch.say(f"starting {machine.name}, which is {machine.state}")
                bringup.engine.start(machine.id)
        # The API server may have another port on this machine now.
        bringup.forget_kube()
    else:
        _create(bringup, machines, watch)

    watch.wait_for("API server and nodes", partial(_unregistered, bringup), READY_WITHIN_S)


def _create(bringup: BringUpContext, machines: tuple[Container, ...], watch: Watch) -> None:
    # kind refuses a name of which there is a node, and has no way to go on with it.
    for machine in machines:
        watch.say(f"removing {machine.name} of a cluster that was half made")
        bringup.engine.remove(machine.id)

    _check_limits(bringup)
    bringup.forget_kube()
    bringup.state.kubeconfig.unlink(missing_ok=True)

    config = kind_config(bringup.choice, bringup.pins)
    path = bringup.state.put(
        "kind.yaml", yaml.safe_dump(_with_local_node_images(bringup, config), sort_keys=False)
    )
    watch.say("kind creates the machines, which takes a minute or two")
    manager = KindManager(bringup, watch)
    manager.create(
        ClusterOptions(kubeconfig_path=bringup.state.kubeconfig, provider_config=path),
        # Machines of a creation that failed stay, for their logs; the next `up` removes them.
        options=["--retain"],
    )


def _check_limits(bringup: BringUpContext) -> None:
    """Preflight may have had no image to ask with; now there is one."""
    machine = machine_image(bringup.engine, bringup.choice, bringup.pins)
    image = None if machine is None else machine.name
    limits = measure_limits(bringup.engine, image)

    nodes = node_names(bringup.choice, bringup.pins)
    problems = list(limit_problems(limits, len(nodes)))
    if problems:
        raise LabUnavailable("\n".join(problems))


def _with_local_node_images(bringup: BringUpContext, config: JsonObject) -> MutableJsonObject:
    """kind pulls an image that the engine does not find by the name in its configuration: one that
    was loaded from an archive is found by its tag only."""
    nodes = []
    for node in objects_at(config, "nodes"):
        image = text_at(node, "image")
        nodes.append({**node, "image": name_in_engine(bringup.engine, image)})
    return {**config, "nodes": nodes}


class KindManager(select_provider_manager("kind")):  # type: ignore[misc]
    """pytest-kubernetes' manager for kind, without its shell (0.9.0 joins arguments into one string
    for `sh -c`), with our kind and our bound, and with a look at readiness that waits nowhere: we
    wait ourselves."""

    def __init__(self, bringup: BringUpContext, watch: Watch) -> None:
        self._making, self._watch, self._ran = bringup, watch, False
        super().__init__(
            bringup.name, str(bringup.state.directory / "kind.yaml"), bringup.state.kubeconfig
        )

    def _ensure_executable(self) -> None:
        """Our kind was found and its version looked at before (tools.py)."""

    def _exec(
        self, arguments: list[str], additional_env: object = None, timeout: float | None = None
    ) -> None:
        self._making.run(self._watch, "-".join(["kind", *arguments[:2]]), "kind", *arguments)
        self._ran = True

    def ready(self, timeout: int = 0) -> bool:
        """False until kind has run, so that it does; from then on it is for us to wait."""
        return self._ran


# Facts


def facts_step() -> BringUpStep[BringUpContext]:
    """The step that chooses addresses and a seed."""
    return BringUpStep(
        "facts",
        "addresses for load balancers, a seed for the cluster's own secrets",
        60,
        _find_facts,
        (
            f"IPv4 addresses near the end of the network {KIND_NETWORK!r}, none that "
            "another cluster of kind hands out",
        ),
        done=_facts_done,
    )


def _facts_done(bringup: BringUpContext) -> str | None:
    facts = read_facts(bringup.state)
    published = bringup.engine.read_file(_own_machine(bringup), _POOL_FILE) or ""
    if facts is None:
        return None

    # New machines have none yet.
    if published.strip() != facts.pool:
        return None
    return f"addresses {facts.pool}"


def _find_facts(bringup: BringUpContext, watch: Watch) -> None:
    facts = read_facts(bringup.state)
    if facts is None:
        facts = Facts(_choose_pool(bringup, watch), bringup.dependencies.seed())
        bringup.state.put("facts.json", json.dumps(asdict(facts)) + "\n")
    _publish(bringup, facts.pool)  # the machine may be another than the one it was chosen for
    watch.say(f"addresses {facts.pool}")


def _choose_pool(bringup: BringUpContext, watch: Watch) -> str:
    network = bringup.engine.network(KIND_NETWORK)
    if network is None:
        raise LabUnavailable(
            f"the engine has no network '{KIND_NETWORK}', which kind makes; was it removed "
            "meanwhile?"
        )

    while True:
        taken = list(network.addresses)
        for addresses in _taken_by_others(bringup, watch).values():
            taken += addresses
        pool = pool_of(network.ipam, taken)

        # Published first and looked at again afterwards, so that of two that choose at once at
        # least one sees the other.
        _publish(bringup, pool)

        # Another may have chosen at the same moment: both see it now, and one of them chooses
        # again.
        chosen = set(addresses_in(pool))
        others = _taken_by_others(bringup, watch)
        overlapping = [name for name, taken in others.items() if not chosen.isdisjoint(taken)]

        # The order of names decides which one: the later one gives way.
        clash = [name for name in overlapping if name < bringup.name]
        if not clash:
            return pool
        watch.say(f"{', '.join(clash)} has chosen the same addresses; choosing again")


def _publish(bringup: BringUpContext, pool: str) -> None:
    """Where every user of this engine can see it, whatever state directory they have."""
    bringup.engine.execute(_own_machine(bringup), ["sh", "-c", f"echo {pool} >{_POOL_FILE}"])


def _own_machine(bringup: BringUpContext) -> str:
    return node_names(bringup.choice, bringup.pins)[-1]


def _taken_by_others(bringup: BringUpContext, watch: Watch) -> dict[str, list[str]]:
    """The addresses that every other kind cluster on the engine hands out, whatever made it: as is
    remembered here, as is recorded on its machine, and as its API server says where it runs."""
    pools: dict[str, list[str]] = {}
    for name in known_names():
        if name == bringup.name:
            continue
        facts = read_facts(ClusterState.of(name))
        if facts is not None:
            pools[name] = [facts.pool]

    of_all_clusters = {KIND_CLUSTER_LABEL: None, KIND_ROLE_LABEL: "control-plane"}
    for machine in bringup.engine.containers(of_all_clusters):
        cluster = machine.labels[KIND_CLUSTER_LABEL]
        if cluster != bringup.name:
            own = pools.setdefault(cluster, [])
            _add_pools_of(bringup, watch, machine, own)

    return {
        name: [address for pool in own for address in addresses_in(pool)]
        for name, own in pools.items()
    }


def _add_pools_of(
    bringup: BringUpContext, watch: Watch, machine: Container, pools: list[str]
) -> None:
    """Adds the address ranges of the cluster that `machine` is of to `pools`, which has those that
    are remembered here."""
    # A machine that is being deleted meanwhile does not answer, and hands out nothing.
    with suppress(LabUnavailable):
        recorded = bringup.engine.read_file(machine.name, _POOL_FILE) or ""
        pools += recorded.split()

        if machine.state == "running":
            listed = bringup.engine.execute(machine.name, _ASK_FOR_POOLS)
            pools += listed.stdout.split()
        elif not pools:
            cluster = machine.labels[KIND_CLUSTER_LABEL]
            watch.say(
                f"{machine.name} is {machine.state}: which addresses {cluster} hands out is unknown"
            )
