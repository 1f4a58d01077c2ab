"""Programs stopped, and woken again whatever becomes of the helper.

A sleep is guarded by a child process of its own session: it stops the programs, waits, sets the
clocks of the wake and continues them, also when the helper has been killed meanwhile. A guardian
that was killed itself is noticed by the helper, which then ends the sleep (`Sleep.is_guarded`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from meshwake.clocks.movers.node_helper.answers import SavedSleep
from meshwake.clocks.movers.node_helper.processes import send_signal
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.system.deadline import Deadline
from meshwake.system.process_stat import is_running, started_ticks

ALL_STOPPED_WITHIN_S = 2.0
_POLL_EVERY_S = 0.001
_FIRST_OTHER_FILE = 3  # after standard input, output and error

SetClocks = Callable[[], None]


@dataclass
class Sleep:
    """A sleep that has begun. `sleepers`: process to its start. `at_wake`: the offsets that its end
    sets. `stopped_monotonic_ns`: when all were stopped; None: that was not seen."""

    guardian: int
    guardian_ticks: int | None
    sleepers: dict[int, int]
    until_boottime_ns: int
    at_wake: ClockReading | None
    stopped_monotonic_ns: int | None = None

    @classmethod
    def restored(cls, saved: SavedSleep) -> Sleep:
        """From what `saved` returned, in a helper started again."""
        guardian, guardian_ticks = saved["guardian"]
        at_wake = saved["at_wake"]
        return cls(
            guardian,
            guardian_ticks,
            dict(saved["sleepers"]),
            saved["until_boottime_ns"],
            None if at_wake is None else ClockReading(*at_wake),
            saved["stopped_monotonic_ns"],
        )

    def saved(self) -> SavedSleep:
        """For the state file."""
        return {
            "guardian": (self.guardian, self.guardian_ticks),
            "sleepers": list(self.sleepers.items()),
            "until_boottime_ns": self.until_boottime_ns,
            "at_wake": self.at_wake,
            "stopped_monotonic_ns": self.stopped_monotonic_ns,
        }

    def are_all_stopped(self) -> bool:
        """Whether none of the sleepers runs any more."""
        return _are_all_stopped(self.sleepers)

    def slept_ns(self) -> int:
        """How long all have been stopped: by so much their clocks may go back at the wake."""
        if self.stopped_monotonic_ns is None:
            return 0
        return time.monotonic_ns() - self.stopped_monotonic_ns

    def is_guarded(self) -> bool:
        """Whether the guardian is still there to end it."""
        with suppress(ChildProcessError):  # of a helper before us
            os.waitpid(self.guardian, os.WNOHANG)
        return self._guardian_lives()

    def end_guardian(self) -> None:
        """From now on the caller has to end the sleep."""
        if not self._guardian_lives():
            return
        os.kill(self.guardian, signal.SIGKILL)

        deadline = Deadline("the guardian to end", ALL_STOPPED_WITHIN_S)
        while self._guardian_lives() and not deadline.has_passed:
            deadline.sleep(_POLL_EVERY_S)

    def _guardian_lives(self) -> bool:
        if self.guardian_ticks is None:
            return False
        return started_ticks(self.guardian) == self.guardian_ticks


def begin_sleep(sleepers: Mapping[int, int], lasts_ns: int, set_at_wake: SetClocks | None) -> int:
    """Stops the processes; a child of ours wakes them, whatever becomes of us. Returns its number.
    The time is counted from when all have stopped: what ran on until then must not see its clock go
    back at the wake."""
    guardian = os.fork()
    if guardian:
        return guardian
    try:
        _become_guardian()
        _stop(sleepers)
        began_ns = time.monotonic_ns()
        while (left_ns := began_ns + lasts_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / NS_PER_S)
        wake_sleepers(sleepers, set_at_wake)
    finally:
        os._exit(0)


def wake_sleepers(sleepers: Mapping[int, int], set_at_wake: SetClocks | None) -> None:
    """Sets the clocks, then lets the processes run on."""
    if set_at_wake is not None:
        set_at_wake()
    for pid, ticks in sleepers.items():
        send_signal(pid, ticks, signal.SIGCONT)


def _become_guardian() -> None:
    """Out of the helper's session, deaf to what ends the helper, and without any file of it: as
    long as one process has the fanotify file open, execs wait for an answer."""
    os.setsid()
    os.closerange(_FIRST_OTHER_FILE, os.sysconf("SC_OPEN_MAX"))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _stop(sleepers: Mapping[int, int]) -> None:
    for pid, ticks in sleepers.items():
        send_signal(pid, ticks, signal.SIGSTOP)

    # A signal is sent at once, and a process in the middle of a system call stops a little later.
    deadline = Deadline("all sleepers to stop", ALL_STOPPED_WITHIN_S)
    while not deadline.has_passed and not _are_all_stopped(sleepers):
        deadline.sleep(_POLL_EVERY_S)


def _are_all_stopped(sleepers: Iterable[int]) -> bool:
    return not any(is_running(pid) for pid in sleepers)
