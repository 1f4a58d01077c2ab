"""What can be known before anything is changed; all that is wrong is said at once."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from packaging.version import Version

from harness.errors import LabUnavailable
from harness.labs.kind.engine import (
    Container,
    EngineFacts,
    room_inside,
)
from harness.labs.kind.making import Making, node_names
from harness.labs.kind.state import Record, choice_to_json
from harness.labs.kind.steps import Step, Watch
from harness.stack.choice import Choice
from harness.stack.render import kind_config, node_image

PREFLIGHT = "preflight"
GIB = 1024**3
# Cilium, istiod and three nodes' kubelets do not fit into less.
MEMORY_AT_LEAST = 4 * GIB
# The node image with everything in it, once in the engine and once in each node; an estimate, on the safe side.
DISK_OF_ENGINE, DISK_OF_NODE = 4 * GIB, 3 * GIB
CGROUP_V2_FROM = Version("1.35")


def preflight_step(choice: Choice) -> Step[Making]:
    """The step that changes nothing and finds what would fail later."""
    return Step(
        PREFLIGHT,
        "what can be known before anything is changed",
        60,
        lambda making: None,
        _preflight,
        (
            f"the engine answers; its cgroups, memory and disk suffice for {choice.workers + 1} nodes",
            f"no other cluster is called {choice.name}; the ports it publishes are free",
        ),
    )


def _preflight(making: Making, watch: Watch) -> None:
    facts = making.engine.facts()
    watch.say(f"engine {facts.version} on {facts.operating_system}, {facts.cpus} CPUs")
    machines = making.containers()
    problems = [
        *_engine_problems(making.choice, facts),
        *_name_problems(making, machines),
        # A cluster that is half there has taken its room and its ports already.
        *([] if machines else [*_disk_problems(making), *_port_problems(making)]),
    ]
    if problems:
        raise LabUnavailable("\n".join(problems))
    record = making.state.read()
    if record is None or record.choice != making.choice or not machines:
        making.state.write(Record(making.name, making.choice, int(making.kit.wall_s()), None))


def _engine_problems(choice: Choice, facts: EngineFacts) -> Iterator[str]:
    if facts.cgroup_version < 2 and Version(choice.kubernetes) >= CGROUP_V2_FROM:
        yield (
            f"the engine uses cgroup v1, and nodes of Kubernetes {CGROUP_V2_FROM} and newer need v2; boot its machine "
            f"with systemd.unified_cgroup_hierarchy=1, or choose an older one: --kubernetes VERSION"
        )
    if facts.memory_bytes < MEMORY_AT_LEAST:
        yield (
            f"the engine has {facts.memory_bytes / GIB:.1f} GiB of memory, and {MEMORY_AT_LEAST // GIB} GiB is the "
            "least; give its machine more (Docker Desktop: Settings, Resources)"
        )


def _name_problems(making: Making, machines: tuple[Container, ...]) -> Iterator[str]:
    if not machines:
        return
    record = making.state.read()
    if record is None or record.choice is None:
        yield (
            f"a cluster {making.name} is there ({_names(machines)}), and nothing is known here of how it was made; "
            f"put it away: meshwake down --name {making.name}, or choose another --name"
        )
    elif record.choice.digest != making.choice.digest:
        was, wanted = choice_to_json(record.choice), choice_to_json(making.choice)
        differs = [f"{key} {was[key]} there, {wanted[key]} wanted" for key in was if was[key] != wanted[key]]
        yield (
            f"a cluster {making.name} is there and is another one: {'; '.join(differs)}; "
            f"put it away: meshwake down --name {making.name}, or choose another --name"
        )


def _disk_problems(making: Making) -> Iterator[str]:
    needed = DISK_OF_ENGINE + DISK_OF_NODE * len(node_names(making.choice, making.pins))
    machine = node_image(making.choice, making.pins)
    free = making.engine.free_disk_bytes()
    if free is None and not making.engine.missing_images([machine]):
        free = room_inside(making.engine, machine)
    if free is not None and free < needed:
        yield (
            f"the engine has {free / GIB:.1f} GiB of disk free, and {needed / GIB:.0f} GiB are needed; "
            "make room (docker system df shows what takes it), or choose fewer --nodes"
        )


def _port_problems(making: Making) -> Iterator[str]:
    for host, port in _published(kind_config(making.choice, making.pins)):
        holder = next((one for one in making.engine.containers({}) if port in one.published_ports), None)
        if holder is not None:
            yield f"port {port} is published by container {holder.name}; end it, or bring up without that port"
        elif not _can_bind(host, port):
            yield f"port {port} is in use on this machine; end what uses it (ss -ltnp), or bring up without that port"


def _published(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    networking = config.get("networking") or {}
    if networking.get("apiServerPort", 0) > 0:
        yield str(networking.get("apiServerAddress", "127.0.0.1")), int(networking["apiServerPort"])
    for node in config["nodes"]:
        for mapping in node.get("extraPortMappings") or ():
            if mapping.get("hostPort", 0) > 0:
                yield str(mapping.get("listenAddress", "127.0.0.1")), int(mapping["hostPort"])


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _names(machines: Iterable[Container]) -> str:
    return ", ".join(machine.name for machine in machines)
