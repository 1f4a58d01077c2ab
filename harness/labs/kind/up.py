"""Bringing a cluster up: the list of steps, in order, each of which may be taken again (steps.py).

    preflight      what can be known before anything is changed: all that is wrong is said at once
    images         every image is in the engine: from a folder of archives, or pulled
    cluster        kind makes the machines; what is half made is made anew
    nodes-images   the images are in every node, so that nothing is pulled three times
    facts          addresses for load balancers, which no other cluster of ours on that network hands out; a seed
    STAGE...       harness/stack says what goes in and what must be true before the next
    health         the stack's own promises, asked of the stack (health.py)

What has been put in is written into the cluster itself, in a ConfigMap: a stage is done when that says so for exactly
these pieces and every condition of the stage holds now.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

import yaml
from packaging.version import Version
from pytest_kubernetes.options import ClusterOptions
from pytest_kubernetes.providers import select_provider_manager

from harness.errors import HarnessError, HarnessFault, LabUnavailable
from harness.labs.kind.engine import (
    KIND_CLUSTER_LABEL,
    KIND_NETWORK,
    Container,
    Engine,
    EngineFacts,
    room_inside,
)
from harness.labs.kind.kube import ClientKube, Kube, KubeRefused, unmet
from harness.labs.kind.state import ClusterState, Record, choice_to_json, clusters_dir, known_names, lock_file
from harness.labs.kind.steps import Patience, Step, Watch
from harness.labs.kind.tools import ToolFailed, Tools
from harness.stack.choice import Choice
from harness.stack.pieces import (
    MANAGED_BY_LABELS,
    Chart,
    Condition,
    Facts,
    Objects,
    Piece,
    RemoteManifest,
    Stage,
    identity_of,
    labelled,
)
from harness.stack.pins import Pins
from harness.stack.pool import pool_of
from harness.stack.render import images, kind_config, node_image, stages

PREFLIGHT = "preflight"
GIB = 1024**3
# Cilium, istiod and three nodes' kubelets do not fit into less.
MEMORY_AT_LEAST = 4 * GIB
# The node image with everything in it, once in the engine and once in each node; an estimate, on the safe side.
DISK_OF_ENGINE, DISK_OF_NODE = 4 * GIB, 3 * GIB
CGROUP_V2_FROM = Version("1.35")
MARKS_NAMESPACE, MARKS_NAME = "kube-system", "meshwake-up"
# What a plan shows in the place of addresses that only the engine's network can tell.
PLANNED_FACTS = Facts(pool="172.18.255.200-172.18.255.249")
FETCH_WITHIN_S = 120
READY_WITHIN_S = 180
EXPORT_LOGS_WITHIN_S = 180
_PASSING = {404, 409, 429}
_PENDING = {"pending-install": "uninstall", "uninstalling": "uninstall"}


class Fetch(Protocol):
    """Fetches a URL; LabUnavailable when it cannot be had."""

    def __call__(self, url: str, within_s: float) -> bytes:
        """Its content."""


def fetch_https(url: str, within_s: float) -> bytes:
    """As `Fetch` promises, over https only."""
    if not url.startswith("https://"):
        raise LabUnavailable(f"{url}: is fetched over https only")
    try:
        with urllib.request.urlopen(url, timeout=within_s) as answer:  # noqa: S310  https, see above
            return bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise LabUnavailable(
            f"{url}: could not be fetched ({error}); is there a network? or give --folder DIR with it in it"
        ) from error


def health_left_out(making: Making) -> list[str]:
    """Stands where the caller does not want the health to be looked at."""
    return []


@dataclass(frozen=True)
class Kit:
    """What bringing up uses of the world beside engine and tools; tests bring their own."""

    connect: Callable[[Path], Kube] = ClientKube
    patience: Patience = field(default_factory=Patience)
    wall_s: Callable[[], float] = time.time
    fetch: Fetch = fetch_https
    seed: Callable[[], str] = lambda: secrets.token_hex(16)
    # Says what is broken, one sentence each, once everything is up.
    health: Callable[[Making], list[str]] = health_left_out


@dataclass
class Making:
    """One cluster while it is brought up: what the steps work on."""

    choice: Choice
    pins: Pins
    engine: Engine
    tools: Tools
    state: ClusterState
    kit: Kit
    folder: Path | None = None
    _kube: Kube | None = None

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.choice.name

    def kube(self) -> Kube:
        """The cluster's API; connected when first asked for."""
        if self._kube is None:
            self._kube = self.kit.connect(self.state.kubeconfig)
        return self._kube

    def forget_kube(self) -> None:
        """Closes the connection: the next `kube` reads the kubeconfig anew."""
        if self._kube is not None:
            self._kube.close()
            self._kube = None

    def containers(self) -> tuple[Container, ...]:
        """The cluster's machines, as the engine knows them."""
        return self.engine.containers({KIND_CLUSTER_LABEL: self.name})

    def stage(self, name: str) -> Stage:
        """The stage `name`, with everything known."""
        facts = read_facts(self.state)
        if facts is None:
            raise HarnessFault(f"stage {name} before step facts")
        return next(stage for stage in stages(self.choice, self.pins, facts) if stage.name == name)

    def words(self, name: str) -> Path:
        """Where a program's words are kept."""
        return self.state.directory / "words" / name


def steps_of(choice: Choice, pins: Pins) -> tuple[Step[Making], ...]:
    """All steps of `up`, in order."""
    return (
        _preflight_step(choice),
        _images_step(choice, pins),
        _cluster_step(choice, pins),
        _nodes_images_step(choice, pins),
        _facts_step(),
        *(_stage_step(stage) for stage in stages(choice, pins, PLANNED_FACTS)),
        _health_step(),
    )


def node_names(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """The names that kind gives the machines (and Kubernetes its nodes), workers first."""
    roles = [str(node.get("role", "control-plane")) for node in kind_config(choice, pins)["nodes"]]
    named = [
        f"{choice.name}-{role}{roles[:position].count(role) + 1 if role in roles[:position] else ''}"
        for position, role in enumerate(roles)
    ]
    return tuple(sorted(named, key=lambda name: "-control-plane" in name))


def read_facts(state: ClusterState) -> Facts | None:
    """What was found out and drawn for a cluster once; None before that."""
    try:
        return Facts(**json.loads((state.directory / "facts.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


# Preflight


def _preflight_step(choice: Choice) -> Step[Making]:
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


# Images


def wanted_images(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """Every image that the engine must have, the machines' own first."""
    return tuple(dict.fromkeys([node_image(choice, pins), *images(choice, pins)]))


def _images_step(choice: Choice, pins: Pins) -> Step[Making]:
    wanted = wanted_images(choice, pins)
    return Step(
        "images",
        f"{len(wanted)} images in the engine",
        3600,
        _images_done,
        _fetch_images,
        tuple(f"image {reference}" for reference in wanted),
    )


def _images_done(making: Making) -> str | None:
    wanted = wanted_images(making.choice, making.pins)
    return None if making.engine.missing_images(wanted) else f"all {len(wanted)} are there"


def _fetch_images(making: Making, watch: Watch) -> None:
    wanted = wanted_images(making.choice, making.pins)
    if making.folder is not None:
        for archive in sorted((making.folder / "images").glob("*.tar*")):
            watch.say(f"loading {archive.name}")
            making.engine.load_archive(archive)
    missing = making.engine.missing_images(wanted)
    for number, reference in enumerate(missing, start=1):
        watch.say(f"pulling {number} of {len(missing)}: {reference}")
        if watch.elapsed_s > watch.within_s:
            raise LabUnavailable(
                f"pulling took more than {watch.within_s:.0f} s; 'meshwake up' again goes on from here"
            )
        try:
            making.engine.pull(reference)
        except LabUnavailable as error:
            still = making.engine.missing_images(wanted)
            raise LabUnavailable(_missing_images(reference, error, still, len(wanted), making.folder)) from error


def _missing_images(reference: str, error: Exception, still: tuple[str, ...], of: int, folder: Path | None) -> str:
    looked = f" (looked in {folder / 'images'} first)" if folder is not None else ""
    return "\n".join(
        [
            f"{len(still)} of {of} images are not in the engine{looked}, and {reference} could not be pulled: {error}",
            *(f"  missing: {one}" for one in still),
            "pull them where there is a network and 'docker save' them into DIR/images/*.tar, then --folder DIR; "
            "or name a registry that has them: --mirror HOST[:PORT]",
        ]
    )


# The cluster itself


def _cluster_step(choice: Choice, pins: Pins) -> Step[Making]:
    return Step(
        "cluster",
        f"{len(node_names(choice, pins))} machines made by kind",
        900,
        _cluster_done,
        _make_cluster,
        (
            f"kind create cluster --config kind.yaml --kubeconfig <state>/{choice.name}/kubeconfig --retain",
            *(f"machine {name}" for name in node_names(choice, pins)),
        ),
        ("the API server is ready", "every machine has registered as a node"),
    )


def _cluster_done(making: Making) -> str | None:
    wanted = node_names(making.choice, making.pins)
    machines = {machine.name: machine.state for machine in making.containers()}
    if not making.state.kubeconfig.is_file() or any(machines.get(name) != "running" for name in wanted):
        return None
    return None if _unregistered(making) is not None else f"{len(wanted)} machines run"


def _unregistered(making: Making) -> str | None:
    """None when the API is ready and all nodes have registered; else what was seen."""
    try:
        if not making.kube().ready():
            return "the API server is not ready"
        there = {node["metadata"]["name"] for node in making.kube().all("Node")}
    except KubeRefused as error:
        return str(error)
    missing = [name for name in node_names(making.choice, making.pins) if name not in there]
    return f"not registered: {', '.join(missing)}" if missing else None


def _make_cluster(making: Making, watch: Watch) -> None:
    wanted = node_names(making.choice, making.pins)
    machines = making.containers()
    # kind writes the kubeconfig last, so a cluster that has one was made to its end.
    whole = {machine.name for machine in machines} >= set(wanted) and making.state.kubeconfig.is_file()
    if whole:
        for machine in machines:
            if machine.state != "running":
                watch.say(f"starting {machine.name}, which is {machine.state}")
                making.engine.start(machine.id)
        making.forget_kube()
    else:
        _create_anew(making, machines, watch)
    watch.wait_for("API server and nodes", partial(_unregistered, making), READY_WITHIN_S)


def _create_anew(making: Making, machines: tuple[Container, ...], watch: Watch) -> None:
    for machine in machines:
        watch.say(f"removing {machine.name} of a cluster that was half made")
        making.engine.remove(machine.id)
    making.forget_kube()
    making.state.kubeconfig.unlink(missing_ok=True)
    config = kind_config(making.choice, making.pins)
    path = making.state.put("kind.yaml", yaml.safe_dump(_with_local_node_images(making, config), sort_keys=False))
    watch.say("kind creates the machines, which takes a minute or two")
    manager = KindManager(making, watch)
    manager.create(ClusterOptions(kubeconfig_path=making.state.kubeconfig, provider_config=path), options=["--retain"])


def _with_local_node_images(making: Making, config: dict[str, Any]) -> dict[str, Any]:
    """An image loaded from an archive is known by its tag only, and kind would pull what it finds by no digest."""
    nodes = []
    for node in config["nodes"]:
        tagged, at, _ = str(node["image"]).partition("@")
        by_tag_only = bool(at) and making.engine.missing_images([node["image"]]) != ()
        nodes.append({**node, "image": tagged} if by_tag_only else node)
    return {**config, "nodes": nodes}


class KindManager(select_provider_manager("kind")):  # type: ignore[misc]
    """pytest-kubernetes' manager for kind, without its shell (0.9.0 joins arguments into one string for `sh -c`), with
    our kind and our bound, and with a look at readiness that waits nowhere: we wait ourselves."""

    def __init__(self, making: Making, watch: Watch) -> None:
        self._making, self._watch, self._ran = making, watch, False
        super().__init__(making.name, str(making.state.directory / "kind.yaml"), making.state.kubeconfig)

    def _ensure_executable(self) -> None:
        """Our kind was found and its version looked at before (tools.py)."""

    def _exec(self, arguments: list[str], additional_env: object = None, timeout: float | None = None) -> None:
        self._making.tools.run(
            "kind", *arguments, within_s=self._watch.left_s, log=self._making.words("-".join(["kind", *arguments[:2]]))
        )
        self._ran = True

    def ready(self, timeout: int = 0) -> bool:
        """False until kind has run, so that it does; from then on it is for us to wait."""
        return self._ran


# Images in the nodes


def _nodes_images_step(choice: Choice, pins: Pins) -> Step[Making]:
    return Step(
        "nodes-images",
        "images in every node",
        1800,
        _nodes_images_done,
        _load_into_nodes,
        (f"docker save --platform <the engine's> and kind load image-archive, for {len(images(choice, pins))} images",),
    )


def _nodes_images_done(making: Making) -> str | None:
    return None if _not_in_nodes(making) else f"all {len(images(making.choice, making.pins))} are in every node"


def _not_in_nodes(making: Making) -> tuple[str, ...]:
    """The images that at least one node lacks."""
    wanted = images(making.choice, making.pins)
    there = [images_in(making, node) for node in node_names(making.choice, making.pins)]
    return tuple(image for image in wanted if not all(full_reference(image) in found for found in there))


def images_in(making: Making, node: str) -> set[str]:
    """The images that a node has, by their full names; none when it cannot be asked."""
    code, said = making.engine.execute(node, ["ctr", "--namespace=k8s.io", "images", "list", "--quiet"])
    return {full_reference(line.strip()) for line in said.splitlines()} if code == 0 else set()


def _load_into_nodes(making: Making, watch: Watch) -> None:
    missing = _not_in_nodes(making)
    for number, reference in enumerate(missing, start=1):
        watch.say(f"{number} of {len(missing)}: {reference}")
        try:
            load_one(making, watch, reference)
        except ToolFailed as error:
            if making.folder is not None:
                raise
            # With a network nothing is lost: the kubelet pulls what it lacks, only later and once a node.
            watch.say(f"{reference} is left to the nodes to pull: {str(error).splitlines()[0][:200]}")


def load_one(making: Making, watch: Watch, reference: str) -> None:
    """Puts an image of the engine into every node.

    `kind load docker-image` fails with Docker's containerd image store, where an image has layers of platforms that
    are not here (kind#3795). An archive of one platform has not; older engines know no --platform and need none."""
    facts = making.engine.facts()
    one_platform = ["--platform", facts.platform] if Version(facts.api_version) >= Version("1.48") else []
    archive = making.state.directory / "image.tar"
    words = making.words(f"load-{hashlib.sha256(reference.encode()).hexdigest()[:12]}")
    try:
        save = ["save", *one_platform, "--output", str(archive), reference]
        making.tools.run("docker", *save, within_s=watch.left_s, log=words)
        load = ["load", "image-archive", str(archive), "--name", making.name]
        making.tools.run("kind", *load, within_s=watch.left_s, log=words)
    finally:
        archive.unlink(missing_ok=True)


def full_reference(image: str) -> str:
    """`image` as containerd names it: docker.io/library/busybox:latest for busybox."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return f"{name}{at}{digest}"


# Facts


def _facts_step() -> Step[Making]:
    return Step(
        "facts",
        "addresses for load balancers, a seed for the cluster's own secrets",
        60,
        _facts_done,
        _find_facts,
        (f"IPv4 addresses near the end of the network {KIND_NETWORK!r}, none that another cluster of ours hands out",),
    )


def _facts_done(making: Making) -> str | None:
    facts = read_facts(making.state)
    return None if facts is None else f"addresses {facts.pool}"


def _find_facts(making: Making, watch: Watch) -> None:
    network = making.engine.network(KIND_NETWORK)
    if network is None:
        raise LabUnavailable(f"the engine has no network '{KIND_NETWORK}', which kind makes; was it removed meanwhile?")
    # Two clusters that are brought up at once must not choose the same addresses.
    with _facts_locked(watch):
        others = [read_facts(ClusterState.of(name)) for name in known_names() if name != making.name]
        taken = [address for facts in others if facts is not None for address in _addresses_of(facts.pool)]
        facts = Facts(pool=pool_of(network.ipam, [*network.addresses, *taken]), seed=making.kit.seed())
        making.state.put("facts.json", json.dumps(asdict(facts)) + "\n")
    watch.say(f"addresses {facts.pool}")


@contextmanager
def _facts_locked(watch: Watch) -> Iterator[None]:
    with lock_file(clusters_dir() / "facts.lock") as attempt:
        watch.wait_for("another cluster to choose its addresses", lambda: None if attempt() else "it is choosing")
        yield


def _addresses_of(pool: str) -> Iterator[str]:
    first, _, last = pool.partition("-")
    for number in range(int(IPv4Address(first)), int(IPv4Address(last)) + 1):
        yield str(IPv4Address(number))


# Stages


def _stage_step(planned: Stage) -> Step[Making]:
    return Step(
        planned.name,
        planned.title,
        planned.within_s,
        partial(_stage_done, planned.name),
        partial(_take_stage, planned.name),
        tuple(line for piece in planned.pieces for line in piece_lines(piece)),
        tuple(f"{condition} (within {condition.within_s} s)" for condition in planned.conditions),
    )


def piece_lines(piece: Piece) -> Iterator[str]:
    """What a plan says of a piece."""
    if isinstance(piece, Chart):
        source = f"{piece.repo} {piece.chart}" if piece.repo else piece.chart
        yield f"helm upgrade --install {piece.release} --namespace {piece.namespace}  ({source} {piece.version})"
    elif isinstance(piece, RemoteManifest):
        yield f"apply {piece.url}"
    else:
        for thing in piece.objects:
            yield f"apply {identity_of(thing)}"


def stage_digest(stage: Stage) -> str:
    """Names the pieces of a stage: equal digests, nothing new to put in."""
    return hashlib.sha256(json.dumps([asdict(piece) for piece in stage.pieces], sort_keys=True).encode()).hexdigest()[
        :16
    ]


def _stage_done(name: str, making: Making) -> str | None:
    stage = making.stage(name)
    if _marks(making).get(name) != stage_digest(stage):
        return None
    if any(unmet(making.kube(), condition) is not None for condition in stage.conditions):
        return None
    return "is in, and every condition holds"


def _marks(making: Making) -> dict[str, str]:
    found = making.kube().get("ConfigMap", MARKS_NAMESPACE, MARKS_NAME) or {}
    return dict(found.get("data") or {})


def _take_stage(name: str, making: Making, watch: Watch) -> None:
    stage = making.stage(name)
    for piece in stage.pieces:
        _put_in(making, watch, piece)
    for condition in stage.conditions:
        _await(making, watch, condition)
    _mark(making, watch, name, stage_digest(stage))


def _mark(making: Making, watch: Watch, name: str, digest: str) -> None:
    marks = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": MARKS_NAME, "namespace": MARKS_NAMESPACE, "labels": dict(MANAGED_BY_LABELS)},
        "data": {**_marks(making), name: digest},
    }
    _apply(making, watch, marks)


def _await(making: Making, watch: Watch, condition: Condition) -> None:
    watch.wait_for(str(condition), lambda: unmet(making.kube(), condition), condition.within_s)


def _put_in(making: Making, watch: Watch, piece: Piece) -> None:
    if isinstance(piece, Chart):
        _install(making, watch, piece)
    elif isinstance(piece, RemoteManifest):
        for thing in _documents_of(making, watch, piece):
            _apply(making, watch, labelled(thing))
    else:
        assert isinstance(piece, Objects)
        for thing in piece.objects:
            _apply(making, watch, thing)


def _apply(making: Making, watch: Watch, thing: Mapping[str, Any]) -> None:
    """Applied again while it is refused for a reason that passes: a kind that is not served yet, a webhook whose pod
    is not up yet. What the server finds wrong with the object itself is raised at once."""

    def refused() -> str | None:
        try:
            making.kube().apply(thing)
        except KubeRefused as error:
            if error.status is not None and error.status < 500 and error.status not in _PASSING:
                raise
            return str(error)
        return None

    watch.wait_for(f"the server to take {identity_of(thing)}", refused)


def _documents_of(making: Making, watch: Watch, manifest: RemoteManifest) -> list[dict[str, Any]]:
    here = making.folder / "manifests" / f"{manifest.name}.yaml" if making.folder is not None else None
    if here is not None and here.is_file():
        content = here.read_bytes()
        source = str(here)
    else:
        watch.say(f"fetching {manifest.url}")
        content, source = making.kit.fetch(manifest.url, min(FETCH_WITHIN_S, watch.left_s)), manifest.url
    sha256 = hashlib.sha256(content).hexdigest()
    if manifest.sha256 is not None and sha256 != manifest.sha256:
        raise LabUnavailable(f"{source}: its sha256 is {sha256}, and {manifest.sha256} is pinned; it is not applied")
    return [thing for thing in yaml.safe_load_all(content) if thing]


def _install(making: Making, watch: Watch, chart: Chart) -> None:
    watch.say(f"helm installs {chart.release}")
    values = making.state.put(f"values/{chart.release}.yaml", yaml.safe_dump(chart.values, sort_keys=True))
    _heal_release(making, watch, chart)
    making.tools.run(
        "helm",
        *("upgrade", "--install", chart.release, *_chart_source(making, chart)),
        *("--namespace", chart.namespace, "--create-namespace"),
        *("--values", str(values), "--timeout", f"{int(watch.left_s)}s"),
        *_helm_place(making),
        within_s=watch.left_s,
        log=making.words(f"helm-{chart.release}"),
        environment=_helm_environment(making),
    )


def _chart_source(making: Making, chart: Chart) -> list[str]:
    if making.folder is not None:
        name = chart.chart.rpartition("/")[2]
        unpacked = making.folder / "charts" / name / chart.version
        packed = making.folder / "charts" / f"{name}-{chart.version}.tgz"
        for place in (unpacked, packed):
            if place.exists():
                return [str(place)]
        raise LabUnavailable(f"chart {name} {chart.version}: neither {unpacked} nor {packed} is there; put it there")
    return [chart.chart, "--version", chart.version, *(["--repo", chart.repo] if chart.repo else [])]


def _heal_release(making: Making, watch: Watch, chart: Chart) -> None:
    """A helm that was killed leaves its release pending, and every later helm refuses it. Nobody else works on this
    cluster (it is locked), so what is pending is nobody's."""
    place = ["--namespace", chart.namespace, *_helm_place(making)]
    run = partial(making.tools.run, "helm", within_s=watch.left_s, environment=_helm_environment(making))
    try:
        status = json.loads(run("status", chart.release, "--output", "json", *place).stdout)["info"]["status"]
    except ToolFailed as error:
        if "not found" in error.said:
            return
        raise
    if status.startswith("pending-") or status in _PENDING:
        watch.say(f"release {chart.release} was left {status}; that is undone first")
        run(_PENDING.get(status, "rollback"), chart.release, *place)


def _helm_place(making: Making) -> list[str]:
    return ["--kubeconfig", str(making.state.kubeconfig)]


def _helm_environment(making: Making) -> dict[str, str]:
    """The user's own repositories, plugins and credentials stay out of it."""
    home = making.state.directory / "helm"
    return {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}


# Health


def _health_step() -> Step[Making]:
    return Step(
        "health",
        "the stack keeps its own promises",
        300,
        lambda making: None,
        _look_at_health,
        ("the chained CNI file, Cilium's settings, HBONE, address, Gateway and waypoint are looked at",),
    )


def _look_at_health(making: Making, watch: Watch) -> None:
    """Looked at again for a while: a route that is programmed answers a moment later."""
    watch.wait_for("a healthy stack", lambda: "\n".join(making.kit.health(making)) or None)
    record = making.state.read()
    if record is not None:
        making.state.write(Record(record.name, record.choice, record.begun_wall_s, int(making.kit.wall_s())))


# When a step fails


def collect(making: Making, step: Step[Making], error: HarnessError) -> Path | None:
    """Whatever can explain a failure, in a directory of its own; None before there was anything to collect from."""
    if step.name == PREFLIGHT:
        return None  # nothing was done yet, and machines of that name may be somebody else's
    machines: tuple[Container, ...] = ()
    with suppress(LabUnavailable):
        machines = making.containers()
    if not machines:
        return making.state.directory if (making.state.directory / "words").is_dir() else None
    place = _fresh_directory(making.state.directory / "failures", step.name)
    (place / "error.txt").write_text(f"{error}\n", encoding="utf-8")
    for work in (_collect_objects, _collect_logs):
        try:
            work(making, place)
        except HarnessError as second:
            (place / f"not-collected{work.__name__}.txt").write_text(f"{second}\n", encoding="utf-8")
    return place


def _fresh_directory(parent: Path, name: str) -> Path:
    number = 1
    while (place := parent / f"{name}-{number}").exists():
        number += 1
    place.mkdir(parents=True)
    return place


def _collect_objects(making: Making, place: Path) -> None:
    if not making.state.kubeconfig.is_file():
        return
    for kind in ("Node", "Pod", "Event", "Deployment", "DaemonSet", "Service"):
        found = making.kube().all(kind)
        (place / f"{kind.lower()}s.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def _collect_logs(making: Making, place: Path) -> None:
    target = str(place / "kind")
    making.tools.run("kind", "export", "logs", target, "--name", making.name, within_s=EXPORT_LOGS_WITHIN_S)
