"""Real programs that print their clocks (tests/conformance/programs), built from the tools that are
here, and started.

What is built is kept for a whole test run, once for all its workers. A program whose tools are
missing is `Missing`, with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from meshwake.clocks.injectors.base import CannotInject, Injector, ManagedProcess, Start
from meshwake.system.deadline import Deadline

SOURCES = Path(__file__).parent / "programs"
BUILT_WITHIN_S = 120
ANSWERS_WITHIN_S = 20.0


class Ended(AssertionError):
    """A program ended by itself."""


class Missing(Exception):
    """This machine has not what a program is made with."""


@dataclass(frozen=True)
class ReportedClocks:
    """The clocks as a program printed them, between two readings of the machine's own; None: it has
    no name for that."""

    wall_ns: int
    monotonic_ns: int | None
    boottime_ns: int | None
    resolution_ns: int


@dataclass(frozen=True)
class Subject:
    """A program. `waits`: which kinds of waits it knows; `forks`, `executes`: which children it
    makes on request; `resolution_ns`: how fine its wall clock is. `open` starts it
    under an injector; None: it obeys lines."""

    name: str
    command: tuple[str, ...]
    waits: tuple[str, ...]
    forks: bool = False
    executes: bool = True
    waits_again: bool = True
    resolution_ns: int = 1
    open: Callable[[Subject, Injector, Start], Running] | None = None


class Running(Protocol):
    """A program under an injector, and the talk with it. Every answer is awaited within a bound."""

    taken: ManagedProcess
    ready: ReportedClocks  # its clocks at its start

    def clocks(self) -> ReportedClocks:
        """What it reads now."""

    def child(self, how: str) -> ReportedClocks:
        """What a child reads that it makes now, by "fork" or by "exec"."""

    def begin_wait(self, kind: str, lasts_ms: int) -> None:
        """It waits, so long by its own monotonic clock."""

    def still_waits(self, for_s: float) -> bool:
        """Whether its wait has not ended after so much real time."""

    def await_end(self, within_s: float) -> None:
        """Until its wait has ended."""

    def close(self) -> None:
        """Closes the conversation; the program belongs to its injector."""


def build(name: str, place: Path) -> Subject:
    """The program called so, made in `place` unless it is there. Raises Missing."""
    return _BUILDERS[name](place)


class Lines:
    """A Running that obeys lines: see programs/README.md."""

    def __init__(self, subject: Subject, injector: Injector, start: Start) -> None:
        self._subject, self._unread = subject, b""
        theirs, self._input = os.pipe()
        self._output, answers = os.pipe()
        try:
            self.taken = injector.start(replace(start, input=theirs, output=answers))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(theirs)
            os.close(answers)
        self.ready = self._reported_clocks(self._line("it is ready"))

    def clocks(self) -> ReportedClocks:
        """See Running."""
        self._say("clocks")
        return self._reported_clocks(self._line("its clocks"))

    def child(self, how: str) -> ReportedClocks:
        """See Running."""
        self._say(how)
        return self._reported_clocks(self._line(f"a child by {how}"))

    def begin_wait(self, kind: str, lasts_ms: int) -> None:
        """See Running."""
        self._say(f"wait {kind} {lasts_ms}")
        assert self._line("it waits") == "waiting"

    def still_waits(self, for_s: float) -> bool:
        """See Running."""
        return not self._unread and not select.select([self._output], [], [], for_s)[0]

    def await_end(self, within_s: float) -> None:
        """See Running."""
        assert self._line("the end of its wait", within_s) == "waited"

    def close(self) -> None:
        """See Running."""
        os.close(self._input)
        os.close(self._output)

    def _say(self, line: str) -> None:
        os.write(self._input, f"{line}\n".encode())

    def _line(self, awaited: str, within_s: float = ANSWERS_WITHIN_S) -> str:
        """The next line of it, whole."""
        deadline = Deadline(f"{self._subject.name}: {awaited}", within_s)
        while b"\n" not in self._unread:
            deadline.check(seen=repr(self._unread))
            if select.select([self._output], [], [], deadline.remaining_s)[0]:
                piece = os.read(self._output, 65536)
                if not piece:
                    raise Ended(
                        f"{self._subject.name} ended while awaited was: {awaited}; got "
                        f"{self._unread!r}"
                    )
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _reported_clocks(self, line: str) -> ReportedClocks:
        _, wall, *others = line.split()
        monotonic_ns, boottime_ns = (None if word == "-" else int(word) for word in others)
        return ReportedClocks(int(wall), monotonic_ns, boottime_ns, self._subject.resolution_ns)


@contextmanager
def running(
    subject: Subject, injector: Injector, *, with_children: bool = False
) -> Iterator[Running]:
    """A program for the length of a block. What is refused was not started."""
    children = _children()
    try:
        program = (subject.open or Lines)(
            subject, injector, Start(subject.command, with_children=with_children)
        )
    except CannotInject:
        if _children() != children:
            raise AssertionError("refused, and yet it was started") from None
        raise
    try:
        yield program
    finally:
        program.taken.end()
        program.close()


def _children() -> str:
    """The processes that this thread has started and that are there yet."""
    return Path("/proc/thread-self/children").read_text()


def _c(place: Path, static: bool) -> Subject:
    tool = _tool("gcc", "a C compiler: apt install gcc libc6-dev")
    options = ("-O1", *(("-static",) if static else ()))
    made = _made(place, "clocks.c", [tool, *options, "-o", "{program}", "{source}"])
    return Subject("C, static" if static else "C", (str(made),), ("event", "sleep"), forks=True)


def _go(place: Path, with_c: bool) -> Subject:
    tool = _tool("go", "Go: https://go.dev/dl")
    if with_c:
        _tool("gcc", "a C compiler: apt install gcc libc6-dev")
    own = {
        "CGO_ENABLED": str(int(with_c)),
        "GO111MODULE": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
    }
    more = (str(SOURCES / "with_c.go"),) if with_c else ()
    made = _made(place, "clocks.go", [tool, "build", "-o", "{program}", "{source}", *more], own)
    return Subject("Go, with C" if with_c else "Go", (str(made),), ("event",))


def _rust(place: Path) -> Subject:
    tool = _tool("rustc", "Rust: https://rustup.rs")
    made = _made(place, "clocks.rs", [tool, "--edition", "2021", "-o", "{program}", "{source}"])
    return Subject("Rust", (str(made),), ("sleep",))


def _python(place: Path) -> Subject:
    # The base interpreter: the one of a virtual environment is the same file, and -S keeps its
    # libraries out.
    command = (os.path.realpath(sys.executable), "-S", str(SOURCES / "clocks.py"))
    return Subject("Python", command, ("event", "sleep"), forks=True)


def _node(place: Path) -> Subject:
    tool = _tool("node", "Node: apt install nodejs")
    return Subject("Node", (tool, str(SOURCES / "clocks.js")), ("event",), resolution_ns=10**6)


def _java(place: Path) -> Subject:
    java, javac = (
        _tool(name, "Java: apt install default-jdk-headless") for name in ("java", "javac")
    )
    made = _made(
        place, "Clocks.java", [javac, "-d", "{directory}", "{source}"], program="Clocks.class"
    )
    options = ("-Xint", "-XX:+UseSerialGC", "-cp", str(made.parent))
    return Subject("Java", (java, *options, "Clocks"), ("sleep",), resolution_ns=10**6)


def _server(kind: str, version: str = "") -> Subject:
    from tests.conformance import servers

    return servers.envoy() if kind == "envoy" else servers.ztunnel(version)


def _tool(name: str, how_to_get_it: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"no {name} on PATH ({how_to_get_it})")
    return os.path.realpath(found) if name == "java" else found


def _made(
    place: Path,
    source: str,
    command: Sequence[str],
    own: dict[str, str] | None = None,
    program: str = "",
) -> Path:
    """What `command` makes of a source file; made once for all callers."""
    text = (SOURCES / source).read_text() + repr(command)
    directory = place / hashlib.sha256(text.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / (program or source.partition(".")[0])
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            words = {
                "program": str(made),
                "source": str(SOURCES / source),
                "directory": str(directory),
            }
            done = subprocess.run(
                [word.format(**words) for word in command],
                env=os.environ | (own or {}),
                capture_output=True,
                text=True,
                check=False,
                timeout=BUILT_WITHIN_S,
            )
            if done.returncode:
                raise Missing(
                    f"{command[0]} made no program of {source}: {done.stderr.strip()[-300:]}"
                )
    return made


_BUILDERS: dict[str, Callable[[Path], Subject]] = {
    "C": lambda place: _c(place, static=False),
    "C, static": lambda place: _c(place, static=True),
    "Go": lambda place: _go(place, with_c=False),
    "Go, with C": lambda place: _go(place, with_c=True),
    "Rust": _rust,
    "Python": _python,
    "Node": _node,
    "Java": _java,
    "Envoy": lambda place: _server("envoy"),
    "ztunnel 1.28": lambda place: _server("ztunnel", "1.28.0"),
    "ztunnel 1.31, with jemalloc": lambda place: _server("ztunnel", "1.31.0-rc.0"),
}
PROGRAMS = tuple(_BUILDERS)
