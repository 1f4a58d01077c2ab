"""Steps that can be taken again: how a cluster is brought up, as a list, and what makes that list
safe to repeat.

A step has a probe, `done`, that asks the engine and the cluster, never only a memory; a step that
is done is kept. So `up` after a kill -9 between any two steps, or in the middle of one, goes on
where the world really is. Each step has a bound; whatever is awaited within it has a name, and the
error says what was last seen. When a step fails, whatever can explain it is collected before the
error is raised, and the error names where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, Literal, TypeVar

from meshwake.cluster.real_time import RealTime, wait_for
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessError, LabUnavailable

World = TypeVar("World")
State = Literal["begun", "going on", "done", "kept", "failed"]


@dataclass(frozen=True)
class Progress:
    """One thing to tell a person who waits. `number` counts from 1; `detail` is what is seen or
    done just now."""

    step: str
    title: str
    number: int
    of: int
    state: State
    detail: str
    elapsed_s: float

    def __str__(self) -> str:
        """As a person reads it: [3/18] cluster: 3 machines made by kind."""
        words = {
            "begun": self.title,
            "going on": f"  {self.detail}",
            "kept": f"  nothing to do: {self.detail}",
            "done": f"  done after {self.elapsed_s:.0f} s",
            "failed": f"  FAILED after {self.elapsed_s:.0f} s",
        }
        return f"[{self.number}/{self.of}] {self.step}: {words[self.state]}"


@dataclass(frozen=True)
class Step(Generic[World]):
    """One step. `do` does it and waits until it holds; `done` says what it saw when there is
    nothing to do, else None: a step without it is taken every time. `plan` is what `--dry-run`
    prints: what is done, then what is awaited."""

    name: str
    title: str
    within_s: float
    do: Callable[[World, Watch], None]
    plan: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    done: Callable[[World], str | None] = lambda world: None


class Watch:
    """What a step may use while it is taken: its bound, and somebody to tell."""

    def __init__(self, real: RealTime, within_s: float, tell: Callable[[str], None]) -> None:
        self._real, self._tell, self._told = real, tell, ""
        self._began_ns, self.within_s = real.monotonic_ns(), within_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return (self._real.monotonic_ns() - self._began_ns) / NS_PER_S

    @property
    def left_s(self) -> float:
        """Seconds until its bound, at least one: a program that is started gets a chance."""
        return max(self.within_s - self.elapsed_s, 1.0)

    def say(self, detail: str) -> None:
        """Tells what is done just now, once."""
        if detail != self._told:
            self._told = detail
            self._tell(detail)

    def wait_for(
        self, what: str, look: Callable[[], str | None], within_s: float | None = None
    ) -> None:
        """As clocks.wait_for. Raises LabUnavailable at the bound of the wait or of the step,
        whichever is earlier."""
        bound_s = self.left_s if within_s is None else min(within_s, self.left_s)

        def tell(seen: str) -> None:
            self.say(f"waiting for {what}: {seen}")

        wait_for(what, self._real, bound_s, look, failed=LabUnavailable, tell=tell)


class StepFailed(LabUnavailable):
    """A step could not be taken; `evidence` is where everything was collected that may explain it."""


@dataclass(frozen=True)
class Collected:
    """What was collected of a failure: where it lies, and the true reason in it when there is one."""

    place: Path | None
    cause: str | None = None


def take(
    steps: Sequence[Step[World]],
    world: World,
    tell: Callable[[Progress], None],
    collect: Callable[[Step[World], HarnessError], Collected],
    real: RealTime,
) -> None:
    """Takes `steps` in order, leaving out what is done. Raises StepFailed, naming the step, at the
    first that fails."""
    for number, step in enumerate(steps, start=1):
        begun = Progress(step.name, step.title, number, len(steps), "begun", "", 0.0)
        _take_one(step, world, begun, tell, collect, real)


def _take_one(
    step: Step[World],
    world: World,
    begun: Progress,
    tell: Callable[[Progress], None],
    collect: Callable[[Step[World], HarnessError], Collected],
    real: RealTime,
) -> None:
    def told(state: State, detail: str = "") -> None:
        tell(replace(begun, state=state, detail=detail, elapsed_s=watch.elapsed_s))

    watch = Watch(real, step.within_s, partial(told, "going on"))
    tell(begun)
    try:
        seen = step.done(world)
        if seen is None:
            step.do(world, watch)
    except HarnessError as error:
        told("failed", str(error).splitlines()[0])
        collected = collect(step, error) if error.evidence is None else Collected(error.evidence)
        cause = f"\ncause: {collected.cause}" if collected.cause else ""
        failed = StepFailed(f"step {step.name} ({step.title}): {error}{cause}")
        failed.exit_code, failed.evidence = error.exit_code, collected.place
        raise failed from error
    told("done" if seen is None else "kept", seen or "")
