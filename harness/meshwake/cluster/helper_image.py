"""Images of ours (harness/meshwake/cluster/stack/own_images.py), built in the engine and put into
every node: a step of bringing up."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from meshwake.cluster.docker import missing_images
from meshwake.cluster.images import fetch_images, full_reference, images_in, load_one
from meshwake.cluster.making import Making, node_names
from meshwake.cluster.stack.mirror import through_mirror
from meshwake.cluster.stack.own_images import OwnImage
from meshwake.cluster.steps import Step, Watch
from meshwake.cluster.tools import ToolFailed
from meshwake.core.errors import LabUnavailable
from meshwake.core.resources import ROOT

_WITHIN_S = 900


def own_image_step(image: OwnImage) -> Step[Making]:
    """The step that builds `image` and puts it into every node."""
    return Step(
        image.name,
        f"{image.what}, built and in every node",
        _WITHIN_S,
        lambda making, watch: _provide(making, watch, image),
        (image.build, "docker save and kind load image-archive, for that image"),
        done=lambda making: _done(making, image),
    )


def _done(making: Making, image: OwnImage) -> str | None:
    wanted = full_reference(image.reference)
    there = [
        wanted in images_in(making.engine, node) for node in node_names(making.choice, making.pins)
    ]
    return f"{image.reference} is in every node" if all(there) else None


def _provide(making: Making, watch: Watch, image: OwnImage) -> None:
    if missing_images(making.engine, [image.reference]):
        _build(making, watch, image)
    watch.say(f"loading {image.reference} into the nodes")
    load_one(making, watch, image.reference)


def _build(making: Making, watch: Watch, image: OwnImage) -> None:
    base = through_mirror(image.base, making.choice.mirror)
    fetch_images(making, watch, (base,))
    watch.say(f"building {image.reference}")
    words = [
        "--file",
        str(ROOT / image.dockerfile),
        "--tag",
        image.reference,
        "--build-arg",
        f"BASE={base}",
    ]
    try:
        with TemporaryDirectory(prefix="meshwake-image-") as context:
            image.write_context(Path(context))
            making.run(watch, f"build-{image.name}", "docker", "build", *words, context)
    except ToolFailed as error:
        raise LabUnavailable(
            f"the image of {image.what} could not be built: {error}; it is built on a "
            f"Python image, {base}: another "
            f"is named by hand: {image.build.removesuffix(' harness')} --build-arg "
            "BASE=IMAGE harness"
        ) from error
