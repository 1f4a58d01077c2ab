"""Where a kernel for guests comes from."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.labs.machine.kernel import MODULES, Kernel, fetch_kernel, find_kernel, kernel_cache

RELEASE = "6.1.0-0-test"


def lay_out(place: Path, modules: tuple[str, ...] = MODULES, packed: bool = False) -> Path:
    """A package's files below `place`; the path of the kernel."""
    image = place / "boot" / f"vmlinuz-{RELEASE}"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"kernel")
    directory = place / "lib/modules" / RELEASE / "kernel/net"
    directory.mkdir(parents=True)
    for name in modules:
        content = f"module {name}".encode()
        path = directory / f"{name}.ko"
        if packed:
            path.with_suffix(".ko.xz").write_bytes(lzma.compress(content))
        else:
            path.write_bytes(content)
    return image


def package(directory: Path, **options: object) -> Path:
    """A .deb of such files."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb on this machine")
    tree = directory / "tree"
    lay_out(tree, **options)  # type: ignore[arg-type]
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: linux-image-test\nVersion: 1\nArchitecture: amd64\nMaintainer: a test "
        "<a@test>\nDescription: test\n"
    )
    deb = directory / "linux-image.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)],
        check=True,
        capture_output=True,
    )
    return deb


@pytest.mark.usefixtures("empty_cache")
def test_a_package_is_fetched_into_the_cache(tmp_path: Path) -> None:
    """The kernel and the modules that guests load, and then it is the one that is found."""
    kernel = fetch_kernel(package(tmp_path))
    assert kernel == find_kernel()
    assert kernel.image.is_relative_to(kernel_cache())
    assert kernel.release == RELEASE
    assert kernel.read_modules() == {f"{name}.ko": f"module {name}".encode() for name in MODULES}


@pytest.mark.usefixtures("empty_cache")
def test_a_package_without_what_is_needed_replaces_nothing(tmp_path: Path) -> None:
    """What was fetched before stays."""
    lay_out(kernel_cache())
    with pytest.raises(LabUnavailable, match="has no module veth"):
        fetch_kernel(package(tmp_path, modules=("llc", "stp", "bridge")))
    found = find_kernel()
    assert found is not None
    assert found.image.is_relative_to(kernel_cache())


@pytest.mark.usefixtures("empty_cache")
def test_a_file_that_is_not_a_package(tmp_path: Path) -> None:
    """Is named."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb on this machine")
    wrong = tmp_path / "wrong.deb"
    wrong.write_text("no archive")
    with pytest.raises(BadInput, match=r"wrong.deb: .*expected a linux-image .deb"):
        fetch_kernel(wrong)


def test_modules_may_be_packed(tmp_path: Path) -> None:
    """As newer distributions do."""
    image = lay_out(tmp_path, packed=True)
    kernel = Kernel(image, tmp_path / "lib/modules" / RELEASE)
    assert kernel.read_modules()["veth.ko"] == b"module veth"


def test_a_module_that_is_built_in_is_not_missed(tmp_path: Path) -> None:
    """It needs no loading."""
    image = lay_out(tmp_path, modules=MODULES[1:])
    (tmp_path / "lib/modules" / RELEASE / "modules.builtin").write_text("kernel/net/llc/llc.ko\n")
    assert "llc.ko" not in Kernel(image, tmp_path / "lib/modules" / RELEASE).read_modules()


def test_a_kernel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MESHWAKE_KERNEL goes before all others."""
    image = lay_out(tmp_path)
    monkeypatch.setenv("MESHWAKE_KERNEL", str(image))
    found = find_kernel()
    assert found is not None
    assert found.image == image


def test_a_named_kernel_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is taken instead."""
    monkeypatch.setenv("MESHWAKE_KERNEL", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="expected a readable file boot/vmlinuz-VERSION"):
        find_kernel()
