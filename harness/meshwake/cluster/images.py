"""Images: in the engine, from a folder of archives or pulled, and from there in every node."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from packaging.version import Version

from meshwake.cluster.bring_up_context import BringUpContext, node_names
from meshwake.cluster.docker import Engine, Image, missing_images, room_inside
from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.mirror import is_registry
from meshwake.cluster.stack.pins import Pins
from meshwake.cluster.stack.render import images, node_image
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.cluster.tools import ToolFailed
from meshwake.core.errors import LabUnavailable

_CTR = ("ctr", "--namespace=k8s.io")
# Labels by which containerd knows what a blob refers to.
_CONFIG, _LAYER = "containerd.io/gc.ref.content.config", "containerd.io/gc.ref.content.l."
_SNAPSHOT = "containerd.io/gc.ref.snapshot."
_REFERENCE = re.compile(r"(containerd\.io/gc\.ref\.[\w.-]+)=(sha256:[0-9a-f]{64})")
MIB, GIB = 1024**2, 1024**3
# What an image takes unpacked, as long as the engine has it not and cannot say. Seen: the nine of
# profile core 1.3 GB, the 22 of full 3.9 GB, which is 145 and 177 MB each; the machines' own 1.1
# GB.
IMAGE_BYTES, MACHINE_BYTES = 200 * MIB, 1200 * MIB
# etcd, logs, and what containers write.
NODE_WRITES_BYTES = 512 * MIB


def wanted_images(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """Every image that the engine must have, the machines' own first."""
    return tuple(dict.fromkeys([node_image(choice, pins), *images(choice, pins)]))


def images_step(choice: Choice, pins: Pins) -> BringUpStep[BringUpContext]:
    """The step that brings every image into the engine."""
    wanted = wanted_images(choice, pins)
    return BringUpStep(
        "images",
        f"{len(wanted)} images in the engine",
        3600,
        lambda bringup, watch: fetch_images(bringup, watch, wanted),
        tuple(f"image {reference}" for reference in wanted),
        done=lambda bringup: (
            None if missing_images(bringup.engine, wanted) else f"all {len(wanted)} are there"
        ),
    )


def fetch_images(bringup: BringUpContext, watch: Watch, wanted: tuple[str, ...]) -> None:
    """Loads from the folder what of `wanted` is not in the engine, and pulls what is still missing.
    Raises LabUnavailable that lists what cannot be had."""
    _load_from_folder(bringup, watch, wanted)
    missing = missing_images(bringup.engine, wanted)
    for number, reference in enumerate(missing, start=1):
        watch.say(f"pulling {number} of {len(missing)}: {reference}")
        if watch.elapsed_s > watch.within_s:
            raise LabUnavailable(
                f"pulling took more than {watch.within_s:.0f} s; 'meshwake up' again goes "
                "on from here"
            )
        try:
            bringup.engine.pull(reference)
        except LabUnavailable as error:
            still = missing_images(bringup.engine, wanted)
            raise LabUnavailable(
                _missing_images(reference, error, still, len(wanted), bringup.folder)
            ) from error


def _load_from_folder(bringup: BringUpContext, watch: Watch, wanted: tuple[str, ...]) -> None:
    """Loads into the engine what of `wanted` it lacks and the folder has; no folder, nothing."""
    if bringup.folder is None:
        return
    for archive in sorted((bringup.folder / "images").glob("*.tar*")):
        missing = missing_images(bringup.engine, wanted)
        if not missing:
            break
        # Loading takes long, so only what can help is loaded.
        if may_hold(archive, missing):
            watch.say(f"loading {archive.name}")
            bringup.engine.load_archive(archive)
    for reference in _by_tag_only(bringup, wanted):
        watch.say(
            f"{reference.partition('@')[0]} is taken as it was loaded: an archive has "
            "no digest to compare"
        )


def may_hold(archive: Path, wanted: Iterable[str]) -> bool:
    """Whether an archive (docker save) has one of the images `wanted`; True where it does not list
    what it has."""
    tags = _tags_in(archive)
    if not tags:
        return True

    # An archive lists tags only: the digest of a reference is not in it.
    wanted_tags = {full_reference(reference.partition("@")[0]) for reference in wanted}
    return not tags.isdisjoint(wanted_tags)


def _tags_in(archive: Path) -> set[str]:
    """The images that an archive lists; none where it has no list, or is not an archive at all."""
    tags: set[str] = set()
    try:
        with tarfile.open(archive) as opened:
            listed = json.load(opened.extractfile("manifest.json") or io.BytesIO())
        for entry in listed:
            # null for an image that was saved by its ID alone.
            tags.update(entry["RepoTags"] or ())
        return {full_reference(tag) for tag in tags}
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError):
        return set()


def _by_tag_only(bringup: BringUpContext, wanted: tuple[str, ...]) -> list[str]:
    by_tag = []
    for reference in wanted:
        # Only what is requested by digest: each lookup is a request to the engine.
        if "@" not in reference:
            continue
        image = bringup.engine.image(reference)
        if image is not None and "@" not in image.name:
            by_tag.append(reference)
    return by_tag


def _missing_images(
    reference: str, error: Exception, still: tuple[str, ...], of: int, folder: Path | None
) -> str:
    looked = f" (looked in {folder / 'images'} first)" if folder is not None else ""
    return "\n".join(
        [
            f"{len(still)} of {of} images are not in the engine{looked}, and {reference} "
            f"could not be pulled: {error}",
            *(f"  missing: {one}" for one in still),
            "pull them where there is a network and 'docker save' them into "
            "DIR/images/*.tar, then --folder DIR; "
            "or name a registry that has them: --mirror HOST[:PORT]",
        ]
    )


# Room


def bytes_needed(engine: Engine, choice: Choice, pins: Pins) -> int:
    """What a cluster takes of the engine's disk: images that the engine lacks, and in each node all
    but the machines' own, which all nodes share."""
    wanted = wanted_images(choice, pins)
    missing = missing_images(engine, wanted)
    nodes = len(node_names(choice, pins))
    return _bytes_of(wanted, nodes, missing, partial(_unpacked_bytes, engine))


def most_bytes_needed(choice: Choice, pins: Pins) -> int:
    """The same, of an engine that has no image yet."""
    wanted = wanted_images(choice, pins)
    nodes = len(node_names(choice, pins))
    return _bytes_of(wanted, nodes, wanted, lambda reference: IMAGE_BYTES)


def _bytes_of(
    wanted: Sequence[str],
    nodes: int,
    missing: Sequence[str],
    unpacked_bytes: Callable[[str], int],
) -> int:
    """`wanted` as from `wanted_images`, which reads every manifest of the stack."""
    machine, *in_nodes = wanted
    in_engine = 0
    for image in missing:
        in_engine += MACHINE_BYTES if image == machine else IMAGE_BYTES

    in_node = NODE_WRITES_BYTES + _bytes_in_node(in_nodes, unpacked_bytes)
    return in_engine + nodes * in_node


def _bytes_in_node(references: Sequence[str], unpacked_bytes: Callable[[str], int]) -> int:
    """Each image lies there unpacked; the one that is loaded just now lies there a second time, as
    layers."""
    sizes_bytes = [unpacked_bytes(reference) for reference in references]
    return sum(sizes_bytes) + max(sizes_bytes, default=0)


def _unpacked_bytes(engine: Engine, reference: str) -> int:
    image = engine.image(reference)
    return IMAGE_BYTES if image is None else image.size_bytes


def free_bytes(engine: Engine, machine: Image | None) -> int | None:
    """Room where the engine keeps images and nodes; None when neither this machine nor a container
    can say."""
    free = engine.free_disk_bytes()
    if free is not None or machine is None:
        return free

    # The engine runs in a virtual machine: a container sees the disk that this one cannot.
    return room_inside(engine, machine.name)


def _check_room(bringup: BringUpContext, missing: Sequence[str]) -> None:
    """Before the first of them: a disk that runs full ends every node at once."""
    needed = len(node_names(bringup.choice, bringup.pins)) * _bytes_in_node(
        missing, partial(_unpacked_bytes, bringup.engine)
    )
    free = free_bytes(bringup.engine, machine_image(bringup.engine, bringup.choice, bringup.pins))
    if free is not None and free < needed:
        raise LabUnavailable(
            f"the engine has {free / GIB:.1f} GiB of disk free, and {len(missing)} images "
            "in every node take "
            f"{needed / GIB:.1f} GiB; make room (docker system df shows what takes it)"
        )


# In the nodes


def nodes_images_step(choice: Choice, pins: Pins) -> BringUpStep[BringUpContext]:
    """The step that brings every image into every node."""
    count = len(images(choice, pins))
    return BringUpStep(
        "nodes-images",
        "images in every node",
        1800,
        _load_into_nodes,
        (f"docker save --platform <the engine's> and kind load image-archive, for {count} images",),
        done=lambda bringup: (
            None
            if _not_in_nodes(bringup, images(choice, pins))
            else f"all {count} are in every node"
        ),
    )


def further_images_step(references: tuple[str, ...]) -> BringUpStep[BringUpContext]:
    """The step that puts images into every node that are not the stack's, such as those of a fix,
    as far as the folder or the engine has them. What neither has is left to kubelet to pull when a
    pod needs it: such an image may be private, and the nodes may have a login that the engine has
    not."""
    return BringUpStep(
        "further-images",
        f"{len(references)} images of a run in every node",
        900,
        lambda bringup, watch: _load_further(bringup, watch, references),
        tuple(f"docker save and kind load image-archive, for {name}" for name in references),
        done=lambda bringup: (
            None if _not_in_nodes(bringup, references) else f"{', '.join(references)}: there"
        ),
    )


def _load_further(bringup: BringUpContext, watch: Watch, references: tuple[str, ...]) -> None:
    lacked = _not_in_nodes(bringup, references)
    _load_from_folder(bringup, watch, lacked)
    for reference in lacked:
        if missing_images(bringup.engine, [reference]):
            watch.say(f"{reference} is left to the nodes to pull")
            continue
        watch.say(f"loading {reference} into the nodes")
        load_one(bringup, watch, reference)


def _not_in_nodes(bringup: BringUpContext, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `wanted` that at least one node lacks."""
    nodes = node_names(bringup.choice, bringup.pins)
    there = [images_in(bringup.engine, node) for node in nodes]
    in_every_node = set.intersection(*there)

    # Nodes list every image by its full name, pins and manifests have short ones too.
    return tuple(image for image in wanted if full_reference(image) not in in_every_node)


def images_in(engine: Engine, node: str) -> set[str]:
    """The full names of the images that a node has; none when it does not answer."""
    ended = engine.execute(node, ["crictl", "images", "--output", "json"])
    if ended.code != 0:
        return set()
    try:
        listed = json.loads(ended.stdout)["images"]
    except (ValueError, KeyError):
        return set()

    names: set[str] = set()
    for image in listed:
        # An image whose tag was given to a later one has none.
        names.update(image.get("repoTags") or ())
    return {full_reference(name) for name in names}


def machine_image(engine: Engine, choice: Choice, pins: Pins) -> Image | None:
    """The machines' own image as the engine has it: by its tag alone where it was loaded from an
    archive."""
    return engine.image(node_image(choice, pins))


def _load_into_nodes(bringup: BringUpContext, watch: Watch) -> None:
    missing = _not_in_nodes(bringup, images(bringup.choice, bringup.pins))
    _check_room(bringup, missing)
    for number, reference in enumerate(missing, start=1):
        watch.say(f"{number} of {len(missing)}: {reference}")
        try:
            load_one(bringup, watch, reference)
        except ToolFailed as error:
            if bringup.folder is not None:
                raise
            # With a network nothing is lost: the kubelet pulls what it lacks, only later and once a
            # node.
            first_line = str(error).splitlines()[0]
            watch.say(f"{reference} is left to the nodes to pull: {first_line[:200]}")
        _prune_layers(bringup)


def _prune_layers(bringup: BringUpContext) -> None:
    """An image lies in a node twice, as layers and unpacked, and runs without its layers;
    containerd itself looks for its manifest and configuration only, also when it starts. Where it
    cannot be done, only room is lost."""
    for node in node_names(bringup.choice, bringup.pins):
        ended = bringup.engine.execute(node, [*_CTR, "content", "ls"])
        found = prunable(ended.stdout) if ended.code == 0 else {}
        if not found:
            continue

        # A label without a value is removed, and with it the reference to a layer.
        commands = [
            [*_CTR, "content", "label", blob, *(f"{key}=" for key in keys)]
            for blob, keys in found.items()
        ]
        # A lease that ends collects at once what nothing refers to any more.
        commands.append([*_CTR, "leases", "create", "--id=prune"])
        commands.append([*_CTR, "leases", "rm", "--sync", "prune"])
        script = "; ".join(map(shlex.join, commands))
        bringup.engine.execute(node, ["sh", "-c", script])


def prunable(listed: str) -> dict[str, list[str]]:
    """Of what `ctr content ls` lists: each manifest that refers to layers, and by which labels, of
    an image that has been unpacked. `ctr content prune references` would remove the layers of all
    others too, such as those of kind's own images that no pod has needed yet, and no pod could ever
    start from them."""
    references = _references_in(listed)
    # An image's configuration refers to the snapshot into which it was unpacked.
    unpacked = {blob for blob, found in references.items() if _labels(found, _SNAPSHOT)}

    prunable_labels = {}
    for blob, found in references.items():
        if found.get(_CONFIG) not in unpacked:
            continue
        layers = _labels(found, _LAYER)
        if layers:
            prunable_labels[blob] = layers
    return prunable_labels


def _references_in(listed: str) -> dict[str, dict[str, str]]:
    """blob -> its labels that refer to other blobs, label to digest."""
    references: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():
        if line.strip():
            blob = line.split()[0]
            references[blob] = dict(_REFERENCE.findall(line))
    return references


def _labels(references: Mapping[str, str], prefix: str) -> list[str]:
    return [label for label in references if label.startswith(prefix)]


def load_one(bringup: BringUpContext, watch: Watch, reference: str) -> None:
    """Puts an image of the engine into every node.

    `kind load docker-image` fails with Docker's containerd image store, where an image has layers
    of platforms that are not here (kind#3795). An archive of one platform has not; older engines
    know no --platform and need none."""
    facts = bringup.engine.facts()
    one_platform = []
    if Version(facts.api_version) >= Version("1.48"):
        one_platform = ["--platform", facts.platform]

    here = bringup.engine.image(reference)
    name = reference if here is None else here.name
    archive = bringup.state.directory / "image.tar"

    # The names of its logs; a reference has slashes.
    words = f"load-{hashlib.sha256(reference.encode()).hexdigest()[:12]}"
    try:
        save = ["save", *one_platform, "--output", str(archive), name]
        bringup.run(watch, words, "docker", *save)
        load = ["load", "image-archive", str(archive), "--name", bringup.name]
        bringup.run(watch, words, "kind", *load)
    finally:
        archive.unlink(missing_ok=True)


def full_reference(image: str) -> str:
    """`image` as containerd names it: docker.io/library/busybox:latest for busybox."""
    name, at, digest = image.partition("@")
    first, slash, rest = name.partition("/")

    # The rule of Docker's references: what comes before the first slash is a registry if it has a
    # dot or a port, or is localhost; else all of it is a name on Docker Hub.
    if not slash:
        name = f"docker.io/library/{name}"
        rest = first
    elif not is_registry(first):
        name = f"docker.io/{name}"

    # A colon after the last slash; one before it is that of a port.
    has_tag = ":" in rest.rpartition("/")[2]
    if not at and not has_tag:
        name += ":latest"
    return f"{name}{at}{digest}"
