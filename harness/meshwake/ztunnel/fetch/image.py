"""One file out of an image: its layers are read, and nothing of them is written anywhere but that
one file.

A layer is a tar archive that its author filled; a hostile one names files outside of where it is
unpacked. Here no name of an archive ever becomes a path: the one member that is wanted is copied to
a file that we named. An image with names that lead outside is refused nevertheless, because it is
not what it says.
"""

from __future__ import annotations

import json
import posixpath
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.json_types import JsonObject, object_at, objects_at
from meshwake.ztunnel.fetch.registry import INDEX_TYPES, Blob, blob_of, check_digest

WANTED = "usr/local/bin/ztunnel"
BINARY_BYTES_MAX = 512 * 1024 * 1024
_COPY_BYTES = 1024 * 1024
# As uname -m names them, and as images do (GOARCH).
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The magic number of a Zstandard frame, little-endian 0xFD2FB528 (RFC 8878, 3.1.1): tarfile of
# Python 3.11 cannot read such a layer.
_ZSTD = b"\x28\xb5\x2f\xfd"


def manifest_for(index: JsonObject, architecture: str, where: str) -> Blob:
    """The manifest for this machine out of an index of several."""
    wanted = _ARCHITECTURES.get(architecture, architecture)
    platforms = set()
    for entry in objects_at(index, "manifests"):
        platform = object_at(entry, "platform")
        name = f"{platform.get('os')}/{platform.get('architecture')}"
        if name == f"linux/{wanted}":
            return blob_of(entry, where)
        platforms.add(name)

    made_for = ", ".join(sorted(platforms)) or "nothing"
    raise LabUnavailable(f"{where}: is made for {made_for}, not for linux/{wanted}")


def take_out(layer: IO[bytes], where: str, to: Path) -> bool:
    """Copies the wanted file of one layer to `to`; False when it is not in it. Raises
    LabUnavailable for a layer that cannot be read or names what is outside."""
    found = False
    try:
        with tarfile.open(fileobj=layer, mode="r:*") as archive:
            for member in archive:
                _check_inside(member, where)
                if _inside(member.name) == WANTED:
                    _copy(archive, member, where, to)
                    found = True
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        to.unlink(missing_ok=True)
        raise LabUnavailable(f"{where}: the layer cannot be read ({_why(layer, error)})") from error
    except LabUnavailable:
        to.unlink(missing_ok=True)
        raise
    return found


def _why(layer: IO[bytes], error: Exception) -> str:
    # Where the layer cannot be read again either, the first error says more.
    with suppress(OSError, ValueError):
        layer.seek(0)
        if layer.read(4) == _ZSTD:
            return (
                "it is compressed with zstd, which this Python cannot read; save the image "
                "with docker save"
            )
    return str(error)


def _inside(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _check_inside(member: tarfile.TarInfo, where: str) -> None:
    leads_up = ".." in member.name.split("/")
    if leads_up or member.name.startswith("/"):
        raise LabUnavailable(
            f"{where}: a layer names {member.name!r}, which is outside of the image; it is "
            "not taken. Is this the official image?"
        )


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str, to: Path) -> None:
    source = archive.extractfile(member) if member.isreg() else None
    if source is None:
        raise LabUnavailable(
            f"{where}: {WANTED} is not an ordinary file there; is this the official image?"
        )

    # Before it is copied: a layer of a few bytes may unpack to a full disk.
    if member.size > BINARY_BYTES_MAX:
        raise LabUnavailable(
            f"{where}: {WANTED} has {member.size} bytes; is this the official image?"
        )

    with source, to.open("wb") as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)


def take_out_of_saved(path: Path, architecture: str, to: Path) -> dict[str, str]:
    """Copies the wanted file out of what was saved: `docker save`, an OCI archive, or the binary
    itself. Returns what is known of its origin. Raises BadInput when it is none of these."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise BadInput(
            f"--from {path}: cannot be read ({error.strerror}); give a saved image or a binary"
        ) from error

    # The binary itself, as a build of one's own is.
    if head == b"\x7fELF":
        to.write_bytes(path.read_bytes())
        return {"from": path.name}

    if not tarfile.is_tarfile(path):
        raise BadInput(
            f"--from {path}: is neither a saved image (docker save, OCI archive) nor a "
            "Linux program"
        )

    with tarfile.open(path) as archive:
        saved = _Saved(archive, f"--from {path}")
        layers, known = saved.layers(architecture)
        # From the top: a file of an upper layer hides that of the same name below.
        for layer in reversed(layers):
            with saved.opened(layer) as content:
                if take_out(content, f"--from {path}", to):
                    return known | {"from": path.name, "layer": layer}

    raise BadInput(f"--from {path}: has no {WANTED}; is it the image of ztunnel?")


class _Saved:
    """An image in one tar archive: an OCI layout, or what `docker save` writes (newer ones are
    both)."""

    def __init__(self, archive: tarfile.TarFile, where: str) -> None:
        self._archive, self._where = archive, where
        self._names = {_inside(member.name): member for member in archive.getmembers()}

    def layers(self, architecture: str) -> tuple[list[str], dict[str, str]]:
        """The names of the layers in the archive, lowest first, and what is known of the image."""
        if "index.json" in self._names:
            return self._oci_layers(architecture)
        if "manifest.json" in self._names:
            return self._docker_layers()
        raise BadInput(
            f"{self._where}: is an archive, but no saved image (no index.json, no "
            "manifest.json in it)"
        )

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A part of the archive; checked by digest where its name is one."""
        member = self._names.get(_inside(name))
        content = self._archive.extractfile(member) if member else None
        if content is None:
            raise BadInput(f"{self._where}: names {name}, which is not in it; was it saved whole?")

        with content:
            yield content

    def _read(self, name: str, most: int = 4 * 1024 * 1024) -> bytes:
        with self.opened(name) as content:
            return content.read(most)

    def _oci_layers(self, architecture: str) -> tuple[list[str], dict[str, str]]:
        index = _json(self._read("index.json"), self._where)
        # An index may contain an index, and one that contains itself must end.
        for _ in range(4):
            entries = objects_at(index, "manifests")
            platforms = [entry for entry in entries if entry.get("platform")]
            if platforms:
                blob = manifest_for(index, architecture, self._where)
            elif len(entries) == 1:
                blob = blob_of(entries[0], self._where)
            else:
                raise BadInput(f"{self._where}: holds {len(entries)} images; save one alone")

            content = self._read(_blob_name(blob.digest))
            check_digest(content, blob.digest, f"{self._where}: manifest")
            index = _json(content, self._where)
            if index.get("mediaType") not in INDEX_TYPES and "layers" in index:
                break

        names = []
        for descriptor in objects_at(index, "layers"):
            layer = blob_of(descriptor, self._where)
            name = _blob_name(layer.digest)
            # A byte more than it should have, so that a longer one has another digest.
            content = self._read(name, layer.size + 1)
            check_digest(content, layer.digest, f"{self._where}: layer")
            names.append(name)
        return names, {"manifest": blob.digest}

    def _docker_layers(self) -> tuple[list[str], dict[str, str]]:
        images = json.loads(self._read("manifest.json"))
        if len(images) != 1:
            raise BadInput(f"{self._where}: holds {len(images)} images; save one alone")
        return [str(name) for name in images[0]["Layers"]], {}


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(content: bytes, where: str) -> JsonObject:
    try:
        return dict(json.loads(content))
    except ValueError as error:
        raise BadInput(f"{where}: what should be a manifest is none ({content[:40]!r})") from error
