"""ztunnel binaries: a cache outside the repository, and what a binary says of itself.

    <cache>/ztunnel/<version>/<x86_64|aarch64>/ztunnel        <cache>: $MESHWAKE_CACHE, or the user's cache directory

The user puts binaries there, or names one with --ztunnel. What `ztunnel version` calls IstioVersion
is read from the environment when it prints them (src/version.rs at 1.18.0 to 1.31.0-rc.0), so it
says nothing of the binary. What is built in is the commit (GitRevision) and whether anything was
changed (BuildStatus): a clean build of the commit that clusters/versions.toml has for a release is
that release. Of any other binary only its owner knows it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version
from platformdirs import user_cache_dir

from meshwake.core import versions
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.refusal import unwritable

# `ztunnel version` prints and ends. What a user named may be another program, which does not.
IDENTIFY_WITHIN_S = 10
# uname -m differs between systems: Linux has x86_64 and aarch64, Windows AMD64, macOS arm64.
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# e_machine of an ELF header: EM_X86_64, EM_AARCH64 (include/uapi/linux/elf-em.h).
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
_ELF_HEADER_BYTES = 64
_FIELD = re.compile(r'(\w+):"([^"]*)"')
# Read by ztunnel when it prints its version: 1.18 to 1.26, and since.
_VERSION_VARIABLES = ("ISTIO_VERSION", "ISTIO_META_ISTIO_VERSION")


@dataclass(frozen=True)
class CachedBinary:
    """One binary of the cache, under the release its directory names."""

    version: str
    path: Path


@dataclass(frozen=True)
class Identity:
    """What a binary is: the release that it was built from, as far as its build records it (None:
    it does not), and the digest that names it for sure."""

    path: Path
    own_version: str | None
    build_info: str
    sha256: str


def architecture() -> str:
    """This machine's architecture, in the word that the cache uses."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def cache_dir() -> Path:
    """Where binaries are kept: $MESHWAKE_CACHE, or the user's cache directory."""
    return Path(os.environ.get("MESHWAKE_CACHE") or user_cache_dir("meshwake", appauthor=False))


def make_folder(folder: Path) -> None:
    """Makes a folder of the cache. Raises BadInput where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        next_step = "set MESHWAKE_CACHE to a directory of yours"
        raise unwritable(folder, error, next_step) from error


def place_of(version: str) -> Path:
    """The path at which the cache looks for the binary of `version`."""
    return cache_dir() / "ztunnel" / version / architecture() / "ztunnel"


def cached() -> tuple[CachedBinary, ...]:
    """All binaries of the cache that are made for this machine, oldest version first."""
    found = []
    for path in (cache_dir() / "ztunnel").glob(f"*/{architecture()}/ztunnel"):
        version = path.parent.parent.name
        if path.is_file() and _is_version(version):
            found.append(CachedBinary(version, path))
    return tuple(sorted(found, key=lambda binary: Version(binary.version)))


def misplaced() -> tuple[Path, ...]:
    """Programs called ztunnel in the cache that no run would find: a build of one's own that was
    put there by hand, under no version or without the directory of an architecture."""
    places = {binary.path for binary in cached()}
    found = []
    for path in sorted(cache_dir().rglob("ztunnel")):
        # For another machine that shares the cache.
        made_for, version = path.parent.name, path.parent.parent.name
        is_elsewhere = made_for in _ELF_MACHINES.values() and _is_version(version)
        if path.is_file() and not is_elsewhere and path not in places:
            found.append(path)
    return tuple(found)


def find(version: str) -> CachedBinary | None:
    """The cached binary of `version`, or None."""
    wanted = Version(version)
    return next((binary for binary in cached() if Version(binary.version) == wanted), None)


def why_not_started(path: Path) -> str | None:
    """Why the binary at `path` of the cache cannot be started here, as far as its first bytes and
    its permissions show; None when it can."""
    try:
        with path.open("rb") as binary:
            start = binary.read(_ELF_HEADER_BYTES)
        _check_made_for_this_machine(path, start, str(path))
        _check_whole(path, start, str(path))
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    except HarnessError as error:
        return str(error)
    return None


def sha256_of(path: Path) -> str:
    """The digest that names the program at `path` wherever a result is remembered: paths, versions
    and commits stay while what was built there changes. Raises BadInput when it cannot be read."""
    try:
        with path.open("rb") as binary:
            return hashlib.file_digest(binary, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); give the path of a ztunnel binary"
        ) from error


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def identify(path: Path) -> Identity:
    """What the binary at `path` is. Raises BadInput when it is not a ztunnel, LabUnavailable when
    it cannot run here."""
    content = _read(path)
    _check_made_for_this_machine(path, content, f"--ztunnel {path}")
    _check_whole(path, content, f"--ztunnel {path}")
    build_info = _ask_version(path)
    if "IstioVersion" not in _fields(build_info):
        output = build_info.strip()[:200] or "nothing"
        raise BadInput(
            f"--ztunnel {path}: is not a ztunnel: 'ztunnel version' printed {output!r}, not an IstioVersion"
        )

    # Several where one commit was released twice: the newest of them.
    own_versions = releases_of(build_info)
    own_version = own_versions[-1] if own_versions else None
    return Identity(
        path.resolve(), own_version, build_info.strip(), hashlib.sha256(content).hexdigest()
    )


def releases_of(build_info: str) -> tuple[str, ...]:
    """The releases that a binary with this build information is, oldest first: several may be made
    of one commit."""
    fields = _fields(build_info)
    return versions.built_from(fields.get("GitRevision", ""), fields.get("BuildStatus", ""))


def _fields(build_info: str) -> dict[str, str]:
    return dict(_FIELD.findall(build_info))


def describe(path: Path) -> MutableJsonObject:
    """The ztunnel at `path` as run_started names it. `build`: what it says of its build; "" when it
    cannot be started."""
    try:
        build_info = _ask_version(path).strip()
    except LabUnavailable:
        build_info = ""
    about = {
        "kind": "ztunnel",
        "file": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
    }
    return about | {"build": build_info}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"--ztunnel {path}: cannot be read ({error.strerror}); give the path of a "
            "ztunnel binary"
        ) from error


def _check_made_for_this_machine(path: Path, content: bytes, named: str) -> None:
    if content[:4] != b"\x7fELF" or len(content) < 20:
        raise BadInput(
            f"{named}: is not a Linux program (no ELF header); give a binary, not a "
            "script or archive"
        )

    # elf(5): e_ident[EI_DATA] is 1 for little-endian; e_machine is 16 bits at offset 18.
    byte_order = "<" if content[5] == 1 else ">"
    (number,) = struct.unpack_from(f"{byte_order}H", content, 18)
    made_for = _ELF_MACHINES.get(number, f"machine {number}")
    if made_for != architecture():
        raise LabUnavailable(
            f"{named}: is made for {made_for}, this machine is {architecture()}; "
            "give one made for that"
        )
    if not os.access(path, os.X_OK):
        raise BadInput(f"{named}: is not executable; run: chmod +x {shlex.quote(str(path))}")


def _check_whole(path: Path, content: bytes, named: str) -> None:
    """Raises BadInput for a copy or download that was cut off: the system starts it all the same,
    and it dies by a signal when it reaches what is missing."""
    if len(content) < _ELF_HEADER_BYTES:
        expected = _ELF_HEADER_BYTES
    else:
        # elf(5), 64 bits: e_shoff at offset 40; e_shentsize and e_shnum at 58 and 60. Linkers
        # put the table of sections at the end of the file; e_shoff is 0 where it was taken out.
        byte_order = "<" if content[5] == 1 else ">"
        (table_at,) = struct.unpack_from(f"{byte_order}Q", content, 40)
        entry_bytes, entries = struct.unpack_from(f"{byte_order}HH", content, 58)
        expected = table_at + entry_bytes * entries

    size = path.stat().st_size
    if size < expected:
        raise BadInput(
            f"{named}: is cut off: it has {size} bytes, and its header names {expected}; "
            "copy or download it again"
        )


def _ask_version(path: Path) -> str:
    # Without what it would print as its own version (see the module).
    environment = {
        name: value for name, value in os.environ.items() if name not in _VERSION_VARIABLES
    }
    try:
        answer = subprocess.run(
            [str(path.resolve()), "version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=IDENTIFY_WITHIN_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabUnavailable(
            f"--ztunnel {path}: 'ztunnel version' did not end within {IDENTIFY_WITHIN_S} s; "
            "is it a ztunnel?"
        ) from error
    except OSError as error:
        raise LabUnavailable(
            f"--ztunnel {path}: cannot be started ({error.strerror}); a library or loader "
            "it needs may be missing: "
            f"try '{path} version' by hand"
        ) from error
    if answer.returncode != 0:
        last_words = (answer.stderr or answer.stdout).strip()[-300:]
        raise LabUnavailable(
            f"--ztunnel {path}: 'ztunnel version' ended with {answer.returncode}: {last_words}"
        )
    return answer.stdout
