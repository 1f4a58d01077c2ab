"""The injector that preloads libfaketime: what it writes, what it refuses, and that nothing is left
(Linux)."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from meshwake.clocks.injectors import faketime
from meshwake.clocks.injectors.base import UNMOVED, CannotInject, Start
from meshwake.clocks.injectors.faketime import FaketimeInjector, library
from meshwake.clocks.injectors.programs import EM_AARCH64, EM_X86_64, Program, look_at
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, SubjectFailed
from meshwake.ztunnel.binaries import find

pytestmark = pytest.mark.skipif(
    library() is None or os.uname().machine != "x86_64",
    reason="needs python-libfaketime, whose wheel is for x86_64",
)
PYTHON = os.path.realpath(sys.executable)
H = 3600 * 10**9
DYNAMIC = Program(Path("/p"), EM_X86_64, True, "/lib64/ld-linux-x86-64.so.2", False, None, False)
WITHIN_S = 20.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the library chooses it


@pytest.fixture
def injector() -> Iterator[FaketimeInjector]:
    """With nothing moved yet."""
    one = FaketimeInjector()
    yield one
    one.close()


def test_its_file_says_the_sum_of_all_moves(injector: FaketimeInjector) -> None:
    """To the nanosecond, and with a sign."""
    written = []
    for by_ns in (1, H, -2 * H, H - 1):
        injector.move(ClockReading(by_ns, 0, 0))
        written.append(injector._file.read_text())
    assert written == ["+0.000000001\n", "+3600.000000001\n", "-3599.999999999\n", "+0.000000000\n"]
    assert injector.moved == UNMOVED


@pytest.mark.parametrize(
    ("program", "because"),
    [
        (replace(DYNAMIC, loader=None), "static program"),
        (replace(DYNAMIC, loader="/lib/ld-musl-x86_64.so.1"), "made for glibc's loader"),
        (replace(DYNAMIC, is_go=True), "Go asks the kernel's vDSO"),
        (replace(DYNAMIC, allocator="libjemalloc.so.2"), "and would hang"),
        (replace(DYNAMIC, gains_rights=True), "nothing is preloaded into it"),
        (replace(DYNAMIC, machine=EM_AARCH64), "another processor"),
        (replace(DYNAMIC, is_64_bit=False), "another processor"),
    ],
)
def test_what_is_out_of_reach_is_refused(
    injector: FaketimeInjector, program: Program, because: str
) -> None:
    """With what to use instead."""
    refused = injector.refusal(program)
    assert refused is not None
    assert because in str(refused) and str(refused).endswith("use --injector vdso")
    assert injector.refusal(DYNAMIC) is None


def test_movements_that_it_cannot_show_are_refused(injector: FaketimeInjector) -> None:
    """A suspend; time awake where only the wall clock moves; clocks that part where they move
    together."""
    for by in (ClockReading(H, 0, H), ClockReading(H, H, H)):
        with pytest.raises(CannotInject, match="the wall clock is moved alone here"):
            injector.move(by)
    with pytest.raises(BadInput, match="never go back"):
        injector.move(ClockReading(0, -H, 0))
    assert injector.moved == UNMOVED
    together = FaketimeInjector("all")
    try:
        with pytest.raises(CannotInject, match="never apart"):
            together.move(ClockReading(H, 0, H))
        together.move(ClockReading(H, H, H))
    finally:
        together.close()


def test_what_runs_already_is_refused(injector: FaketimeInjector) -> None:
    """With the injector that can."""
    with pytest.raises(CannotInject, match="use --injector attach"):
        injector.attach(os.getpid())


def run(injector: FaketimeInjector, program: str, environment: dict[str, str]) -> str:
    """What a Python program prints under the injector."""
    reader, writer = os.pipe()
    try:
        process = injector.start(
            Start(
                (PYTHON, "-S", "-c", program), environment=os.environ | environment, output=writer
            )
        )
        assert process.wait(WITHIN_S) == 0
    finally:
        os.close(writer)
    with os.fdopen(reader) as output:
        return output.read()


def test_settings_of_the_users_own_faketime_do_not_get_in_the_way(
    injector: FaketimeInjector,
) -> None:
    """FAKETIME comes before the file in libfaketime's own order; what else is preloaded stays."""
    injector.move(ClockReading(H, 0, 0))
    own = {"FAKETIME": "2001-01-01 00:00:00", "LD_PRELOAD": "libm.so.6", "KEPT": "yes"}
    printed = run(
        injector,
        "import os, time; print(time.time(), os.environ['LD_PRELOAD'], os.environ['KEPT'])",
        own,
    )
    shown, *rest = printed.split()
    assert float(shown) == pytest.approx(time.time() + 3600, abs=WITHIN_S)
    assert rest == [str(injector._preloaded), "libm.so.6", "yes"]


def test_times_of_files_are_not_moved(injector: FaketimeInjector, tmp_path: Path) -> None:
    """A clock that is stepped leaves them as they are."""
    injector.move(ClockReading(H, 0, 0))
    (tmp_path / "file").touch()
    printed = run(
        injector, f"import os; print(os.stat({str(tmp_path / 'file')!r}).st_mtime_ns)", {}
    )
    assert int(printed) == (tmp_path / "file").stat().st_mtime_ns


def test_nothing_is_left_of_a_program_that_was_killed(injector: FaketimeInjector) -> None:
    """Neither itself nor the library's semaphore and shared memory, nor the file."""
    process = injector.start(Start((PYTHON, "-S", "-c", "import select; select.epoll().poll()")))
    assert [path.name for path in SHARED_MEMORY.glob(f"*faketime*{process.pid}")]
    injector.close()
    assert process.poll() == -9
    assert list(SHARED_MEMORY.glob(f"*faketime*{process.pid}")) == []
    assert not injector._directory.exists()


def test_a_program_that_does_not_come_up_is_ended(
    injector: FaketimeInjector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded time, with a message that says what happened: here the library's own flag is never
    seen."""
    monkeypatch.setattr(faketime, "RUNS_WITHIN_S", 0.3)
    monkeypatch.setattr(FaketimeInjector, "_is_up", lambda self, pid: False)
    with pytest.raises(
        SubjectFailed, match=r"did not come up.*so it was ended.*use --injector vdso"
    ):
        injector.start(Start((PYTHON, "-S", "-c", "import select; select.epoll().poll()")))
    assert [one.poll() for one in injector._processes] == [-9]


def test_the_refusal_of_allocators_is_justified(
    injector: FaketimeInjector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real ztunnel 1.31 has it, and hangs with the library preloaded; a 1.28 has not, and
    runs."""
    binaries = [find("1.31.0-rc.0"), find("1.28.0")]
    if None in binaries:
        pytest.skip("needs ztunnel 1.31.0-rc.0 and 1.28.0 in the cache (meshwake fetch)")
    newer, older = (binary.path for binary in binaries if binary is not None)
    assert [look_at(path).allocator is not None for path in (newer, older)] == [True, False]
    reader, writer = os.pipe()
    try:
        assert injector.start(Start((str(older), "version"), output=writer)).wait(WITHIN_S) == 0
        with pytest.raises(CannotInject, match="and would hang"):
            injector.start(Start((str(newer), "version"), output=writer))
        monkeypatch.setattr(faketime, "_out_of_reach", lambda program: None)
        monkeypatch.setattr(faketime, "RUNS_WITHIN_S", 1.5)
        with pytest.raises(SubjectFailed, match="did not come up"):
            injector.start(Start((str(newer), "version"), output=writer))
    finally:
        os.close(writer)
        os.close(reader)


def test_a_shell_that_becomes_another_program_at_once_has_come_up(
    injector: FaketimeInjector,
) -> None:
    """It is not mistaken for one that hangs, though the other has no library in it."""
    process = injector.start(
        Start(("sh", "-c", f"exec env -i {PYTHON} -S -c 'import select; select.epoll().poll()'"))
    )
    assert process.poll() is None


def test_a_library_at_a_place_with_blanks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Works, though the loader reads a blank as the end of a name."""
    real, place = library(), tmp_path / "my project: one" / "libfaketime.so.1"
    assert real is not None
    place.parent.mkdir()
    place.write_bytes(real.read_bytes())
    monkeypatch.setattr(faketime, "library", lambda: place)
    injector = FaketimeInjector()
    try:
        injector.move(ClockReading(H, 0, 0))
        assert (
            int(run(injector, "import time; print(time.time_ns())", {})) > time.time_ns() + H // 2
        )
    finally:
        injector.close()


def test_a_library_that_does_not_load_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the loader's own words, which it would only print."""
    place = tmp_path / "libfaketime.so.1"
    place.write_text("no library")
    monkeypatch.setattr(faketime, "_library_that_fits", lambda: place)
    monkeypatch.setattr(faketime, "symbols_of", lambda path, names: {})
    with pytest.raises(
        CannotInject, match=r"the library does not load here \(.*cannot be preloaded"
    ):
        FaketimeInjector()


def test_without_the_library_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        CannotInject,
        match=r"python-libfaketime is not installed; pip install 'meshwake\[faketime\]'",
    ):
        FaketimeInjector()
