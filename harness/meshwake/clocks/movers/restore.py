"""Restores the wall clock of the engine's machine: by what really elapsed, at most once, by
whichever process comes first.

Before anything is changed an intent is written down: what the clocks were (the anchor), and every
base (wall - monotonic) that will be set from then on. The clock belongs where the anchor's base
puts it, and by as much further as the machine has really slept since. That does not depend on how
many steps were carried out before a crash, and doing it twice does what doing it once does.

A process that touches the clock of an engine holds the lock next to its intent: the harness for its
whole run, then its watchdog or `restore_leftovers`. Who gets the lock and finds no intent has
nothing to do.

    python -m meshwake.clocks.movers.restore INTENT

is the watchdog: it waits for the end of its standard input, which is the end of the harness however
that came about, and then restores the clock. Limits: a clock that something else has set meanwhile
(its base is none of ours) is left as it is; and where every way into the machine is gone, the
message says how to do it by hand, and the intent stays for the next command.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from meshwake.clocks.movers.node_access import (
    ClockMeasurement,
    CommandResult,
    Inside,
    NoAnswer,
    Way,
    measure,
    set_base,
)
from meshwake.clocks.movers.timesync import TimeSync
from meshwake.clocks.movers.timesync import release as release_time_sync
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS, NS_PER_S, seconds
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.core.resources import SOURCES
from meshwake.system.deadline import Deadline

# Setting takes two short-lived programs inside the node; what is nearer than this needs no setting.
RIGHT_WITHIN_NS = 250 * NS_PER_MS
# An intended base is recognised again within this, whatever NTP has slewed meanwhile (500 ppm of an
# hour).
RECOGNISED_WITHIN_NS = 2 * NS_PER_S
# /proc/uptime counts hundredths of a second; a machine that sleeps does so for longer than this.
_SLEPT_AT_LEAST_NS = NS_PER_S
# As in engine.py.
_SETS_MAX = 3
_PAUSE_S = 2.0
# The harness's own children hold its pipe for a moment longer than it; its lock ends with it.
_LOCK_WITHIN_S = 60.0
_LOCK_RETRIED_EVERY_S = 0.1
_SUFFIX = ".intent.json"


class Intent(BaseModel):
    """What will be done to an engine's clock, written before it is done. Clocks in ns; see the
    module. The environment and the command lines are those by which its machine can be entered
    without the harness."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    boot_id: str
    wall_ns: int
    monotonic_ns: int
    boottime_ns: int
    bases_ns: tuple[int, ...] = ()
    held: tuple[TimeSync, ...] = ()
    node: str
    ways: tuple[tuple[str, ...], ...]
    host_way: tuple[str, ...] | None
    environment: dict[str, str] = {}

    @property
    def base_ns(self) -> int:
        """What the wall clock should show for the monotonic one, if the machine does not sleep."""
        return self.wall_ns - self.monotonic_ns

    @property
    def clocks(self) -> ClockReading:
        """The anchor."""
        return ClockReading(self.wall_ns, self.monotonic_ns, self.boottime_ns)

    def inside(self) -> Inside:
        """The first way into the machine that answers."""
        return AnyWay(tuple(Way(way, self.environment) for way in self.ways))

    def on_host(self) -> Inside | None:
        """The way to the machine's own processes."""
        if self.host_way is None:
            return None
        return Way(self.host_way, self.environment)


@dataclass(frozen=True)
class AnyWay(Inside):
    """Several ways into one machine; tried in order, because a node may be gone when its clock is
    restored."""

    ways: tuple[Inside, ...]

    def run(self, node: str, argv: Sequence[str], within_s: float) -> CommandResult:
        """See Inside. A way whose program could not enter the node (125 to 127, 255) counts as
        none."""
        why = "there is no way into it"
        for way in self.ways:
            try:
                answer = way.run(node, argv, within_s)
            except NoAnswer as error:
                why = str(error)
                continue
            if answer.code not in (125, 126, 127, 255):
                return answer
            why = answer.error[-300:] or f"exit code {answer.code}"
        raise NoAnswer(f"node {node}: {why}")


# What is to be done


@dataclass(frozen=True)
class Decision:
    """Whether the wall clock is to be set (`base_ns`) or left alone (None), and why."""

    base_ns: int | None
    why: str


def decide(intent: Intent, now: ClockMeasurement) -> Decision:
    """Where the wall clock of the machine belongs that `now` was measured on."""
    if now.boot_id != intent.boot_id:
        return Decision(None, "the machine was restarted since, and has set its clock itself")

    slept_ns = _slept_ns(intent.clocks, now.clocks)
    right_ns = intent.base_ns + slept_ns
    off_ns = now.base_ns - right_ns
    if abs(off_ns) <= RIGHT_WITHIN_NS:
        return Decision(None, "the clock is right")

    # What we have set it to, or are setting it to, with and without the time that it slept.
    ours: list[int] = []
    for base_ns in (*intent.bases_ns, intent.base_ns):
        ours += [base_ns, base_ns + slept_ns]
    if all(abs(now.base_ns - base_ns) > RECOGNISED_WITHIN_NS for base_ns in ours):
        return Decision(
            None,
            f"something else has set it since ({seconds(off_ns):+.1f} s from where we would put it)",
        )
    return Decision(right_ns, f"it is {seconds(off_ns):+.3f} s from where it belongs")


def _slept_ns(anchor: ClockReading, now: ClockReading) -> int:
    """How long the machine has really slept since: what boottime went further than monotonic."""
    moved = now.since(anchor)
    slept_ns = moved.boottime_ns - moved.monotonic_ns
    return slept_ns if slept_ns >= _SLEPT_AT_LEAST_NS else 0


def restore_clock(
    intent: Intent, inside: Inside, pause: Callable[[float], None] = time.sleep
) -> str:
    """Sets the clock to what it should show and returns why it was left or moved. Raises
    SubjectFailed, with what to do by hand, when it cannot be reached or does not stay where it was
    put."""
    if not intent.bases_ns:
        return "it had not been moved"
    why, sets = "there was no answer", 0
    for _ in range(_SETS_MAX):
        try:
            decision = decide(intent, measure(inside, intent.node))
            if decision.base_ns is None:
                return f"restored: {why}" if sets else decision.why
            why, sets = decision.why, sets + 1
            set_base(inside, intent.node, decision.base_ns)
            if decide(intent, measure(inside, intent.node)).base_ns is None:
                return f"restored: {why}"
        except NoAnswer as error:
            why = str(error)
        pause(_PAUSE_S)
    raise SubjectFailed(
        f"the wall clock of the engine's machine (boot {intent.boot_id}) could not be "
        f"restored: {why}; do it by hand "
        "on that machine: 'hwclock -s', or restart its time synchronisation, or restart "
        "the machine (Docker Desktop: "
        "quit and start it)"
    )


# Intents on disk


def intent_path(directory: Path, boot_id: str) -> Path:
    """Where the intent for the machine with this boot lies."""
    return directory / f"{boot_id}{_SUFFIX}"


def write_intent(path: Path, intent: Intent) -> None:
    """Whole or not at all, and on the disk when this returns: the next thing that is done is to set
    a clock."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as stream:
        stream.write(intent.model_dump_json(indent=2))
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def read_intent(path: Path) -> Intent | None:
    """The intent that lies there, None when there is none. Raises LabUnavailable for what cannot be
    understood: a clock may be wrong, and this program does not know how."""
    try:
        return Intent.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise LabUnavailable(
            f"{path}: says what was done to an engine's clock, and cannot be read "
            f"({type(error).__name__}); look at "
            "that machine's clock yourself, then remove the file"
        ) from error


@contextmanager
def locked(path: Path, within_s: float = 0.0) -> Iterator[None]:
    """Excludes all others from the clock that the intent at `path` is about. Raises LabUnavailable
    when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = Deadline("the lock of the clock", within_s)
    try:
        while not _lock_at_once(handle):
            if deadline.has_passed:
                raise LabUnavailable(
                    "another run is moving the clock of this engine's machine; wait for "
                    "its end (one clock, one run)"
                )
            deadline.sleep(_LOCK_RETRIED_EVERY_S)
        yield
    finally:
        os.close(handle)


def lock_now(path: Path) -> ExitStack:
    """The lock of `locked`, held until what is returned is closed."""
    stack = ExitStack()
    stack.enter_context(locked(path))
    return stack


def _lock_at_once(handle: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def restore(path: Path, pause: Callable[[float], None] = time.sleep) -> str | None:
    """Restores what the intent at `path` says, lets time synchronisation go on, and removes it;
    None when there is none. The caller holds the lock. SubjectFailed, and the intent stays, when
    the clock could not be reached."""
    intent = read_intent(path)
    if intent is None:
        return None
    try:
        how = restore_clock(intent, intent.inside(), pause)
    finally:
        # Also when the clock could not be reached: time synchronisation will correct it.
        failed = release_time_syncs(intent)
    if failed:
        raise SubjectFailed(f"{how}; but time synchronisation is still held: {'; '.join(failed)}")
    path.unlink(missing_ok=True)
    return how


def release_time_syncs(intent: Intent) -> list[str]:
    """Lets held time services go on; why it failed for those for which it did."""
    host = intent.on_host()
    if host is None or not intent.held:
        return []
    return release_time_sync(host, intent.held)


def leftovers(directory: Path) -> tuple[Path, ...]:
    """The intents that lie in `directory`: clocks that are being moved, or were when a harness was
    killed."""
    return tuple(sorted(directory.glob(f"*{_SUFFIX}")))


def restore_leftovers(directory: Path) -> list[str]:
    """Restores every clock that a killed harness has left and no process is at work on; what was
    done, one line each."""
    done_lines = []
    for path in leftovers(directory):
        with suppress(LabUnavailable), locked(path):
            try:
                done = restore(path)
            except SubjectFailed as error:
                done = str(error)
            done_lines += [] if done is None else [f"{path.name.removesuffix(_SUFFIX)}: {done}"]
    return done_lines


# The watchdog


class Watchdog:
    """A process outside the harness, in a session of its own, that puts the clock back when the
    harness has ended and has not done so itself. It needs nothing of the harness but the intent at
    `path`."""

    def __init__(self, path: Path) -> None:
        log = path.with_suffix(".log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "meshwake.clocks.movers.restore", str(path)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=SOURCES,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def end(self) -> None:
        """No more is needed of it: the intent has gone, so it finds nothing to do. Call this
        without the lock."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_LOCK_WITHIN_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(arguments: Sequence[str]) -> int:
    """The watchdog's side; how it went is its exit code, and in its log."""
    (name,) = arguments
    path = Path(name)
    while os.read(0, 4096):
        pass
    try:
        with locked(path, _LOCK_WITHIN_S):
            how = restore(path)
    except (LabUnavailable, SubjectFailed) as error:
        print(error, flush=True)  # noqa: T201  into its log
        return 1
    if how is not None:
        print(how, flush=True)  # noqa: T201  as above
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
