"""Images: in the engine, from a folder of archives or pulled, and from there in every node."""

from __future__ import annotations

import hashlib
from pathlib import Path

from packaging.version import Version

from harness.errors import LabUnavailable
from harness.labs.kind.making import Making, node_names
from harness.labs.kind.steps import Step, Watch
from harness.labs.kind.tools import ToolFailed
from harness.stack.choice import Choice
from harness.stack.pins import Pins
from harness.stack.render import images, node_image


def wanted_images(choice: Choice, pins: Pins) -> tuple[str, ...]:
    """Every image that the engine must have, the machines' own first."""
    return tuple(dict.fromkeys([node_image(choice, pins), *images(choice, pins)]))


def images_step(choice: Choice, pins: Pins) -> Step[Making]:
    """The step that brings every image into the engine."""
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


# In the nodes


def nodes_images_step(choice: Choice, pins: Pins) -> Step[Making]:
    """The step that brings every image into every node."""
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
