"""Moves clocks on an ARM64 machine that QEMU makes, and reports what held.

    python -m tests.integration.arm64.guest fetch DIRECTORY
        a kernel and a Python of Debian for arm64, by apt's own tools
    python -m tests.integration.arm64.guest run DIRECTORY
        boots them with the package and inside.py: a line for each claim; exit code 1 when one did
        not hold

Nothing of this machine's own apt is changed: the package lists are kept in DIRECTORY. Needs
qemu-system-aarch64 (Debian: qemu-system-arm) and dpkg-deb.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from meshwake.labs.machine.cpio import write_archive
from meshwake.system.deadline import Deadline

from tests.support.paths import PACKAGE

QEMU = "qemu-system-aarch64"
WITHIN_S = 600.0
INSIDE = Path(__file__).with_name("inside.py")
KERNEL = "linux-image-cloud-arm64"
PACKAGES = (
    "libc6",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
    "busybox-static",
)
# Of what is unpacked, what a guest needs.
WANTED = re.compile(
    r"^/(usr/bin/python3\.11|bin/busybox|(usr/)?lib/(python3\.11/|aarch64-linux-gnu/|ld-linux))"
)
UNWANTED = re.compile(
    r"/(gconv|ensurepip|pydoc_data|test|tests|idlelib|lib2to3|perl)/|/sitecustomize"
)


def fetch(directory: Path) -> None:
    """Packages, downloaded and unpacked."""
    for name in ("state/lists/partial", "cache/archives/partial", "packages", "root"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "state/status").touch()
    own = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": directory / "state",
        "Dir::State::status": directory / "state/status",
        "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", *options, "--quiet", "update"], check=True, stdout=sys.stderr)
    shown = subprocess.run(
        ["apt-cache", *options, "depends", "--important", KERNEL],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kernel = re.search(r"Depends: (linux-image-\S+)", shown)
    if kernel is None:
        raise SystemExit(
            f"apt knows no {KERNEL}; expected was a Debian among the sources of /etc/apt"
        )
    for package in (kernel[1], *PACKAGES):
        subprocess.run(
            ["apt-get", *options, "--quiet", "download", package],
            check=True,
            cwd=directory / "packages",
            stdout=sys.stderr,
        )
    for package_file in (directory / "packages").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package_file, directory / "root"], check=True)


def files_of(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    """The guest's file system: what is wanted of the packages (links as copies), harness/ and the
    first program."""
    root = directory / "root"
    found = {}
    for place, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(place, name)
            inside = "/" + str(path.relative_to(root))
            target = _resolve(root, path)
            if WANTED.search(inside) and not UNWANTED.search(inside) and target is not None:
                found[inside] = (
                    target.read_bytes(),
                    0o755 if target.stat().st_mode & 0o100 else 0o644,
                    0,
                )
    for source in PACKAGE.rglob("*.py"):
        found[f"/meshwake/site/{source.relative_to(PACKAGE.parent)}"] = (
            source.read_bytes(),
            0o644,
            0,
        )
    found["/init"] = (b"#!/usr/bin/python3.11 -SE\n" + INSIDE.read_bytes(), 0o755, 0)
    return found


def _resolve(root: Path, path: Path) -> Path | None:
    """The file behind a link whose target is given as seen in the guest; None: it is not there."""
    for _ in range(5):
        if not path.is_symlink():
            return path if path.is_file() else None
        target = path.readlink()
        path = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    return None


def lines_of(command: list[str]) -> Iterator[str]:
    """What the guest's console says, until it is off. Raises SystemExit when that takes too
    long."""
    deadline = Deadline("the guest to be off", WITHIN_S)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as guest:
        assert guest.stdout is not None
        try:
            rest = b""
            while True:
                ready, _, _ = select.select([guest.stdout], [], [], deadline.remaining_s)
                if not ready:
                    raise SystemExit(
                        f"the guest was not done within {WITHIN_S:.0f} s; last output: "
                        f"{rest[-300:]!r}"
                    )
                data = os.read(guest.stdout.fileno(), 65536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace").rstrip() for line in lines)
        finally:
            guest.kill()


def run(directory: Path, *, show: bool = False) -> list[dict[str, object]]:
    """What the guest claims, in order."""
    if shutil.which(QEMU) is None:
        raise SystemExit(f"{QEMU} is not on PATH (Debian: apt install qemu-system-arm)")
    kernel = next((directory / "root/boot").glob("vmlinuz-*"), None)
    if kernel is None:
        raise SystemExit(
            f"{directory} has no root/boot/vmlinuz-*; run: python -m "
            f"tests.integration.arm64.guest fetch {directory}"
        )
    claims = []
    with tempfile.NamedTemporaryFile(prefix="meshwake-arm64-", suffix=".cpio") as image:
        write_archive(image, files_of(directory))
        image.flush()
        command = [
            QEMU,
            "-M",
            "virt",
            "-cpu",
            "max,pauth-impdef=on",
            "-m",
            "1024",
            "-smp",
            "2",
            "-nodefaults",
        ]
        command += ["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel)]
        command += [
            "-initrd",
            image.name,
            "-append",
            "console=ttyAMA0 rdinit=/init quiet panic=-1 rootfstype=ramfs",
        ]
        for line in lines_of(command):
            if show:
                sys.stderr.write(line + "\n")
            if line.startswith(("CLAIM ", "MACHINE ")):
                claims.append(json.loads(line.partition(" ")[2]))
    return claims


def main() -> int:
    """Fetches, or runs and prints the claims."""
    what, directory = sys.argv[1], Path(sys.argv[2]).resolve()
    if what == "fetch":
        fetch(directory)
        return 0
    claims = run(directory, show="-v" in sys.argv)
    for claim in claims:
        sys.stdout.write(json.dumps(claim) + "\n")
    held = [claim for claim in claims if "claim" in claim]
    return 0 if held and all(claim["held"] for claim in held) else 1


if __name__ == "__main__":
    sys.exit(main())
