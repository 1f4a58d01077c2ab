"""Finding the programs of a node: by scans of /proc, and at their exec, before their first
instruction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meshwake.clocks.movers.node_helper.answers import DescribedProcess, Watched, WatchState
from meshwake.clocks.movers.node_helper.pages import NOT_MOVED, NodePages
from meshwake.clocks.movers.node_helper.processes import (
    age_s,
    describe,
    executable_of,
    other_processes,
)
from meshwake.clocks.movers.node_helper.rules import Rule, first_rule
from meshwake.clocks.vdso.attach import attach, install_stopped
from meshwake.clocks.vdso.exec_watch import ExecWatch
from meshwake.clocks.vdso.page import ClockPage, Launched
from meshwake.clocks.vdso.ptrace import Tracee
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.system.process_stat import started_ticks

ATTACHED_WITHIN_S = 2.0
# A program this young may be on its way to be caught, between two of the stops on that way.
_CAUGHT_WITHIN_S = 3.0
# How soon to serve again: while an exec waits for us, and otherwise.
_BUSY_TICK_S = 0.001
_TICK_S = 0.2

How = Literal["attached", "caught", "inherited", "late", "found"]


@dataclass
class KnownProgram:
    """A program whose clocks are ours, and how it came to be: "attached" while it ran, when its
    rule was taken; "caught" at its exec; "inherited" from a parent by fork; "late": found running
    after its start had been missed, so that its time base is that of the kernel's clocks; "found":
    attached by a helper before us."""

    launched: Launched
    started_ticks: int
    executable: str
    how: How


class Programs:
    """The programs of a node under its two pages. `alive` is called again and again while something
    lasts; `caught` gets pid and start of a program that was just put under a page at its exec."""

    def __init__(
        self,
        pages: NodePages,
        node_root: Path,
        alive: Callable[[], None],
        caught: Callable[[int, int], None],
    ) -> None:
        self._pages, self._node_root = pages, node_root
        self._alive, self._when_caught = alive, caught
        self.rules: tuple[Rule, ...] = ()
        self.launchers: tuple[str, ...] = ()

        # Clocks may be ahead, and a program that is ahead is ended at the release.
        self.ends = False
        self.known: dict[int, KnownProgram] = {}

        # Process and start to the reason why its clocks are not ours.
        self.refused: dict[tuple[int, int], str] = {}

        # Programs that began on moved clocks, and when they were started.
        self.begun_moved: dict[int, int] = {}
        self.watch: ExecWatch | None = None
        self._unwatched_because: str | None = None
        self._launchers_found: list[str] = []

    def rule_of(self, pid: int) -> Rule | None:
        """The rule that fits this process."""
        return first_rule(self.rules, pid)

    def keeps_monotonic(self, pid: int) -> bool:
        """Whether a rule fits it that leaves the monotonic clock alone."""
        rule = self.rule_of(pid)
        return rule is not None and rule.keeps_monotonic

    def moved_monotonic(self) -> list[int]:
        """The known ones whose monotonic clock is moved too."""
        moved = []
        for pid in self.known:
            rule = self.rule_of(pid)
            if rule is not None and not rule.keeps_monotonic:
                moved.append(pid)
        return moved

    def in_order_of_release(self, pids: Iterable[int]) -> list[int]:
        """Those first that the others ask."""
        return sorted(pids, key=lambda pid: (not self.keeps_monotonic(pid), pid))

    def described_begun_moved(self) -> list[DescribedProcess]:
        """The programs that took their time base while clocks were moved: it is wrong when these
        are restored."""
        described = []
        for pid, ticks in sorted(self.begun_moved.items()):
            # One that has ended took its time base with it; its number may be another's now.
            if started_ticks(pid) == ticks:
                described.append(describe(pid))
        return described

    # Scans

    def scan(self, how: How) -> None:
        """Every program that fits is under our page afterwards, or is in `refused`."""
        self.forget_the_ended()
        for pid in other_processes():
            if pid in self.known:
                continue
            ticks = started_ticks(pid)
            # It has just ended, or an earlier scan has found out that it is too late.
            if ticks is None or (pid, ticks) in self.refused:
                continue

            rule = self.rule_of(pid)
            if rule is not None:
                self._attach(pid, ticks, how, self._pages.of(rule))

    def forget_the_ended(self) -> None:
        """Also those that have become another program."""
        for pid, program in list(self.known.items()):
            if not (self._is_still(pid, program) and self._pages.has(pid)):
                self.known.pop(pid, None)

        for pid, ticks in list(self.refused):
            if started_ticks(pid) != ticks:
                del self.refused[pid, ticks]

    def _is_still(self, pid: int, program: KnownProgram) -> bool:
        # The number of a process is given to another one later; an exec keeps number and start.
        if started_ticks(pid) != program.started_ticks:
            return False
        return executable_of(pid) == program.executable

    def _attach(self, pid: int, ticks: int, how: How, page: ClockPage) -> None:
        if self.watch is not None and self.watch.follows(pid):
            return  # it has just been executed, and is caught in a moment

        had_page = self._pages.has(pid)
        why_too_late = "" if had_page else self._why_too_late(page)
        if why_too_late:
            # A younger one may be caught yet.
            if age_s(ticks) > _CAUGHT_WITHIN_S:
                executable = executable_of(pid)
                self.refused[pid, ticks] = (
                    f"{executable} was not caught at its start, {why_too_late}"
                )
            return

        try:
            launched = attach(pid, page, ATTACHED_WITHIN_S, self.meanwhile)
        except SubjectFailed:
            return  # it ends, or is in the middle of something: the next scan tries again
        except LabUnavailable as error:
            self.refused[pid, ticks] = str(error)
            return

        program = KnownProgram(launched, ticks, executable_of(pid) or "", _how(how, had_page))
        # An exec that was caught meanwhile may have entered it already.
        self.known.setdefault(pid, program)
        self._mark_programs(pid)

    def _why_too_late(self, page: ClockPage) -> str:
        """Why a program that has run on the kernel's clocks cannot be put on `page` any more; "":
        it can."""
        offsets = page.get()
        if offsets.monotonic_ns < 0:
            return "and now its monotonic clock would go back"
        if self.ends and max(offsets) > 0:
            return "so its time base is not of these clocks"
        return ""

    # Execs

    @property
    def tick_s(self) -> float:
        """How soon the watch is to be served again."""
        is_busy = self.watch is not None and self.watch.is_busy
        return _BUSY_TICK_S if is_busy else _TICK_S

    @property
    def is_one_starting(self) -> bool:
        """Whether a program is between its exec and its first instruction."""
        return self.watch is not None and self.watch.is_starting

    def meanwhile(self) -> None:
        """To be called while something lasts, so that execs do not wait for it."""
        self._alive()
        if self.watch is not None:
            self.watch.serve()

    def begin_watch(self) -> None:
        """Watches execs by the rules and launchers of now."""
        self.end_watch()
        self._unwatched_because, self._launchers_found = None, []
        try:
            watch = self.watch = ExecWatch(self._wanted, self._caught, self._not_caught)
            for path in self.launchers:
                if watch.mark_launcher(self._node_root / path.lstrip("/")):
                    self._launchers_found.append(path)
        except (LabUnavailable, OSError) as error:
            self.end_watch()
            self._unwatched_because = str(error)
            return
        self._unwatched_because = self._what_is_unwatched(watch)
        for pid in list(self.known):
            self._mark_programs(pid)

    def end_watch(self) -> None:
        """Execs are not watched any more."""
        if self.watch is not None:
            watch, self.watch = self.watch, None
            watch.close()

    def described_watch(self) -> WatchState:
        """For `list`."""
        watch = self.watch
        described: Watched | None = None
        if watch is not None:
            described = {
                "holds": watch.holds,
                "launchers": self._launchers_found,
                "marks": watch.marks,
                "asked": watch.counts.asked,
                "caught": watch.counts.caught,
                "passed": watch.counts.passed,
                "missed": watch.counts.missed,
            }
        return {"watch": described, "unwatched_because": self._unwatched_because}

    def _what_is_unwatched(self, watch: ExecWatch) -> str | None:
        if self.launchers and not self._launchers_found:
            paths = ", ".join(self.launchers)
            return f"new containers: no container runtime at {paths} below {self._node_root}"

        if not watch.holds:
            return "programs started again within a container: that needs Linux 6.8"
        return None

    def _wanted(self, pid: int) -> bool:
        """A process has just exec'ed. Whatever it is: in its container a program of ours may be
        started next."""
        self._mark_programs(pid)
        return self.rule_of(pid) is not None

    def _caught(self, tracee: Tracee) -> None:
        pid = tracee.pid
        rule = self.rule_of(pid)
        page = self._pages.moved if rule is None else self._pages.of(rule)
        launched = install_stopped(tracee, page)

        ticks = started_ticks(pid) or 0
        self.known[pid] = KnownProgram(launched, ticks, executable_of(pid) or "", "caught")
        self.refused.pop((pid, ticks), None)
        if page.get() != NOT_MOVED:
            self.begun_moved[pid] = ticks
        self._when_caught(pid, ticks)

    def _not_caught(self, pid: int, why: str) -> None:
        ticks = started_ticks(pid) or 0
        self.refused[pid, ticks] = why

    def _mark_programs(self, pid: int) -> None:
        """Marks what fits a rule in the file system of this process."""
        if self.watch is None:
            return

        # A rule with the name of a file alone does not say where that lies.
        executables = [rule.executable for rule in self.rules if rule.executable.startswith("/")]
        paths = [Path(f"/proc/{pid}/root{executable}") for executable in executables]
        if pid in self.known:
            paths.append(Path(f"/proc/{pid}/exe"))

        for path in paths:
            # In a file system that cannot be watched programs are found late, by a scan.
            with suppress(LabUnavailable):
                self.watch.mark_program(path)


def _how(how: How, had_page: bool) -> How:
    """`how` a scan would say, corrected by whether the process was on our page already."""
    if how == "found":
        # It runs since before we came: on the page that an earlier helper left, or on none.
        return "found" if had_page else "late"
    return "inherited" if had_page else how
