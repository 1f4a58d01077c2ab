"""The injector that injects nothing: a program on the kernel's own clocks, behind the face of the
others."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from meshwake.clocks.guest.kernel_page import NO_FILE, KernelClockPage
from meshwake.clocks.vdso.page import launch, read_inside, unsupported_here
from meshwake.core.durations import NS_PER_S

pytestmark = pytest.mark.skipif(bool(unsupported_here()), reason=str(unsupported_here()))


def test_a_program_runs_on_the_kernels_clocks(tmp_path: Path) -> None:
    """Its vDSO is left alone, and what is read for it is what the kernel shows."""
    page = KernelClockPage()
    command = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
    program = launch(command, page, environment={}, directory=tmp_path, log=tmp_path / "log")
    try:
        assert abs(read_inside(program).wall_ns - time.time_ns()) < NS_PER_S
        assert not any(
            "meshwake" in line
            for line in Path(f"/proc/{program.pid}/maps").read_text().splitlines()
        )
    finally:
        os.kill(program.pid, signal.SIGKILL)
        os.waitpid(program.pid, 0)
        page.close()


def test_the_page_has_no_file_to_be_handed_on() -> None:
    """The authority reads the kernel's clock then."""
    assert KernelClockPage().file == NO_FILE


def test_setting_means_the_wall_clock_at_a_moment_of_boottime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time that has passed since is added; no other clock is touched."""
    page, set_to = KernelClockPage(), []
    monkeypatch.setattr(
        "meshwake.clocks.guest.kernel_page.time.clock_settime_ns",
        lambda clock, wall_ns: set_to.append(wall_ns),
    )
    now = page.get()
    page.set(now._replace(wall_ns=5 * NS_PER_S, boottime_ns=now.boottime_ns - 2 * NS_PER_S))
    assert 7 * NS_PER_S <= set_to[0] < 7 * NS_PER_S + NS_PER_S
