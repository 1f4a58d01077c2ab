"""Images of ours (clusters/helper/, clusters/fixes/wake-guard/): no registry has them, so they are built.

A step of bringing a cluster up, taken when a run asks for it: built in the engine by the Dockerfile of this repository,
which copies a few files onto a plain Python image, and put into every node. The tag that a manifest names is completed
by a digest of those files, so that no node goes on with an image of sources that are gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import LabUnavailable
from harness.labs.kind.images import full_reference, images_in, load_one
from harness.labs.kind.making import Making, node_names
from harness.labs.kind.steps import Step, Watch
from harness.labs.kind.tools import ToolFailed

REPOSITORY = Path(__file__).parents[3]
_WITHIN_S = 900


@dataclass(frozen=True)
class OwnImage:
    """One of them. `what` it is, for messages; `manifest` is the file whose DaemonSet names it."""

    name: str
    what: str
    dockerfile: Path
    manifest: Path

    @property
    def named(self) -> str:
        """As the DaemonSet names it."""
        text = (REPOSITORY / self.manifest).read_text(encoding="utf-8")
        (image,) = {image for thing in yaml.safe_load_all(text) for image in _images_of(thing)}
        return image

    @property
    def reference(self) -> str:
        """As it is built here and now."""
        digest = hashlib.sha256()
        for file in (self.dockerfile, *self.sources()):
            digest.update(f"{file}\0".encode() + (REPOSITORY / file).read_bytes() + b"\0")
        return f"{self.named}-{digest.hexdigest()[:12]}"

    def sources(self) -> list[Path]:
        """What its Dockerfile copies, below the repository. Raises LabUnavailable where that is not all there."""
        path = REPOSITORY / self.dockerfile
        if not path.is_file():
            raise LabUnavailable(f"{path}: is not there; building {self.what} needs a copy of the repository")
        lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        copied = [REPOSITORY / word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
        files = [file for each in copied for file in (sorted(each.glob("*.py")) if each.is_dir() else [each])]
        return [file.relative_to(REPOSITORY) for file in files]

    @property
    def build(self) -> str:
        """What a person types to build it, from the root of the repository."""
        return f"docker build --file {self.dockerfile} --tag {self.reference} ."


HELPER = OwnImage(
    "helper",
    "the helper that moves clocks",
    Path("clusters/helper/Dockerfile"),
    Path("clusters/helper/daemonset.yaml"),
)
GUARD = OwnImage(
    "guard",
    "the wake guard",
    Path("clusters/fixes/wake-guard/Dockerfile"),
    Path("clusters/fixes/wake-guard/daemonset.yaml"),
)


def with_own_images(objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`objects`, with our images by the names under which they are built; another's image stays as it is named."""
    built = {image.named: image.reference for image in (HELPER, GUARD)}
    return [_renamed(thing, built) for thing in objects]


def own_images_in(objects: Iterable[Mapping[str, Any]]) -> tuple[OwnImage, ...]:
    """Those that `objects` name."""
    named = {image for thing in objects for image in _images_of(thing)}
    return tuple(image for image in (HELPER, GUARD) if image.named in named)


def _renamed(thing: Any, built: Mapping[str, str]) -> Any:
    if isinstance(thing, Mapping):
        return {
            key: built.get(value, value) if key == "image" else _renamed(value, built) for key, value in thing.items()
        }
    return [_renamed(each, built) for each in thing] if isinstance(thing, list) else thing


def _images_of(thing: Mapping[str, Any]) -> Iterator[str]:
    pod = (((thing or {}).get("spec") or {}).get("template") or {}).get("spec") or {}
    yield from (str(container.get("image")) for container in pod.get("containers") or ())


def own_image_step(image: OwnImage) -> Step[Making]:
    """The step that builds `image` and puts it into every node."""
    return Step(
        image.name,
        f"{image.what}, built and in every node",
        _WITHIN_S,
        lambda making: _done(making, image),
        lambda making, watch: _provide(making, watch, image),
        (image.build, "docker save and kind load image-archive, for that image"),
    )


def _done(making: Making, image: OwnImage) -> str | None:
    wanted = full_reference(image.reference)
    there = [wanted in images_in(making.engine, node) for node in node_names(making.choice, making.pins)]
    return f"{image.reference} is in every node" if all(there) else None


def _provide(making: Making, watch: Watch, image: OwnImage) -> None:
    if making.engine.missing_images([image.reference]):
        _build(making, watch, image)
    watch.say(f"loading {image.reference} into the nodes")
    load_one(making, watch, image.reference)


def _build(making: Making, watch: Watch, image: OwnImage) -> None:
    watch.say(f"building {image.reference}")
    build = ["build", "--file", str(REPOSITORY / image.dockerfile), "--tag", image.reference, str(REPOSITORY)]
    try:
        making.tools.run("docker", *build, within_s=watch.left_s, log=making.words(f"build-{image.name}"))
    except ToolFailed as error:
        raise LabUnavailable(
            f"the image of {image.what} could not be built: {error}; it needs a Python image as its base: another than "
            f"that of {image.dockerfile} is named by --build-arg BASE=..., by hand: "
            f"{image.build.removesuffix(' .')} --build-arg BASE=IMAGE ."
        ) from error
