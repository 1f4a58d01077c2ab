"""Images of ours (harness/meshwake/cluster/stack/own_images.py), built in the engine and put into
every node: a step of bringing up."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from meshwake.cluster.bring_up_context import BringUpContext, node_names
from meshwake.cluster.docker import missing_images
from meshwake.cluster.images import fetch_images, full_reference, images_in, load_one
from meshwake.cluster.stack.mirror import through_mirror
from meshwake.cluster.stack.own_images import OwnImage
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.cluster.tools import ToolFailed
from meshwake.core.errors import LabUnavailable
from meshwake.core.resources import ROOT

_WITHIN_S = 900


def own_image_step(image: OwnImage) -> BringUpStep[BringUpContext]:
    """The step that builds `image` and puts it into every node."""
    return BringUpStep(
        image.name,
        f"{image.what}, built and in every node",
        _WITHIN_S,
        lambda bringup, watch: _provide(bringup, watch, image),
        (image.build, "docker save and kind load image-archive, for that image"),
        done=lambda bringup: _done(bringup, image),
    )


def _done(bringup: BringUpContext, image: OwnImage) -> str | None:
    wanted = full_reference(image.reference)
    nodes = node_names(bringup.choice, bringup.pins)

    # The tag ends with a digest of the sources: an image of older ones has another name.
    if not all(wanted in images_in(bringup.engine, node) for node in nodes):
        return None
    return f"{image.reference} is in every node"


def _provide(bringup: BringUpContext, watch: Watch, image: OwnImage) -> None:
    if missing_images(bringup.engine, [image.reference]):
        _build(bringup, watch, image)
    watch.say(f"loading {image.reference} into the nodes")
    load_one(bringup, watch, image.reference)


def _build(bringup: BringUpContext, watch: Watch, image: OwnImage) -> None:
    # Pulled by us and not by the build, so that --folder and --mirror go for it as well.
    base = through_mirror(image.base, bringup.choice.mirror)
    fetch_images(bringup, watch, (base,))
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
            bringup.run(watch, f"build-{image.name}", "docker", "build", *words, context)
    except ToolFailed as error:
        raise LabUnavailable(
            f"the image of {image.what} could not be built: {error}; it is built on a "
            f"Python image, {base}: another "
            f"is named by hand: {image.build.removesuffix(' harness')} --build-arg "
            "BASE=IMAGE harness"
        ) from error
