"""Idempotent steps: bringing up a cluster is a list of them, which can be repeated at any time.

A step has a probe, `done`, that queries the engine and the cluster and never relies on a record
alone; a step that is done is skipped. So `up` after a kill -9 between any two steps, or in the
middle of one, continues from the actual state. Each step has a timeout; everything that is awaited
within it has a name, and the error says what was last observed. When a step fails, evidence is
collected before the error is raised, and the error says where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, Literal, TypeVar

from meshwake.cluster.real_time import HostTime, wait_for
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessError, LabUnavailable

World = TypeVar("World")
State = Literal["begun", "going on", "done", "kept", "failed"]


@dataclass(frozen=True)
class Progress:
    """A progress report. `number` counts from 1; `detail` is what is done or observed just now."""

    step: str
    title: str
    number: int
    of: int
    state: State
    detail: str
    elapsed_s: float

    def __str__(self) -> str:
        """One line for a terminal, such as `[3/18] cluster: 3 machines made by kind`."""
        texts = {
            "begun": self.title,
            "going on": f"  {self.detail}",
            "kept": f"  nothing to do: {self.detail}",
            "done": f"  done after {self.elapsed_s:.0f} s",
            "failed": f"  FAILED after {self.elapsed_s:.0f} s",
        }
        return f"[{self.number}/{self.of}] {self.step}: {texts[self.state]}"


@dataclass(frozen=True)
class BringUpStep(Generic[World]):
    """One step. `do` carries it out and waits for the result; `done` returns what it observed when
    there is nothing to do, else None: a step without it is run every time. `plan` and `awaits` are
    what `--dry-run` prints."""

    name: str
    title: str
    within_s: float
    do: Callable[[World, Watch], None]
    plan: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    done: Callable[[World], str | None] = lambda world: None


class Watch:
    """The timeout of a running step, and its progress reports."""

    def __init__(self, real: HostTime, within_s: float, report: Callable[[str], None]) -> None:
        self._real, self._report, self._reported = real, report, ""
        self._began_ns, self.within_s = real.monotonic_ns(), within_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return (self._real.monotonic_ns() - self._began_ns) / NS_PER_S

    @property
    def left_s(self) -> float:
        """Seconds until its timeout, at least one, so that a program can be started at all."""
        return max(self.within_s - self.elapsed_s, 1.0)

    def say(self, detail: str) -> None:
        """Report progress, unless it is unchanged."""
        if detail != self._reported:
            self._reported = detail
            self._report(detail)

    def wait_for(
        self, what: str, look: Callable[[], str | None], within_s: float | None = None
    ) -> None:
        """As real_time.wait_for. Raises LabUnavailable at the timeout of the wait or of the step,
        whichever is earlier."""
        bound_s = self.left_s if within_s is None else min(within_s, self.left_s)

        def report(seen: str) -> None:
            self.say(f"waiting for {what}: {seen}")

        wait_for(what, self._real, bound_s, look, failed=LabUnavailable, report=report)


class StepFailed(LabUnavailable):
    """A step failed; `evidence` is the directory of what was collected about it."""


@dataclass(frozen=True)
class Collected:
    """What was collected about a failure: the directory, and the root cause if one was found."""

    place: Path | None
    cause: str | None = None


def run_steps(
    steps: Sequence[BringUpStep[World]],
    world: World,
    report: Callable[[Progress], None],
    collect: Callable[[BringUpStep[World], HarnessError], Collected],
    real: HostTime,
) -> None:
    """Run `steps` in order, skipping those that are done. Raises StepFailed, naming the step, at
    the first that fails."""
    for number, step in enumerate(steps, start=1):
        begun = Progress(step.name, step.title, number, len(steps), "begun", "", 0.0)
        _run_step(step, world, begun, report, collect, real)


def _run_step(
    step: BringUpStep[World],
    world: World,
    begun: Progress,
    report: Callable[[Progress], None],
    collect: Callable[[BringUpStep[World], HarnessError], Collected],
    real: HostTime,
) -> None:
    def report_state(state: State, detail: str = "") -> None:
        report(replace(begun, state=state, detail=detail, elapsed_s=watch.elapsed_s))

    watch = Watch(real, step.within_s, partial(report_state, "going on"))
    report(begun)
    try:
        seen = step.done(world)
        if seen is None:
            step.do(world, watch)
    except HarnessError as error:
        report_state("failed", str(error).splitlines()[0])
        collected = collect(step, error) if error.evidence is None else Collected(error.evidence)
        cause = f"\ncause: {collected.cause}" if collected.cause else ""
        # The exit code stays that of the error: who must act does not change by the step.
        failed = StepFailed(f"step {step.name} ({step.title}): {error}{cause}")
        failed.exit_code, failed.evidence = error.exit_code, collected.place
        raise failed from error
    report_state("done" if seen is None else "kept", seen or "")
