"""The image of the helper that moves clocks of programs (clusters/helper/): no registry has it, so it is built.

A step of bringing a cluster up, taken when a run asks for `--clock process`: built in the engine by the Dockerfile of
this repository, which copies six files onto a plain Python image, and put into every node. Its tag is that of the
helper's protocol and sources; whoever changes them changes the tag in clusters/helper/daemonset.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import LabUnavailable
from harness.labs.kind.images import full_reference, images_in, load_one
from harness.labs.kind.making import Making, node_names
from harness.labs.kind.steps import Step, Watch
from harness.labs.kind.tools import ToolFailed
from harness.stack.pieces import read_objects

REPOSITORY = Path(__file__).parents[3]
DOCKERFILE = Path("clusters/helper/Dockerfile")
_WITHIN_S = 900


def helper_image() -> str:
    """As the DaemonSet names it."""
    (daemon_set,) = [thing for thing in read_objects("helper", "daemonset.yaml") if thing["kind"] == "DaemonSet"]
    containers: list[dict[str, Any]] = daemon_set["spec"]["template"]["spec"]["containers"]
    (image,) = {str(container["image"]) for container in containers}
    return image


def helper_step() -> Step[Making]:
    """The step."""
    return Step(
        "helper",
        "the helper that moves clocks, built and in every node",
        _WITHIN_S,
        _done,
        _provide,
        (
            f"docker build --file {DOCKERFILE} --tag {helper_image()} .",
            "docker save and kind load image-archive, for that image",
        ),
    )


def _done(making: Making) -> str | None:
    wanted = full_reference(helper_image())
    there = [wanted in images_in(making.engine, node) for node in node_names(making.choice, making.pins)]
    return f"{helper_image()} is in every node" if all(there) else None


def _provide(making: Making, watch: Watch) -> None:
    image = helper_image()
    if making.engine.missing_images([image]):
        _build(making, watch, image)
    watch.say(f"loading {image} into the nodes")
    load_one(making, watch, image)


def _build(making: Making, watch: Watch, image: str) -> None:
    if not (REPOSITORY / DOCKERFILE).is_file():
        raise LabUnavailable(f"{REPOSITORY / DOCKERFILE}: is not there; --clock process needs a copy of the repository")
    watch.say(f"building {image}")
    build = ["build", "--file", str(REPOSITORY / DOCKERFILE), "--tag", image, str(REPOSITORY)]
    try:
        making.tools.run("docker", *build, within_s=watch.left_s, log=making.words("build-helper"))
    except ToolFailed as error:
        raise LabUnavailable(
            f"the helper's image could not be built: {error}; it needs a Python image as its base: another than that "
            f"of {DOCKERFILE} is named by --build-arg BASE=..., by hand: docker build --build-arg BASE=IMAGE --file "
            f"{DOCKERFILE} --tag {image} ."
        ) from error
