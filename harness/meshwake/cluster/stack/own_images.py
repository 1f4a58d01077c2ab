"""Images of ours (clusters/helper/, clusters/fixes/wake-guard/): no registry has them, so they are
built.

Each is built by a Dockerfile that copies a few files of the package onto a plain Python image. The
tag that a manifest names is completed by a digest of those files, so that no node goes on with an
image of sources that are gone.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwake.cluster.stack.pieces import image_references, read_objects, with_containers
from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject
from meshwake.core.resources import ROOT, SOURCES

LOCAL = "localhost/meshwake"


@dataclass(frozen=True)
class OwnImage:
    """One of them. `what` it is, for messages; `manifest` is the file below clusters/ whose
    DaemonSet names it."""

    name: str
    what: str
    dockerfile: Path
    manifest: tuple[str, ...]

    @property
    def named(self) -> str:
        """As the DaemonSet names it."""
        (image,) = image_references(read_objects(*self.manifest))
        return image

    @property
    def is_published(self) -> bool:
        """Whether the DaemonSet names it by the digest that a release gave it."""
        return "@sha256:" in self.named

    @property
    def reference(self) -> str:
        """As it is built here and now: under a name that is in no registry."""
        # Names and contents, each ended by a NUL, so that no two sets of files look alike.
        digest = hashlib.sha256(self._text().encode())
        for file in self.sources():
            digest.update(f"{file}\0".encode() + (SOURCES / file).read_bytes() + b"\0")
        tagged = self.named.partition("@")[0]
        local = f"{LOCAL}/{tagged.rpartition('/')[2]}"
        return f"{local}-{digest.hexdigest()[:12]}"

    @property
    def base(self) -> str:
        """The image that it is built on, unless another is named by --build-arg BASE."""
        (base,) = re.findall(r"^ARG BASE=(\S+)$", self._text(), re.MULTILINE)
        return str(base)

    def sources(self) -> list[Path]:
        """What its Dockerfile copies from its context, which has the package in it. Raises
        LabUnavailable."""
        files: list[Path] = []
        for copied in self._copied():
            files += _files_of(copied)
        return [file.relative_to(SOURCES) for file in files]

    def _copied(self) -> Iterator[Path]:
        """The operands of COPY; what is copied from another stage is none of ours."""
        # A line that ends with a backslash goes on in the next.
        text = self._text().replace("\\\n", " ")
        for line in text.splitlines():
            is_ours = line.startswith("COPY ") and "--from=" not in line
            if not is_ours:
                continue
            # COPY SOURCE ... DESTINATION
            _, *operands, _ = line.split()
            for operand in operands:
                yield SOURCES / operand

    def write_context(self, place: Path) -> None:
        """Copies what the image is built from to `place`: an installed package lies among all
        others."""
        for file in self.sources():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(SOURCES / file, place / file)

    def _text(self) -> str:
        path = ROOT / self.dockerfile
        if not path.is_file():
            raise LabUnavailable(f"{path}: not found; it belongs to meshwake: reinstall meshwake")
        return path.read_text(encoding="utf-8")

    @property
    def build(self) -> str:
        """What a person types to build it, from the root of the repository."""
        return f"docker build --file {self.dockerfile} --tag {self.reference} harness"


HELPER = OwnImage(
    "helper",
    "the helper that moves clocks",
    Path("clusters/helper/Dockerfile"),
    ("helper", "daemonset.yaml"),
)
GUARD = OwnImage(
    "guard",
    "the wake guard",
    Path("clusters/fixes/wake-guard/Dockerfile"),
    ("fixes", "wake-guard", "daemonset.yaml"),
)


def with_own_images(objects: Iterable[JsonObject]) -> list[dict[str, Any]]:
    """`objects`, with our images by the names under which they are built; another's image stays as
    it is named."""
    return [with_containers(thing, _with_own_image) for thing in objects]


def _with_own_image(container: Mapping[str, Any]) -> Mapping[str, Any]:
    for image in (HELPER, GUARD):
        if container.get("image") == image.named:
            return {**container, "image": image.reference}
    return container


def own_images_in(objects: Iterable[JsonObject]) -> tuple[OwnImage, ...]:
    """Those that `objects` name."""
    named = set(image_references(list(objects)))
    ours = [image for image in (HELPER, GUARD) if image.named in named]
    return tuple(ours)


def _files_of(source: Path) -> list[Path]:
    """What COPY takes: a file, or the modules of a folder."""
    if not source.is_dir():
        return [source]
    # In one order on every machine: the digest of an image is made of them.
    return sorted(source.glob("*.py"))
