"""A bounded wait with a name: the one way in which this program waits for something.

    deadline = Deadline("Prometheus to be ready", within_s=20, failed=HarnessFault)
    while (seen := why_not_ready()) is not None:
        deadline.pause(every_s=0.05, seen=seen)

Every wait has a bound, and what was awaited and last seen is in the error, because a wait that
fails is read later, in a log. `failed` is the class of the error, which says who must
act; without one it is DeadlinePassed.

Time comes in as two functions, so that a wait can be tested, or run on simulated time, without any
time passing.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class DeadlinePassed(TimeoutError):
    """Something did not happen within its bound; the message says what, and what was last seen."""


class Deadline:
    """`what` must have happened `within_s` seconds from now."""

    def __init__(
        self,
        what: str,
        within_s: float,
        failed: Callable[[str], BaseException] = DeadlinePassed,
        *,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.what, self.within_s = what, within_s
        self._failed, self._now_s, self._sleep = failed, now_s, sleep
        self._due_s = now_s() + within_s

    @property
    def remaining_s(self) -> float:
        """What is left, for calls that take a timeout; never negative."""
        return max(self._due_s - self._now_s(), 0.0)

    @property
    def has_passed(self) -> bool:
        """Whether nothing is left."""
        return self._now_s() >= self._due_s

    def error(self, seen: object = None) -> BaseException:
        """What is raised when the bound is reached; for a wait that ends early for another reason
        too. `seen`: what was there instead."""
        sentence = f"waited {self.within_s:g} s for {self.what}"
        if seen is not None:
            sentence += f"; last seen: {seen}"
        return self._failed(sentence)

    def check(self, seen: object = None) -> None:
        """Raises the error when nothing is left."""
        if self.has_passed:
            raise self.error(seen)

    def pause(self, every_s: float, seen: object = None) -> None:
        """Sleeps for `every_s` between two polls, or for what is left if that is less. Raises the
        error when nothing is left."""
        self.check(seen)
        self.sleep(every_s)

    def sleep(self, every_s: float) -> None:
        """The same for a loop that ends by itself when nothing is left: never raises."""
        self._sleep(min(every_s, self.remaining_s))


def wait_until(
    is_so: Callable[[], bool],
    what: str,
    within_s: float,
    *,
    every_s: float = 0.01,
    failed: Callable[[str], BaseException] = DeadlinePassed,
) -> None:
    """Polls `is_so` until it is true. Raises `failed`."""
    deadline = Deadline(what, within_s, failed)
    while not is_so():
        deadline.pause(every_s)
