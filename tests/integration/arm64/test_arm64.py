"""Clocks are moved on ARM64: run on request, with what `python -m tests.integration.arm64.guest
fetch DIRECTORY` brought."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.arm64.guest import QEMU, files_of, run

DIRECTORY = os.environ.get("MESHWAKE_ARM64", "")


def test_links_of_packages_become_files(tmp_path: Path) -> None:
    """A guest has no links: what is behind one is copied, absolute ones as seen in the guest."""
    library = tmp_path / "root/lib/aarch64-linux-gnu"
    library.mkdir(parents=True)
    (library / "libx.so.1.2").write_bytes(b"x")
    (library / "libx.so.1").symlink_to("libx.so.1.2")
    (library / "liby.so").symlink_to("/lib/aarch64-linux-gnu/libx.so.1")
    (library / "gone.so").symlink_to("nowhere")
    files = files_of(tmp_path)
    assert files["/lib/aarch64-linux-gnu/liby.so"][0] == b"x"
    assert "/lib/aarch64-linux-gnu/gone.so" not in files
    assert files["/init"][1] == 0o755
    assert "/meshwake/site/meshwake/clocks/vdso/page.py" in files


@pytest.mark.skipif(
    not DIRECTORY, reason="takes a guest: set MESHWAKE_ARM64 to the directory of what was fetched"
)
def test_every_claim_holds_in_a_guest() -> None:
    """On a real ARM64 kernel."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"no {QEMU} (Debian: qemu-system-arm)")
    machine, *claims = run(Path(DIRECTORY))
    assert machine["machine"] == "aarch64"
    assert len(claims) == 6
    assert [claim for claim in claims if not claim["held"]] == []
