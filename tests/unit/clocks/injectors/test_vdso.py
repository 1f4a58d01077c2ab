"""The injectors that rewrite a vDSO: what they refuse, and what they notice (Linux)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from meshwake.clocks.injectors.base import UNMOVED, CannotInject, ManagedProcess, Start, in_words
from meshwake.clocks.injectors.programs import EM_AARCH64, Program
from meshwake.clocks.injectors.vdso import AttachInjector, VdsoInjector, offsets_inside
from meshwake.clocks.vdso.page import unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, SubjectFailed
from meshwake.system.deadline import wait_until
from meshwake.system.process_stat import is_ending

pytestmark = pytest.mark.skipif(unsupported_here() is not None, reason=str(unsupported_here()))
PYTHON = os.path.realpath(sys.executable)
SLEEPS = (PYTHON, "-S", "-c", "import select; select.epoll().poll()")
H = 3600 * 10**9
WITHIN_S = 20.0


@pytest.fixture
def vdso() -> Iterator[VdsoInjector]:
    """With nothing moved yet."""
    one = VdsoInjector()
    yield one
    one.close()


@pytest.fixture
def attach() -> Iterator[AttachInjector]:
    """With nothing attached yet."""
    one = AttachInjector()
    yield one
    one.close()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that the harness did not start."""
    process = subprocess.Popen(SLEEPS)
    yield process
    process.kill()
    process.wait()


def test_shells_are_refused_and_so_is_what_shall_have_its_children_along(
    vdso: VdsoInjector, tmp_path: Path
) -> None:
    """Before anything is started."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\ntrue\n")
    script.chmod(0o755)
    for start in (
        Start(("sh", "-c", "true")),
        Start((str(script),)),
        Start(SLEEPS, with_children=True),
    ):
        with pytest.raises(
            CannotInject, match=r"a vDSO lasts until the next exec.*use --injector faketime"
        ):
            vdso.start(start)
    assert vdso._processes == []


def test_programs_for_another_processor_are_refused(vdso: VdsoInjector) -> None:
    """By the file alone."""
    refused = vdso.refusal(Program(Path("/p"), EM_AARCH64, True, None, False, None, False))
    assert refused is not None and "another processor" in refused.because


def test_what_executes_another_program_is_noticed(vdso: VdsoInjector) -> None:
    """It is on true time then: neither read nor moved as if it were not."""
    replaces = f"import os, sys; os.execv(sys.executable, {list(SLEEPS)!r})"
    process = vdso.start(Start((PYTHON, "-S", "-c", replaces)))
    cmdline = Path(f"/proc/{process.pid}/cmdline")
    wait_until(lambda: "execv" not in cmdline.read_text(), "the other program", WITHIN_S)
    with pytest.raises(SubjectFailed, match="is not on these clocks any more"):
        vdso.read(process)
    with pytest.raises(SubjectFailed, match="is not on these clocks any more"):
        vdso.move(ClockReading(H, 0, H))
    assert vdso.moved == UNMOVED


def test_clocks_that_never_go_back(vdso: VdsoInjector) -> None:
    """Only the wall clock may."""
    with pytest.raises(BadInput, match="never go back"):
        vdso.move(ClockReading(0, -1, 0))
    vdso.move(ClockReading(-H, 0, 0))
    assert vdso.moved == ClockReading(-H, 0, 0)


def test_what_is_started_does_not_inherit_what_python_ignores(vdso: VdsoInjector) -> None:
    """A pipe that is closed ends a program, as at any shell; and its exit code is reported."""
    process = vdso.start(
        Start((PYTHON, "-S", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGXFSZ)"))
    )
    assert process.wait(WITHIN_S) in {-signal.SIGXFSZ, 0}  # Python ignores it by itself
    yes = shutil.which("yes")
    if yes is None:
        pytest.skip("needs the program yes")
    reader, writer = os.pipe()
    os.close(reader)
    process = vdso.start(Start((yes,), output=writer))
    os.close(writer)
    assert process.wait(WITHIN_S) == -signal.SIGPIPE
    process = vdso.start(Start((PYTHON, "-S", "-c", "raise SystemExit(7)")))
    assert process.wait(WITHIN_S) == 7


def test_a_wait_for_an_end_that_does_not_come_is_an_error(vdso: VdsoInjector) -> None:
    """With a name and a bound; `close` ends what was started."""
    process = vdso.start(Start(SLEEPS))
    with pytest.raises(SubjectFailed, match="did not end within 0.05 s"):
        process.wait(0.05)
    vdso.close()
    assert process.poll() == -signal.SIGKILL


def test_what_was_moved_before_stays_moved(
    attach: AttachInjector, stranger: subprocess.Popen[bytes]
) -> None:
    """The next attach goes on from there; given back, it is on the kernel's clocks; it lives
    through all that."""
    assert offsets_inside(stranger.pid) == UNMOVED
    attach.attach(stranger.pid)
    attach.move(ClockReading(8 * H, 0, 8 * H))
    attach.close()
    assert offsets_inside(stranger.pid) == ClockReading(8 * H, 0, 8 * H)
    later = AttachInjector()
    process = later.attach(stranger.pid)
    later.move(ClockReading(-H, 0, 0))
    assert later.moved == offsets_inside(stranger.pid) == ClockReading(7 * H, 0, 8 * H)
    assert later.read(process).wall_ns - time.time_ns() == pytest.approx(7 * H, abs=10**9)
    assert later.detach(process)
    assert offsets_inside(stranger.pid) == UNMOVED
    later.close()
    assert stranger.poll() is None


def test_a_process_of_another_user_is_refused(
    attach: AttachInjector, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name; and one that is not there is a mistake of the user's."""

    def forbidden(path: Path, *arguments: object) -> None:
        raise PermissionError

    with pytest.raises(BadInput, match="there is no process 4194303"):
        attach.attach(4194303)
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(CannotInject, match="it is another user's; be that user, or root"):
        attach.attach(stranger.pid)


def test_each_refuses_what_the_other_is_for(
    vdso: VdsoInjector, attach: AttachInjector, stranger: subprocess.Popen[bytes]
) -> None:
    """By name."""
    with pytest.raises(CannotInject, match="use --injector attach"):
        vdso.attach(stranger.pid)
    attach.move(ClockReading(H, 0, 0))
    with pytest.raises(CannotInject, match=r"time base on the kernel's.*use --injector vdso"):
        attach.start(Start(SLEEPS))


def test_of_what_is_not_ours_only_the_end_is_known() -> None:
    """Not how it ended."""
    process = subprocess.Popen([PYTHON, "-S", "-c", "raise SystemExit(3)"])
    managed = ManagedProcess(process.pid, "python", is_ours=False)
    process.wait()
    assert managed.wait(WITHIN_S) == 0
    managed.end()


def test_a_program_that_ends_at_a_move_has_ended_and_nothing_else(
    attach: AttachInjector, stranger: subprocess.Popen[bytes]
) -> None:
    """`clock attach --awake` once failed in some runs with "not on these clocks any more": the wait
    of the program had come due, and its memory goes before its status comes."""
    managed = attach.attach(stranger.pid)
    stranger.kill()
    wait_until(lambda: is_ending(stranger.pid), "its end", WITHIN_S)
    attach.move(ClockReading(H, 0, H))
    assert attach.moved == ClockReading(H, 0, H)
    with pytest.raises(SubjectFailed, match=r"has ended$"):
        attach.read(managed)


def test_a_movement_in_words() -> None:
    """All three clocks, signed."""
    assert (
        in_words(ClockReading(-H, 0, 1_500_000))
        == "wall -3600.000 s, monotonic +0.000 s, boottime +0.002 s"
    )
