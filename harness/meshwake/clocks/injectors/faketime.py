"""The injector `faketime`: the library that python-libfaketime brings, preloaded into a program
when it is started.

Problem: a vDSO lasts until the next exec, so a program that executes others (a shell, a build, a
test runner) cannot be moved as a whole by rewriting it. Idea: the environment is inherited. The
loader of every dynamic program loads the library named by LD_PRELOAD, whose clock functions are
before those of the C library; by how much they are to be off they read, at every reading, from one
file of ours, which is replaced in one step. So all programs of a node are moved at once, also while
they run, and what they execute lives on the same clocks.

    clocks "wall"    the wall clock alone moves: a step                      DONT_FAKE_MONOTONIC=1
    clocks "all"     all three move by the same amount: time awake

Limits, as measured with 0.9.10 (docs/injectors.md):
    suspend          boottime does not move with the wall clock: refused
    clocks "all"     the library counts monotonic and boottime from 1970 like the wall clock, so the
                     kernel, which counts from the boot, waits for fifty years where a program hands
                     it an absolute deadline. Whether one does shows only while it waits: a move is
                     refused then.
    not reached      static programs; Go (it asks the vDSO itself, also when linked to C); programs
                     with an allocator of their own (jemalloc, tcmalloc): it takes its lock and
                     reads the time, the library finds its functions then, and that allocates;
                     set-user-id programs; other loaders than glibc's
    another root     a program that goes where the file is not to be seen (chroot, a container) is
                     on true time again
    reading inside   its clock function opens a file and takes locks, which a stopped thread may
                     hold: refused

A program that is killed leaves the library's semaphore and memory in /dev/shm; `close` removes
those of its programs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from meshwake.clocks.injectors.base import (
    UNMOVED,
    CannotInject,
    ManagedProcess,
    Start,
    check_no_way_back,
    check_waits,
    popen_dying_with_us,
    sum_of,
)
from meshwake.clocks.injectors.programs import (
    EM_AARCH64,
    EM_X86_64,
    Program,
    find_program,
    look_at,
    symbols_of,
)
from meshwake.clocks.injectors.unreachable_waits import (
    UnreachableWaits,
    unreachable_waits,
    wake_epoll_waits,
)
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.core.extras import how_to_install
from meshwake.system.deadline import Deadline

Clocks = Literal["wall", "all"]
LIBRARY = Path("vendor", "libfaketime", "src", "libfaketime.so.1")
RUNS_WITHIN_S = 10.0
_YEARS_NS = 5 * 365 * 86400 * NS_PER_S
_TRIED_NS, _LAST_WORDS = 3600 * NS_PER_S, 200
_LOOK_EVERY_S = 0.001
_MACHINES = {"x86_64": EM_X86_64, "aarch64": EM_AARCH64}
_READY = "initialized"  # a variable of the library: not 0 once it has found the functions that it replaces
_VDSO = "use --injector vdso"


def library() -> Path | None:
    """The library that python-libfaketime brings; None when it is not installed. Imports nothing of
    it."""
    package = importlib.util.find_spec("libfaketime")
    if package is None or not package.submodule_search_locations:
        return None

    place = Path(package.submodule_search_locations[0])
    path = place / LIBRARY
    if not path.is_file():
        return None
    return path.resolve()


class FaketimeInjector:
    """`faketime`: see the module. What it starts dies with the thread that started it."""

    name = "faketime"

    def __init__(self, clocks: Clocks = "wall") -> None:
        self._clocks, self._moved = clocks, UNMOVED
        self._processes: list[ManagedProcess] = []
        self._library = _library_that_fits()
        self._ready_at = symbols_of(self._library, frozenset({_READY})).get(_READY)
        self._directory = Path(tempfile.mkdtemp(prefix="meshwake-faketime-"))
        self._directory.chmod(0o755)  # programs of other users read it too
        self._file = self._directory / "moved"

        # Names in LD_PRELOAD end at a blank or a colon, and the way to the library may have some.
        self._preloaded = self._directory / "libfaketime.so.1"
        self._preloaded.symlink_to(self._library)
        self._try_it()
        self._write(UNMOVED)

    @property
    def moved(self) -> ClockReading:
        """See Injector."""
        return self._moved

    def refusal(self, program: Program, *, with_children: bool = False) -> CannotInject | None:
        """See Injector."""
        because = _out_of_reach(program)
        return None if because is None else CannotInject(self.name, program.name, because, _VDSO)

    def check(self, by: ClockReading) -> None:
        """See Injector."""
        check_no_way_back(by)
        what = "this movement"
        if self._clocks == "wall" and (by.monotonic_ns or by.boottime_ns):
            because = "the wall clock is moved alone here; monotonic and boottime stay the kernel's"
            instead = f"ask for a step, or {_VDSO}"
        elif self._clocks == "all" and len(set(by)) > 1:
            because, instead = "all clocks move by the same amount here, and never apart", _VDSO
        else:
            return
        raise CannotInject(self.name, what, because, instead)

    def start(self, start: Start) -> ManagedProcess:
        """See Injector."""
        path = find_program(start.command[0])
        program = look_at(path)
        refused = self.refusal(program)
        if refused is not None:
            raise refused
        popen = popen_dying_with_us(path, start, self._environment(start.environment))
        process = ManagedProcess(popen.pid, path.name, is_ours=True, popen=popen)
        self._processes.append(process)
        try:
            self._await_library(process, program)
        except BaseException:
            self._end(process)
            raise
        return process

    def attach(self, pid: int) -> ManagedProcess:
        """See Injector: never."""
        raise CannotInject(
            self.name,
            f"process {pid}",
            "it runs already, and nothing can be preloaded into it",
            "use --injector attach",
        )

    def move(self, by: ClockReading) -> None:
        """See Injector."""
        self.check(by)
        programs = [one for one in self._processes if one.poll() is None]
        check_waits(self.name, by, programs)
        self._moved = sum_of(self._moved, by)
        self._write(self._moved)
        if by.monotonic_ns:
            for one in programs:
                wake_epoll_waits(one.pid)

    def unreachable_waits(self, process: ManagedProcess) -> UnreachableWaits:
        """See Injector. The library translates some deadlines and some not: only what is years away
        is none."""
        if self._clocks == "wall":
            return unreachable_waits(
                process.pid, self._moved, max(self._moved.wall_ns - NS_PER_S, _YEARS_NS)
            )
        return unreachable_waits(process.pid, ClockReading(*[time.time_ns()] * 3), _YEARS_NS)

    def read(self, process: ManagedProcess) -> ClockReading:
        """See Injector: never."""
        raise CannotInject(
            self.name,
            f"reading the clocks inside process {process.pid}",
            "its clock function takes locks that a stopped thread may hold, and would hang",
            "let the program print what it sees, or use --injector vdso",
        )

    def close(self) -> None:
        """See Injector."""
        for one in self._processes:
            self._end(one)
        self._processes.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _try_it(self) -> None:
        """Shows a Python of ours another time; what cannot be preloaded is ignored by the loader,
        not refused."""
        self._write(ClockReading(_TRIED_NS, 0, 0))
        started_ns, output, shown_ns = time.time_ns(), "", 0
        command = [sys.executable, "-I", "-S", "-c", "import time; print(time.time_ns())"]
        try:
            tried = subprocess.run(
                command,
                env=self._environment(None),
                capture_output=True,
                text=True,
                check=True,
                timeout=RUNS_WITHIN_S,
            )
            output, shown_ns = tried.stderr.strip()[-_LAST_WORDS:], int(tried.stdout)
        except (subprocess.SubprocessError, ValueError) as error:
            output = str(error)
        if not 0 <= shown_ns - started_ns - _TRIED_NS <= RUNS_WITHIN_S * NS_PER_S:
            shutil.rmtree(self._directory)
            raise CannotInject(
                self.name, "this machine", f"the library does not load here ({output})", _VDSO
            )

    def _environment(self, environment: Mapping[str, str] | None) -> dict[str, str]:
        given = os.environ if environment is None else environment
        # Its own settings decide; one that the caller has set for something else would change them.
        variables = {
            name: value for name, value in given.items() if not name.startswith("FAKETIME")
        }

        preload = [str(self._preloaded), *variables.get("LD_PRELOAD", "").split()]
        return variables | {
            "LD_PRELOAD": " ".join(preload),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1" if self._clocks == "wall" else "0",
            "NO_FAKE_STAT": "1",  # a clock that is stepped does not move the times of files
        }

    def _write(self, moved: ClockReading) -> None:
        """In one step: a reader finds the old file or the new one."""
        sign, rest_ns = ("-", -moved.wall_ns) if moved.wall_ns < 0 else ("+", moved.wall_ns)
        fresh = self._directory / "moved.next"
        fresh.write_text(f"{sign}{rest_ns // NS_PER_S}.{rest_ns % NS_PER_S:09d}\n")
        fresh.replace(self._file)

    def _await_library(self, process: ManagedProcess, program: Program) -> None:
        """Until the library has come up in the program, or that has ended or executed another; it
        hangs for ever where the library and the program's own allocator wait for each other."""
        deadline = Deadline("the library to come up", RUNS_WITHIN_S)
        while (
            process.poll() is None
            and not self._is_up(process.pid)
            and _is_still(process.pid, program)
        ):
            if deadline.has_passed:
                raise SubjectFailed(
                    f"injector faketime: {process.name} did not come up with the library "
                    "preloaded within "
                    f"{RUNS_WITHIN_S:.0f} s, so it was ended; does its allocator read the "
                    f"time? {_VDSO}"
                )
            deadline.sleep(_LOOK_EVERY_S)

    def _is_up(self, pid: int) -> bool:
        if (
            self._ready_at is None
        ):  # another build of the library, stripped: that it was tried must do
            return True
        with suppress(OSError, struct.error):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if line.endswith(str(self._library)) and line.split()[2] == "00000000":
                    base = int(line.split("-")[0], 16)
                    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                        return bool(
                            struct.unpack(
                                "<i", os.pread(memory.fileno(), 4, base + self._ready_at)
                            )[0]
                        )
        return False

    def _end(self, process: ManagedProcess) -> None:
        process.end()
        for name in (f"sem.faketime_sem_{process.pid}", f"faketime_shm_{process.pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)  # noqa: S108  # the library's, not ours to place


def _is_still(pid: int, program: Program) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").samefile(program.path)
    except OSError:
        return True


def _library_that_fits() -> Path:
    path = library()
    if path is None:
        because, instead = "python-libfaketime is not installed", how_to_install("faketime")
    elif look_at(path).machine != _MACHINES.get(platform.machine()):
        because, instead = f"the library that it brings is not for {platform.machine()}", _VDSO
    else:
        return path
    raise CannotInject("faketime", "this machine", because, instead)


def _out_of_reach(program: Program) -> str | None:
    for is_so, because in (
        (
            not program.is_64_bit or program.machine != _MACHINES.get(platform.machine()),
            "it is built for another processor than the library",
        ),
        (program.loader is None, "it is a static program: nothing can be preloaded into it"),
        (
            not program.loader_is_glibc,
            f"it is loaded by {program.loader}, and the library is made for glibc's loader",
        ),
        (
            program.is_go,
            "Go asks the kernel's vDSO for the time itself, not the C library: it would "
            "stay on true time",
        ),
        (
            program.allocator is not None,
            "its allocator is not the C library's: it reads the time while it holds a lock "
            "that the library then waits "
            "for, and would hang",
        ),
        (
            program.gains_rights,
            "it gains rights when it is executed (set-user-id or capabilities): nothing is "
            "preloaded into it",
        ),
    ):
        if is_so:
            return because
    return None
