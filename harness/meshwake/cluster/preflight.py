"""What can be known before anything is changed; all that is wrong is reported at once. `meshwake
doctor` asks the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from packaging.version import Version

from meshwake.cluster.bring_up_context import BringUpContext
from meshwake.cluster.docker import KIND_CLUSTER_LABEL, Container, Engine, EngineFacts
from meshwake.cluster.images import (
    GIB,
    bytes_needed,
    free_bytes,
    machine_image,
    most_bytes_needed,
)
from meshwake.cluster.limits import limit_problems, measure_limits
from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.pins import Pins
from meshwake.cluster.state import Record, choice_to_json
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.core.errors import LabUnavailable

PREFLIGHT = "preflight"
# Cilium, istiod and three nodes' kubelets do not fit into less.
MEMORY_AT_LEAST = 4 * GIB
CGROUP_V2_FROM = Version("1.35")


def preflight_step(choice: Choice, pins: Pins) -> BringUpStep[BringUpContext]:
    """The step that changes nothing and finds what would fail later."""
    disk_gib = math.ceil(most_bytes_needed(choice, pins) / GIB)
    return BringUpStep(
        PREFLIGHT,
        "what can be known before anything is changed",
        60,
        _preflight,
        (
            f"the engine answers; its cgroups and limits suffice for {choice.workers + 1} nodes",
            f"it has {MEMORY_AT_LEAST // GIB} GiB of memory at least, and {disk_gib} GiB of free "
            "disk; less, where it has images already",
            f"no other cluster is called {choice.name}",
        ),
    )


def _preflight(bringup: BringUpContext, watch: Watch) -> None:
    facts = bringup.engine.facts()
    watch.say(f"engine {facts.version} on {facts.operating_system}, {facts.cpus} CPUs")
    machines = bringup.containers()
    problems = [
        *_engine_problems(bringup.choice, facts),
        *_name_problems(bringup, machines),
        # A cluster that is half there has taken its room already.
        *([] if machines else room_problems(bringup.engine, bringup.choice, bringup.pins)),
    ]
    if problems:
        raise LabUnavailable("\n".join(problems))
    record = bringup.state.read()

    # Before the first machine is made, so that one which is left half made is known to be ours.
    if record is None or record.choice != bringup.choice or not machines:
        bringup.state.write(
            Record(bringup.name, bringup.choice, int(bringup.dependencies.wall_s()), None)
        )


def _engine_problems(choice: Choice, facts: EngineFacts) -> Iterator[str]:
    if facts.cgroup_version < 2 and Version(choice.kubernetes) >= CGROUP_V2_FROM:
        yield (
            f"the engine uses cgroup v1, and nodes of Kubernetes {CGROUP_V2_FROM} and newer "
            "need v2; boot its machine "
            f"with systemd.unified_cgroup_hierarchy=1, or choose an older one: --kubernetes VERSION"
        )
    if facts.memory_bytes < MEMORY_AT_LEAST:
        yield (
            f"the engine has {facts.memory_bytes / GIB:.1f} GiB of memory, and "
            f"{MEMORY_AT_LEAST // GIB} GiB is the "
            "least; give its machine more (Docker Desktop: Settings, Resources)"
        )


def _name_problems(bringup: BringUpContext, machines: tuple[Container, ...]) -> Iterator[str]:
    if not machines:
        return

    record = bringup.state.read()
    if record is None or record.choice is None:
        yield (
            f"a cluster {bringup.name} is there ({_names(machines)}), and how it was made is not "
            f"recorded here; delete it: meshwake down --name {bringup.name}, or choose another --name"
        )
        return
    if record.choice.digest == bringup.choice.digest:
        return

    was = choice_to_json(record.choice)
    wanted = choice_to_json(bringup.choice)
    differing = [key for key in was if was[key] != wanted[key]]
    differs = [f"{key} {was[key]} there, {wanted[key]} wanted" for key in differing]
    yield (
        f"a cluster {bringup.name} is there and is another one: {'; '.join(differs)}; "
        f"delete it: meshwake down --name {bringup.name}, or choose another --name"
    )


def engine_problems(engine: Engine, choice: Choice, pins: Pins) -> list[str]:
    """Why a cluster `choice` cannot be made on this engine; where one of kind's exists already,
    only what goes for all of them: what room it has taken is not to be had twice."""
    existing = engine.containers({KIND_CLUSTER_LABEL: None})
    return [
        *_engine_problems(choice, engine.facts()),
        *([] if existing else room_problems(engine, choice, pins)),
    ]


def room_problems(engine: Engine, choice: Choice, pins: Pins) -> Iterator[str]:
    """What of the engine's machine does not suffice for a cluster that is not there yet."""
    machine = machine_image(engine, choice, pins)
    needed, free = bytes_needed(engine, choice, pins), free_bytes(engine, machine)
    if free is not None and free < needed:
        yield (
            f"the engine has {free / GIB:.1f} GiB of disk free, and {needed / GIB:.0f} GiB "
            "are needed; "
            "make room (docker system df shows what takes it), or choose fewer --nodes"
        )
    limits = measure_limits(engine, None if machine is None else machine.name)
    yield from limit_problems(limits, choice.workers + 1)


def _names(machines: Iterable[Container]) -> str:
    return ", ".join(machine.name for machine in machines)
