"""The guest's file system: this very Python, this very harness, the ztunnel under test, and nothing
else.

An initramfs in three parts, of which the first two are kept in the cache by a digest of what is in
them:

    base      Python, its library, the packages that the process lab imports, meshwake itself,
              kernel modules, /init
    subject   the binary under test with the libraries that it needs
    request   what this run shall do

Not compressed: unpacking costs more in an emulated machine than reading. Everything is at the
path that it has on the host, except meshwake and packages, which go to /meshwake. It has no shell
and no package manager in it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypedDict

from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject
from meshwake.core.resources import PACKAGE
from meshwake.labs.machine.cpio import write_archive
from meshwake.labs.machine.kernel import CARD_MODULES, MODULES, Kernel
from meshwake.ztunnel.binaries import cache_dir

GUEST_DIRECTORY = "/meshwake"
SUBJECT = "/meshwake/ztunnel"
REQUEST = "/meshwake/request.json"
# Parts are named by a digest of what is in them, so each change of the code leaves an old one
# behind.
KEPT_PARTS = 8
# A part that is not the newest any more may be read by the guest of another process that is
# booting.
_IN_USE_FOR_S = 1800
_PROGRAM_WITHIN_S = 60
# Of the standard library what a guest has no use for, by size.
_LEFT_OUT = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data",
    "site-packages", "dist-packages", "distutils", "msilib", "dbm", "curses", "wsgiref", "venv",
}  # fmt: skip
# What the process lab imports in the guest, by what brings it.
_IMPORTED = (
    "meshwake.labs.process.runner",
    "meshwake.labs.process.backend",
    "meshwake.labs.driver",
    "meshwake.authority.proto.citadel_pb2",
    "cryptography.hazmat.primitives.asymmetric.ec",
)
_PRINT_MODULES = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
names = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"files": files, "names": sorted(names)}))
"""


class InitrdFile(NamedTuple):
    """One file of the guest: where its content comes from, or the content itself."""

    content: bytes
    permissions: int = 0o644
    changed_s: int = 0


Files = dict[str, InitrdFile]


def image_cache() -> Path:
    """Where parts of images are kept."""
    return cache_dir() / "guest"


def base_part(kernel: Kernel, *, with_lab: bool, with_card: bool = False) -> Path:
    """The first part; `with_lab`: also what the process lab needs, which a guest that only measures
    clocks does not; `with_card`: what a network card needs."""
    files = dict(_python(_IMPORTED if with_lab else ()))
    files |= _tree(PACKAGE, f"{GUEST_DIRECTORY}/site/{PACKAGE.name}", skip=frozenset())
    modules = (*MODULES, *CARD_MODULES) if with_card else MODULES
    for number, (name, content) in enumerate(kernel.read_modules(modules).items()):
        files[f"{GUEST_DIRECTORY}/modules/{number:02}-{name}"] = InitrdFile(content)
    files["/init"] = InitrdFile(_init().encode(), 0o755)
    files["/etc/resolv.conf"] = InitrdFile(
        b"nameserver 127.0.0.1\n"
    )  # ztunnel does not start without one
    files["/etc/hosts"] = InitrdFile(b"127.0.0.1 localhost\n")
    files["/etc/passwd"] = InitrdFile(b"root:x:0:0:root:/tmp:/none\n")
    return _kept("base", files)


def binary_part(binary: Path, name: str = SUBJECT) -> Path:
    """A program (the binary under test) and the libraries it needs."""
    files = {name: InitrdFile(binary.read_bytes(), 0o755)}
    return _kept("subject", files | _libraries([binary]))


def tree_part(kind: str, place: Path, name: str, skip: Iterable[str]) -> Path:
    """A directory of the host, under `name` in the guest, with the libraries that those in it
    need."""
    left_out = set(skip)
    files = {
        path: entry
        for path, entry in _tree(place, name, left_out).items()
        if Path(path).name not in left_out
    }
    return _kept(kind, files | _libraries(list(place.rglob("*.so"))))


def assemble(parts: Iterable[Path], request: JsonObject, output: Path) -> None:
    """Writes the whole image."""
    with output.open("wb") as image:
        for part in parts:
            with part.open("rb") as content:
                shutil.copyfileobj(content, image, 1 << 22)
        write_archive(image, {REQUEST: InitrdFile(json.dumps(request).encode())})


def guest_python() -> str:
    """The path of the interpreter, on the host and in the guest."""
    return str(Path(sys.executable).resolve())


def _init() -> str:
    return (
        f"#!{guest_python()} -SE\n"
        f"import sys\nsys.path[:0] = ['{GUEST_DIRECTORY}/site']\n"
        "from meshwake.clocks.guest.init import main\nmain()\n"
    )


# --- Parts kept by content ------------------------------------------------------------------------


def _kept(kind: str, files: Files) -> Path:
    directory = image_cache()
    directory.mkdir(parents=True, exist_ok=True)
    place = directory / f"{kind}-{_digest(files)}.cpio"
    if place.exists():
        place.touch()
        return place
    with tempfile.NamedTemporaryFile(
        dir=directory, prefix=f"{kind}-", suffix=".part", delete=False
    ) as output:
        write_archive(output, files)
    Path(output.name).replace(place)
    _forget_old(directory)
    return place


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        entry = files[path]
        digest.update(
            f"{path}\0{entry.permissions}\0{entry.changed_s}\0{len(entry.content)}\0".encode()
        )
        digest.update(entry.content)
    return digest.hexdigest()[:24]


def _forget_old(directory: Path) -> None:
    """Parts are up to a hundred megabytes each: the newest stay, and those that a run may be about
    to read."""
    parts = sorted(directory.glob("*.cpio"), key=lambda part: part.stat().st_mtime, reverse=True)
    for part in parts[KEPT_PARTS:]:
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < time.time() - _IN_USE_FOR_S:
                part.unlink()


# --- What is in them ------------------------------------------------------------------------------


def _python(imported: tuple[str, ...]) -> Files:
    """This interpreter, its library, the packages of `imported`, and every shared library of them
    all."""
    modules = _modules_of(imported)
    library = Path(sysconfig.get_path("stdlib")).resolve()
    binaries = [Path(guest_python())]
    files = {guest_python(): InitrdFile(Path(guest_python()).read_bytes(), 0o755)}
    files |= _tree(library, str(library), skip=_LEFT_OUT)
    loaded = [Path(file) for file in modules["files"] if ".so" in Path(file).name]
    binaries += [path for path in library.glob("lib-dynload/*.so") if path in set(loaded)] + loaded
    for name in modules["names"]:
        files |= _package(name)
    return files | _libraries(binaries)


class _Modules(TypedDict):
    """What is imported: top-level names, and the files of modules."""

    names: list[str]
    files: list[str]


def _modules_of(imported: tuple[str, ...]) -> _Modules:
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            _PRINT_MODULES,
            "ctypes",
            "subprocess",
            "json",
            "fcntl",
            "termios",
            *imported,
        ],
        capture_output=True,
        text=True,
        timeout=_PROGRAM_WITHIN_S,
        check=False,
    )
    if printed.returncode:
        raise LabUnavailable(
            f"the process lab cannot be imported here: {printed.stderr.strip()[-500:]}"
        )
    modules: _Modules = json.loads(printed.stdout)
    return modules


def _package(name: str) -> Files:
    """An installed package, whole; nothing for what the standard library has, or for our own."""
    if name in sys.stdlib_module_names or name in (PACKAGE.name, "__main__"):
        return {}
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        # A module made at run time (__mp_main__ of multiprocessing, a library's own): it has no
        # file.
        return {}
    if spec is None:
        return {}
    if spec.submodule_search_locations:
        files: Files = {}
        for place in spec.submodule_search_locations:
            files |= _tree(Path(place), f"{GUEST_DIRECTORY}/site/{name}", skip=frozenset({"tests"}))
        return files
    origin = Path(spec.origin or "")
    if not origin.is_file():
        return {}
    return {f"{GUEST_DIRECTORY}/site/{origin.name}": _entry(origin)}


def _tree(place: Path, name: str, skip: Iterable[str]) -> Files:
    """A directory with everything in it that a Python needs: sources, what was compiled of them,
    and data."""
    left_out = set(skip)
    files: Files = {}
    for directory, directories, names in os.walk(place):
        directories[:] = [
            one for one in directories if one not in left_out and not one.startswith("config-")
        ]
        for file in names:
            path = Path(directory, file)
            if _is_wanted(path):
                files[f"{name}/{path.relative_to(place)}"] = _entry(path)
    return files


def _is_wanted(path: Path) -> bool:
    if path.suffix == ".pyc":
        return path.name.endswith(f"{sys.implementation.cache_tag}.pyc")
    return path.is_file() and path.suffix not in (".a", ".pyi", ".exe", ".c", ".h", ".proto")


def _entry(path: Path) -> InitrdFile:
    known = path.stat()
    return InitrdFile(
        path.read_bytes(), 0o755 if known.st_mode & 0o100 else 0o644, int(known.st_mtime)
    )


def _libraries(binaries: list[Path]) -> Files:
    """The shared libraries that these programs and libraries need, at the paths where the loader
    looks for them."""
    found: Files = {}
    for path in set(_needed(binaries)):
        found[str(path)] = _entry(path.resolve())
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        found[str(cache)] = InitrdFile(cache.read_bytes())
    return found


def _needed(binaries: list[Path]) -> Iterator[Path]:
    if not binaries:
        return

    # Libraries that a program brings along are in one directory; it finds them itself.
    search_path = ":".join(sorted({str(binary.parent) for binary in binaries}))
    listed = subprocess.run(
        ["ldd", *map(str, binaries)],
        env=os.environ | {"LD_LIBRARY_PATH": search_path},
        capture_output=True,
        text=True,
        timeout=_PROGRAM_WITHIN_S,
        check=False,
    )
    if missing := re.search(r"(\S+) => not found", listed.stdout):
        raise LabUnavailable(
            f"library {missing.group(1)}, which the guest needs, is not on this machine; see ldd"
        )
    for line in listed.stdout.splitlines():
        if match := re.search(r"(?:=> )?(/\S+) \(0x", line):
            yield Path(match.group(1))
