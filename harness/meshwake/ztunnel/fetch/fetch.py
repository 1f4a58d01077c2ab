"""A version of ztunnel into the cache, from its official image; and a lock file that remembers what
it was.

    <cache>/ztunnel/<version>/<x86_64|aarch64>/ztunnel
    <cache>/ztunnel/lock.json          version and machine to digests: of index, manifest, layer and binary
    <cache>/layers/                    what is half received, to be gone on with

What is in the cache as the lock file says is not fetched again. A tag that suddenly names something
else is refused, unless --relock accepts it: an official release does not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from packaging.version import InvalidVersion, Version

from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.json_types import objects_at
from meshwake.ztunnel import binaries
from meshwake.ztunnel.fetch.image import WANTED, manifest_for, take_out, take_out_of_saved
from meshwake.ztunnel.fetch.registry import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OFFICIAL_REGISTRY,
    OFFICIAL_REPOSITORY,
    Blob,
    Progress,
    Reference,
    Registry,
    blob_of,
)

LOCK_FORMAT = 1


@dataclass(frozen=True)
class Source:
    """Where images are had: a registry (of the project, or another that has the same), a mirror
    (`HOST/PREFIX`, below which the official name is), or a file. `relock`: take it although the
    lock file names something else."""

    registry: str = OFFICIAL_REGISTRY
    repository: str = OFFICIAL_REPOSITORY
    file: Path | None = None
    relock: bool = False


@dataclass(frozen=True)
class Fetched:
    """What is in the cache now. `was_there`: it had been before, and no registry was
    queried."""

    version: str
    path: Path
    sha256: str
    was_there: bool
    remark: str = ""


def source_of(registry: str | None, mirror: str | None, file: Path | None, relock: bool) -> Source:
    """From the options of the command. Raises BadInput when they contradict each other."""
    # Each says where from, and none comes before another.
    given = [option for option in (registry, mirror, file) if option is not None]
    if len(given) > 1:
        raise BadInput("--registry, --mirror and --from: give one of them")
    if mirror is not None:
        # A mirror keeps the paths of what it mirrors, below a prefix of its own.
        host, prefix = _host_and_path(mirror)
        repository = f"{prefix}/{OFFICIAL_REPOSITORY}" if prefix else OFFICIAL_REPOSITORY
        return Source(host, repository, None, relock)
    if registry is not None:
        # A registry is given with the whole path, or with none.
        host, repository = _host_and_path(registry)
        return Source(host, repository or OFFICIAL_REPOSITORY, None, relock)
    return Source(file=file, relock=relock)


def _host_and_path(address: str) -> tuple[str, str]:
    """[http://]HOST[:PORT]/PATH -> the host with its scheme, and the path."""
    scheme, separator, rest = address.rpartition("://")
    host, _, path = rest.strip("/").partition("/")
    return f"{scheme}{separator}{host}", path


def check_version(version: str) -> str:
    """Raises BadInput unless `version` is one, such as 1.28.0."""
    try:
        Version(version)
    except InvalidVersion as error:
        raise BadInput(
            f"{version!r} is not a version; give one such as 1.28.0 (meshwake versions lists them)"
        ) from error

    # It becomes the name of a directory in the cache.
    if "/" in version or version.startswith("."):
        raise BadInput(f"{version!r} is not a version; give one such as 1.28.0")
    return version


def fetch(version: str, source: Source, progress: Callable[[str], Progress]) -> Fetched:
    """Puts the ztunnel of `version` into the cache. `progress` gives, for what is received, whom to
    report it."""
    place = binaries.place_of(check_version(version))
    binaries.make_folder(place.parent)
    locked = _locked(version)
    if place.exists() and locked.get("binary") == _sha256(place) and not source.relock:
        return Fetched(version, place, locked["binary"], was_there=True)

    # Under another name until it is checked: a run meanwhile finds the old one, or none.
    fresh = place.with_name("ztunnel.new")
    with ExitStack() as stack:
        stack.callback(fresh.unlink, missing_ok=True)
        if source.file is not None:
            known = take_out_of_saved(source.file, binaries.architecture(), fresh)
        else:
            known = _from_registry(version, source, fresh, locked, progress)
        known["binary"] = _sha256(fresh)
        _check_unchanged(version, locked, known, source.relock)
        fresh.chmod(0o755)
        remark = _identified(version, fresh)
        fresh.replace(place)
        _lock(version, known)
    return Fetched(version, place, known["binary"], was_there=False, remark=remark)


def _from_registry(
    version: str,
    source: Source,
    fresh: Path,
    locked: dict[str, str],
    progress: Callable[[str], Progress],
) -> dict[str, str]:
    reference = Reference(source.registry, source.repository, version)
    known = {"image": reference.name}
    with ExitStack() as stack:
        registry = Registry(reference)
        stack.callback(registry.close)
        manifest, media_type, digest = registry.manifest(version, (*INDEX_TYPES, *MANIFEST_TYPES))
        if media_type in INDEX_TYPES or "manifests" in manifest:
            known["index"] = digest
            chosen = manifest_for(manifest, binaries.architecture(), reference.name)
            manifest, _, digest = registry.manifest(chosen.digest, MANIFEST_TYPES)
        known["manifest"] = digest
        # Before dozens of megabytes are received. The topmost layer comes first: a file that two
        # layers have is that of the upper one.
        _check_unchanged(version, locked, known, source.relock)
        for descriptor in reversed(objects_at(manifest, "layers")):
            layer = blob_of(descriptor, reference.name)
            if _from_layer(registry, layer, fresh, progress(f"ztunnel {version}")):
                return known | {"layer": layer.digest}
    raise LabUnavailable(f"{reference.name}: has no {WANTED}; is it the image of ztunnel?")


def _from_layer(registry: Registry, layer: Blob, fresh: Path, progress: Progress) -> bool:
    directory = binaries.cache_dir() / "layers"
    binaries.make_folder(directory)
    path = directory / layer.digest.replace(":", "-")
    registry.download(layer, path, progress)
    try:
        with path.open("rb") as content:
            return take_out(content, registry.reference.name, fresh)
    finally:
        path.unlink()


def _identified(version: str, fresh: Path) -> str:
    """Asks the binary what it is. Raises when it is not a ztunnel or not made for this machine; a
    version that differs, or that it does not know, is a remark."""
    try:
        identity = binaries.identify(fresh)
    except HarnessError as error:
        raise type(error)(str(error).replace("--ztunnel ", "")) from error
    if identity.own_version is None:
        return (
            "it was built from a commit that clusters/versions.toml has for no release, or was "
            "changed"
        )
    if Version(identity.own_version) != Version(version):
        return f"it calls itself {identity.own_version}"
    return ""


def _check_unchanged(
    version: str, locked: dict[str, str], known: dict[str, str], relock: bool
) -> None:
    for key in ("index", "manifest", "layer", "binary"):
        if not relock and key in locked and key in known and locked[key] != known[key]:
            raise LabUnavailable(
                f"ztunnel {version}: its {key} is {known[key]} now, the lock file says "
                f"{locked[key]} "
                f"({_lock_path()}); a release does not change. If you know why, take it "
                "with --relock"
            )


def _lock_path() -> Path:
    return binaries.cache_dir() / "ztunnel" / "lock.json"


class _Lock(TypedDict):
    """The lock file. `ztunnel`: version -> architecture -> what was fetched, by digests."""

    format: int
    ztunnel: dict[str, dict[str, dict[str, str]]]


def _read_lock() -> _Lock:
    with suppress(FileNotFoundError):
        try:
            lock = json.loads(_lock_path().read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(
                f"{_lock_path()}: is not a lock file of meshwake ({error}); remove it, or mend it"
            ) from error
        if lock.get("format") != LOCK_FORMAT:
            raise BadInput(
                f"{_lock_path()}: has format {lock.get('format')!r}, this meshwake reads "
                f"{LOCK_FORMAT}"
            )
        known: _Lock = lock
        return known
    return {"format": LOCK_FORMAT, "ztunnel": {}}


def _locked(version: str) -> dict[str, str]:
    return dict(_read_lock()["ztunnel"].get(version, {}).get(binaries.architecture(), {}))


def _lock(version: str, known: dict[str, str]) -> None:
    lock = _read_lock()
    lock["ztunnel"].setdefault(version, {})[binaries.architecture()] = known
    fresh = _lock_path().with_name("lock.json.new")
    fresh.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(_lock_path())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
