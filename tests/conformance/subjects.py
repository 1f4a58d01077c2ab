"""Real programs that tell their clocks (tests/conformance/programs), built from the tools that are here, and started.

What is built is kept for a whole test run, once for all its workers. A program whose tools are missing is `Missing`,
with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clocks.injector import Injector, Start, Taken

SOURCES = Path(__file__).parent / "programs"
BUILT_WITHIN_S = 120
ANSWERS_WITHIN_S = 20.0


class Missing(Exception):
    """This machine has not what a program is made with."""


@dataclass(frozen=True)
class Told:
    """The clocks as a program told them, between two readings of the machine's own; None: it has no name for that."""

    wall_ns: int
    monotonic_ns: int | None
    boottime_ns: int | None
    resolution_ns: int


@dataclass(frozen=True)
class Subject:
    """A program. `waits`: which kinds of waits it knows. `resolution_ns`: how fine its wall clock is told."""

    name: str
    command: tuple[str, ...]
    waits: tuple[str, ...]
    forks: bool = False
    resolution_ns: int = 1


def build(name: str, place: Path) -> Subject:
    """The program called so, made in `place` unless it is there. Raises Missing."""
    return _BUILDERS[name](place)


class Running:
    """A program under an injector, and the talk with it."""

    def __init__(self, subject: Subject, injector: Injector, *, with_children: bool = False) -> None:
        self.subject = subject
        theirs, self._input = os.pipe()
        self._output, answers = os.pipe()
        self._unread = b""
        children = _children()
        try:
            start = Start(subject.command, with_children=with_children, input=theirs, output=answers)
            self.taken: Taken = injector.start(start)
        except BaseException:
            self.close()
            if _children() != children:
                raise AssertionError("refused or failed, and yet it was started") from None
            raise
        finally:
            os.close(theirs)
            os.close(answers)
        self.ready = self._told(self.line("it is ready"))

    def say(self, line: str) -> None:
        """One line to it."""
        os.write(self._input, f"{line}\n".encode())

    def line(self, awaited: str, within_s: float = ANSWERS_WITHIN_S) -> str:
        """The next line of it, whole."""
        give_up = time.monotonic() + within_s
        while b"\n" not in self._unread:
            left_s = give_up - time.monotonic()
            assert left_s > 0, f"{self.subject.name}: {awaited}: not within {within_s} s; got {self._unread!r}"
            if select.select([self._output], [], [], left_s)[0]:
                piece = os.read(self._output, 65536)
                assert piece, f"{self.subject.name} ended while awaited was: {awaited}; got {self._unread!r}"
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def silent_for(self, lasts_s: float) -> bool:
        """Whether it says nothing for so long."""
        return not self._unread and not select.select([self._output], [], [], lasts_s)[0]

    def clocks(self) -> Told:
        """What it reads now."""
        self.say("clocks")
        return self._told(self.line("its clocks"))

    def child(self, how: str) -> Told | None:
        """What a child of it reads; None when it makes none in this way."""
        self.say(how)
        line = self.line(f"a child by {how}")
        return None if line == "cannot" else self._told(line)

    def close(self) -> None:
        """Our ends of the pipes; the program belongs to its injector."""
        os.close(self._input)
        os.close(self._output)

    def _told(self, line: str) -> Told:
        _, wall, monotonic, boottime = line.split()
        read: Callable[[str], int | None] = lambda word: None if word == "-" else int(word)  # noqa: E731
        return Told(int(wall), read(monotonic), read(boottime), self.subject.resolution_ns)


def _children() -> str:
    """The processes that this thread has started and that are there yet."""
    return Path("/proc/thread-self/children").read_text()


@contextmanager
def running(subject: Subject, injector: Injector, *, with_children: bool = False) -> Iterator[Running]:
    """A program for the length of a block."""
    program = Running(subject, injector, with_children=with_children)
    try:
        yield program
    finally:
        program.taken.end()
        program.close()


def _c(place: Path, static: bool) -> Subject:
    tool = _tool("gcc", "a C compiler: apt install gcc libc6-dev")
    options = ("-O1", *(("-static",) if static else ()))
    made = _made(place, "clocks.c", [tool, *options, "-o", "{program}", "{source}"])
    return Subject("C, static" if static else "C", (str(made),), ("event", "sleep"), forks=True)


def _go(place: Path, with_c: bool) -> Subject:
    tool = _tool("go", "Go: https://go.dev/dl")
    if with_c:
        _tool("gcc", "a C compiler: apt install gcc libc6-dev")
    own = {"CGO_ENABLED": str(int(with_c)), "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    more = (str(SOURCES / "with_c.go"),) if with_c else ()
    made = _made(place, "clocks.go", [tool, "build", "-o", "{program}", "{source}", *more], own)
    return Subject("Go, with C" if with_c else "Go", (str(made),), ("event",))


def _rust(place: Path) -> Subject:
    tool = _tool("rustc", "Rust: https://rustup.rs")
    made = _made(place, "clocks.rs", [tool, "--edition", "2021", "-o", "{program}", "{source}"])
    return Subject("Rust", (str(made),), ("sleep",))


def _python(place: Path) -> Subject:
    # The base interpreter: the one of a virtual environment is the same file, and -S keeps its libraries out.
    command = (os.path.realpath(sys.executable), "-S", str(SOURCES / "clocks.py"))
    return Subject("Python", command, ("event", "sleep"), forks=True)


def _node(place: Path) -> Subject:
    tool = _tool("node", "Node: apt install nodejs")
    return Subject("Node", (tool, str(SOURCES / "clocks.js")), ("event",), resolution_ns=10**6)


def _java(place: Path) -> Subject:
    java, javac = (_tool(name, "Java: apt install default-jdk-headless") for name in ("java", "javac"))
    made = _made(place, "Clocks.java", [javac, "-d", "{directory}", "{source}"], program="Clocks.class")
    options = ("-Xint", "-XX:+UseSerialGC", "-cp", str(made.parent))
    return Subject("Java", (java, *options, "Clocks"), ("sleep",), resolution_ns=10**6)


def _tool(name: str, how_to_get_it: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"no {name} on PATH ({how_to_get_it})")
    return os.path.realpath(found) if name == "java" else found


def _made(
    place: Path, source: str, command: Sequence[str], own: dict[str, str] | None = None, program: str = ""
) -> Path:
    """What `command` makes of a source file; made once, whoever asks."""
    text = (SOURCES / source).read_text() + repr(command)
    directory = place / hashlib.sha256(text.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / (program or source.partition(".")[0])
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            words = {"program": str(made), "source": str(SOURCES / source), "directory": str(directory)}
            done = subprocess.run(
                [word.format(**words) for word in command],
                env=os.environ | (own or {}),
                capture_output=True,
                text=True,
                check=False,
                timeout=BUILT_WITHIN_S,
            )
            if done.returncode:
                raise Missing(f"{command[0]} made no program of {source}: {done.stderr.strip()[-300:]}")
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
}
PROGRAMS = tuple(_BUILDERS)
