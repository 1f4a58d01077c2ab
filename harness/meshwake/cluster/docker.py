"""The container engine, as far as the kind lab needs it: facts, containers, networks, images, a
look inside.

`Engine` is the promise; `DockerEngine` keeps it through the docker SDK, which speaks to whatever
DOCKER_HOST or the current Docker context names. Tests have a simulated one;
tests/conformance/test_engines.py holds both to one body.

An engine that cannot be used is classified by who must act: nothing listens (not installed, or not
started), it listens but refuses us (permission), or it answers with nonsense. All of them are
LabUnavailable.
"""

from __future__ import annotations

import io
import platform
import shutil
import socket
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from meshwake.cluster.real_time import SystemTime, wait_for
from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import (
    JsonObject,
    int_at,
    list_at,
    object_at,
    objects_at,
    text_at,
    texts_at,
)
from meshwake.kubernetes.api import Executed

ANSWER_WITHIN_S = 60
PULL_WITHIN_S = 1800
# A machine ends its pods first; another command may be removing it already.
REMOVED_WITHIN_S = 120
# The SDK wants one before the first request; requests with it carry none.
_ANY_API_VERSION = "1.41"
# What kind labels its containers with (pkg/cluster/internal/providers/docker/constants.go of kind):
# by these labels kind, and we, find the machines of a cluster.
KIND_CLUSTER_LABEL = "io.x-k8s.kind.cluster"
KIND_ROLE_LABEL = "io.x-k8s.kind.role"
# The one network that all kind clusters of an engine share, unless KIND_EXPERIMENTAL_DOCKER_NETWORK
# names another.
KIND_NETWORK = "kind"
# On containers that only answer one question and are gone again.
LOOK_LABEL = "dev.meshwake.look"
# `docker info` has the name of uname -m, images have that of Go (GOARCH).
_OCI_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself."""

    version: str
    api_version: str
    operating_system: str
    architecture: str
    cgroup_version: int
    data_root: str
    cpus: int
    memory_bytes: int
    kernel: str = ""
    host_name: str = ""

    @property
    def platform(self) -> str:
        """The platform of its images, as OCI says it: linux/amd64."""
        return f"linux/{_OCI_ARCHITECTURES.get(self.architecture, self.architecture)}"


@dataclass(frozen=True)
class Container:
    """One container. `state` is the engine's word: created, running, paused, restarting, removing,
    exited, dead."""

    id: str
    name: str
    state: str
    image: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Image:
    """One image that the engine has. `name` is what it finds it by: name@digest where it was
    pulled, name:tag where it was loaded from an archive, which carries no digest; `size_bytes`:
    unpacked."""

    name: str
    id: str
    size_bytes: int


@dataclass(frozen=True)
class DockerNetwork:
    """One network. `ipam`: the engine's list of subnets; `addresses`: those of the containers on
    it, without length."""

    name: str
    ipam: tuple[JsonObject, ...]
    addresses: tuple[str, ...]


class Engine(Protocol):
    """A container engine. Everything raises LabUnavailable when the engine does not answer, or
    refuses."""

    def facts(self) -> EngineFacts:
        """What it says of itself."""

    def containers(self, labels: Mapping[str, str | None]) -> tuple[Container, ...]:
        """All containers, also stopped ones, that carry `labels` (value None: whatever value), by
        name."""

    def network(self, name: str) -> DockerNetwork | None:
        """The network called `name`."""

    def image(self, reference: str) -> Image | None:
        """The image `reference`, by its digest or else by its tag; None when it is not here."""

    def pull(self, reference: str) -> None:
        """Fetches an image from its registry."""

    def load_archive(self, path: Path) -> None:
        """Loads the images of an archive (docker save)."""

    def ask(self, image: str, command: Sequence[str], *, of_machine: bool = False) -> str:
        """What `command` prints in a container of `image`, which must be here; the container is
        gone afterwards. `of_machine`: privileged, and it sees the processes of the engine's
        machine."""

    def execute(self, container: str, command: Sequence[str]) -> Executed:
        """How `command` ended in a running container. The engine sends both streams in pieces, in
        any order: merged, curl's "200" once arrived in the middle of a word of its warning."""

    def read_file(self, container: str, path: str) -> str | None:
        """The text of a file in a container, whether or not that runs; None when there is none."""

    def start(self, container: str) -> None:
        """Makes a container run that was stopped or paused."""

    def remove(self, container: str) -> None:
        """Ends and removes a container with its volumes; nothing to do when there is none."""

    def free_disk_bytes(self) -> int | None:
        """Room where the engine keeps images; None when this machine cannot see that place
        (`room_inside` can)."""


def missing_images(engine: Engine, references: Iterable[str]) -> tuple[str, ...]:
    """Those of `references` that the engine has not, in their order."""
    missing = [reference for reference in references if engine.image(reference) is None]
    return tuple(missing)


def name_in_engine(engine: Engine, reference: str) -> str:
    """The name by which the engine finds an image that it has: `reference` itself, or its tag alone
    where it was loaded from an archive, which has no digest."""
    image = engine.image(reference)
    if image is None or "@" in image.name:
        return reference
    return image.name


def room_inside(engine: Engine, image: str) -> int | None:
    """Free bytes of the file system that containers of `image` are written to."""
    output = engine.ask(image, ["df", "-Pk", "/"])
    # POSIX df: filesystem, 1024-blocks, used, available, capacity, mounted on.
    last_line = output.strip().splitlines()[-1]
    fields = last_line.split()
    if len(fields) < 6 or not fields[3].isdigit():
        return None
    return int(fields[3]) * 1024


def open_engine() -> DockerEngine:
    """The engine that DOCKER_HOST or the current Docker context names, once it has answered."""
    try:
        version = _answering_version()
        return DockerEngine(docker.from_env(timeout=ANSWER_WITHIN_S, version=version))
    except (DockerException, requests.RequestException, OSError, KeyError) as error:
        raise _unusable(error, None) from error


def _answering_version() -> str:
    """The version of the API that it speaks. Requested step by step, since the SDK leaves a socket
    open that fails."""
    client = docker.from_env(timeout=ANSWER_WITHIN_S, version=_ANY_API_VERSION)
    try:
        # Of a local engine the path of its socket: connected to first, and closed here.
        path = getattr(getattr(client.api, "_custom_adapter", None), "socket_path", None)
        if path is not None:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(ANSWER_WITHIN_S)
                probe.connect(path)
        return str(client.api.version(api_version=False)["ApiVersion"])
    finally:
        client.close()


class DockerEngine:
    """`Engine` through the docker SDK."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self._client.api.base_url).replace("http+docker://localhost", "the local socket")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def facts(self) -> EngineFacts:
        """As `Engine.facts` promises."""
        with self._answering():
            return facts_of(self._client.info(), self._client.version())

    def containers(self, labels: Mapping[str, str | None]) -> tuple[Container, ...]:
        """As `Engine.containers` promises."""
        # Docker filters by a label alone, whatever its value, or by label and value.
        wanted = []
        for name, value in labels.items():
            wanted.append(name if value is None else f"{name}={value}")
        with self._answering():
            found = self._client.api.containers(all=True, filters={"label": wanted})
            return containers_of(found)

    def network(self, name: str) -> DockerNetwork | None:
        """As `Engine.network` promises."""
        with self._answering():
            try:
                return network_of(self._client.api.inspect_network(name))
            except NotFound:
                return None

    def image(self, reference: str) -> Image | None:
        """As `Engine.image` promises."""
        # By digest, as it was pulled; then by tag, as it was loaded from an archive.
        for name in dict.fromkeys((without_tag(reference), reference.partition("@")[0])):
            with self._answering(), suppress(ImageNotFound):
                found = self._client.api.inspect_image(name)  # type: ignore[no-untyped-call]
                return Image(name, str(found["Id"]), int(found["Size"]))
        return None

    def pull(self, reference: str) -> None:
        """As `Engine.pull` promises."""
        with self._answering(), self._patient(PULL_WITHIN_S):
            self._client.api.pull(without_tag(reference))
        if self.image(reference) is None:
            raise LabUnavailable(
                f"{reference}: was pulled, but the engine does not have it now; pull it by hand"
            )

    def load_archive(self, path: Path) -> None:
        """As `Engine.load_archive` promises."""
        with self._answering(), self._patient(PULL_WITHIN_S), path.open("rb") as archive:
            self._client.images.load(archive)

    def ask(self, image: str, command: Sequence[str], *, of_machine: bool = False) -> str:
        """As `Engine.ask` promises."""
        with self._answering():
            host = self._client.api.create_host_config(
                privileged=of_machine, pid_mode="host" if of_machine else None
            )
            here = self.image(image)
            made = self._client.api.create_container(
                without_tag(image) if here is None else here.name,
                entrypoint=list(command[:1]),
                command=list(command[1:]),
                # So that one which a killed harness left is found and removed (remove_looks).
                labels={LOOK_LABEL: "true"},
                network_disabled=True,
                host_config=host,
            )
            try:
                self._client.api.start(made["Id"])
                self._client.api.wait(made["Id"], timeout=ANSWER_WITHIN_S)
                return bytes(self._client.api.logs(made["Id"])).decode(errors="replace")
            finally:
                self.remove(made["Id"])

    def execute(self, container: str, command: Sequence[str]) -> Executed:
        """As `Engine.execute` promises."""
        with self._answering():
            made = self._client.api.exec_create(container, list(command))
            streams = self._client.api.exec_start(made["Id"], demux=True)
            # Known only now: exec_start returns when both streams have ended.
            code = int(self._client.api.exec_inspect(made["Id"])["ExitCode"])

        # None: nothing was written to that stream.
        stdout, stderr = ((stream or b"").decode(errors="replace") for stream in streams)
        return Executed(code, stdout, stderr)

    def read_file(self, container: str, path: str) -> str | None:
        """As `Engine.read_file` promises."""
        with self._answering():
            try:
                packed, _ = self._client.api.get_archive(container, path)
            except NotFound:
                return None
            # The engine hands out a tar archive with one member.
            with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as archive:
                file = archive.extractfile(archive.getmembers()[0])
                return None if file is None else file.read().decode(errors="replace")

    def start(self, container: str) -> None:
        """As `Engine.start` promises."""
        with self._answering():
            if self._client.api.inspect_container(container)["State"]["Paused"]:
                self._client.api.unpause(container)
            else:
                self._client.api.start(container)

    def remove(self, container: str) -> None:
        """As `Engine.remove` promises."""

        def look() -> str | None:
            try:
                self._client.api.remove_container(container, force=True, v=True)
            except NotFound:
                return None
            except APIError as error:
                # 409: another command is removing it just now. It is gone when that is done.
                is_being_removed = "already in progress" in str(error.explanation)
                if error.status_code == HTTPStatus.CONFLICT and is_being_removed:
                    return str(error.explanation)
                raise
            return None

        with self._answering():
            wait_for(
                f"{container} to be removed",
                SystemTime(),
                REMOVED_WITHIN_S,
                look,
                failed=LabUnavailable,
            )

    def free_disk_bytes(self) -> int | None:
        """As `Engine.free_disk_bytes` promises."""
        facts = self.facts()
        root = Path(facts.data_root)

        # A path of another machine may exist here as well, on another disk.
        if not is_on_this_machine(facts):
            return None
        try:
            return shutil.disk_usage(root).free if root.is_dir() else None
        except OSError:
            return None

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (DockerException, requests.RequestException, OSError) as error:
            raise _unusable(error, self.address) from error

    @contextmanager
    def _patient(self, within_s: int) -> Iterator[None]:
        # The SDK has one timeout for all requests; that of a pull would be too long for the others.
        usual, self._client.api.timeout = self._client.api.timeout, within_s
        try:
            yield
        finally:
            self._client.api.timeout = usual


def is_on_this_machine(facts: EngineFacts) -> bool:
    """Whether an engine runs here, and not in a virtual machine or elsewhere: Docker Desktop, Lima
    and others listen on a local socket too, but their machine has another name or kernel. A sign,
    and no proof (clocks/movers/own_clock.py has proofs)."""
    here = platform.uname()
    return (facts.host_name, facts.kernel) == (here.node, here.release)


def without_tag(reference: str) -> str:
    """`reference` without its tag when it has a digest too: the engine knows name:tag or
    name@digest, not both."""
    name, at, digest = reference.partition("@")
    if not at:
        return reference

    # Only the last part may have a tag: registry:5000/image has a port.
    directory, slash, last = name.rpartition("/")
    return f"{directory}{slash}{last.partition(':')[0]}@{digest}"


def facts_of(info: JsonObject, version: JsonObject) -> EngineFacts:
    """The facts in the engine's own answers to /info and /version."""
    return EngineFacts(
        version=str(info["ServerVersion"]),
        api_version=str(version["ApiVersion"]),
        operating_system=str(info["OperatingSystem"]),
        architecture=str(info["Architecture"]),
        cgroup_version=int(text_at(info, "CgroupVersion") or 1),
        data_root=str(info["DockerRootDir"]),
        cpus=int_at(info, "NCPU"),
        memory_bytes=int_at(info, "MemTotal"),
        kernel=str(info.get("KernelVersion", "")),
        host_name=str(info.get("Name", "")),
    )


def containers_of(listed: Iterable[JsonObject]) -> tuple[Container, ...]:
    """The containers in the engine's own answer to /containers/json."""
    found = [
        Container(
            id=text_at(entry, "Id"),
            name=_name_of(entry),
            state=text_at(entry, "State"),
            image=text_at(entry, "Image"),
            labels=texts_at(entry, "Labels"),
        )
        for entry in listed
    ]
    return tuple(sorted(found, key=lambda container: container.name))


def _name_of(entry: JsonObject) -> str:
    """Its first name; its short id where it has none."""
    names = list_at(entry, "Names")
    # The API writes a slash before each name.
    return str(names[0]).removeprefix("/") if names else text_at(entry, "Id")[:12]


def network_of(inspected: JsonObject) -> DockerNetwork:
    """The network in the engine's own answer to /networks/NAME."""
    addresses = []
    for end in object_at(inspected, "Containers").values():
        for family in ("IPv4Address", "IPv6Address"):
            # With the length of the network's prefix; "" where it has none of the family.
            address = text_at(end, family).partition("/")[0]
            if address:
                addresses.append(address)
    config = tuple(objects_at(inspected, "IPAM", "Config"))
    return DockerNetwork(text_at(inspected, "Name"), config, tuple(addresses))


def _unusable(error: BaseException, address: str | None) -> LabUnavailable:
    """Who must act, from the innermost reason that an SDK error carries."""
    where = address or "the address that DOCKER_HOST or the Docker context names"

    # The SDK wraps what requests wraps of what urllib3 wraps: only an error of the system has a
    # number.
    reason: OSError | None = None
    is_late = False
    for inner in _chain(error):
        if reason is None and isinstance(inner, OSError) and inner.errno:
            reason = inner
        # A timeout has another class in each of the three libraries.
        if "timed out" in str(inner).lower():
            is_late = True

    if isinstance(reason, PermissionError):
        return LabUnavailable(
            f"docker: permission denied at {where}; let this user use it "
            "(Linux: add the user to the group docker and log in again), or choose --lab process"
        )
    if isinstance(reason, FileNotFoundError):
        return LabUnavailable(
            f"docker: nothing listens at {where}; install Docker, start it, or set "
            "DOCKER_HOST; or choose --lab process"
        )
    if isinstance(reason, ConnectionRefusedError):
        return LabUnavailable(
            f"docker: {where} refuses connections: the engine is not running; start Docker"
        )

    if isinstance(error, APIError):
        return LabUnavailable(f"docker: the engine refused: {error.explanation or error}")
    if is_late:
        return LabUnavailable(
            f"docker: no answer from {where} in time; is the engine overloaded or hung?"
        )
    return LabUnavailable(f"docker: cannot be used at {where}: {error}; try 'docker info'")


def _chain(error: BaseException) -> list[BaseException]:
    """`error` and all that it was raised from or carries as an argument, innermost last, each
    once."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        inner = waiting.pop()
        if not isinstance(inner, BaseException):
            continue
        # By identity: a chain may come back to an error that it has passed.
        if any(inner is old for old in seen):
            continue
        seen.append(inner)

        # `reason` is where urllib3 keeps it.
        waiting += [inner.__cause__, inner.__context__]
        waiting += inner.args
        waiting.append(getattr(inner, "reason", None))
    return seen
