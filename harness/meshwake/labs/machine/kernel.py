"""A Linux kernel for guests, and its modules: a distribution's own, never built by us.

Looked for, in this order:

    $MESHWAKE_KERNEL    a kernel (vmlinuz-VERSION) with lib/modules/VERSION next to it or one level
                        up
    <cache>/kernel/     what `meshwake fetch-kernel` downloaded
    /boot               what this machine runs, where a user may read it

A kernel's root is a directory with boot/vmlinuz-VERSION and lib/modules/VERSION, as in the package.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.ztunnel.binaries import cache_dir

# In this order: each needs those before it. A bridge, veth pairs on it, and listing sockets.
MODULES = ("llc", "stp", "bridge", "veth", "inet_diag", "tcp_diag")
# A network card of QEMU, for guests on one network.
CARD_MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "failover", "net_failover", "virtio_net",
)  # fmt: skip
PACKAGE = "linux-image-cloud-amd64"
_FETCHED_WITHIN_S = 600


@dataclass(frozen=True)
class Kernel:
    """A bootable kernel, and the directory of its modules."""

    image: Path
    modules: Path

    @property
    def release(self) -> str:
        """As `uname -r` says."""
        return self.modules.name

    def read_modules(self, names: tuple[str, ...] = MODULES) -> dict[str, bytes]:
        """The modules a guest loads, ready to be loaded, in order; those built into the kernel are
        left out. Raises LabUnavailable for one that is missing."""
        built_in = self.modules / "modules.builtin"
        known = built_in.read_text() if built_in.exists() else ""
        found = {}
        for name in names:
            # .ko, or with the ending of what it is compressed with.
            path = next(self.modules.glob(f"kernel/**/{name}.ko*"), None)
            if path is not None:
                found[f"{name}.ko"] = _read_module(path)
            elif f"/{name}.ko\n" not in known:
                raise LabUnavailable(
                    f"kernel {self.release} has no module {name} in {self.modules}; "
                    "take another kernel: meshwake fetch-kernel"
                )
        return found


def _read_module(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout
    return path.read_bytes()


def find_kernel() -> Kernel | None:
    """The kernel that guests run here, or None. Raises BadInput when $MESHWAKE_KERNEL names
    none."""
    if path := os.environ.get("MESHWAKE_KERNEL"):
        return _configured_kernel(Path(path))

    # One that was fetched first: the machine's own may be readable by root only (Ubuntu), or lack
    # modules that guests need.
    for root in (kernel_cache(), Path("/")):
        for kernel in _kernels_in(root):
            return kernel
    return None


def kernel_cache() -> Path:
    """Where fetched kernels are kept."""
    return cache_dir() / "kernel"


def _kernels_in(root: Path) -> Iterator[Kernel]:
    # By name, the newest first as far as a name shows it.
    for image in sorted((root / "boot").glob("vmlinuz-*"), reverse=True):
        kernel = _kernel_of(image, root)
        if kernel is not None:
            yield kernel


def _kernel_of(image: Path, root: Path) -> Kernel | None:
    modules = root / "lib/modules" / image.name.removeprefix("vmlinuz-")
    usable = modules.is_dir() and os.access(image, os.R_OK)
    return Kernel(image, modules) if usable else None


def _configured_kernel(image: Path) -> Kernel:
    for root in (image.parent, image.parent.parent):
        if image.is_file() and (kernel := _kernel_of(image, root)):
            return kernel
    raise BadInput(
        f"MESHWAKE_KERNEL={image}: expected a readable file boot/vmlinuz-VERSION with "
        "lib/modules/VERSION next to boot/; unset it, or see docs/machine.md"
    )


def fetch_kernel(package: Path | None = None) -> Kernel:
    """Puts a kernel of Debian into the cache: from the package file given, or downloaded with apt's
    own tools (which check its signature). Needs no root. Raises LabUnavailable, or BadInput for a
    file that is not such a package."""
    with tempfile.TemporaryDirectory(prefix="meshwake-kernel-") as directory:
        file = package or _download(Path(directory))
        _unpack(file, Path(directory) / "unpacked")
        kernel = next(_kernels_in(Path(directory) / "unpacked"), None)
        if kernel is None:
            raise BadInput(
                f"{file}: has no boot/vmlinuz-VERSION with lib/modules/VERSION; expected a "
                "linux-image .deb"
            )
        kernel.read_modules()  # whole, and of use, before it replaces what is there
        cache = kernel_cache()
        shutil.rmtree(cache, ignore_errors=True)
        cache.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(directory) / "unpacked", cache)
    return next(_kernels_in(kernel_cache()))


def _download(directory: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise LabUnavailable(
            "apt-get is not on PATH; download a linux-image package of Debian or Ubuntu for amd64 "
            "by hand, then: meshwake fetch-kernel --file PACKAGE.deb"
        )

    # PACKAGE itself is empty, and depends on that of the present version.
    shown = _output_of(["apt-cache", "depends", "--important", PACKAGE], directory)
    depends = re.search(r"Depends: (linux-image-\S+)", shown)
    if depends is None:
        raise LabUnavailable(
            f"apt has no package {PACKAGE}; run apt-get update, or pass one: --file PACKAGE.deb"
        )
    _output_of(["apt-get", "download", "--quiet", depends.group(1)], directory)
    return next(directory.glob("*.deb"))


def _output_of(command: list[str], directory: Path) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=_FETCHED_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise LabUnavailable(
            f"{' '.join(command)}: {done.stderr.strip()[-400:]}; is apt set up? run apt-get update"
        )
    return done.stdout


def _unpack(package: Path, directory: Path) -> None:
    """Only the kernel and the modules that we load: of 100 MB, 15."""
    if shutil.which("dpkg-deb") is None:
        raise LabUnavailable("dpkg-deb is not on PATH, and opens the package; install dpkg")
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as opened:
        assert opened.stdout is not None
        assert opened.stderr is not None
        try:
            with tarfile.open(fileobj=opened.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and _is_wanted(member.name):
                        archive.extract(member, directory, filter="data")
        except tarfile.TarError as error:
            why = opened.stderr.read().decode(errors="replace").strip() or str(error)
            raise BadInput(
                f"{package}: cannot be opened ({why[-300:]}); expected a linux-image .deb"
            ) from error


def _is_wanted(name: str) -> bool:
    if "/boot/vmlinuz-" in name or name.endswith("/modules.builtin"):
        return True
    # bridge.ko, bridge.ko.xz: the name of a module is what comes before the first ".ko".
    module, suffix, _ = Path(name).name.partition(".ko")
    return bool(suffix) and module in (*MODULES, *CARD_MODULES)
